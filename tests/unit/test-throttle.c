/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A bucket gives exactly its rate, grants what is larger than itself on credit,
 * and never says "wait" without a time to wait.
 */

#include <string.h>

#include "harness.h"
#include "throttle.h"

#define T0 (7 * NSEC_PER_SEC)
#define SEC NSEC_PER_SEC
#define MSEC NSEC_PER_MSEC

static struct bucket full_bucket(uint64_t capacity, uint64_t rate)
{
	struct bucket bucket;

	bucket_init(&bucket, capacity, rate, T0);
	return bucket;
}

/* With nothing left at T0. */
static struct bucket empty_bucket(uint64_t capacity, uint64_t rate)
{
	struct bucket bucket = full_bucket(capacity, rate);

	ck_assert(bucket_take(&bucket, capacity, T0));
	ck_assert_int_eq(bucket.available, 0);
	return bucket;
}

/*
 * One bucket
 */

START_TEST(unlimited_always_grants)
{
	struct bucket bucket = full_bucket(0, 0);
	int granted = 0;

	for (int i = 0; i < 1000000; i++)
		granted += bucket_take(&bucket, 1, T0);
	ck_assert_int_eq(granted, 1000000);
}
END_TEST

START_TEST(consumes_capacity)
{
	struct bucket bucket = full_bucket(10, 10);

	for (int i = 0; i < 10; i++)
		ck_assert(bucket_take(&bucket, 1, T0));
	ck_assert(!bucket_take(&bucket, 1, T0));
	ck_assert_int_eq(bucket.available, 0);
}
END_TEST

START_TEST(refills_over_time)
{
	struct bucket bucket = empty_bucket(100, 100);

	ck_assert(!bucket_take(&bucket, 21, T0 + 200 * MSEC));
	ck_assert(bucket_take(&bucket, 20, T0 + 200 * MSEC));
	ck_assert_int_eq(bucket.available, 0);
}
END_TEST

START_TEST(throttle_zero_rate_becomes_unlimited)
{
	struct bucket no_rate = full_bucket(100, 0);
	struct bucket no_capacity = full_bucket(0, 100);

	for (int i = 0; i < 1000; i++) {
		ck_assert(bucket_take(&no_rate, 1000, T0));
		ck_assert(bucket_take(&no_capacity, 1000, T0));
	}
	ck_assert_uint_eq(bucket_wait_ns(&no_rate, 1000, T0), 0);
	ck_assert_uint_eq(bucket_wait_ns(&no_capacity, 1000, T0), 0);
}
END_TEST

START_TEST(refill_uses_elapsed_time_and_stops_when_full)
{
	struct bucket bucket = empty_bucket(10, 10);

	ck_assert(bucket_can_take(&bucket, 10, T0 + 1100 * MSEC));
	ck_assert_int_eq(bucket.available, 10);
	ck_assert(bucket_can_take(&bucket, 10, T0 + 1000 * SEC));
	ck_assert_int_eq(bucket.available, 10);
}
END_TEST

START_TEST(consume_zero_is_free)
{
	struct bucket bucket = empty_bucket(10, 10);

	ck_assert(bucket_take(&bucket, 0, T0 + SEC));
	ck_assert_int_eq(bucket.available, 0);
	ck_assert_uint_eq(bucket.refilled_ns, T0);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 0, T0), 0);
}
END_TEST

/* No wait can be forced on a bucket; its balance can, and decides. */
START_TEST(forced_balance_decides_the_wait)
{
	struct bucket bucket = full_bucket(100, 10);

	bucket.available = -25;
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 5, T0), 3 * SEC);
	ck_assert(!bucket_can_take(&bucket, 5, T0));
}
END_TEST

/* No wait can be forced on an unlimited bucket either, nor does a debt. */
START_TEST(forced_balance_is_nothing_to_an_unlimited_bucket)
{
	struct bucket bucket = full_bucket(100, 0);

	bucket.available = -25;
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 5, T0), 0);
	ck_assert(bucket_take(&bucket, 5, T0));
	ck_assert_int_eq(bucket.available, -25);
}
END_TEST

