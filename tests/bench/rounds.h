/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_ROUNDS_H
#define BENCH_ROUNDS_H

/*
 * One case: device, limits and, if there is one, another build of the library
 * take turns in each round, so that what the machine does meanwhile hits all of
 * them; ratios are of one round.
 */

#include "guest.h"
#include "report.h"

struct rounds {
	const struct bench_case *what;
	struct guest *device;
	struct guest *against; /* or NULL */
	const struct store *store;
	uint32_t cpu; /* of worker and limits */
	unsigned int n;
	uint64_t round_ns; /* each */
	bool has_ring; /* see limit_has_ring() */
	bool only_limit; /* the other limits are not asked for */
};

void rounds_run(const struct rounds *rounds, struct result *ret_result);

#endif
