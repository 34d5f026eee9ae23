/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_QUERY_H
#define WEDGED_QUERY_H

/* What to read, as the options say. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-id128.h>

struct query {
	const char *directory; /* NULL: this machine's */
	uint64_t since_us; /* 0: from the beginning */
	bool has_boot;
	sd_id128_t boot;
	bool json;
	bool follow;
	bool running; /* only processes that are not gone */
};

#endif
