/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Counters belong to whoever still reads them, so they are counted by refs. */

#include "counters.h"
#include "sized.h"
#include "util.h"

/* The end of struct ktvblk_counters in version 1.0. */
#define COUNTERS_SIZE_1_0 72
_Static_assert(offsetof(struct ktvblk_counters, invalid_avail_idx_count) +
			       sizeof(uint64_t) ==
		       COUNTERS_SIZE_1_0,
	       "ABI");

struct ktvblk_stats *stats_new(void)
{
	struct ktvblk_stats *stats = calloc(1, sizeof(*stats));

	if (stats)
		atomic_init(&stats->refs, 1);
	return stats;
}

struct ktvblk_stats *ktvblk_stats_ref(struct ktvblk_stats *stats)
{
	if (stats)
		refs_get(&stats->refs);
	return stats;
}

struct ktvblk_stats *ktvblk_stats_unref(struct ktvblk_stats *stats)
{
	if (stats && refs_put(&stats->refs))
		free(stats);
	return NULL;
}

void gauge_drop(_Atomic uint64_t *gauge)
{
	uint64_t n = atomic_load_explicit(gauge, memory_order_relaxed);

	while (n > 0)
		if (atomic_compare_exchange_weak_explicit(gauge, &n, n - 1,
							  memory_order_relaxed,
							  memory_order_relaxed))
			return;
}

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

int ktvblk_stats_read(const struct ktvblk_stats *stats,
		      struct ktvblk_counters *ret_counters, size_t size)
{
	if (!stats || !ret_counters || size < COUNTERS_SIZE_1_0)
		return -EINVAL;

	const struct ktvblk_counters now = {
		.reads_completed = load(&stats->reads_completed),
		.writes_completed = load(&stats->writes_completed),
		.flushes_completed = load(&stats->flushes_completed),
		.bytes_read = load(&stats->bytes_read),
		.bytes_written = load(&stats->bytes_written),
		.throttled_count = load(&stats->throttled_count),
		.io_errors = load(&stats->io_errors),
		.currently_throttled = load(&stats->currently_throttled),
		.invalid_avail_idx_count =
			load(&stats->invalid_avail_idx_count),
		.discards_completed = load(&stats->discards_completed),
		.write_zeroes_completed = load(&stats->write_zeroes_completed),
	};

	sized_copy_out(ret_counters, size, &now, sizeof(now));
	return 0;
}
