/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Trust is earned by quick ones in a row, lost by one slow one, and takes longer
 * to earn each time; storage that hangs is never waited for twice.
 */

#include "bounds.h"
#include "harness.h"
#include "pace.h"

#define T0 (7 * NSEC_PER_SEC)
#define QUICK_NS UINT64_C(10000)
#define SLOW_NS (2 * PACE_RING_QUICK_NS)
#define BYTES 4096u

static uint64_t now;

static struct pace new_pace(void)
{
	struct pace pace;

	pace_init(&pace);
	now = T0;
	return pace;
}

/* One through the ring, alone. */
static void by_ring(struct pace *pace, uint64_t took_ns)
{
	uint64_t begun_ns;

	pace_begun(pace, now, &begun_ns);
	now += took_ns;
	pace_ended(pace, begun_ns, now, BYTES);
}

/* As an engine does it: by what it is told. */
static void any_way(struct pace *pace, uint64_t took_ns)
{
	if (!pace_is_plain(pace, now)) {
		by_ring(pace, took_ns);
		return;
	}
	now += took_ns;
	pace_called(pace, took_ns, BYTES);
}

/* How many go through the ring, all quick, before plain calls. */
static unsigned int ring_until_plain(struct pace *pace)
{
	unsigned int n = 0;

	while (!pace_is_plain(pace, now)) {
		by_ring(pace, QUICK_NS);
		n++;
		ck_assert_uint_le(n, 2u * PACE_TRUST << PACE_BACKOFF_MAX);
	}
	return n;
}

START_TEST(it_begins_in_the_ring)
{
	struct pace pace = new_pace();

	ck_assert(!pace_is_plain(&pace, now));
}
END_TEST

START_TEST(quick_ones_in_a_row_earn_plain_calls)
{
	struct pace pace = new_pace();

	for (unsigned int i = 1; i < PACE_TRUST; i++) {
		by_ring(&pace, QUICK_NS);
		ck_assert(!pace_is_plain(&pace, now));
	}
	by_ring(&pace, SLOW_NS);
	ck_assert_uint_eq(ring_until_plain(&pace), PACE_TRUST);
}
END_TEST

START_TEST(slow_ones_never_do)
{
	struct pace pace = new_pace();

	for (int i = 0; i < 100000; i++) {
		ck_assert(!pace_is_plain(&pace, now));
		by_ring(&pace, SLOW_NS);
	}
}
END_TEST

START_TEST(quick_plain_calls_stay)
{
	struct pace pace = new_pace();

	ring_until_plain(&pace);
	for (int i = 0; i < 100000; i++) {
		ck_assert(pace_is_plain(&pace, now));
		any_way(&pace, QUICK_NS);
	}
}
END_TEST

START_TEST(one_slow_call_sends_the_next_to_the_ring_for_longer_each_time)
{
	struct pace pace = new_pace();
	unsigned int n = ring_until_plain(&pace);

	for (unsigned int i = 0; i < PACE_BACKOFF_MAX; i++) {
		any_way(&pace, SLOW_NS);
		ck_assert(!pace_is_plain(&pace, now));
		ck_assert_uint_eq(ring_until_plain(&pace), 2 * n);
		n *= 2;
	}
	for (int i = 0; i < 100; i++) {
		any_way(&pace, SLOW_NS);
		ck_assert_uint_eq(ring_until_plain(&pace), n);
	}
}
END_TEST

START_TEST(quick_calls_are_forgiven_step_by_step)
{
	struct pace pace = new_pace();
	unsigned int n;

	for (unsigned int i = 0; i < PACE_BACKOFF_MAX; i++) {
		ring_until_plain(&pace);
		any_way(&pace, SLOW_NS);
	}
	n = ring_until_plain(&pace);
	ck_assert_uint_eq(n, PACE_TRUST << PACE_BACKOFF_MAX);
	/* Two steps down and one up. */
	while (n > 2 * PACE_TRUST) {
		for (unsigned int i = 0; i < 2 * PACE_FORGIVE; i++)
			any_way(&pace, QUICK_NS);
		any_way(&pace, SLOW_NS);
		n /= 2;
		ck_assert_uint_eq(ring_until_plain(&pace), n);
	}
}
END_TEST

START_TEST(what_is_large_may_take_longer)
{
	struct pace pace = new_pace();
	const uint64_t bytes = 1u << 20;
	const uint64_t most_ns = PACE_PLAIN_QUICK_NS + bytes * PACE_BYTE_NS;

	ring_until_plain(&pace);
	pace_called(&pace, most_ns, bytes);
	ck_assert(pace_is_plain(&pace, now));
	pace_called(&pace, most_ns, bytes / 2);
	ck_assert(!pace_is_plain(&pace, now));
}
END_TEST

