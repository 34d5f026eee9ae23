/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A worker that was held up in guest memory for longer than the gate's grace
 * does nothing new when the page comes: no call into storage, no look at what
 * the guest has in its ring since, no used entry, interrupt, count or grant.
 */

#include <string.h>

#include "page.h"
#include "wedge.h"

#define BUDGET 30
#define ALL_OF_IT 0x55

/* What a reset must leave alone from then on. */
struct late {
	struct recorder rec;
	struct rig rig;
	struct page page;
	struct ktvblk_counters counters;
	unsigned int calls;
};

static unsigned int all_calls(struct late *late)
{
	struct storage *storage = late->rig.storage;

	return storage_calls(storage, OP_READ) +
	       storage_calls(storage, OP_WRITE) +
	       storage_calls(storage, OP_FLUSH);
}

static void late_open(struct late *late, uint64_t iops)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = BUDGET,
			    .throttle = { .iops = iops } },
	};

	wedge_record(&late->rec);
	rig_open(&late->rig, &options);
	rig_start(&late->rig);
	ck_assert_int_eq(rig_request(&late->rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert(eventually(worker_sleeps(&late->rig)));
}

static void late_restart(struct late *late, uint64_t features)
{
	rig_reset(&late->rig);
	/* The machine may be too busy for the budget; that is not the question. */
	if (recorder_count(&late->rec, KTVBLK_MESSAGE_RESET_TIMED_OUT))
		recorder_wait(&late->rec, KTVBLK_MESSAGE_RECLAIMED);
	recorder_clear(&late->rec);
	late->rig.options.features = features;
	rig_start(&late->rig);
	ck_assert(eventually(worker_sleeps(&late->rig)));
}

/* The worker is held up: reset, and have the memory as the guest's own. */
static void late_reset(struct late *late)
{
	page_wait(&late->page);
	rig_reset(&late->rig);
	expect_text(recorder_wait(&late->rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
		    "KTVBLK_FENCED", "no");
	late->calls = all_calls(late);
	late->counters = rig_counters(&late->rig);
	rig_irqs(&late->rig);
	memset(rig_at(&late->rig, RIG_USED), ALL_OF_IT, 4096);
	memset(rig_at(&late->rig, RIG_STATUS), ALL_OF_IT, 4096);
}

static bool is_untouched(struct late *late, uint64_t addr)
{
	const unsigned char *bytes =
		(const unsigned char *)rig_at(&late->rig, addr);

	for (unsigned int i = 0; i < 4096; i++)
		if (bytes[i] != ALL_OF_IT)
			return false;
	return true;
}

/* The page comes; the worker goes, and that is all it does. */
static void late_end(struct late *late, const void *bytes)
{
	struct ktvblk_counters after;

	page_bring(&late->page, bytes);
	recorder_wait(&late->rec, KTVBLK_MESSAGE_RECLAIMED);
	after = rig_counters(&late->rig);
	ck_assert_mem_eq(&after, &late->counters, sizeof(after));
	ck_assert_uint_eq(after.currently_throttled, 0);
	ck_assert_uint_eq(all_calls(late), late->calls);
	ck_assert_uint_eq(rig_irqs(&late->rig), 0);
	ck_assert(is_untouched(late, RIG_USED));
	ck_assert(is_untouched(late, RIG_STATUS));
	ck_assert_uint_eq(rig_status(&late->rig), 0);
	ck_assert_int_eq(recorder_count(&late->rec, NULL), 2);
}

static void late_close(struct late *late)
{
	wedge_close(&late->rig);
	recorder_stop(&late->rec);
}

START_TEST(a_write_is_not_begun_with_what_the_guest_put_there_since)
{
	unsigned char fresh[4096];
	struct late late;

	memset(fresh, 0xaa, sizeof(fresh));
	late_open(&late, 0);
	if (page_block(&late.page, rig_at(&late.rig, RIG_DATA))) {
		rig_chain(&late.rig, 0, VIRTIO_BLK_T_OUT, 3, 512);
		rig_avail(&late.rig, 0);
		rig_kick(&late.rig);
		late_reset(&late);
		late_end(&late, fresh);
		ck_assert_uint_eq(late.rig.storage->bytes[3 * 512],
				  storage_pattern(3 * 512));
	}
	late_close(&late);
}
END_TEST

/* A chain that is there since, good, bad, or beyond the queue. */
static void check_ring(uint16_t entries, uint16_t head, uint64_t iops)
{
	uint16_t fresh[2048] = { 0 };
	struct late late;

	late_open(&late, iops);
	if (page_block(&late.page, rig_at(&late.rig, RIG_AVAIL))) {
		rig_kick(&late.rig);
		late_reset(&late);
		rig_chain(&late.rig, 0, VIRTIO_BLK_T_OUT, 3, 512);
		memset(rig_at(&late.rig, RIG_STATUS), ALL_OF_IT, 4096);
		fresh[1] = htole16((uint16_t)(1 + entries));
		fresh[2 + 1] = htole16(head);
		late_end(&late, fresh);
	}
	late_close(&late);
}

START_TEST(the_ring_of_the_next_life_is_not_served)
{
	check_ring(1, 0, 0);
	check_ring(1, 999, 0);
	check_ring(100, 0, 0);
}
END_TEST

START_TEST(no_tokens_are_asked_for_and_nobody_waits_for_them)
{
	check_ring(1, 0, 1);
}
END_TEST

/* The first of two was answered; the second is held up in its copy. */
static void check_second(uint64_t features)
{
	const uint16_t heads[] = { 4, 0 };
	struct late late;

	late_open(&late, 0);
	late_restart(&late, features);
	if (page_block(&late.page, rig_at(&late.rig, RIG_DATA))) {
		rig_chain(&late.rig, 4, VIRTIO_BLK_T_GET_ID, 0, 0);
		rig_data(&late.rig, 4, VIRTIO_BLK_T_IN, 1,
			 &(struct rig_part){ RIG_DATA + 8192, 512, WRITABLE },
			 1);
		rig_chain(&late.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
		rig_avail_all(&late.rig, heads, 2);
		rig_kick(&late.rig);
		late_reset(&late);
		late_end(&late, NULL);
	}
	late_close(&late);
}

START_TEST(the_second_of_a_batch_is_neither_answered_nor_told_of)
{
	check_second(0);
	check_second(RIG_EVENT_IDX);
}
END_TEST

/*
 * The header of the second is long in coming, and then good, unknown or wrong;
 * the first is answered, and may not have been told of.
 */
static void check_header(uint32_t type)
{
	const uint64_t header = RIG_DATA + 8 * 4096;
	const struct rig_part parts[] = { { header, 16, READABLE },
					  { RIG_DATA, 512, WRITABLE },
					  { RIG_STATUS + 64, 1, WRITABLE } };
	const uint16_t heads[] = { 0, 8 };
	uint32_t fresh[1024] = { htole32(type) };
	struct late late;

	late_open(&late, 0);
	if (page_block(&late.page, rig_at(&late.rig, header))) {
		rig_chain(&late.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
		rig_parts(&late.rig, 8, parts, 3);
		rig_avail_all(&late.rig, heads, 2);
		rig_kick(&late.rig);
		late_reset(&late);
		late_end(&late, fresh);
	}
	late_close(&late);
}

/* The chain itself, and then it is none. */
static void check_table(void)
{
	const unsigned char fresh[4096] = { 0 };
	struct late late;

	late_open(&late, 0);
	if (page_block(&late.page, rig_at(&late.rig, RIG_DESC))) {
		rig_avail(&late.rig, 0);
		rig_kick(&late.rig);
		late_reset(&late);
		late_end(&late, fresh);
	}
	late_close(&late);
}

START_TEST(a_request_that_was_long_in_coming_is_not_answered)
{
	check_table();
	check_header(VIRTIO_BLK_T_IN);
	check_header(VIRTIO_BLK_T_FLUSH);
	check_header(99);
}
END_TEST

/* The very bytes that were being written come; nothing is made of them. */
static void check_answer(uint64_t held, uint64_t free, unsigned int most)
{
	unsigned char fresh[4096];
	const unsigned char *bytes;
	unsigned int changed = 0;
	struct late late;

	memset(fresh, ALL_OF_IT, sizeof(fresh));
	late_open(&late, 0);
	/* Then nothing is written to the used ring before the entry. */
	late_restart(&late, RIG_EVENT_IDX);
	rig_chain(&late.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	if (page_block(&late.page, rig_at(&late.rig, held))) {
		rig_avail(&late.rig, 0);
		rig_kick(&late.rig);
		page_wait(&late.page);
		rig_reset(&late.rig);
		rig_irqs(&late.rig);
		memset(rig_at(&late.rig, free), ALL_OF_IT, 4096);
		page_bring(&late.page, fresh);
		recorder_wait(&late.rec, KTVBLK_MESSAGE_RECLAIMED);
		ck_assert(is_untouched(&late, free));
		bytes = (unsigned char *)rig_at(&late.rig, held);
		for (unsigned int i = 0; i < 4096; i++)
			changed += bytes[i] != ALL_OF_IT;
		ck_assert_uint_le(changed, most);
		ck_assert_uint_eq(rig_irqs(&late.rig), 0);
	}
	late_close(&late);
}

START_TEST(an_answer_that_was_held_up_is_not_published)
{
	check_answer(RIG_STATUS, RIG_USED, 1);
	/* An entry; of the index nothing. */
	check_answer(RIG_USED, RIG_DATA + 8 * 4096, 8);
}
END_TEST

/* Of a copy over many pages the one that was waited for is the last. */
START_TEST(a_copy_ends_with_the_page_it_waited_for)
{
	const unsigned char *data;
	struct late late;

	late_open(&late, 0);
	memset(rig_at(&late.rig, RIG_DATA), ALL_OF_IT, 4 * 4096);
	if (page_block(&late.page, rig_at(&late.rig, RIG_DATA + 4096))) {
		rig_chain(&late.rig, 0, VIRTIO_BLK_T_IN, 0, 4 * 4096);
		rig_avail(&late.rig, 0);
		rig_kick(&late.rig);
		late_reset(&late);
		late_end(&late, NULL);
		data = (unsigned char *)rig_at(&late.rig, RIG_DATA);
		ck_assert_uint_eq(data[4095], storage_pattern(4095));
		ck_assert_uint_eq(data[2 * 4096], ALL_OF_IT);
		ck_assert_uint_eq(data[4 * 4096 - 1], ALL_OF_IT);
	}
	late_close(&late);
}
END_TEST

TEST_PROGRAM("late", a_write_is_not_begun_with_what_the_guest_put_there_since,
	     the_ring_of_the_next_life_is_not_served,
	     no_tokens_are_asked_for_and_nobody_waits_for_them,
	     the_second_of_a_batch_is_neither_answered_nor_told_of,
	     a_request_that_was_long_in_coming_is_not_answered,
	     an_answer_that_was_held_up_is_not_published,
	     a_copy_ends_with_the_page_it_waited_for)
