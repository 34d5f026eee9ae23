/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 *            rate tokens a second
 *                   |
 *              |    v    |  capacity: what comes above is lost
 *              |~~~~~~~~~|  available
 *              |_________|  0
 *              .         .  debt: below zero, after a request larger than the
 *              .         .  bucket went through
 *
 * A request takes tokens or waits; it never takes some. One that is larger than
 * the whole bucket could never be granted, so it is as soon as nothing is owed,
 * and those behind it wait for the debt to clear.
 *
 * The fraction of a token that a refill leaves is kept, else a caller who looks
 * often would get up to half less.
 */

#include "throttle.h"
#include "util.h"
#include "wide.h"

static int64_t clamp_i64(uint64_t n)
{
	return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

void bucket_init(struct bucket *bucket, uint64_t capacity, uint64_t rate,
		 uint64_t now)
{
	*bucket = (struct bucket){
		.capacity = capacity,
		.rate = capacity ? rate : 0,
		.available = clamp_i64(capacity),
		.refilled_ns = now,
	};
}

static void refill(struct bucket *bucket, uint64_t now)
{
	const int64_t full = clamp_i64(bucket->capacity);
	uint64_t tokens, room;

	if (now <= bucket->refilled_ns)
		return;
	tokens = wide_div(
		wide_add(wide_mul(now - bucket->refilled_ns, bucket->rate),
			 bucket->remainder),
		NSEC_PER_SEC, &bucket->remainder);
	bucket->refilled_ns = now;
	/* As unsigned: full - available may be beyond INT64_MAX. */
	room = (uint64_t)full - (uint64_t)bucket->available;
	if (tokens >= room) {
		bucket->available = full;
		bucket->remainder = 0;
	} else {
		/* As unsigned: more than INT64_MAX may be owed and paid. */
		bucket->available =
			(int64_t)((uint64_t)bucket->available + tokens);
	}
}

void bucket_change(struct bucket *bucket, uint64_t capacity, uint64_t rate,
		   uint64_t now)
{
	const int64_t full = clamp_i64(capacity);

	if (!bucket->rate) {
		bucket_init(bucket, capacity, rate, now);
		return;
	}
	/* What came up to now came at the old rate. */
	refill(bucket, now);
	bucket->capacity = capacity;
	bucket->rate = capacity ? rate : 0;
	if (bucket->available >= full) {
		bucket->available = full;
		bucket->remainder = 0;
	}
}

/* What is missing for n, after a refill. */
static uint64_t deficit(const struct bucket *bucket, uint64_t n)
{
	const int64_t have = bucket->available;
	const uint64_t need = n > bucket->capacity ? 0 : n;

	if (have >= 0 && (uint64_t)have >= need)
		return 0;
	return need - (uint64_t)have;
}

bool bucket_can_take(struct bucket *bucket, uint64_t n, uint64_t now)
{
	if (!bucket->rate || n == 0)
		return true;
	refill(bucket, now);
	return n <= INT64_MAX && deficit(bucket, n) == 0;
}

bool bucket_take(struct bucket *bucket, uint64_t n, uint64_t now)
{
	if (!bucket_can_take(bucket, n, now))
		return false;
	/* Granted with 0 or more available, so this cannot wrap. */
	if (bucket->rate)
		bucket->available -= (int64_t)n;
	return true;
}

uint64_t bucket_wait_ns(struct bucket *bucket, uint64_t n, uint64_t now)
{
	struct wide ns;
	uint64_t missing, rest;

	if (!bucket->rate || n == 0)
		return 0;
	refill(bucket, now);
	missing = deficit(bucket, n);
	if (!missing)
		return 0;
	/* The fraction that is there already need not be waited for. */
	ns = wide_sub(wide_mul(missing, NSEC_PER_SEC), bucket->remainder);
	return wide_div(wide_add(ns, bucket->rate - 1), bucket->rate, &rest);
}

void throttle_init(struct throttle *throttle,
		   const struct ktvblk_throttle *config, uint64_t now)
{
	*throttle = (struct throttle){ 0 };
	throttle_change(throttle, config, now);
}

void throttle_change(struct throttle *throttle,
		     const struct ktvblk_throttle *config, uint64_t now)
{
	bucket_change(&throttle->ops,
		      config->iops_burst ? config->iops_burst : config->iops,
		      config->iops, now);
	bucket_change(&throttle->bytes,
		      config->bytes_burst ? config->bytes_burst
					  : config->bytes_per_sec,
		      config->bytes_per_sec, now);
}

uint64_t throttle_wait_ns(struct throttle *throttle, uint64_t bytes,
			  uint64_t now)
{
	return MAX(bucket_wait_ns(&throttle->ops, 1, now),
		   bucket_wait_ns(&throttle->bytes, bytes, now));
}

struct throttle_verdict throttle_take(struct throttle *throttle, uint64_t bytes,
				      uint64_t now)
{
	struct throttle_verdict verdict = { .ops_ok = true, .bytes_ok = true };

	if (!throttle_limits(throttle))
		return verdict;
	verdict.ops_ok = bucket_can_take(&throttle->ops, 1, now);
	verdict.bytes_ok = bucket_can_take(&throttle->bytes, bytes, now);
	if (verdict.ops_ok && verdict.bytes_ok) {
		bucket_take(&throttle->ops, 1, now);
		bucket_take(&throttle->bytes, bytes, now);
	} else {
		verdict.wait_ns = throttle_wait_ns(throttle, bytes, now);
	}
	return verdict;
}

static const char *check_burst(uint64_t rate, uint64_t burst,
			       const char *without, const char *below)
{
	if (!burst)
		return NULL;
	return !rate ? without : burst < rate ? below : NULL;
}

int ktvblk_throttle_check(const struct ktvblk_throttle *throttle,
			  const char **ret_why)
{
	const char *why = NULL;

	if (!throttle)
		why = "no throttle given";
	if (!why)
		why = check_burst(throttle->iops, throttle->iops_burst,
				  "iops_burst is set without iops: set iops, "
				  "or pass iops_burst 0",
				  "iops_burst is below iops: raise it, or pass "
				  "0 for a burst of one second");
	if (!why)
		why = check_burst(throttle->bytes_per_sec,
				  throttle->bytes_burst,
				  "bytes_burst is set without bytes_per_sec: "
				  "set bytes_per_sec, or pass bytes_burst 0",
				  "bytes_burst is below bytes_per_sec: raise "
				  "it, or pass 0 for a burst of one second");
	if (!why)
		for (size_t i = 0; i < ARRAY_SIZE(throttle->reserved); i++)
			if (throttle->reserved[i])
				why = "a reserved member is not 0";
	if (why && ret_why)
		*ret_why = why;
	return why ? -EINVAL : 0;
}
