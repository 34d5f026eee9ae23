/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Many requests in flight, with storage that answers later. */

#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "fleet.h"
#include "harness.h"
#include "recorder.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define MANY 32u

struct sea {
	struct later later;
	struct rig rig;
};

static void sea_open(struct sea *sea, const struct rig_options *options)
{
	struct rig_options ours = options ? *options : fleet_options();

	later_init(&sea->later);
	ours.later = &sea->later;
	ours.queue_size = FLEET_QUEUE;
	rig_open(&sea->rig, &ours);
	rig_start(&sea->rig);
}

static void sea_close(struct sea *sea)
{
	ck_assert_uint_eq(later_count(&sea->later), 0);
	rig_close(&sea->rig);
}

START_TEST(many_are_with_the_storage_at_once_and_end_in_any_order)
{
	const uint32_t type = _i ? T_OUT : T_IN;
	struct sea sea;

	sea_open(&sea, NULL);
	fleet_send(&sea.rig, 0, MANY, type);
	later_wait(&sea.later, MANY);
	for (unsigned int n = 0; n < MANY; n++) {
		/* The last, the first, the last ... */
		later_complete(&sea.later,
			       n % 2 ? 0 : later_count(&sea.later) - 1);
		rig_wait_used(&sea.rig, (uint16_t)(n + 1));
		ck_assert_uint_eq(fleet_used(&sea.rig, n),
				  n % 2 ? n / 2 : MANY - 1 - n / 2);
	}
	for (unsigned int i = 0; i < MANY; i++)
		fleet_expect(&sea.rig, i, OK);
	ck_assert_uint_eq(_i ? rig_counters(&sea.rig).writes_completed
			     : rig_counters(&sea.rig).reads_completed,
			  MANY);
	sea_close(&sea);
}
END_TEST

START_TEST(storage_that_answers_at_once_may)
{
	struct sea sea;

	sea_open(&sea, NULL);
	sea.later.at_once = true;
	fleet_send(&sea.rig, 0, MANY, T_IN);
	rig_wait_used(&sea.rig, MANY);
	for (unsigned int i = 0; i < MANY; i++)
		fleet_expect(&sea.rig, i, OK);
	sea_close(&sea);
}
END_TEST

START_TEST(no_more_than_the_depth)
{
	struct rig_options options = fleet_options();
	struct sea sea;

	options.config.depth = 4;
	sea_open(&sea, &options);
	fleet_send(&sea.rig, 0, 10, T_IN);
	later_wait(&sea.later, 4);
	for (unsigned int n = 0; n < 10; n++) {
		ck_assert_uint_le(later_ever(&sea.later, OP_READ), n + 4);
		later_complete(&sea.later, 0);
		rig_wait_used(&sea.rig, (uint16_t)(n + 1));
		later_wait(&sea.later, MIN(4, 9 - n));
	}
	sea_close(&sea);
}
END_TEST

START_TEST(one_that_comes_again_while_it_is_in_service_poisons_the_queue)
{
	struct recorder rec;
	struct sea sea;

	wedge_record(&rec);
	sea_open(&sea, NULL);
	fleet_send(&sea.rig, 0, 3, T_IN);
	later_wait(&sea.later, 3);
	rig_avail(&sea.rig, 3); /* number 1 */
	rig_kick(&sea.rig);
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_QUEUE_POISONED_HEAD),
		      KTVBLK_FIELD_HEAD, 3);
	ck_assert(eventually(rig_status(&sea.rig) ==
			     (S_OK | VIRTIO_CONFIG_S_NEEDS_RESET)));
	ck_assert_uint_eq(later_count(&sea.later), 3);
	/* What is there ends, once. */
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 3);
	for (unsigned int i = 0; i < 3; i++)
		fleet_expect(&sea.rig, i, OK);
	rig_reset(&sea.rig);
	ck_assert_uint_eq(rig_used_idx(&sea.rig), 3);
	rig_start(&sea.rig);
	fleet_send(&sea.rig, 1, 1, T_IN);
	later_wait(&sea.later, 1);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 1);
	sea_close(&sea);
	recorder_stop(&rec);
}
END_TEST

