/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a throttle has to be, and what is said of one that is not.
 */

#include <string.h>

#include "harness.h"
#include "ktvblk.h"

START_TEST(a_good_throttle_passes_the_check)
{
	static const struct ktvblk_throttle good[] = {
		{ 0 },
		{ .iops = 1 },
		{ .bytes_per_sec = 1 },
		{ .iops = 10, .iops_burst = 10 },
		{ .iops = 10, .iops_burst = 11 },
		{ .bytes_per_sec = 10, .bytes_burst = 10 },
		{ .iops = UINT64_MAX,
		  .bytes_per_sec = UINT64_MAX,
		  .iops_burst = UINT64_MAX,
		  .bytes_burst = UINT64_MAX },
	};
	const char *why = "untouched";

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		ck_assert_int_eq(ktvblk_throttle_check(&good[i], &why), 0);
		ck_assert_int_eq(ktvblk_throttle_check(&good[i], NULL), 0);
	}
	ck_assert_str_eq(why, "untouched");
}
END_TEST

START_TEST(a_bad_throttle_is_told_why)
{
	static const struct {
		struct ktvblk_throttle throttle;
		const char *words[3];
	} bad[] = {
		{ { .iops_burst = 1 }, { "iops_burst", "without", "0" } },
		{ { .iops = 10, .iops_burst = 9 },
		  { "iops_burst", "below iops", "0" } },
		{ { .bytes_burst = 1 }, { "bytes_burst", "without", "0" } },
		{ { .bytes_per_sec = 10, .bytes_burst = 9 },
		  { "bytes_burst", "below bytes_per_sec", "0" } },
		/* A rate of the other dimension does not help. */
		{ { .bytes_per_sec = 10, .iops_burst = 10 },
		  { "iops_burst", "set iops", "0" } },
		{ { .iops = 10, .bytes_burst = 10 },
		  { "bytes_burst", "set bytes_per_sec", "0" } },
		/* Requests before bytes. */
		{ { .iops_burst = 1, .bytes_burst = 1 },
		  { "iops_burst", "iops", "0" } },
		{ { .reserved = { 1 } }, { "reserved", "not", "0" } },
		{ { .reserved = { 0, 0, 0, 1 } }, { "reserved", "not", "0" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *why = NULL;

		ck_assert_int_eq(ktvblk_throttle_check(&bad[i].throttle, NULL),
				 -EINVAL);
		ck_assert_int_eq(ktvblk_throttle_check(&bad[i].throttle, &why),
				 -EINVAL);
		for (size_t j = 0; j < ARRAY_SIZE(bad[i].words); j++)
			ck_assert_msg(strstr(why, bad[i].words[j]),
				      "case %zu: %s", i, why);
	}
}
END_TEST

START_TEST(no_throttle_is_told_why)
{
	const char *why = NULL;

	ck_assert_int_eq(ktvblk_throttle_check(NULL, NULL), -EINVAL);
	ck_assert_int_eq(ktvblk_throttle_check(NULL, &why), -EINVAL);
	ck_assert_ptr_nonnull(why);
}
END_TEST

TEST_PROGRAM("throttle-check", a_good_throttle_passes_the_check,
	     a_bad_throttle_is_told_why, no_throttle_is_told_why)
