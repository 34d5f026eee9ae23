/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_DISK_THROTTLE_H
#define KTVBLK_DISK_THROTTLE_H

/*
 * The disk's throttle: one for all its queues, for as long as the device lives,
 * so that neither more queues nor a reset are a way to more tokens. Workers
 * take from it at once, under a lock that nobody blocks in. Without a limit
 * there is no lock either.
 *
 * The first request that found too few tokens is first in line: until it is
 * served, or its session ends, nobody else gets any. Else a large one of one
 * queue could wait for ever while small ones of another went by.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "gate.h"
#include "throttle.h"

struct disk_throttle {
	_Atomic unsigned int refs;
	_Atomic bool limits;
	_Atomic uint32_t changes; /* of the limits, counted */
	/* The session's, whose request is first in line; NULL: none is. */
	const _Atomic bool *_Atomic first;
	struct gate lock; /* of what follows */
	struct throttle throttle;
	uint64_t first_bytes;
};

/* Of a valid config, full; NULL: no memory. */
struct disk_throttle *disk_throttle_new(const struct ktvblk_throttle *config,
					uint64_t now_ns);
struct disk_throttle *disk_throttle_ref(struct disk_throttle *shared);
void disk_throttle_unref(struct disk_throttle *shared);

/*
 * Other limits from now on, for any thread; who waits is to be woken. False: the
 * lock could not be had until deadline_ns, and nothing is changed.
 */
bool disk_throttle_change(struct disk_throttle *shared,
			  const struct ktvblk_throttle *config,
			  uint64_t deadline_ns);

/* Which limits these are: who waits by others looks again. */
static inline uint32_t disk_throttle_number(const struct disk_throttle *shared)
{
	return atomic_load(&shared->changes);
}

/* Is there any limit? Without one, time does not matter below. */
static inline bool disk_throttle_limits(const struct disk_throttle *shared)
{
	return atomic_load_explicit(&shared->limits, memory_order_relaxed);
}

/*
 * On the worker: take one request of so many bytes, or stand in line. False:
 * the session, which is known by its `revoked`, is; it gets nothing.
 */
bool disk_throttle_take(struct disk_throttle *shared,
			const _Atomic bool *revoked, uint64_t bytes,
			uint64_t now_ns, struct throttle_verdict *ret_verdict);

/* What there is of tokens. */
void disk_throttle_look(struct disk_throttle *shared, struct throttle *ret);

/*
 * Have as many as these, as far as they go, in each bucket that has a limit here
 * and there; time counts from now_ns on.
 */
void disk_throttle_set_balance(struct disk_throttle *shared,
			       const struct throttle *from, uint64_t now_ns);

/* It waits no more, if it did. Takes no lock: it may be a vCPU that says so. */
void disk_throttle_leave(struct disk_throttle *shared,
			 const _Atomic bool *revoked);

#endif
