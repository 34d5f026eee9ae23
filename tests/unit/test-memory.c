/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Nothing outside the regions is ever reached, whatever the guest says; what
 * the guest may be changing is read once; release() runs once, at the end.
 */

/* wrap: malloc calloc */

#include <string.h>
#include <sys/mman.h>

#include "alloc-fails.h"
#include "harness.h"
#include "memory.h"

#define PAGE 4096u
#define PAGES 8u
#define TOP UINT64_MAX

/*
 *   guest  0x1000 0x2000 | 0x3000 | hole | 0x5000 | hole | HIGH HIGH + 0x1000
 *   host   page 4, 5     | page 0 |      | page 2 |      | page 6, 7
 *
 * Neighbours for the guest are none for the host, and 1 and 3 are nobody's.
 */
#define HIGH UINT64_C(0x100000000)

static unsigned char *pages;
static int released;

static void release(void *userdata)
{
	ck_assert_ptr_eq(userdata, &released);
	released++;
}

static void map_pages(void)
{
	pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(pages, MAP_FAILED);
	for (size_t i = 0; i < PAGES * PAGE; i++)
		pages[i] = (unsigned char)(i * 7 + i / PAGE);
	released = 0;
}

static struct ktvblk_mem *guest_memory(void)
{
	map_pages();

	const struct ktvblk_region regions[] = {
		{ .guest_addr = HIGH,
		  .host_addr = pages + 6 * PAGE,
		  .size = 2 * PAGE },
		{ .guest_addr = 0x3000, .host_addr = pages, .size = PAGE },
		{ .guest_addr = 0x1000,
		  .host_addr = pages + 4 * PAGE,
		  .size = 2 * PAGE },
		{ .guest_addr = 0x5000,
		  .host_addr = pages + 2 * PAGE,
		  .size = PAGE },
	};
	struct ktvblk_mem *mem = NULL;

	ck_assert_int_eq(ktvblk_mem_new(regions, ARRAY_SIZE(regions), release,
					&released, &mem),
			 0);
	return mem;
}

static void drop(struct ktvblk_mem *mem)
{
	ck_assert_ptr_null(ktvblk_mem_unref(mem));
	ck_assert_int_eq(released, 1);
	munmap(pages, PAGES * PAGE);
}

/* A host address of the right shape that is never used. */
#define HOST ((void *)(uintptr_t)0x7000)

START_TEST(bad_regions_are_refused)
{
	static const struct ktvblk_region bad[][2] = {
		{ { 0x1000, NULL, PAGE, { 0 } } },
		{ { 0x1000, HOST, 0, { 0 } } },
		{ { 0x1000, HOST, PAGE, { 2 } } },
		{ { 0x1000, HOST, PAGE, { UINT64_C(1) << 63 } } },
		/* not aligned */
		{ { 0x1001, HOST, PAGE, { 0 } } },
		{ { 0x1800, HOST, PAGE, { 0 } } },
		{ { 0x1000, (char *)HOST + 1, PAGE, { 0 } } },
		{ { 0x1000, (char *)HOST + 2048, PAGE, { 0 } } },
		{ { 0x1000, HOST, PAGE + 512, { 0 } } },
		{ { 0x1000, HOST, 1, { 0 } } },
		/* beyond the end of all addresses */
		{ { TOP - PAGE + 1, HOST, 2 * PAGE, { 0 } } },
		{ { TOP - PAGE + 1, HOST, PAGE, { 0 } } },
		{ { PAGE, HOST, TOP - PAGE + 1, { 0 } } },
		{ { 0, HOST, TOP - PAGE + 1, { 0 } } },
		{ { 0, (void *)(uintptr_t)(TOP - PAGE + 1), PAGE, { 0 } } },
		/* overlaps */
		{ { 0x1000, HOST, PAGE, { 0 } },
		  { 0x1000, HOST, PAGE, { 0 } } },
		{ { 0x1000, HOST, 2 * PAGE, { 0 } },
		  { 0x2000, HOST, PAGE, { 0 } } },
		{ { 0x2000, HOST, PAGE, { 0 } },
		  { 0x1000, HOST, 2 * PAGE, { 0 } } },
		{ { 0x1000, HOST, 8 * PAGE, { 0 } },
		  { 0x2000, HOST, PAGE, { 0 } } },
		/* a good one does not help a bad one */
		{ { 0x1000, HOST, PAGE, { 0 } }, { 0x3000, HOST, 17, { 0 } } },
	};
	struct ktvblk_mem *const untouched = (struct ktvblk_mem *)&released;
	struct ktvblk_mem *mem = untouched;

	released = 0;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const size_t n = bad[i][1].size ? 2 : 1;

		ck_assert_msg(ktvblk_mem_new(bad[i], n, release, &released,
					     &mem) == -EINVAL,
			      "case %zu", i);
		ck_assert_ptr_eq(mem, untouched);
	}
	ck_assert_int_eq(released, 0);
}
END_TEST