START_TEST(wait_saturates_at_u64_max)
{
	struct bucket bucket = empty_bucket(INT64_MAX, 1);

	ck_assert_uint_eq(bucket_wait_ns(&bucket, INT64_MAX, T0), UINT64_MAX);
	/* The longest that does not. */
	ck_assert_uint_eq(bucket_wait_ns(&bucket, UINT64_MAX / SEC, T0),
			  UINT64_MAX / SEC * SEC);
}
END_TEST

START_TEST(wait_ceil_div_exact)
{
	struct bucket bucket = empty_bucket(10, 10);

	ck_assert_uint_eq(bucket_wait_ns(&bucket, 5, T0), 500 * MSEC);
	bucket = empty_bucket(1, 1);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 1, T0), SEC);
	/* 1/3 s is not whole: up. */
	bucket = empty_bucket(3, 3);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 1, T0), 333333334);
}
END_TEST

START_TEST(wait_unlimited_zero)
{
	struct bucket bucket = full_bucket(0, 0);

	ck_assert_uint_eq(bucket_wait_ns(&bucket, 1, T0), 0);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, UINT64_MAX, T0), 0);
}
END_TEST

START_TEST(wait_post_refill_zero)
{
	struct bucket bucket = empty_bucket(10, 10);

	ck_assert_uint_eq(bucket_wait_ns(&bucket, 10, T0 + SEC), 0);
	ck_assert_int_eq(bucket.available, 10);
}
END_TEST

START_TEST(oversized_grants_and_drives_negative)
{
	struct bucket bucket = full_bucket(100, 100);

	ck_assert_uint_eq(bucket_wait_ns(&bucket, 150, T0), 0);
	ck_assert(bucket_take(&bucket, 150, T0));
	ck_assert_int_eq(bucket.available, -50);
}
END_TEST

START_TEST(oversized_back_to_back_second_stalls)
{
	struct bucket bucket = full_bucket(100, 100);

	ck_assert(bucket_take(&bucket, 150, T0));
	ck_assert(!bucket_take(&bucket, 150, T0));
	ck_assert_int_eq(bucket.available, -50);
}
END_TEST

START_TEST(oversized_follower_waits_for_zero)
{
	struct bucket bucket = full_bucket(100, 100);

	ck_assert(bucket_take(&bucket, 150, T0));
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 101, T0), 500 * MSEC);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 200, T0), 500 * MSEC);
	ck_assert(!bucket_can_take(&bucket, 200, T0 + 500 * MSEC - 1));
	ck_assert(bucket_can_take(&bucket, 200, T0 + 500 * MSEC));
}
END_TEST

START_TEST(normal_follower_after_debt)
{
	struct bucket bucket = full_bucket(100, 100);

	ck_assert(bucket_take(&bucket, 150, T0));
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 10, T0), 600 * MSEC);
	ck_assert(!bucket_can_take(&bucket, 10, T0 + 600 * MSEC - 1));
	ck_assert(bucket_can_take(&bucket, 10, T0 + 600 * MSEC));
}
END_TEST

START_TEST(consume_rejects_n_above_i64_max)
{
	const uint64_t above = (uint64_t)INT64_MAX + 1;
	struct bucket bucket = full_bucket(100, 100);

	ck_assert(!bucket_take(&bucket, above, T0));
	ck_assert(!bucket_take(&bucket, UINT64_MAX, T0));
	ck_assert_int_eq(bucket.available, 100);
	bucket = full_bucket(UINT64_MAX, 100);
	ck_assert(!bucket_take(&bucket, above, T0));
	ck_assert_int_eq(bucket.available, INT64_MAX);
	ck_assert(bucket_take(&bucket, INT64_MAX, T0));
	ck_assert_int_eq(bucket.available, 0);
}
END_TEST

START_TEST(zero_consume_succeeds_in_debt)
{
	struct bucket bucket = full_bucket(100, 100);

	ck_assert(bucket_take(&bucket, 150, T0));
	ck_assert(bucket_take(&bucket, 0, T0));
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 0, T0), 0);
	ck_assert_int_eq(bucket.available, -50);
}
END_TEST

