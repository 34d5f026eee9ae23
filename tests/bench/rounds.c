/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See rounds.h. */

#include <string.h>

#include "limit.h"
#include "rounds.h"

enum contender { DEVICE, AGAINST, BARE, RING, PING_PONG, CONTENDERS };

/* Driver and worker wake each other for each request. */
static bool takes_turns(const struct bench_case *what)
{
	return what->depth == 1 && !what->spin;
}

/* What the device is held against. */
static enum contender limit_of(const struct rounds *rounds)
{
	if (takes_turns(rounds->what))
		return PING_PONG;
	return rounds->what->store == STORE_DIRECT && rounds->has_ring ? RING
								       : BARE;
}

static bool takes_part(const struct rounds *rounds, enum contender contender)
{
	const bool has_file = rounds->what->store != STORE_NULL;

	switch (contender) {
	case AGAINST:
		return rounds->against;
	case PING_PONG:
		return takes_turns(rounds->what);
	case BARE:
		return has_file &&
		       (!rounds->only_limit || limit_of(rounds) == contender);
	case RING:
		return has_file && rounds->has_ring &&
		       (!rounds->only_limit || limit_of(rounds) == contender);
	default:
		return true;
	}
}

static void run_one(const struct rounds *rounds, enum contender contender,
		    struct run *run)
{
	const uint64_t ns = rounds->round_ns;
	const uint32_t cpu = rounds->cpu;

	switch (contender) {
	case BARE:
		limit_bare(rounds->device, rounds->store, cpu, ns, run);
		break;
	case RING:
		limit_ring(rounds->device, rounds->store, cpu, ns, run);
		break;
	case PING_PONG:
		limit_ping_pong(rounds->device, rounds->store, cpu, ns, run);
		break;
	case AGAINST:
		guest_run(rounds->against, ns, run);
		break;
	default:
		guest_run(rounds->device, ns, run);
	}
}

static struct figures one_round(const struct run *run)
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

static struct figures medians(const struct figures *rounds, size_t n)
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

static struct ratio ratio_of(const struct figures *over,
			     const struct figures *under, size_t n,
			     size_t member)
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

#define RATIO(over, under, member)                                             \
	ratio_of(rounds[over], rounds[under], n,                               \
		 offsetof(struct figures, member))

static struct result conclude(const struct rounds *what,
			      struct figures rounds[][ROUNDS_MAX])
{
	const size_t n = what->n;
	const enum contender limit = limit_of(what);
	struct result result = {
		.what = what->what,
		.device = medians(rounds[DEVICE], n),
		.has_against = takes_part(what, AGAINST),
		.has_limit = takes_part(what, limit),
		.has_latency = limit == PING_PONG,
		.has_bare = takes_part(what, BARE),
		.has_ring = takes_part(what, RING),
		.limit_name = limit == RING   ? "ring"
			      : limit == BARE ? "bare"
					      : "ping_pong",
	};

	if (result.has_bare)
		result.bare = medians(rounds[BARE], n);
	if (result.has_ring)
		result.ring = medians(rounds[RING], n);
	if (result.has_against) {
		result.against = medians(rounds[AGAINST], n);
		result.against_cpu = RATIO(DEVICE, AGAINST, worker_cpu_ns);
		result.against_elapsed = RATIO(DEVICE, AGAINST, elapsed_ns);
		result.against_latency = RATIO(DEVICE, AGAINST, p50_ns);
	}
	if (result.has_limit) {
		result.limit = medians(rounds[limit], n);
		result.cpu = RATIO(DEVICE, limit, worker_cpu_ns);
		result.elapsed = RATIO(DEVICE, limit, elapsed_ns);
		result.latency = RATIO(DEVICE, limit, p50_ns);
	}
	return result;
}

void rounds_run(const struct rounds *rounds, struct result *ret_result)
{
	static struct figures figures[CONTENDERS][ROUNDS_MAX];
	static struct run run;

	/* Round -1 warms up, and is not kept. */
	for (unsigned int i = 0; i <= rounds->n; i++) {
		for (unsigned int k = 0; k < CONTENDERS; k++) {
			/* Nobody is always the first. */
			const enum contender c =
				(enum contender)((k + i) % CONTENDERS);

			if (!takes_part(rounds, c))
				continue;
			run_one(rounds, c, &run);
			if (i)
				figures[c][i - 1] = one_round(&run);
		}
	}
	*ret_result = conclude(rounds, figures);
}
