/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See rounds.h. */

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

static struct result conclude(const struct rounds *what,
			      struct figures rounds[][ROUNDS_MAX])
{
	const size_t n = what->n;
	const enum contender limit = limit_of(what);
	struct result result = {
		.what = what->what,
		.device = figures_medians(rounds[DEVICE], n),
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
		result.bare = figures_medians(rounds[BARE], n);
	if (result.has_ring)
		result.ring = figures_medians(rounds[RING], n);
	if (result.has_against) {
		result.against = figures_medians(rounds[AGAINST], n);
		result.against_cpu = FIGURES_RATIO(
			rounds[DEVICE], rounds[AGAINST], n, worker_cpu_ns);
		result.against_elapsed = FIGURES_RATIO(
			rounds[DEVICE], rounds[AGAINST], n, elapsed_ns);
		result.against_latency = FIGURES_RATIO(
			rounds[DEVICE], rounds[AGAINST], n, p50_ns);
	}
	if (result.has_limit) {
		result.limit = figures_medians(rounds[limit], n);
		result.cpu = FIGURES_RATIO(rounds[DEVICE], rounds[limit], n,
					   worker_cpu_ns);
		result.elapsed = FIGURES_RATIO(rounds[DEVICE], rounds[limit], n,
					       elapsed_ns);
		result.latency =
			FIGURES_RATIO(rounds[DEVICE], rounds[limit], n, p50_ns);
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
				figures[c][i - 1] = figures_of(&run);
		}
	}
	*ret_result = conclude(rounds, figures);
}
