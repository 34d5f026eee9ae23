/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_BESIDE_H
#define BENCH_BESIDE_H

/*
 * What a flush does to the reads beside it: their latency alone, and with one
 * writer that flushes after each write, by turns; of the device, and of a bare
 * ring, which says what of that is the storage's.
 */

#include "store.h"

struct beside_reads {
	double p50_ns, p99_ns; /* alone */
	double with_p50_ns, with_p99_ns;
	double p99_ratio; /* with over alone, in the same round */
};

struct beside {
	enum store_kind store;
	bool has_ring;
	struct beside_reads device, ring;
};

void beside_measure(const struct api *api, const struct store *store,
		    uint32_t cpu, unsigned int n_rounds, uint64_t round_ns,
		    bool has_ring, struct beside *ret_beside);

#endif
