/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* 128-bit products and their quotients, against those done by hand. */

#include "harness.h"
#include "wide.h"

#define ALL UINT64_MAX
#define TOP (UINT64_C(1) << 63)

START_TEST(products_are_whole)
{
	static const struct {
		uint64_t a, b, high, low;
	} known[] = {
		{ 0, ALL, 0, 0 },
		{ 1, ALL, 0, ALL },
		{ ALL, 1, 0, ALL },
		{ TOP, 2, 1, 0 },
		{ UINT32_MAX, UINT32_MAX, 0, UINT64_C(0xfffffffe00000001) },
		{ UINT64_C(1) << 32, UINT64_C(1) << 32, 1, 0 },
		{ ALL, ALL, ALL - 1, 1 },
		{ ALL, NSEC_PER_SEC, NSEC_PER_SEC - 1, ALL - NSEC_PER_SEC + 1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		const struct wide w = wide_mul(known[i].a, known[i].b);

		ck_assert_uint_eq(w.high, known[i].high);
		ck_assert_uint_eq(w.low, known[i].low);
	}
}
END_TEST

START_TEST(sums_and_differences_carry)
{
	struct wide w = wide_add((struct wide){ .low = ALL }, 1);

	ck_assert(w.high == 1 && w.low == 0);
	w = wide_sub(w, 1);
	ck_assert(w.high == 0 && w.low == ALL);
}
END_TEST

START_TEST(what_does_not_fit_is_the_most)
{
	uint64_t rest;

	ck_assert_uint_eq(wide_div((struct wide){ 5, 0 }, 5, &rest), ALL);
	ck_assert_uint_eq(wide_div((struct wide){ 4, ALL }, 5, &rest), ALL);
	ck_assert_uint_eq(rest, 4);
}
END_TEST

/* n * by + rest is taken apart into n and rest, whatever they are. */
START_TEST(quotients_undo_products)
{
	static const uint64_t some[] = { 1,
					 2,
					 3,
					 1000,
					 NSEC_PER_SEC,
					 UINT32_MAX,
					 UINT64_C(1) << 32,
					 TOP - 1,
					 TOP,
					 TOP + 1,
					 ALL - 1,
					 ALL };

	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		for (size_t j = 0; j < ARRAY_SIZE(some); j++)
			for (int k = 0; k < 3; k++) {
				const uint64_t by = some[j];
				const uint64_t more = k == 0   ? 0
						      : k == 1 ? by / 2
							       : by - 1;
				uint64_t rest;

				ck_assert_uint_eq(
					wide_div(wide_add(wide_mul(some[i], by),
							  more),
						 by, &rest),
					some[i]);
				ck_assert_uint_eq(rest, more);
			}
}
END_TEST

TEST_PROGRAM("wide", products_are_whole, sums_and_differences_carry,
	     what_does_not_fit_is_the_most, quotients_undo_products)
