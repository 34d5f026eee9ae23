/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_CHECK_H
#define BENCH_CHECK_H

/*
 * What must hold on any machine however busy it is: what a request costs in
 * kicks, interrupts, system calls and allocations, and that an idle device does
 * nothing, exactly; what it costs in time, to a factor of two.
 */

#include "report.h"

struct check {
	const struct api *api;
	const struct cpus *cpus;
	unsigned int passed, failed, skipped;
};

void check_counts(struct check *check);

/* The cases whose results are to be checked. */
const char *const *check_patterns(int *ret_n);

void check_result(struct check *check, const struct result *result);

/* Says how much was as it must be. False: not all. */
bool check_end(const struct check *check);

#endif
