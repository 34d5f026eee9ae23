/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_OPTIONS_H
#define DEMO_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
	const char *disk; /* --disk, or NULL */
	uint32_t seconds;
	uint32_t moves; /* 0: that part is left out */
	/* 0: that is left out, of a disk of this size. */
	uint32_t iops, discard_mib, grow_mib, dirty_reads;
#define CHANGE_MIB 16
	uint32_t budget_ms;
	uint64_t seed;
	bool journal;
};

/* Arguments that are no good: a message and exit 2. */
void options_parse(struct options *options, int argc, char **argv);

#endif
