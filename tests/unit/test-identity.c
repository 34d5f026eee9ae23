/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Every device has a number of its own; of one kind of record a few pass in a
 * while, and not one of the others goes untold.
 */

/* wrap: malloc calloc */

#include <string.h>

#include "alloc-fails.h"
#include "harness.h"
#include "identity.h"
#include "ktvblk.h"
#include "bounds.h"

#define T0 (3 * NSEC_PER_SEC)
#define THREADS 4

START_TEST(instance_ids_count_up)
{
	struct disk_id *a = disk_id_new("a", 1), *b = disk_id_new("a", 1), *c;

	ck_assert_uint_eq(b->instance_id, a->instance_id + 1);
	disk_id_unref(b);
	/* One that is gone is not given again. */
	c = disk_id_new(NULL, 1);
	ck_assert_uint_eq(c->instance_id, a->instance_id + 2);
	disk_id_unref(c);
	disk_id_unref(a);
}
END_TEST

START_TEST(the_name_is_copied_and_may_be_none)
{
	char name[] = "root disk";
	struct disk_id *named = disk_id_new(name, 77);
	struct disk_id *nameless = disk_id_new(NULL, UINT64_MAX);
	struct disk_id *empty = disk_id_new("", 0);

	memset(name, 'x', sizeof(name) - 1);
	ck_assert_str_eq(named->name, "root disk");
	ck_assert_uint_eq(named->capacity_sectors, 77);
	ck_assert_str_eq(nameless->name, "");
	ck_assert_uint_eq(nameless->capacity_sectors, UINT64_MAX);
	ck_assert_str_eq(empty->name, "");
	disk_id_unref(named);
	disk_id_unref(nameless);
	disk_id_unref(empty);
}
END_TEST

START_TEST(the_longest_name_fits)
{
	char name[KTVBLK_NAME_MAX + 1];
	struct disk_id *disk;

	memset(name, 'n', KTVBLK_NAME_MAX);
	name[KTVBLK_NAME_MAX] = '\0';
	disk = disk_id_new(name, 1);
	ck_assert_str_eq(disk->name, name);
	disk_id_unref(disk);
}
END_TEST

START_TEST(an_identity_lives_as_long_as_a_reference)
{
	struct disk_id *disk = disk_id_new("vda", 8);

	ck_assert_ptr_eq(disk_id_ref(disk), disk);
	disk_id_unref(disk);
	ck_assert_str_eq(disk->name, "vda");
	disk_id_unref(disk);
	ck_assert_ptr_null(disk_id_ref(NULL));
	disk_id_unref(NULL);
}
END_TEST

START_TEST(without_memory_there_is_no_identity)
{
	struct disk_id *before = disk_id_new(NULL, 1), *after;

	alloc_fails = 1;
	ck_assert_ptr_null(disk_id_new("vda", 8));
	after = disk_id_new(NULL, 1);
	ck_assert_uint_eq(after->instance_id, before->instance_id + 1);
	disk_id_unref(before);
	disk_id_unref(after);
}
END_TEST

static void *make_ids(void *arg)
{
	uint64_t *ids = (uint64_t *)arg;

	for (int i = 0; i < 500; i++) {
		struct disk_id *disk = disk_id_new(NULL, 1);

		ids[i] = disk->instance_id;
		disk_id_unref(disk);
	}
	return NULL;
}

