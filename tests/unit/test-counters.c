/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Each counter counts its own thing, and the gauge never goes below zero. */

/* wrap: malloc calloc */

#include <string.h>

#include "alloc-fails.h"
#include "counters.h"
#include "harness.h"

#define THREADS 4
#define ROUNDS 20000

static struct ktvblk_counters read_all(const struct ktvblk_stats *stats)
{
	struct ktvblk_counters counters;

	memset(&counters, 0xff, sizeof(counters));
	ck_assert_int_eq(ktvblk_stats_read(stats, &counters, sizeof(counters)),
			 0);
	return counters;
}

/* The counters are exactly these. */
#define ck_assert_counters(stats, ...)                                         \
	do {                                                                   \
		const struct ktvblk_counters want_ = { __VA_ARGS__ };          \
		const struct ktvblk_counters have_ = read_all(stats);          \
                                                                               \
		ck_assert_mem_eq(&have_, &want_, sizeof(want_));               \
	} while (0)

START_TEST(counters_default_to_zero)
{
	struct ktvblk_stats *stats = stats_new();

	ck_assert_uint_eq(stats->reads_completed, 0);
	ck_assert_uint_eq(stats->writes_completed, 0);
	ck_assert_uint_eq(stats->flushes_completed, 0);
	ck_assert_uint_eq(stats->bytes_read, 0);
	ck_assert_uint_eq(stats->bytes_written, 0);
	ck_assert_uint_eq(stats->throttled_count, 0);
	ck_assert_uint_eq(stats->io_errors, 0);
	ck_assert_uint_eq(stats->currently_throttled, 0);
	ck_assert_uint_eq(stats->invalid_avail_idx_count, 0);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(record_read_pairs_count_and_bytes)
{
	struct ktvblk_stats *stats = stats_new();

	count_read(stats, 512);
	count_read(stats, 4096);
	ck_assert_counters(stats, .reads_completed = 2, .bytes_read = 4608);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(record_read_of_zero_bytes_still_counts)
{
	struct ktvblk_stats *stats = stats_new();

	count_read(stats, 0);
	ck_assert_counters(stats, .reads_completed = 1);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(record_write_pairs_count_and_bytes)
{
	struct ktvblk_stats *stats = stats_new();

	count_write(stats, 512);
	count_write(stats, 4096);
	ck_assert_counters(stats, .writes_completed = 2, .bytes_written = 4608);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(record_write_of_zero_bytes_still_counts)
{
	struct ktvblk_stats *stats = stats_new();

	count_write(stats, 0);
	ck_assert_counters(stats, .writes_completed = 1);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(record_flush_counts_flushes_only)
{
	struct ktvblk_stats *stats = stats_new();

	count_flush(stats);
	ck_assert_counters(stats, .flushes_completed = 1);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(gauge_inc_is_not_idempotent)
{
	struct ktvblk_stats *stats = stats_new();

	count_add(&stats->currently_throttled, 1);
	count_add(&stats->currently_throttled, 1);
	ck_assert_counters(stats, .currently_throttled = 2);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(gauge_dec_takes_one)
{
	struct ktvblk_stats *stats = stats_new();

	count_add(&stats->currently_throttled, 2);
	gauge_drop(&stats->currently_throttled);
	ck_assert_counters(stats, .currently_throttled = 1);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(gauge_dec_saturates_at_zero)
{
	struct ktvblk_stats *stats = stats_new();

	gauge_drop(&stats->currently_throttled);
	ck_assert_counters(stats, 0);
	count_add(&stats->currently_throttled, 1);
	gauge_drop(&stats->currently_throttled);
	gauge_drop(&stats->currently_throttled);
	ck_assert_counters(stats, 0);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(gauge_inc_and_dec_net_zero)
{
	struct ktvblk_stats *stats = stats_new();

	for (int i = 0; i < 100; i++) {
		count_add(&stats->currently_throttled, 1);
		gauge_drop(&stats->currently_throttled);
	}
	ck_assert_counters(stats, 0);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(record_io_error_counts_errors_only)
{
	struct ktvblk_stats *stats = stats_new();

	count_io_error(stats);
	ck_assert_counters(stats, .io_errors = 1);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(record_throttled_counts_stalls_only)
{
	struct ktvblk_stats *stats = stats_new();

	count_add(&stats->throttled_count, 1);
	ck_assert_counters(stats, .throttled_count = 1);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(record_invalid_avail_counts_indices_only)
{
	struct ktvblk_stats *stats = stats_new();

	count_add(&stats->invalid_avail_idx_count, 1);
	ck_assert_counters(stats, .invalid_avail_idx_count = 1);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(snapshot_captures_every_field_independently)
{
	struct ktvblk_stats *stats = stats_new();

	count_add(&stats->reads_completed, 1);
	count_add(&stats->writes_completed, 20);
	count_add(&stats->flushes_completed, 300);
	count_add(&stats->bytes_read, 4000);
	count_add(&stats->bytes_written, 50000);
	count_add(&stats->throttled_count, 600000);
	count_add(&stats->io_errors, 7000000);
	count_add(&stats->currently_throttled, 80000000);
	count_add(&stats->invalid_avail_idx_count, UINT64_MAX);
	ck_assert_counters(stats, .reads_completed = 1, .writes_completed = 20,
			   .flushes_completed = 300, .bytes_read = 4000,
			   .bytes_written = 50000, .throttled_count = 600000,
			   .io_errors = 7000000,
			   .currently_throttled = 80000000,
			   .invalid_avail_idx_count = UINT64_MAX);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(default_snapshot_is_all_zero)
{
	struct ktvblk_stats *stats = stats_new();

	ck_assert_counters(stats, 0);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(a_snapshot_into_a_larger_struct_ends_in_zeros)
{
	struct ktvblk_stats *stats = stats_new();
	struct {
		struct ktvblk_counters known;
		unsigned char later[24];
		unsigned char behind;
	} counters;
	static const unsigned char zeros[sizeof(counters.later)];

	memset(&counters, 0xff, sizeof(counters));
	count_read(stats, 8);
	ck_assert_int_eq(ktvblk_stats_read(stats, &counters.known,
					   sizeof(counters.known) +
						   sizeof(counters.later)),
			 0);
	ck_assert_uint_eq(counters.known.bytes_read, 8);
	ck_assert_mem_eq(counters.later, zeros, sizeof(zeros));
	ck_assert_uint_eq(counters.behind, 0xff);
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(a_bad_snapshot_leaves_the_struct_untouched)
{
	struct ktvblk_stats *stats = stats_new();
	struct ktvblk_counters counters, before;

	memset(&counters, 0x5a, sizeof(counters));
	before = counters;
	count_read(stats, 512);
	ck_assert_int_eq(ktvblk_stats_read(NULL, &counters, sizeof(counters)),
			 -EINVAL);
	ck_assert_int_eq(ktvblk_stats_read(stats, NULL, sizeof(counters)),
			 -EINVAL);
	ck_assert_int_eq(ktvblk_stats_read(stats, &counters, 0), -EINVAL);
	ck_assert_int_eq(ktvblk_stats_read(stats, &counters, 8), -EINVAL);
	ck_assert_int_eq(ktvblk_stats_read(stats, &counters,
					   offsetof(struct ktvblk_counters,
						    discards_completed) -
						   1),
			 -EINVAL);
	ck_assert_mem_eq(&counters, &before, sizeof(counters));
	ktvblk_stats_unref(stats);
}
END_TEST

START_TEST(counters_live_as_long_as_a_reference)
{
	struct ktvblk_stats *stats = stats_new();

	ck_assert_ptr_eq(ktvblk_stats_ref(stats), stats);
	ck_assert_ptr_null(ktvblk_stats_unref(stats));
	count_flush(stats);
	ck_assert_counters(stats, .flushes_completed = 1);
	ck_assert_ptr_null(ktvblk_stats_unref(stats));
}
END_TEST

START_TEST(null_counters_are_taken_and_given)
{
	struct ktvblk_stats *none = NULL;

	ck_assert_ptr_null(ktvblk_stats_ref(NULL));
	ck_assert_ptr_null(ktvblk_stats_unref(NULL));
	ktvblk_stats_unrefp(&none);
}
END_TEST

START_TEST(no_memory_makes_no_counters)
{
	alloc_fails = 1;
	ck_assert_ptr_null(stats_new());
	ck_assert_uint_eq(alloc_fails, 0);
}
END_TEST

static void *count_and_drop(void *arg)
{
	struct ktvblk_stats *stats = (struct ktvblk_stats *)arg;

	for (int i = 0; i < ROUNDS; i++) {
		count_read(stats, 3);
		count_add(&stats->currently_throttled, 1);
		gauge_drop(&stats->currently_throttled);
		gauge_drop(&stats->currently_throttled);
	}
	return ktvblk_stats_unref(stats);
}

START_TEST(threads_lose_no_count_and_the_gauge_does_not_wrap)
{
	struct ktvblk_stats *stats = stats_new();
	pthread_t threads[THREADS];
	uint64_t before = 0;

	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
						count_and_drop,
						ktvblk_stats_ref(stats)),
				 0);
	while (before < THREADS * ROUNDS) {
		struct ktvblk_counters now = read_all(stats);

		ck_assert_uint_ge(now.reads_completed, before);
		ck_assert_uint_le(now.currently_throttled, THREADS);
		before = now.reads_completed;
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(stats->bytes_read, 3 * THREADS * ROUNDS);
	ck_assert_uint_eq(stats->currently_throttled, 0);
	ktvblk_stats_unref(stats);
}
END_TEST

TEST_PROGRAM("counters", counters_default_to_zero,
	     record_read_pairs_count_and_bytes,
	     record_read_of_zero_bytes_still_counts,
	     record_write_pairs_count_and_bytes,
	     record_write_of_zero_bytes_still_counts,
	     record_flush_counts_flushes_only, gauge_inc_is_not_idempotent,
	     gauge_dec_takes_one, gauge_dec_saturates_at_zero,
	     gauge_inc_and_dec_net_zero, record_io_error_counts_errors_only,
	     record_throttled_counts_stalls_only,
	     record_invalid_avail_counts_indices_only,
	     snapshot_captures_every_field_independently,
	     default_snapshot_is_all_zero,
	     a_snapshot_into_a_larger_struct_ends_in_zeros,
	     a_bad_snapshot_leaves_the_struct_untouched,
	     counters_live_as_long_as_a_reference,
	     null_counters_are_taken_and_given, no_memory_makes_no_counters,
	     threads_lose_no_count_and_the_gauge_does_not_wrap)
