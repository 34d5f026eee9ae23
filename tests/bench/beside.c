/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See beside.h. */

#include "beside.h"
#include "guest.h"
#include "limit.h"
#include "measure.h"

#define READS 32

static struct bench_case cases[] = {
	{ .name = "reads", .bytes = 4096, .depth = READS },
	{ .name = "reads beside a flush",
	  .bytes = 4096,
	  .depth = READS + 1,
	  .flusher = true },
};
enum { ALONE, WITH, WAYS };

struct round {
	double p50_ns[WAYS], p99_ns[WAYS];
};

static void keep(struct round *round, int way, const struct run *run)
{
	round->p50_ns[way] = histogram_at(&run->latency, 0.5);
	round->p99_ns[way] = histogram_at(&run->latency, 0.99);
}

static double median(const struct round *rounds, size_t n,
		     double (*of)(const struct round *round))
{
	double values[ROUNDS_MAX];

	for (size_t i = 0; i < n; i++)
		values[i] = of(&rounds[i]);
	return quantile(values, n, 0.5);
}

static double p50(const struct round *round)
{
	return round->p50_ns[ALONE];
}

static double p99(const struct round *round)
{
	return round->p99_ns[ALONE];
}

static double with_p50(const struct round *round)
{
	return round->p50_ns[WITH];
}

static double with_p99(const struct round *round)
{
	return round->p99_ns[WITH];
}

static double p99_ratio(const struct round *round)
{
	return round->p99_ns[WITH] / round->p99_ns[ALONE];
}

static struct beside_reads conclude(const struct round *rounds, size_t n)
{
	return (struct beside_reads){
		.p50_ns = median(rounds, n, p50),
		.p99_ns = median(rounds, n, p99),
		.with_p50_ns = median(rounds, n, with_p50),
		.with_p99_ns = median(rounds, n, with_p99),
		.p99_ratio = median(rounds, n, p99_ratio),
	};
}

void beside_measure(const struct api *api, const struct store *store,
		    uint32_t cpu, unsigned int n_rounds, uint64_t round_ns,
		    bool has_ring, struct beside *ret_beside)
{
	static struct round device[ROUNDS_MAX], ring[ROUNDS_MAX];
	static struct run run;
	struct guest guests[WAYS];

	for (int way = 0; way < WAYS; way++) {
		cases[way].store = store->kind;
		guest_open(&guests[way], api, &cases[way], store, cpu);
		guest_prepare(&guests[way]);
		guest_start(&guests[way]);
	}
	/* The first warms up, and is not kept. */
	for (unsigned int i = 0; i <= n_rounds; i++) {
		const unsigned int at = i ? i - 1 : 0;

		for (int way = 0; way < WAYS; way++) {
			guest_run(&guests[way], round_ns, &run);
			keep(&device[at], way, &run);
			if (!has_ring)
				continue;
			limit_ring(&guests[way], store, cpu, round_ns, &run);
			keep(&ring[at], way, &run);
		}
	}
	*ret_beside = (struct beside){
		.store = store->kind,
		.has_ring = has_ring,
		.device = conclude(device, n_rounds),
	};
	if (has_ring)
		ret_beside->ring = conclude(ring, n_rounds);
	for (int way = 0; way < WAYS; way++)
		guest_close(&guests[way]);
}
