/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include "vmm.h"

struct options {
	const char *kernel;
	const char *initrd;
	const char *cmdline;
	uint64_t memory_mib;
	const char *save; /* where to, when that is asked for */
	const char *restore; /* in the place of the first boot */
};

/* The disks go to *vmm. Exits where there is nothing to boot. */
struct options options_parse(int argc, char **argv, struct vmm *vmm);

#endif