START_TEST(an_overlap_that_is_not_with_the_neighbour_is_refused)
{
	const struct ktvblk_region regions[] = {
		{ 0x8000, HOST, PAGE, { 0 } },
		{ 0x2000, HOST, PAGE, { 0 } },
		{ 0x1000, HOST, 9 * PAGE, { 0 } },
	};
	struct ktvblk_mem *mem = NULL;

	ck_assert_int_eq(ktvblk_mem_new(regions, ARRAY_SIZE(regions), NULL,
					NULL, &mem),
			 -EINVAL);
	ck_assert_ptr_null(mem);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
	const struct ktvblk_region region = { 0x1000, HOST, PAGE, { 0 } };
	struct ktvblk_mem *mem = NULL;

	released = 0;
	ck_assert_int_eq(ktvblk_mem_new(NULL, 1, release, &released, &mem),
			 -EINVAL);
	ck_assert_int_eq(ktvblk_mem_new(&region, 0, release, &released, &mem),
			 -EINVAL);
	ck_assert_int_eq(ktvblk_mem_new(&region, 1, release, &released, NULL),
			 -EINVAL);
	ck_assert_ptr_null(mem);
	ck_assert_int_eq(released, 0);
}
END_TEST

START_TEST(without_memory_there_is_no_guest_memory)
{
	const struct ktvblk_region region = { 0x1000, HOST, PAGE, { 0 } };
	struct ktvblk_mem *mem = NULL;

	released = 0;
	alloc_fails = 1;
	ck_assert_int_eq(ktvblk_mem_new(&region, 1, release, &released, &mem),
			 -ENOMEM);
	ck_assert_ptr_null(mem);
	ck_assert_int_eq(released, 0);
}
END_TEST

START_TEST(the_regions_are_copied)
{
	struct ktvblk_region region = { 0x1000, NULL, PAGE, { 0 } };
	struct ktvblk_mem *mem = NULL;

	map_pages();
	region.host_addr = pages;
	ck_assert_int_eq(ktvblk_mem_new(&region, 1, release, &released, &mem),
			 0);
	memset(&region, 0xff, sizeof(region));
	ck_assert_ptr_eq(mem_at(mem, 0x1000, PAGE), pages);
	drop(mem);
}
END_TEST

START_TEST(release_runs_once_with_the_last_reference)
{
	struct ktvblk_mem *mem = guest_memory();

	ck_assert_ptr_eq(ktvblk_mem_ref(mem), mem);
	ck_assert_ptr_eq(ktvblk_mem_ref(mem), mem);
	ck_assert_ptr_null(ktvblk_mem_unref(mem));
	ck_assert_ptr_null(ktvblk_mem_unref(mem));
	ck_assert_int_eq(released, 0);
	drop(mem);
}
END_TEST

START_TEST(release_may_be_none)
{
	const struct ktvblk_region region = { 0x1000, HOST, PAGE, { 0 } };
	struct ktvblk_mem *mem = NULL;

	ck_assert_int_eq(ktvblk_mem_new(&region, 1, NULL, NULL, &mem), 0);
	ktvblk_mem_unrefp(&mem);
}
END_TEST

START_TEST(null_memory_is_taken_and_given)
{
	struct ktvblk_mem *none = NULL;

	ck_assert_ptr_null(ktvblk_mem_ref(NULL));
	ck_assert_ptr_null(ktvblk_mem_unref(NULL));
	ktvblk_mem_unrefp(&none);
}
END_TEST

static void *ref_and_unref(void *arg)
{
	struct ktvblk_mem *mem = (struct ktvblk_mem *)arg;

	for (int i = 0; i < 20000; i++)
		ktvblk_mem_unref(ktvblk_mem_ref(mem));
	return ktvblk_mem_unref(mem);
}