static int compare_u64(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

START_TEST(threads_get_different_ids)
{
	static uint64_t ids[THREADS][500];
	uint64_t *all = ids[0];
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, make_ids, ids[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	qsort(all, THREADS * 500, sizeof(*all), compare_u64);
	for (int i = 1; i < THREADS * 500; i++)
		ck_assert_uint_eq(all[i], all[i - 1] + 1);
}
END_TEST

/*
 * The rate limit
 */

/* So many pass of n at this time; none of them tells of others. */
static unsigned int pass_of(struct rate_limit *limit, unsigned int n,
			    uint64_t now)
{
	unsigned int passed = 0;
	uint32_t suppressed;

	for (unsigned int i = 0; i < n; i++) {
		suppressed = 99;
		passed += rate_limit_pass(limit, LOG_LIMIT_BURST, now,
					  &suppressed);
		ck_assert_uint_eq(suppressed, 0);
	}
	return passed;
}

START_TEST(a_burst_passes_and_no_more)
{
	struct rate_limit limit = { 0 };

	ck_assert_uint_eq(pass_of(&limit, LOG_LIMIT_BURST, T0),
			  LOG_LIMIT_BURST);
	ck_assert_uint_eq(pass_of(&limit, 1000, T0), 0);
	ck_assert_uint_eq(pass_of(&limit, 1000, T0 + LOG_LIMIT_NS - 1), 0);
	ck_assert_uint_eq(limit.suppressed, 2000);
}
END_TEST

START_TEST(the_next_window_tells_how_many_were_held_back)
{
	struct rate_limit limit = { 0 };
	uint32_t suppressed = 0;

	pass_of(&limit, LOG_LIMIT_BURST + 7, T0);
	ck_assert(rate_limit_pass(&limit, LOG_LIMIT_BURST, T0 + LOG_LIMIT_NS,
				  &suppressed));
	ck_assert_uint_eq(suppressed, 7);
	/* Once; and this one was the first of the new window. */
	ck_assert_uint_eq(pass_of(&limit, 100, T0 + LOG_LIMIT_NS),
			  LOG_LIMIT_BURST - 1);
	ck_assert(rate_limit_pass(&limit, LOG_LIMIT_BURST,
				  T0 + 9 * LOG_LIMIT_NS, &suppressed));
	ck_assert_uint_eq(suppressed, 100 - LOG_LIMIT_BURST + 1);
}
END_TEST

START_TEST(what_comes_seldom_always_passes)
{
	struct rate_limit limit = { 0 };

	for (uint64_t i = 0; i < 100; i++)
		ck_assert_uint_eq(pass_of(&limit, 1, T0 + i * LOG_LIMIT_NS), 1);
	for (uint64_t i = 0; i < 10; i++)
		ck_assert_uint_eq(pass_of(&limit, LOG_LIMIT_BURST,
					  T0 + (200 + i) * LOG_LIMIT_NS),
				  LOG_LIMIT_BURST);
}
END_TEST

START_TEST(each_kind_and_each_disk_has_its_own_limit)
{
	struct disk_id *a = disk_id_new("a", 1), *b = disk_id_new("b", 1);

	pass_of(&a->limits[EVENT_READ_FAILED], 100, T0);
	ck_assert_uint_eq(pass_of(&a->limits[EVENT_READ_FAILED], 1, T0), 0);
	ck_assert_uint_eq(pass_of(&a->limits[EVENT_WRITE_FAILED], 1, T0), 1);
	ck_assert_uint_eq(pass_of(&b->limits[EVENT_READ_FAILED], 1, T0), 1);
	disk_id_unref(a);
	disk_id_unref(b);
}
END_TEST

/* So many of this kind pass of n. */
static unsigned int logged(struct disk_id *disk, int event, unsigned int n,
			   uint64_t now)
{
	unsigned int passed = 0;
	uint32_t suppressed;

	for (unsigned int i = 0; i < n; i++)
		passed += disk_id_may_log(disk, (enum event)event, now,
					  &suppressed);
	return passed;
}

START_TEST(all_that_a_guest_can_provoke_shares_one_budget)
{
	struct disk_id *a = disk_id_new("a", 1), *b = disk_id_new("b", 1);
	unsigned int passed = 0, kinds = 0;
	uint32_t suppressed;
	uint64_t held_back = 0;

	for (int i = 0; i < EVENT_COUNT; i++) {
		if (!(event_table[i].flags & EV_LIMITED))
			continue;
		passed += logged(a, i, 100, T0);
		held_back += a->limits[i].suppressed;
		kinds++;
	}
	ck_assert_uint_gt(kinds * LOG_LIMIT_BURST, LOG_BUDGET_BURST);
	ck_assert_uint_eq(passed, LOG_BUDGET_BURST);
	/* Each one that was held back is counted with its kind. */
	ck_assert_uint_eq(passed + held_back, kinds * 100);

	/* Another disk, and what no guest can provoke alone, have their own. */
	ck_assert_uint_eq(logged(b, EVENT_READ_FAILED, 1, T0), 1);
	ck_assert_uint_eq(logged(a, EVENT_WORKER_PANICKED, 100, T0),
			  LOG_LIMIT_BURST);
	ck_assert_uint_eq(logged(a, EVENT_RESET_TIMED_OUT, 1000, T0), 1000);

	/* And the next window tells. */
	ck_assert(disk_id_may_log(a, EVENT_CHAIN_MALFORMED, T0 + LOG_LIMIT_NS,
				  &suppressed));
	ck_assert_uint_eq(suppressed, 100);
	disk_id_unref(a);
	disk_id_unref(b);
}
END_TEST

/* A count taken for a record that then does not go out is not lost. */
START_TEST(what_was_held_back_before_the_budget_is_still_told)
{
	struct disk_id *disk = disk_id_new("a", 1);
	const uint64_t next = T0 + LOG_LIMIT_NS;
	uint32_t suppressed;

	logged(disk, EVENT_READ_FAILED, LOG_LIMIT_BURST + 5, T0);
	/* The budget's window begins later, and others spend it. */
	disk->budget.window_start_ns = next - 1;
	disk->budget.passed = LOG_BUDGET_BURST;
	ck_assert_uint_eq(logged(disk, EVENT_READ_FAILED, 1, next), 0);
	ck_assert(disk_id_may_log(disk, EVENT_READ_FAILED, next + LOG_LIMIT_NS,
				  &suppressed));
	ck_assert_uint_eq(suppressed, 6);
	disk_id_unref(disk);
}
END_TEST

struct storm {
	struct rate_limit limit;
	_Atomic uint32_t passed;
	_Atomic uint32_t told;
};

static void *ask_often(void *arg)
{
	struct storm *storm = (struct storm *)arg;
	uint32_t suppressed;

	for (uint64_t i = 0; i < 10000; i++) {
		storm->passed += rate_limit_pass(&storm->limit, LOG_LIMIT_BURST,
						 T0 + i * (LOG_LIMIT_NS / 1000),
						 &suppressed);
		storm->told += suppressed;
	}
	return NULL;
}

START_TEST(a_storm_from_threads_is_limited_and_fully_told)
{
	struct storm storm = { 0 };
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_often,
						&storm),
				 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(storm.passed + storm.told + storm.limit.suppressed,
			  THREADS * 10000);
	ck_assert_uint_ge(storm.passed, LOG_LIMIT_BURST);
	ck_assert_uint_gt(storm.told, 0);
}
END_TEST

TEST_PROGRAM("identity", instance_ids_count_up,
	     the_name_is_copied_and_may_be_none, the_longest_name_fits,
	     an_identity_lives_as_long_as_a_reference,
	     without_memory_there_is_no_identity, threads_get_different_ids,
	     a_burst_passes_and_no_more,
	     the_next_window_tells_how_many_were_held_back,
	     what_comes_seldom_always_passes,
	     each_kind_and_each_disk_has_its_own_limit,
	     all_that_a_guest_can_provoke_shares_one_budget,
	     what_was_held_back_before_the_budget_is_still_told,
	     a_storm_from_threads_is_limited_and_fully_told)
