/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See figures.h. */

#include <string.h>

#include "figures.h"

struct figures figures_of(const struct run *run)
{
	const double n = (double)run->requests;

	return (struct figures){
		.requests_per_s = n * 1e9 / (double)run->elapsed_ns,
		.elapsed_ns = (double)run->elapsed_ns / n,
		.worker_cpu_ns = (double)run->worker_cpu_ns / n,
		.driver_cpu_ns = (double)run->driver_cpu_ns / n,
		.syscalls = (double)run->syscalls / n,
		.allocations = (double)run->allocations / n,
		.kicks = (double)run->kicks / n,
		.irqs = (double)run->irqs / n,
		.preempted = (double)run->preempted,
		.p50_ns = histogram_at(&run->latency, 0.5),
		.p99_ns = histogram_at(&run->latency, 0.99),
		.p999_ns = histogram_at(&run->latency, 0.999),
	};
}

/* Figures are doubles and nothing else, so they can be taken one by one. */
#define FIGURES (sizeof(struct figures) / sizeof(double))

struct figures figures_medians(const struct figures *rounds, size_t n)
{
	double values[ROUNDS_MAX], one[FIGURES], medians[FIGURES];
	struct figures result;

	for (size_t f = 0; f < FIGURES; f++) {
		for (size_t i = 0; i < n; i++) {
			memcpy(one, &rounds[i], sizeof(one));
			values[i] = one[f];
		}
		medians[f] = quantile(values, n, 0.5);
	}
	memcpy(&result, medians, sizeof(result));
	return result;
}

struct ratio figures_ratio(const struct figures *over,
			   const struct figures *under, size_t n, size_t member)
{
	double values[ROUNDS_MAX], a, b;
	struct ratio ratio;

	for (size_t i = 0; i < n; i++) {
		memcpy(&a, (const char *)&over[i] + member, sizeof(a));
		memcpy(&b, (const char *)&under[i] + member, sizeof(b));
		values[i] = b > 0 ? a / b : 0;
	}
	ratio.median = quantile(values, n, 0.5);
	ratio.best = values[0];
	ratio.low = quantile(values, n, 0.25);
	ratio.high = quantile(values, n, 0.75);
	return ratio;
}
