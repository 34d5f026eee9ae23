/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_COUNTERS_H
#define KTVBLK_COUNTERS_H

/*
 * The counters of a device. The worker writes, anybody reads; all accesses are
 * relaxed, no order between two counters is promised.
 */

#include <stdatomic.h>
#include <stdint.h>

#include "ktvblk.h"

struct ktvblk_stats {
	_Atomic unsigned int refs;
	_Atomic uint64_t reads_completed;
	_Atomic uint64_t writes_completed;
	_Atomic uint64_t flushes_completed;
	_Atomic uint64_t bytes_read;
	_Atomic uint64_t bytes_written;
	_Atomic uint64_t throttled_count;
	_Atomic uint64_t io_errors;
	_Atomic uint64_t currently_throttled;
	_Atomic uint64_t invalid_avail_idx_count;
	_Atomic uint64_t discards_completed;
	_Atomic uint64_t write_zeroes_completed;
};

struct ktvblk_stats *stats_new(void);

static inline void count_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void count_read(struct ktvblk_stats *stats, uint64_t bytes)
{
	count_add(&stats->reads_completed, 1);
	count_add(&stats->bytes_read, bytes);
}

static inline void count_write(struct ktvblk_stats *stats, uint64_t bytes)
{
	count_add(&stats->writes_completed, 1);
	count_add(&stats->bytes_written, bytes);
}

static inline void count_flush(struct ktvblk_stats *stats)
{
	count_add(&stats->flushes_completed, 1);
}

static inline void count_io_error(struct ktvblk_stats *stats)
{
	count_add(&stats->io_errors, 1);
}

/* The gauge does not go below 0. */
void gauge_drop(_Atomic uint64_t *gauge);

#endif
