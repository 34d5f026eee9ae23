/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_THROTTLE_H
#define KTVBLK_THROTTLE_H

/*
 * Two token buckets. Time is a parameter, in nanoseconds of any monotonic
 * clock; nothing here sleeps, locks or knows the device.
 */

#include <stdbool.h>
#include <stdint.h>

#include "ktvblk.h"

struct bucket {
	uint64_t capacity; /* tokens */
	uint64_t rate; /* tokens a second; 0: not limited */
	int64_t available; /* below zero: in debt */
	uint64_t remainder; /* of the last refill, in tokens / 1e9 */
	uint64_t refilled_ns;
};

struct throttle {
	struct bucket ops;
	struct bucket bytes;
};

/* A full bucket; not limited if either is 0. */
void bucket_init(struct bucket *bucket, uint64_t capacity, uint64_t rate,
		 uint64_t now_ns);

/*
 * Another capacity and rate from now on. What is owed stays so, and of what is
 * there what fits; without a limit before, it is full.
 */
void bucket_change(struct bucket *bucket, uint64_t capacity, uint64_t rate,
		   uint64_t now_ns);

/* Are there n tokens? One larger than the bucket needs no debt, not n. */
bool bucket_can_take(struct bucket *bucket, uint64_t n, uint64_t now_ns);

/* Take them if there are; false: the balance is as before. */
bool bucket_take(struct bucket *bucket, uint64_t n, uint64_t now_ns);

/* How long until there are n; 0: now. UINT64_MAX: longer than that. */
uint64_t bucket_wait_ns(struct bucket *bucket, uint64_t n, uint64_t now_ns);

/* The buckets of a valid config, full. */
void throttle_init(struct throttle *throttle,
		   const struct ktvblk_throttle *config, uint64_t now_ns);

/* The same with what was there and owed before: bucket_change(). */
void throttle_change(struct throttle *throttle,
		     const struct ktvblk_throttle *config, uint64_t now_ns);

/* Is there any limit? Without one, time does not matter below. */
static inline bool throttle_limits(const struct throttle *throttle)
{
	return throttle->ops.rate || throttle->bytes.rate;
}

struct throttle_verdict {
	bool ops_ok;
	bool bytes_ok;
	uint64_t wait_ns; /* of the slower bucket, where one is not ok */
};

/* How long until the next request of so many bytes could be granted. */
uint64_t throttle_wait_ns(struct throttle *throttle, uint64_t bytes,
			  uint64_t now);

/* Take one request of so many bytes from both buckets, or from neither. */
struct throttle_verdict throttle_take(struct throttle *throttle, uint64_t bytes,
				      uint64_t now_ns);

#endif