START_TEST(debt_clears_with_refill)
{
	struct bucket bucket = full_bucket(100, 100);

	ck_assert(bucket_take(&bucket, 150, T0));
	ck_assert(!bucket_can_take(&bucket, 51, T0 + SEC));
	ck_assert(bucket_can_take(&bucket, 50, T0 + SEC));
	ck_assert_int_eq(bucket.available, 50);
}
END_TEST

START_TEST(unlimited_grants_oversized)
{
	struct bucket bucket = full_bucket(0, 0);

	ck_assert(bucket_take(&bucket, (uint64_t)INT64_MAX + 1, T0));
	ck_assert(bucket_take(&bucket, UINT64_MAX, T0));
}
END_TEST

START_TEST(consume_at_capacity_takes_normal_branch)
{
	struct bucket bucket = full_bucket(100, 100);

	ck_assert(bucket_take(&bucket, 1, T0));
	ck_assert(!bucket_take(&bucket, 100, T0));
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 100, T0), 10 * MSEC);
	ck_assert(bucket_take(&bucket, 101, T0));
	ck_assert_int_eq(bucket.available, -2);
}
END_TEST

/*
 * Time
 */

START_TEST(slow_rate_accumulates_while_it_is_looked_at)
{
	struct bucket bucket = empty_bucket(1, 1);

	for (uint64_t ns = 0; ns < SEC; ns += SEC / 10000)
		ck_assert(!bucket_can_take(&bucket, 1, T0 + ns));
	ck_assert(bucket_take(&bucket, 1, T0 + SEC));
}
END_TEST

START_TEST(looking_often_costs_no_token)
{
	struct bucket seldom = empty_bucket(1000, 3);
	struct bucket often = empty_bucket(1000, 3);
	uint64_t now = T0;

	/* 0.6 of a token each: half of them were lost without a remainder. */
	while (now < T0 + 300 * SEC) {
		now += SEC / 5;
		bucket_can_take(&often, 1000, now);
	}
	bucket_can_take(&seldom, 1000, now);
	ck_assert_int_eq(seldom.available, 900);
	ck_assert_int_eq(often.available, 900);
}
END_TEST

START_TEST(a_full_bucket_keeps_no_fraction)
{
	struct bucket bucket = full_bucket(1, 1);

	ck_assert(bucket_can_take(&bucket, 1, T0 + 1999 * MSEC));
	ck_assert(bucket_take(&bucket, 1, T0 + 1999 * MSEC));
	ck_assert(!bucket_take(&bucket, 1, T0 + 2998 * MSEC));
	ck_assert(bucket_take(&bucket, 1, T0 + 2999 * MSEC));
}
END_TEST

START_TEST(time_that_goes_back_gives_and_takes_nothing)
{
	struct bucket bucket = empty_bucket(10, 10);

	ck_assert(bucket_can_take(&bucket, 5, T0 + SEC / 2));
	ck_assert(!bucket_can_take(&bucket, 6, T0));
	ck_assert_int_eq(bucket.available, 5);
	ck_assert(!bucket_can_take(&bucket, 6, T0 + SEC / 2));
	ck_assert(bucket_can_take(&bucket, 6, T0 + SEC * 6 / 10));
}
END_TEST

START_TEST(the_longest_time_at_the_highest_rate_fills_the_bucket)
{
	struct bucket bucket;

	bucket_init(&bucket, UINT64_MAX, UINT64_MAX, 0);
	ck_assert(bucket_take(&bucket, INT64_MAX, 0));
	ck_assert(bucket_can_take(&bucket, INT64_MAX, UINT64_MAX));
	ck_assert_int_eq(bucket.available, INT64_MAX);
}
END_TEST

START_TEST(the_deepest_debt_clears_without_overflow)
{
	struct bucket bucket = full_bucket(INT64_MAX - 1, UINT64_C(1) << 63);

	ck_assert(bucket_take(&bucket, INT64_MAX - 1, T0));
	ck_assert(bucket_take(&bucket, INT64_MAX, T0));
	ck_assert_int_eq(bucket.available, -INT64_MAX);
	/* 2^63 tokens came. */
	ck_assert(bucket_can_take(&bucket, 1, T0 + SEC));
	ck_assert_int_eq(bucket.available, 1);
}
END_TEST