START_TEST(the_last_of_many_threads_releases)
{
	struct ktvblk_mem *mem = guest_memory();
	pthread_t threads[4];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
						ref_and_unref,
						ktvblk_mem_ref(mem)),
				 0);
	ktvblk_mem_unref(mem);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(released, 1);
	munmap(pages, PAGES * PAGE);
}
END_TEST

/*
 * Addresses
 */

static const struct {
	uint64_t addr;
	uint64_t len;
	uint64_t covered; /* how much of it from the start */
	unsigned int page; /* and where in the host's memory */
	unsigned int offset;
	uint64_t span; /* in one piece */
} lookups[] = {
	{ 0x1000, 1, 1, 4, 0, 1 },
	{ 0x1fff, 2, 2, 4, PAGE - 1, 2 },
	{ 0x2fff, 1, 1, 5, PAGE - 1, 1 },
	/* the last byte, and one behind it */
	{ 0x3fff, 1, 1, 0, PAGE - 1, 1 },
	{ 0x3fff, 2, 1, 0, PAGE - 1, 1 },
	{ 0x4000, 1, 0, 0, 0, 0 },
	{ 0x4fff, 2, 0, 0, 0, 0 },
	{ 0x0fff, 2, 0, 0, 0, 0 },
	{ 0, 1, 0, 0, 0, 0 },
	{ HIGH + 2 * PAGE - 1, 1, 1, 7, PAGE - 1, 1 },
	{ HIGH + 2 * PAGE - 1, 2, 1, 7, PAGE - 1, 1 },
	{ HIGH + 2 * PAGE, 1, 0, 0, 0, 0 },
	{ HIGH - 1, 1, 0, 0, 0, 0 },
	/* over the border of two regions, one piece each */
	{ 0x1000, 0x3000, 0x3000, 4, 0, 2 * PAGE },
	{ 0x2ffc, 8, 8, 5, PAGE - 4, 4 },
	/* up to the hole */
	{ 0x1000, 0x3001, 0x3000, 4, 0, 2 * PAGE },
	{ 0x5000, HIGH, PAGE, 2, 0, PAGE },
	/* address and length wrap */
	{ 0x5000, TOP, PAGE, 2, 0, PAGE },
	{ 0x1000, TOP - 0xfff, 0x3000, 4, 0, 2 * PAGE },
	{ 0x5008, TOP - 0x5007, PAGE - 8, 2, 8, PAGE - 8 },
	{ TOP, 1, 0, 0, 0, 0 },
	{ TOP, TOP, 0, 0, 0, 0 },
	{ TOP - 0xfff, 0x3000, 0, 0, 0, 0 },
};

START_TEST(a_span_ends_where_its_region_does)
{
	struct ktvblk_mem *mem = guest_memory();

	for (size_t i = 0; i < ARRAY_SIZE(lookups); i++) {
		const unsigned char *want =
			lookups[i].span ? pages + lookups[i].page * PAGE +
						  lookups[i].offset
					: NULL;
		uint64_t len = 99;
		const void *have =
			mem_span(mem, lookups[i].addr, lookups[i].len, &len);

		ck_assert_msg(have == want && len == lookups[i].span,
			      "case %zu", i);
		ck_assert_ptr_eq(mem_at(mem, lookups[i].addr, lookups[i].len),
				 len == lookups[i].len ? want : NULL);
	}
	drop(mem);
}
END_TEST

START_TEST(what_is_not_wholly_inside_is_refused)
{
	struct ktvblk_mem *mem = guest_memory();
	unsigned char buf[3 * PAGE];

	for (size_t i = 0; i < ARRAY_SIZE(lookups); i++) {
		const uint64_t addr = lookups[i].addr, len = lookups[i].len;
		const bool ok = lookups[i].covered == len;

		ck_assert_msg(mem_covers(mem, addr, len) == ok, "case %zu", i);
		if (lookups[i].covered > sizeof(buf))
			continue;
		ck_assert_msg(mem_read(mem, addr, buf, len) == ok, "case %zu",
			      i);
		ck_assert_msg(mem_read_once(mem, addr, buf, len) == ok,
			      "case %zu", i);
		ck_assert_msg(mem_write(mem, addr, buf, len) == ok, "case %zu",
			      i);
	}
	for (size_t i = 0; i < ARRAY_SIZE(lookups); i++)
		ck_assert_msg(mem_zero(mem, lookups[i].addr, lookups[i].len) ==
				      (lookups[i].covered == lookups[i].len),
			      "case %zu", i);
	drop(mem);
}
END_TEST

