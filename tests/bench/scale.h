/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_SCALE_H
#define BENCH_SCALE_H

/* What many devices in one process cost. */

#include "api.h"
#include "measure.h"

#define SCALES 7 /* 1, 2, 4 ... 64 devices */

struct scale {
	unsigned int n;
	/* For each idle device, that has served something; guest memory aside. */
	double rss_bytes, anonymous_bytes, heap_bytes;
	double threads;
	double switches_per_s; /* idle */
	double requests_per_s; /* of all, at work at the same time */
	double ratio; /* to one device in the same round */
};

void scale_measure(const struct api *api, const struct cpus *cpus,
		   struct scale scales[SCALES]);

#endif