/* A wait of 0 would disarm the timer, and the request would stall for ever. */
START_TEST(every_debt_from_1_ns_up_has_a_wait)
{
	struct bucket bucket;

	/* One token a nanosecond: the wait is the debt. */
	for (uint64_t ns = 1; ns <= 2 * MSEC; ns += ns < 3000 ? 1 : ns / 50) {
		bucket = full_bucket(100, SEC);
		ck_assert(bucket_take(&bucket, 100 + ns, T0));
		ck_assert_uint_eq(bucket_wait_ns(&bucket, 101, T0), ns);
		ck_assert_uint_eq(bucket_wait_ns(&bucket, 101, T0 + ns - 1), 1);
		ck_assert(!bucket_can_take(&bucket, 101, T0 + ns - 1));
		ck_assert(bucket_can_take(&bucket, 101, T0 + ns));
	}
	/* Less than a nanosecond is one. */
	bucket = empty_bucket(100, UINT64_MAX);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 1, T0), 1);
}
END_TEST

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

START_TEST(a_wait_is_neither_too_short_nor_too_long)
{
	uint64_t seed = 88172645463325252u;
	int refused = 0;

	for (int i = 0; i < 20000; i++) {
		struct bucket bucket =
			full_bucket(1 + next_random(&seed) % 5000,
				    1 + next_random(&seed) % 70000);
		const uint64_t first = next_random(&seed) % 10000;
		const uint64_t n = 1 + next_random(&seed) % 10000;
		const uint64_t now = T0 + next_random(&seed) % (SEC / 4);
		uint64_t wait;

		ck_assert(bucket_take(&bucket, first, T0) ||
			  first > bucket.capacity);
		wait = bucket_wait_ns(&bucket, n, now);
		ck_assert_int_eq(bucket_can_take(&bucket, n, now), wait == 0);
		if (!wait)
			continue;
		refused++;
		ck_assert(!bucket_can_take(&bucket, n, now + wait - 1));
		ck_assert(bucket_can_take(&bucket, n, now + wait));
	}
	ck_assert_int_gt(refused, 1000);
}
END_TEST

/*
 * Both buckets
 */

static struct throttle throttle_of(struct ktvblk_throttle config)
{
	struct throttle throttle;

	throttle_init(&throttle, &config, T0);
	return throttle;
}

START_TEST(buckets_default_burst_equals_rate)
{
	struct throttle throttle = throttle_of(
		(struct ktvblk_throttle){ .iops = 50, .bytes_per_sec = 4096 });

	ck_assert_uint_eq(throttle.ops.capacity, 50);
	ck_assert_uint_eq(throttle.ops.rate, 50);
	ck_assert_int_eq(throttle.ops.available, 50);
	ck_assert_uint_eq(throttle.bytes.capacity, 4096);
	ck_assert_uint_eq(throttle.bytes.rate, 4096);
	ck_assert_int_eq(throttle.bytes.available, 4096);
}
END_TEST

START_TEST(burst_capacity_overrides_rate)
{
	struct throttle throttle =
		throttle_of((struct ktvblk_throttle){ .iops = 50,
						      .iops_burst = 200,
						      .bytes_per_sec = 4096,
						      .bytes_burst = 65536 });

	ck_assert_uint_eq(throttle.ops.capacity, 200);
	ck_assert_uint_eq(throttle.ops.rate, 50);
	ck_assert_uint_eq(throttle.bytes.capacity, 65536);
	ck_assert_uint_eq(throttle.bytes.rate, 4096);
}
END_TEST

START_TEST(burst_without_rate_is_unlimited)
{
	struct throttle throttle = throttle_of(
		(struct ktvblk_throttle){ .iops_burst = 1, .bytes_burst = 1 });

	for (int i = 0; i < 1000; i++) {
		struct throttle_verdict verdict =
			throttle_take(&throttle, 1 << 20, T0);

		ck_assert(verdict.ops_ok && verdict.bytes_ok);
	}
}
END_TEST