/* One hangs, the others are quick: none of them is waited for. */
START_TEST(one_that_hangs_in_the_ring_forbids_plain_calls)
{
	struct pace pace = new_pace();
	uint64_t hangs_since;

	pace_begun(&pace, now, &hangs_since);
	for (unsigned int i = 0; i < 100 * PACE_TRUST; i++) {
		by_ring(&pace, QUICK_NS);
		ck_assert(!pace_is_plain(&pace, now));
	}
	pace_ended(&pace, hangs_since, now, BYTES);
	ck_assert(!pace_is_plain(&pace, now));
	ck_assert_uint_eq(ring_until_plain(&pace), PACE_TRUST);
}
END_TEST

/* It was begun when enough had been quick, and nothing comes behind it. */
START_TEST(one_left_in_the_ring_that_hangs_ends_plain_calls)
{
	struct pace pace = new_pace();
	uint64_t begun_ns, hangs_since;

	for (unsigned int i = 1; i < PACE_TRUST; i++)
		by_ring(&pace, QUICK_NS);
	pace_begun(&pace, now, &begun_ns);
	pace_ended(&pace, begun_ns, now, BYTES);
	ck_assert(pace_is_plain(&pace, now));
	/* An engine may send one there all the same. */
	pace_begun(&pace, now, &hangs_since);
	for (unsigned int i = 0; i < 100 && pace_is_plain(&pace, now); i++)
		now += PACE_RING_QUICK_NS / 50;
	ck_assert(!pace_is_plain(&pace, now));
	pace_ended(&pace, hangs_since, now, BYTES);
	ck_assert(!pace_is_plain(&pace, now));
	ck_assert_uint_eq(ring_until_plain(&pace), 2 * PACE_TRUST);
}
END_TEST

/* The same, and nobody has looked meanwhile. */
START_TEST(one_left_in_the_ring_that_was_slow_ends_them_too)
{
	struct pace pace = new_pace();
	uint64_t begun_ns;

	ring_until_plain(&pace);
	pace_begun(&pace, now, &begun_ns);
	pace_ended(&pace, begun_ns, now + SLOW_NS, BYTES);
	ck_assert(!pace_is_plain(&pace, now));
	ck_assert_uint_eq(ring_until_plain(&pace), 2 * PACE_TRUST);
}
END_TEST

/* Always 32 out, at one time of a clock that stands. */
START_TEST(deep_queues_earn_it_too)
{
	struct pace pace = new_pace();
	uint64_t begun_ns[32];
	unsigned int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(begun_ns); i++)
		pace_begun(&pace, now, &begun_ns[i]);
	while (!pace_is_plain(&pace, now)) {
		uint64_t *one = &begun_ns[n++ % ARRAY_SIZE(begun_ns)];

		ck_assert_uint_le(n, PACE_TRUST + ARRAY_SIZE(begun_ns));
		pace_ended(&pace, *one, now, BYTES);
		pace_begun(&pace, now, one);
	}
	ck_assert_uint_ge(n, PACE_TRUST);
	for (size_t i = 0; i < ARRAY_SIZE(begun_ns); i++)
		pace_ended(&pace, begun_ns[i], now, BYTES);
	ck_assert(pace_is_plain(&pace, now));
	ck_assert_uint_eq(pace.n_out, 0);
}
END_TEST

/* Whatever comes: the calls that hold a worker up are few. */
START_TEST(storage_that_is_slow_now_and_then_blocks_seldom)
{
	struct pace pace = new_pace();
	unsigned int seed = 1, n_slow_plain = 0, n = 1000000;

	for (unsigned int i = 0; i < n; i++) {
		/* Times of a thousand slow ones, and of quick ones. */
		const bool slow = i / 1000 % 2 == 0 || rand_r(&seed) % 64 == 0;

		n_slow_plain += slow && pace_is_plain(&pace, now);
		any_way(&pace, slow ? SLOW_NS : QUICK_NS);
	}
	ck_assert_uint_le(n_slow_plain, n / 500);
	ck_assert_uint_ge(n_slow_plain, 1);
}
END_TEST

TEST_PROGRAM("pace", it_begins_in_the_ring,
	     quick_ones_in_a_row_earn_plain_calls, slow_ones_never_do,
	     quick_plain_calls_stay,
	     one_slow_call_sends_the_next_to_the_ring_for_longer_each_time,
	     quick_calls_are_forgiven_step_by_step,
	     what_is_large_may_take_longer,
	     one_that_hangs_in_the_ring_forbids_plain_calls,
	     one_left_in_the_ring_that_hangs_ends_plain_calls,
	     one_left_in_the_ring_that_was_slow_ends_them_too,
	     deep_queues_earn_it_too,
	     storage_that_is_slow_now_and_then_blocks_seldom)