START_TEST(no_bytes_are_anywhere)
{
	struct ktvblk_mem *mem = guest_memory();
	unsigned char byte = 0x5a;

	ck_assert(mem_covers(mem, 0x4000, 0));
	ck_assert(mem_covers(mem, TOP, 0));
	ck_assert(mem_read(mem, TOP, &byte, 0));
	ck_assert(mem_read_once(mem, TOP, &byte, 0));
	ck_assert(mem_write(mem, TOP, &byte, 0));
	ck_assert(mem_zero(mem, TOP, 0));
	ck_assert_uint_eq(byte, 0x5a);
	drop(mem);
}
END_TEST

START_TEST(every_border_of_many_regions_is_found)
{
	struct ktvblk_region regions[257];
	const size_t n = ARRAY_SIZE(regions);
	struct ktvblk_mem *mem = NULL;

	/* Unsorted, holes of every size; never dereferenced. */
	for (size_t i = 0; i < n; i++) {
		const uint64_t k = i * 101 % n;

		regions[i] = (struct ktvblk_region){
			.guest_addr = k * 0x10000,
			.host_addr = (void *)(uintptr_t)((k + 1) << 20),
			.size = (1 + k % 16) * PAGE,
		};
	}
	ck_assert_int_eq(ktvblk_mem_new(regions, n, NULL, NULL, &mem), 0);
	for (size_t i = 0; i < n; i++) {
		const uint64_t start = regions[i].guest_addr;
		const uint64_t end = start + regions[i].size;
		char *host = (char *)regions[i].host_addr;
		const bool hole = regions[i].size < 0x10000;

		ck_assert_ptr_eq(mem_at(mem, start, 1), host);
		ck_assert_ptr_eq(mem_at(mem, end - 1, 1),
				 host + regions[i].size - 1);
		ck_assert_ptr_null(mem_at(mem, end - 1, 2));
		ck_assert_int_eq(mem_covers(mem, end - 1, 2),
				 !hole && start / 0x10000 < n - 1);
	}
	ktvblk_mem_unref(mem);
}
END_TEST

START_TEST(the_highest_page_but_one_is_memory)
{
	struct ktvblk_region region = { TOP - 2 * PAGE + 1, NULL, PAGE, { 0 } };
	struct ktvblk_mem *mem = NULL;

	map_pages();
	region.host_addr = pages;
	ck_assert_int_eq(ktvblk_mem_new(&region, 1, release, &released, &mem),
			 0);
	ck_assert_ptr_eq(mem_at(mem, TOP - PAGE, 1), pages + PAGE - 1);
	ck_assert(!mem_covers(mem, TOP - PAGE, 2));
	ck_assert(!mem_covers(mem, TOP - PAGE, TOP));
	drop(mem);
}
END_TEST

/*
 * Copies
 */

START_TEST(copies_cross_from_region_to_region)
{
	struct ktvblk_mem *mem = guest_memory();
	unsigned char want[PAGE], have[PAGE];

	/* The second half of page 5, then the first of page 0. */
	memcpy(want, pages + 5 * PAGE + PAGE / 2, PAGE / 2);
	memcpy(want + PAGE / 2, pages, PAGE / 2);
	ck_assert(mem_read(mem, 0x2800, have, PAGE));
	ck_assert_mem_eq(have, want, PAGE);
	memset(have, 0, PAGE);
	ck_assert(mem_read_once(mem, 0x2800, have, PAGE));
	ck_assert_mem_eq(have, want, PAGE);

	for (size_t i = 0; i < PAGE; i++)
		want[i] = (unsigned char)~want[i];
	ck_assert(mem_write(mem, 0x2800, want, PAGE));
	ck_assert_mem_eq(pages + 5 * PAGE + PAGE / 2, want, PAGE / 2);
	ck_assert_mem_eq(pages, want + PAGE / 2, PAGE / 2);

	memset(want, 0, PAGE);
	ck_assert(mem_zero(mem, 0x2800, PAGE));
	ck_assert_mem_eq(pages + 5 * PAGE + PAGE / 2, want, PAGE / 2);
	ck_assert_mem_eq(pages, want, PAGE / 2);
	drop(mem);
}
END_TEST