START_TEST(per_dimension_independence)
{
	struct throttle ops =
		throttle_of((struct ktvblk_throttle){ .iops = 1 });
	struct throttle bytes =
		throttle_of((struct ktvblk_throttle){ .bytes_per_sec = 512 });
	struct throttle_verdict verdict;

	verdict = throttle_take(&ops, UINT64_MAX, T0);
	ck_assert(verdict.ops_ok && verdict.bytes_ok);
	verdict = throttle_take(&ops, 0, T0);
	ck_assert(!verdict.ops_ok && verdict.bytes_ok);

	for (int i = 0; i < 1000; i++) {
		verdict = throttle_take(&bytes, 0, T0);
		ck_assert(verdict.ops_ok && verdict.bytes_ok);
	}
	verdict = throttle_take(&bytes, 512, T0);
	ck_assert(verdict.ops_ok && verdict.bytes_ok);
	verdict = throttle_take(&bytes, 512, T0);
	ck_assert(verdict.ops_ok && !verdict.bytes_ok);
}
END_TEST

START_TEST(what_one_bucket_refuses_costs_the_other_nothing)
{
	struct throttle throttle = throttle_of(
		(struct ktvblk_throttle){ .iops = 10, .bytes_per_sec = 1000 });

	ck_assert(throttle_take(&throttle, 1000, T0).bytes_ok);
	for (int i = 0; i < 100; i++) {
		struct throttle_verdict verdict =
			throttle_take(&throttle, 500, T0);

		ck_assert(verdict.ops_ok && !verdict.bytes_ok);
	}
	ck_assert_int_eq(throttle.ops.available, 9);
	ck_assert_int_eq(throttle.bytes.available, 0);

	for (int i = 0; i < 9; i++)
		ck_assert(throttle_take(&throttle, 0, T0).ops_ok);
	throttle.bytes.available = 1000;
	ck_assert(!throttle_take(&throttle, 500, T0).ops_ok);
	ck_assert_int_eq(throttle.bytes.available, 1000);
}
END_TEST

START_TEST(a_verdict_waits_for_the_slower_bucket)
{
	struct throttle throttle = throttle_of(
		(struct ktvblk_throttle){ .iops = 10, .bytes_per_sec = 1000 });
	struct throttle_verdict verdict;

	ck_assert_uint_eq(throttle_take(&throttle, 1000, T0).wait_ns, 0);
	ck_assert_uint_eq(throttle_take(&throttle, 500, T0).wait_ns, SEC / 2);
	throttle.ops.available = 0;
	ck_assert_uint_eq(throttle_take(&throttle, 50, T0).wait_ns, SEC / 10);
	verdict = throttle_take(&throttle, 500, T0);
	ck_assert(!verdict.ops_ok && !verdict.bytes_ok);
	ck_assert_uint_eq(verdict.wait_ns, SEC / 2);
	verdict = throttle_take(&throttle, 500, T0 + SEC / 2);
	ck_assert(verdict.ops_ok && verdict.bytes_ok);
}
END_TEST

START_TEST(both_buckets_refill_where_one_refuses)
{
	struct throttle throttle = throttle_of(
		(struct ktvblk_throttle){ .iops = 1, .bytes_per_sec = 1000 });

	ck_assert(throttle_take(&throttle, 1000, T0).ops_ok);
	ck_assert(!throttle_take(&throttle, 1, T0 + SEC / 2).ops_ok);
	ck_assert_int_eq(throttle.bytes.available, 500);
	ck_assert_uint_eq(throttle.ops.refilled_ns, T0 + SEC / 2);
}
END_TEST

START_TEST(a_request_of_no_bytes_does_not_wait_for_bytes)
{
	struct throttle throttle = throttle_of(
		(struct ktvblk_throttle){ .iops = 10, .bytes_per_sec = 1000 });

	ck_assert(throttle_take(&throttle, 5000, T0).bytes_ok);
	ck_assert(throttle_take(&throttle, 0, T0).bytes_ok);
	ck_assert_int_eq(throttle.ops.available, 8);
	ck_assert_int_eq(throttle.bytes.available, -4000);
}
END_TEST