START_TEST(one_that_was_answered_may_come_again)
{
	struct sea sea;

	sea_open(&sea, NULL);
	fleet_send(&sea.rig, 0, 2, T_IN);
	later_wait(&sea.later, 2);
	for (unsigned int n = 1; n < 20; n++) {
		later_complete(&sea.later, later_count(&sea.later) - 1);
		rig_wait_used(&sea.rig, (uint16_t)n);
		fleet_send(&sea.rig, 1, 1, T_IN);
		later_wait(&sea.later, 2);
	}
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 21);
	sea_close(&sea);
}
END_TEST

START_TEST(a_pause_waits_for_all_that_is_in_flight)
{
	struct sea sea;

	sea_open(&sea, NULL);
	fleet_send(&sea.rig, 0, MANY, T_OUT);
	later_wait(&sea.later, MANY);
	ck_assert_int_eq(ktvblk_pause(sea.rig.dev, 10), -ETIMEDOUT);
	ck_assert_int_eq(ktvblk_pause_begin(sea.rig.dev, -1), 0);
	fleet_send(&sea.rig, MANY, 1, T_OUT);
	for (unsigned int n = 0; n < MANY; n++) {
		ck_assert_int_eq(ktvblk_is_paused(sea.rig.dev), 0);
		later_complete(&sea.later, 0);
		rig_wait_used(&sea.rig, (uint16_t)(n + 1));
	}
	ck_assert(eventually(ktvblk_is_paused(sea.rig.dev) == 1));
	ck_assert_uint_eq(later_ever(&sea.later, OP_WRITE), MANY);
	ck_assert_int_eq(ktvblk_resume(sea.rig.dev), 1);
	later_wait(&sea.later, 1);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, MANY + 1);
	sea_close(&sea);
}
END_TEST

/* In chunks of its own buffer, however many are beside it. */
START_TEST(large_ones_go_in_chunks_side_by_side)
{
	const struct rig_part halves[] = {
		{ RIG_DATA, 1u << 20, _i ? READABLE : WRITABLE },
		{ RIG_DATA + (1u << 20), 1u << 20, _i ? READABLE : WRITABLE },
	};
	struct rig_options options = fleet_options();
	unsigned int n = 0;
	struct sea sea;

	options.disk_bytes = 1u << 20;
	sea_open(&sea, &options);
	for (unsigned int i = 0; i < 2; i++) {
		memset(rig_at(&sea.rig, halves[i].addr), 0x11 * (int)(i + 1),
		       halves[i].len);
		rig_data(&sea.rig, (uint16_t)(i * 3), _i ? T_OUT : T_IN, 0,
			 &halves[i], 1);
	}
	rig_avail_all(&sea.rig, (const uint16_t[]){ 0, 3 }, 2);
	rig_kick(&sea.rig);
	later_wait(&sea.later, 2);
	while (rig_used_idx(&sea.rig) < 2) {
		if (!later_count(&sea.later))
			continue;
		ck_assert_uint_le(
			later_look(&sea.later, 0).length,
			sea.rig.dev->queues[0].session->pages.bounce_bytes);
		later_complete(&sea.later, 0);
		n++;
	}
	ck_assert_uint_ge(n, 4);
	for (unsigned int i = 0; i < 2; i++)
		ck_assert(_i || memcmp(rig_at(&sea.rig, halves[i].addr),
				       sea.rig.storage->bytes, 1u << 20) == 0);
	if (_i)
		ck_assert_uint_eq(sea.rig.storage->bytes[0] % 0x11, 0);
	sea_close(&sea);
}
END_TEST