START_TEST(writes_touch_nothing_beside_them)
{
	struct ktvblk_mem *mem = guest_memory();
	unsigned char before[PAGES * PAGE];
	const unsigned char two[] = { 0xa5, 0x5a };

	memcpy(before, pages, sizeof(before));
	ck_assert(mem_write(mem, 0x2fff, two, 2));
	ck_assert(mem_zero(mem, 0x5800, 3));
	before[6 * PAGE - 1] = 0xa5;
	before[0] = 0x5a;
	memset(before + 2 * PAGE + PAGE / 2, 0, 3);
	ck_assert_mem_eq(pages, before, sizeof(before));
	drop(mem);
}
END_TEST

START_TEST(read_once_reads_the_same_at_every_alignment)
{
	struct ktvblk_mem *mem = guest_memory();
	unsigned char have[64];

	for (unsigned int offset = 0; offset < 16; offset++)
		for (unsigned int len = 0; len <= 40; len++) {
			memset(have, 0xee, sizeof(have));
			ck_assert(mem_read_once(mem, 0x1000 + offset, have + 8,
						len));
			ck_assert_mem_eq(have + 8, pages + 4 * PAGE + offset,
					 len);
			ck_assert_uint_eq(have[7], 0xee);
			ck_assert_uint_eq(have[8 + len], 0xee);
		}
	drop(mem);
}
END_TEST

struct flipper {
	uint64_t *words;
	atomic_bool stop;
};

static void *flip(void *arg)
{
	struct flipper *flipper = (struct flipper *)arg;

	for (uint64_t word = 0; !atomic_load(&flipper->stop); word = ~word)
		for (int i = 0; i < 2; i++)
			__atomic_store_n(&flipper->words[i], word,
					 __ATOMIC_RELAXED);
	return NULL;
}

START_TEST(read_once_tears_no_word_the_guest_is_changing)
{
	struct ktvblk_mem *mem = guest_memory();
	struct flipper flipper = { .words = (uint64_t *)(pages + 4 * PAGE) };
	pthread_t thread;
	uint64_t have[2];

	flipper.words[0] = flipper.words[1] = 0;
	ck_assert_int_eq(pthread_create(&thread, NULL, flip, &flipper), 0);
	for (int i = 0; i < 20000; i++) {
		ck_assert(mem_read_once(mem, 0x1000, have, sizeof(have)));
		ck_assert(have[0] == 0 || have[0] == TOP);
		ck_assert(have[1] == 0 || have[1] == TOP);
	}
	atomic_store(&flipper.stop, true);
	pthread_join(thread, NULL);
	drop(mem);
}
END_TEST

START_TEST(a_ring_field_is_found_or_is_null)
{
	struct ktvblk_mem *mem = guest_memory();

	ck_assert_ptr_eq((void *)mem_at(mem, 0x1000, 2), pages + 4 * PAGE);
	ck_assert_ptr_eq((void *)mem_at(mem, 0x3ffe, 2), pages + PAGE - 2);
	ck_assert_ptr_null((void *)mem_at(mem, 0x4000, 2));
	ck_assert_ptr_null((void *)mem_at(mem, 0x4ffe, 2));
	ck_assert_ptr_null((void *)mem_at(mem, TOP - 1, 2));
	drop(mem);
}
END_TEST

TEST_PROGRAM("memory", bad_regions_are_refused,
	     an_overlap_that_is_not_with_the_neighbour_is_refused,
	     bad_arguments_are_refused, without_memory_there_is_no_guest_memory,
	     the_regions_are_copied, release_runs_once_with_the_last_reference,
	     release_may_be_none, null_memory_is_taken_and_given,
	     the_last_of_many_threads_releases,
	     a_span_ends_where_its_region_does,
	     what_is_not_wholly_inside_is_refused, no_bytes_are_anywhere,
	     every_border_of_many_regions_is_found,
	     the_highest_page_but_one_is_memory,
	     copies_cross_from_region_to_region,
	     writes_touch_nothing_beside_them,
	     read_once_reads_the_same_at_every_alignment,
	     read_once_tears_no_word_the_guest_is_changing,
	     a_ring_field_is_found_or_is_null)