START_TEST(a_change_keeps_what_is_owed_and_of_what_is_there_what_fits)
{
	struct bucket bucket;

	bucket_init(&bucket, 100, 10, 0);
	ck_assert(bucket_take(&bucket, 150, 0));
	bucket_change(&bucket, 20, 20, NSEC_PER_SEC);
	/* The second before was at the old rate; two more at the new. */
	ck_assert_int_eq(bucket.available, -40);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 1, NSEC_PER_SEC),
			  2 * NSEC_PER_SEC + NSEC_PER_SEC / 20);
	bucket_init(&bucket, 100, 10, 0);
	bucket_change(&bucket, 30, 5, 0);
	ck_assert_int_eq(bucket.available, 30);
	bucket_change(&bucket, 1000, 5, 0);
	ck_assert_int_eq(bucket.available, 30);
	bucket_change(&bucket, UINT64_MAX, 1, 0);
	ck_assert_int_eq(bucket.available, 30);
}
END_TEST

START_TEST(a_limit_that_was_not_there_begins_with_a_whole_burst)
{
	struct bucket bucket;

	bucket_init(&bucket, 100, 10, 0);
	ck_assert(bucket_take(&bucket, 150, 0));
	bucket_change(&bucket, 0, 0, 0);
	ck_assert(bucket_can_take(&bucket, UINT64_MAX, 0));
	bucket_change(&bucket, 7, 2, 5);
	ck_assert_int_eq(bucket.available, 7);
	ck_assert_uint_eq(bucket.refilled_ns, 5);
	/* The fraction of a token that had come is not lost. */
	bucket_init(&bucket, 10, 1, 0);
	ck_assert(bucket_take(&bucket, 10, 0));
	bucket_change(&bucket, 10, 2, NSEC_PER_SEC / 2);
	ck_assert_uint_eq(bucket_wait_ns(&bucket, 1, NSEC_PER_SEC / 2),
			  NSEC_PER_SEC / 4);
}
END_TEST

TEST_PROGRAM("throttle", unlimited_always_grants, consumes_capacity,
	     refills_over_time, throttle_zero_rate_becomes_unlimited,
	     refill_uses_elapsed_time_and_stops_when_full, consume_zero_is_free,
	     forced_balance_decides_the_wait,
	     forced_balance_is_nothing_to_an_unlimited_bucket,
	     wait_saturates_at_u64_max, wait_ceil_div_exact,
	     wait_unlimited_zero, wait_post_refill_zero,
	     oversized_grants_and_drives_negative,
	     oversized_back_to_back_second_stalls,
	     oversized_follower_waits_for_zero, normal_follower_after_debt,
	     consume_rejects_n_above_i64_max, zero_consume_succeeds_in_debt,
	     debt_clears_with_refill, unlimited_grants_oversized,
	     consume_at_capacity_takes_normal_branch,
	     slow_rate_accumulates_while_it_is_looked_at,
	     looking_often_costs_no_token, a_full_bucket_keeps_no_fraction,
	     time_that_goes_back_gives_and_takes_nothing,
	     the_longest_time_at_the_highest_rate_fills_the_bucket,
	     the_deepest_debt_clears_without_overflow,
	     every_debt_from_1_ns_up_has_a_wait,
	     a_wait_is_neither_too_short_nor_too_long,
	     buckets_default_burst_equals_rate, burst_capacity_overrides_rate,
	     burst_without_rate_is_unlimited, per_dimension_independence,
	     what_one_bucket_refuses_costs_the_other_nothing,
	     a_verdict_waits_for_the_slower_bucket,
	     both_buckets_refill_where_one_refuses,
	     a_request_of_no_bytes_does_not_wait_for_bytes,
	     a_change_keeps_what_is_owed_and_of_what_is_there_what_fits,
	     a_limit_that_was_not_there_begins_with_a_whole_burst)