/* It keeps the room that is common to all, so the next waits: see flight.h. */
START_TEST(one_in_very_many_pieces_goes_before_the_next)
{
	enum { PIECES = 200 };
	struct rig_part parts[PIECES];
	struct rig_options options = fleet_options();
	struct sea sea;

	for (unsigned int i = 0; i < PIECES; i++)
		parts[i] =
			(struct rig_part){ 0x40000 + i * 1024u, 512, WRITABLE };
	options.disk_bytes = 1u << 20;
	sea_open(&sea, &options);
	fleet_chain(&sea.rig, 0, T_IN);
	rig_data(&sea.rig, 30, T_IN, 0, parts, PIECES);
	fleet_chain(&sea.rig, 1, T_IN);
	rig_avail_all(&sea.rig, (const uint16_t[]){ 0, 30, 3 }, 3);
	rig_kick(&sea.rig);
	later_wait(&sea.later, 2);
	later_complete(&sea.later, 1);
	rig_wait_used(&sea.rig, 1);
	later_wait(&sea.later, 2);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 3);
	fleet_expect(&sea.rig, 0, OK);
	fleet_expect(&sea.rig, 1, OK);
	for (unsigned int i = 0; i < PIECES; i++)
		ck_assert_mem_eq(rig_at(&sea.rig, parts[i].addr),
				 sea.rig.storage->bytes + i * 512, 512);
	sea_close(&sea);
}
END_TEST

START_TEST(a_storage_that_refuses_or_fails_fails_that_one)
{
	struct sea sea;

	sea_open(&sea, NULL);
	sea.later.refusal = -EIO;
	fleet_send(&sea.rig, 0, 1, T_IN);
	rig_wait_used(&sea.rig, 1);
	fleet_expect(&sea.rig, 0, IOERR);
	sea.later.refusal = 0;
	fleet_send(&sea.rig, 1, 3, T_IN);
	later_wait(&sea.later, 3);
	later_answer(&sea.later, 1, -ENOSPC);
	later_answer(&sea.later, 1, KTVBLK_SECTOR_SIZE + 1);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 4);
	fleet_expect(&sea.rig, 1, OK);
	fleet_expect(&sea.rig, 2, IOERR);
	fleet_expect(&sea.rig, 3, IOERR);
	ck_assert_uint_eq(rig_counters(&sea.rig).io_errors, 3);
	sea_close(&sea);
}
END_TEST

START_TEST(short_and_interrupted_answers_are_asked_for_the_rest)
{
	struct sea sea;

	sea_open(&sea, NULL);
	fleet_send(&sea.rig, 5, 1, T_OUT);
	later_wait(&sea.later, 1);
	later_answer(&sea.later, 0, -EINTR);
	later_wait(&sea.later, 1);
	ck_assert_uint_eq(later_look(&sea.later, 0).length, 512);
	memset(sea.rig.storage->bytes + 5 * 512, 5, 100);
	later_answer(&sea.later, 0, 100);
	later_wait(&sea.later, 1);
	ck_assert_uint_eq(later_look(&sea.later, 0).length, 412);
	ck_assert_uint_eq(later_look(&sea.later, 0).offset, 5 * 512 + 100);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 1);
	fleet_expect(&sea.rig, 5, OK);
	sea_close(&sea);
}
END_TEST

START_TEST(a_second_answer_is_told)
{
	struct ktvblk_io *io;
	struct sea sea;

	ck_assert_int_eq(ktvblk_io_complete(NULL, 0), -EINVAL);
	sea_open(&sea, NULL);
	fleet_send(&sea.rig, 0, 1, T_IN);
	later_wait(&sea.later, 1);
	io = sea.later.ios[0];
	later_complete(&sea.later, 0);
	ck_assert_int_eq(ktvblk_io_complete(io, 512), -EALREADY);
	rig_wait_used(&sea.rig, 1);
	sea_close(&sea);
}
END_TEST

