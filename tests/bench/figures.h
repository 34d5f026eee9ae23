/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_FIGURES_H
#define BENCH_FIGURES_H

/* What the rounds of a contender come to, and those of two of them. */

#include <stddef.h>

#include "driver.h"

/* One contender in one case: a median of the rounds for each figure. */
struct figures {
	double requests_per_s;
	double elapsed_ns; /* per request, as all that follow but latencies */
	double worker_cpu_ns;
	double driver_cpu_ns;
	double syscalls;
	double allocations;
	double kicks;
	double irqs;
	double preempted; /* in a whole round */
	double p50_ns, p99_ns, p999_ns;
};

/* One figure over another, of the same round. */
struct ratio {
	double best;
	double low, median, high; /* quartiles */
};

/* Of one round; of n of them, at most ROUNDS_MAX. */
struct figures figures_of(const struct run *run);
struct figures figures_medians(const struct figures *rounds, size_t n);

/* One of their members, see FIGURES_RATIO(). */
struct ratio figures_ratio(const struct figures *over,
			   const struct figures *under, size_t n,
			   size_t member);
#define FIGURES_RATIO(over, under, n, member)                                  \
	figures_ratio(over, under, n, offsetof(struct figures, member))

#endif
