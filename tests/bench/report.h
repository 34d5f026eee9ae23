/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

/* What people and machines get to read. */

#include <stdio.h>

#include "beside.h"
#include "case.h"
#include "figures.h"
#include "life.h"
#include "scale.h"

struct result {
	const struct bench_case *what;
	struct figures device, against, limit;
	bool has_against, has_limit;
	bool has_latency; /* the limit is the ping-pong, else a loop */
	const char *limit_name;
	/* The loops, whether they are the limit or not. */
	struct figures bare, ring;
	bool has_bare, has_ring;
	/* The device's over the limit's. */
	struct ratio cpu; /* the worker's */
	struct ratio elapsed; /* time per request */
	struct ratio latency; /* the median */
	/* The device's over the other build's. */
	struct ratio against_cpu, against_elapsed, against_latency;
};

struct report {
	FILE *json;
	FILE *table;
	FILE *plot; /* data for gnuplot */
	bool quiet;
	size_t n;
	bool cases_ended;
	bool beside_begun;
};

/* PREFIX.json, PREFIX.txt and PREFIX.dat; if not quiet, the table to stdout. */
void report_open(struct report *report, const char *prefix, const char *about,
		 bool against, bool quiet);
void report_case(struct report *report, const struct result *result);
void report_skip(struct report *report, const char *name, const char *why);
/* After all cases, and in this order. */
void report_beside(struct report *report, const struct beside *beside);
void report_life(struct report *report, const struct life *life);
void report_scale(struct report *report, const struct scale scales[SCALES]);
void report_close(struct report *report, const struct noise *noise);

#endif
