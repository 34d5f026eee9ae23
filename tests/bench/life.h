/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_LIFE_H
#define BENCH_LIFE_H

/* How long a device takes to start, to be reset, and to go. */

#include "api.h"
#include "measure.h"

enum step {
	STEP_START, /* from DRIVER_OK to the first completion */
	STEP_RESET, /* the write that asks for it */
	STEP_RESTART, /* from that to the first completion after it */
	STEP_DESTROY,
	STEPS
};

struct life {
	struct {
		const char *name;
		double p50_ns, p99_ns;
		double limit_ns; /* median, of a bare thread */
	} steps[STEPS];
	unsigned int n; /* times */
	double threads; /* started in one life, beside its two workers */
};

void life_measure(const struct api *api, const struct cpus *cpus,
		  struct life *life);

#endif