START_TEST(a_flush_goes_beside_reads_and_only_where_something_was_written)
{
	struct sea sea;

	sea_open(&sea, NULL);
	/* Of who had the disk before, nothing is known. */
	fleet_send(&sea.rig, 0, 1, T_FLUSH);
	later_wait(&sea.later, 1);
	fleet_send(&sea.rig, 1, 4, T_IN);
	later_wait(&sea.later, 5);
	for (unsigned int n = 1; n < 5; n++) {
		later_complete(&sea.later, 1);
		rig_wait_used(&sea.rig, (uint16_t)n);
	}
	later_complete(&sea.later, 0);
	rig_wait_used(&sea.rig, 5);
	fleet_send(&sea.rig, 5, 1, T_FLUSH);
	rig_wait_used(&sea.rig, 6);
	ck_assert_uint_eq(later_ever(&sea.later, OP_FLUSH), 1);
	ck_assert_int_eq(fleet_status(&sea.rig, 5), OK);
	/* A write that ends while a flush is out is not covered by it. */
	fleet_send(&sea.rig, 6, 2, T_OUT);
	later_wait(&sea.later, 2);
	later_complete(&sea.later, 0);
	rig_wait_used(&sea.rig, 7);
	fleet_send(&sea.rig, 8, 1, T_FLUSH);
	later_wait(&sea.later, 2);
	later_complete(&sea.later, 0);
	rig_wait_used(&sea.rig, 8);
	later_complete(&sea.later, 0);
	rig_wait_used(&sea.rig, 9);
	ck_assert_uint_eq(later_ever(&sea.later, OP_FLUSH), 2);
	fleet_send(&sea.rig, 9, 1, T_FLUSH);
	later_wait(&sea.later, 1);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 10);
	ck_assert_uint_eq(rig_counters(&sea.rig).flushes_completed, 4);
	sea_close(&sea);
}
END_TEST

START_TEST(a_flush_that_failed_fails_those_that_are_behind_it)
{
	struct sea sea;

	sea_open(&sea, NULL);
	fleet_send(&sea.rig, 0, 2, T_FLUSH);
	later_wait(&sea.later, 2);
	later_answer(&sea.later, 0, -EIO);
	rig_wait_used(&sea.rig, 1);
	fleet_send(&sea.rig, 2, 1, T_FLUSH);
	rig_wait_used(&sea.rig, 2);
	fleet_expect(&sea.rig, fleet_used(&sea.rig, 0), IOERR);
	fleet_expect(&sea.rig, 2, IOERR);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 3);
	sea_close(&sea);
}
END_TEST

START_TEST(a_driver_without_flush_has_each_write_flushed_before_its_end)
{
	struct rig_options options = fleet_options();
	struct sea sea;

	options.no_flush = true;
	sea_open(&sea, &options);
	fleet_send(&sea.rig, 0, 8, T_OUT);
	later_wait(&sea.later, 8);
	for (unsigned int n = 0; n < 8; n++) {
		ck_assert_uint_eq(later_look(&sea.later, 0).op,
				  KTVBLK_IO_WRITE);
		later_complete(&sea.later, 0);
		ck_assert(
			eventually(later_ever(&sea.later, OP_FLUSH) == n + 1));
	}
	ck_assert_uint_eq(rig_used_idx(&sea.rig), 0);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 8);
	sea_close(&sea);
}
END_TEST

START_TEST(the_throttle_holds_with_many_in_flight)
{
	struct rig_options options = fleet_options();
	struct sea sea;

	options.config.throttle =
		(struct ktvblk_throttle){ .iops = 1, .iops_burst = 8 };
	sea_open(&sea, &options);
	rig_grant(&sea.rig, 8, 0);
	fleet_send(&sea.rig, 0, 16, T_IN);
	ck_assert(eventually(rig_counters(&sea.rig).currently_throttled == 1));
	later_wait(&sea.later, 8);
	/* Those that are out end although the next waits for tokens. */
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 8);
	ck_assert_uint_eq(later_ever(&sea.later, OP_READ), 8);
	rig_reset(&sea.rig);
	ck_assert_uint_eq(rig_counters(&sea.rig).currently_throttled, 0);
	later_complete_all(&sea.later);
	sea_close(&sea);
}
END_TEST

/* How much of the session's own memory is there. */
static unsigned int resident_pages(const struct sea *sea)
{
	const struct pages *pages = &sea->rig.dev->queues[0].session->pages;
	const size_t n = (pages->bytes - DROP_STACK_BYTES) /
			 (size_t)sysconf(_SC_PAGESIZE);
	unsigned char *there = malloc(n);
	unsigned int sum = 0;

	ck_assert_int_eq(mincore(pages->chain,
				 n * (size_t)sysconf(_SC_PAGESIZE), there),
			 0);
	for (size_t i = 0; i < n; i++)
		sum += there[i] & 1;
	free(there);
	return sum;
}

START_TEST(what_a_burst_has_touched_is_given_back)
{
	const struct rig_part data = { RIG_DATA, 256u << 10, WRITABLE };
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct rig_options options = fleet_options();
	struct sea sea;

	options.disk_bytes = 1u << 20;
	sea_open(&sea, &options);
	for (unsigned int i = 0; i < MANY; i++) {
		rig_data(&sea.rig, (uint16_t)(i * 3), T_IN, 0, &data, 1);
		rig_avail(&sea.rig, (uint16_t)(i * 3));
	}
	rig_kick(&sea.rig);
	later_wait(&sea.later, MANY);
	for (unsigned int n = 0; n < MANY; n++) {
		later_complete(&sea.later, 0);
		later_wait(&sea.later, MANY - 1 - n);
	}
	rig_wait_used(&sea.rig, MANY);
	ck_assert(eventually(resident_pages(&sea) * page <= 64 << 10));
	/* And all is as before. */
	fleet_send(&sea.rig, 0, MANY, T_IN);
	later_wait(&sea.later, MANY);
	later_complete_all(&sea.later);
	rig_wait_used(&sea.rig, 2 * MANY);
	for (unsigned int i = 0; i < MANY; i++)
		fleet_expect(&sea.rig, i, OK);
	sea_close(&sea);
}
END_TEST

/* An interrupt for what was completed, and not one for each of a batch. */
START_TEST(a_batch_of_answers_is_one_interrupt)
{
	struct rig_options options = fleet_options();
	struct sea sea;

	options.features = _i ? RIG_EVENT_IDX : 0;
	sea_open(&sea, &options);
	fleet_send(&sea.rig, 0, MANY, T_IN);
	later_wait(&sea.later, MANY);
	ck_assert_uint_eq(rig_irqs(&sea.rig), 0);
	ck_assert_int_eq(ktvblk_pause_begin(sea.rig.dev, -1), 0);
	later_complete_all(&sea.later);
	ck_assert(eventually(ktvblk_is_paused(sea.rig.dev) == 1));
	ck_assert_uint_ge(rig_irqs(&sea.rig), 1);
	ck_assert_uint_eq(rig_used_idx(&sea.rig), MANY);
	ck_assert_int_eq(ktvblk_resume(sea.rig.dev), 1);
	sea_close(&sea);
}
END_TEST

LOOP_PROGRAM("depth", 2, many_are_with_the_storage_at_once_and_end_in_any_order,
	     storage_that_answers_at_once_may, no_more_than_the_depth,
	     one_that_comes_again_while_it_is_in_service_poisons_the_queue,
	     one_that_was_answered_may_come_again,
	     a_pause_waits_for_all_that_is_in_flight,
	     large_ones_go_in_chunks_side_by_side,
	     one_in_very_many_pieces_goes_before_the_next,
	     a_storage_that_refuses_or_fails_fails_that_one,
	     short_and_interrupted_answers_are_asked_for_the_rest,
	     a_second_answer_is_told,
	     a_flush_goes_beside_reads_and_only_where_something_was_written,
	     a_flush_that_failed_fails_those_that_are_behind_it,
	     a_driver_without_flush_has_each_write_flushed_before_its_end,
	     the_throttle_holds_with_many_in_flight,
	     what_a_burst_has_touched_is_given_back,
	     a_batch_of_answers_is_one_interrupt)
