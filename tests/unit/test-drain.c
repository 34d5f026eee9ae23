/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One drain after another: each chain is answered once, in the ring's order,
 * or dropped without a trace on the ring; and none keeps the next from being
 * served.
 */

#include <string.h>

#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define T_ODD 0xbeefu
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP

#define NOWHERE 0x10000000u

static void start(struct rig *rig, const struct rig_options *options)
{
	rig_open(rig, options);
	rig_start(rig);
}

#define check_counters(rig, ...)                                               \
	do {                                                                   \
		const struct ktvblk_counters want_ = { __VA_ARGS__ };          \
		const struct ktvblk_counters have_ = rig_counters(rig);        \
                                                                               \
		ck_assert_mem_eq(&have_, &want_, sizeof(want_));               \
	} while (0)

#define parts(rig, head, ...)                                                  \
	do {                                                                   \
		const struct rig_part parts_[] = { __VA_ARGS__ };              \
                                                                               \
		rig_parts(rig, head, parts_, ARRAY_SIZE(parts_));              \
	} while (0)

/* The usual header and status of head 0, around other descriptors. */
#define HEADER                                                                 \
	{                                                                      \
		RIG_HEADER, 16, READABLE                                       \
	}
#define STATUS                                                                 \
	{                                                                      \
		RIG_STATUS, 1, WRITABLE                                        \
	}

static void prepare(struct rig *rig, uint32_t type)
{
	rig_header(rig, RIG_HEADER, type, 0);
	*rig_chain_status(rig, 0) = SENTINEL;
}

/* The chain at head 0 gets this answer, with a used length of 1. */
static void check_answer(struct rig *rig, uint8_t status)
{
	ck_assert_uint_eq(rig_serve(rig, 0), 1);
	ck_assert_uint_eq(*rig_chain_status(rig, 0), status);
}

/* No drain is under way, and what the last one had to say is said. */
static void check_silence(struct rig *rig)
{
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	ck_assert_uint_eq(rig_irqs(rig), 0);
	ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(rig_used_idx(rig), 0);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
}

/* The one chain made available so far is dropped: nothing tells the guest. */
static void check_dropped(struct rig *rig)
{
	rig_avail(rig, 0);
	rig_kick(rig);
	ck_assert(eventually(rig_counters(rig).io_errors == 1));
	check_silence(rig);
	ck_assert_uint_eq(*rig_chain_status(rig, 0), SENTINEL);
	check_counters(rig, .io_errors = 1);
	/* And the next one is served. */
	ck_assert_int_eq(rig_request(rig, T_IN, 0, 512), OK);
}

/*
 * Answered
 */

/* 12.4.14 and 12.5.9 unknown_type_returns_unsupp */
START_TEST(unknown_types_return_unsupp_and_count_nothing)
{
	/* The SCSI ones, DISCARD, WRITE_ZEROES, SECURE_ERASE, and no type. */
	static const uint32_t types[] = { 2,  3,  5,  6,     7,	      9,
					  11, 13, 14, T_ODD, 1u << 31 };
	struct rig rig;

	start(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		for (uint32_t len = 0; len <= 512; len += 256)
			ck_assert_int_eq(rig_request(&rig, types[i], 0, len),
					 UNSUPP);
	ck_assert_uint_eq(rig_used(&rig, 0).len, 1);
	check_counters(&rig, .reads_completed = 0);
	rig_close(&rig);
}
END_TEST

/* 12.5.11 short_header_returns_ioerr */
START_TEST(a_short_header_returns_ioerr)
{
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_IN);
	parts(&rig, 0, { RIG_HEADER, 8, READABLE }, { RIG_DATA, 512, WRITABLE },
	      STATUS);
	check_answer(&rig, IOERR);
	check_counters(&rig, .io_errors = 1);
	rig_close(&rig);
}
END_TEST

/* 12.9.11 fragmented_header_returns_ioerr, the other way round */
START_TEST(changed_fragmented_header_is_accepted)
{
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_IN);
	parts(&rig, 0, { RIG_HEADER, 8, READABLE },
	      { RIG_HEADER + 8, 8, READABLE }, { RIG_DATA, 512, WRITABLE },
	      STATUS);
	ck_assert_uint_eq(rig_serve(&rig, 0), 513);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	rig_close(&rig);
}
END_TEST

/* 12.8.2 header_read_obj_failure_returns_ioerr */
START_TEST(an_unreadable_header_returns_ioerr)
{
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_IN);
	parts(&rig, 0, { NOWHERE, 16, READABLE }, { RIG_DATA, 512, WRITABLE },
	      STATUS);
	check_answer(&rig, IOERR);
	check_counters(&rig, .io_errors = 1);
	rig_close(&rig);
}
END_TEST

/* 12.8.4 zero_data_t_in, 12.8.5 sub_sector_data_len */
START_TEST(no_data_and_data_that_is_not_sectors_return_ioerr)
{
	struct rig rig;

	start(&rig, NULL);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 0), IOERR);
	ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 0), IOERR);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 513), IOERR);
	ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 511), IOERR);
	check_counters(&rig, .io_errors = 4);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	rig_close(&rig);
}
END_TEST

/* 12.8.6 and 12.8.7 direction_violation */
START_TEST(data_in_the_wrong_direction_returns_ioerr)
{
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_IN);
	parts(&rig, 0, HEADER, { RIG_DATA, 512, READABLE }, STATUS);
	check_answer(&rig, IOERR);
	prepare(&rig, T_OUT);
	parts(&rig, 0, HEADER, { RIG_DATA, 512, WRITABLE }, STATUS);
	check_answer(&rig, IOERR);
	check_counters(&rig, .io_errors = 2);
	ck_assert_uint_eq(rig.storage->bytes[0], storage_pattern(0));
	ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA), 0);
	rig_close(&rig);
}
END_TEST

/* Gate 7, which nobody had tested; it comes before read-only's own answer. */
START_TEST(a_flush_with_data_returns_ioerr_on_read_only_too)
{
	struct rig rig;

	for (int ro = 0; ro < 2; ro++) {
		start(&rig,
		      &(struct rig_options){
			      .config.flags = ro ? KTVBLK_READ_ONLY : 0 });
		ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 512), IOERR);
		check_counters(&rig, .io_errors = 1);
		ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 0);
		rig_close(&rig);
	}
}
END_TEST

/* 12.4.11, 12.6.12 process_requests_read_only_write_returns_ioerr_chain */
START_TEST(a_write_to_a_read_only_disk_returns_ioerr)
{
	struct rig rig;

	start(&rig, &(struct rig_options){ .config.flags = KTVBLK_READ_ONLY });
	ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 512), IOERR);
	ck_assert_uint_eq(rig_used(&rig, 0).len, 1);
	check_counters(&rig, .io_errors = 1);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	rig_close(&rig);
}
END_TEST

/* 12.4.10, 12.4.12, 12.8.10, 12.8.17 */
START_TEST(read_only_and_normal_flushes_are_ok_and_counted)
{
	struct rig rig;

	for (int ro = 0; ro < 2; ro++) {
		start(&rig,
		      &(struct rig_options){
			      .config.flags = ro ? KTVBLK_READ_ONLY : 0 });
		ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), OK);
		ck_assert_uint_eq(rig_used(&rig, 0).len, 1);
		check_counters(&rig, .flushes_completed = 1);
		ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), !ro);
		/* 12.4.6 and 12.4.7 advertises_f_ro */
		ck_assert_int_eq(rig_read(&rig, VIRTIO_MMIO_DEVICE_FEATURES) >>
						 VIRTIO_BLK_F_RO &
					 1,
				 ro);
		rig_close(&rig);
	}
}
END_TEST

/*
 * 12.8.11 multi_byte_status_writes_to_last_byte: its first bytes are data, and
 * 3 bytes are no sectors, so it is IOERR; only the last byte is written.
 */
START_TEST(changed_multi_byte_status_is_ioerr_in_its_last_byte)
{
	uint8_t *status;
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_IN);
	status = rig_at(&rig, RIG_STATUS);
	memset(status, SENTINEL, 4);
	parts(&rig, 0, HEADER, { RIG_DATA, 512, WRITABLE },
	      { RIG_STATUS, 4, WRITABLE });
	ck_assert_uint_eq(rig_serve(&rig, 0), 1);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(status[i], SENTINEL);
	ck_assert_uint_eq(status[3], IOERR);
	check_counters(&rig, .io_errors = 1);
	rig_close(&rig);
}
END_TEST

START_TEST(a_status_behind_the_data_of_its_descriptor)
{
	const uint8_t *ram;
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_IN);
	ram = rig_at(&rig, RIG_DATA);
	memset(rig_at(&rig, RIG_DATA), SENTINEL, 514);
	parts(&rig, 0, HEADER, { RIG_DATA, 513, WRITABLE },
	      { NOWHERE, 0, WRITABLE });
	ck_assert_uint_eq(rig_serve(&rig, 0), 513);
	ck_assert_uint_eq(ram[511], storage_pattern(511));
	ck_assert_uint_eq(ram[512], OK);
	ck_assert_uint_eq(ram[513], SENTINEL);
	rig_close(&rig);
}
END_TEST

/* 12.8.9 add_used_err_path_baseline_io_errors_zero, and how it goes wrong */
START_TEST(a_used_ring_outside_memory_is_an_error_without_an_interrupt)
{
	const struct kept_record *r;
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	rig_open(&rig, NULL);
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_USED_LOW, NOWHERE);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_chain(&rig, 0, T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	r = recorder_wait(&rec, KTVBLK_MESSAGE_USED_WRITE_FAILED);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_HEAD"), 0);
	ck_assert_str_eq(kept_field(r, "KTVBLK_REASON"), "normal");
	ck_assert(eventually(rig_counters(&rig).io_errors == 1));
	recorder_wait(&rec, KTVBLK_MESSAGE_NOTIFY_DISABLE_FAILED);
	recorder_wait(&rec, KTVBLK_MESSAGE_NOTIFY_ENABLE_FAILED);
	check_silence(&rig);
	check_counters(&rig, .io_errors = 1, .reads_completed = 1,
		       .bytes_read = 512);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/*
 * Dropped: a used entry without a status byte would be taken for success
 */

/* 12.5.12 status_not_writable_drops_chain */
START_TEST(a_status_that_is_not_writable_drops_the_chain)
{
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_IN);
	parts(&rig, 0, HEADER, { RIG_STATUS, 1, READABLE });
	check_dropped(&rig);
	rig_close(&rig);
}
END_TEST

START_TEST(a_chain_of_one_descriptor_is_dropped)
{
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_FLUSH);
	parts(&rig, 0, HEADER);
	check_dropped(&rig);
	rig_close(&rig);
}
END_TEST

/* 12.7.14 and 12.8.8: no used entry, no interrupt; the chain is retired. */
START_TEST(status_write_failure_skips_add_used_and_irqfd)
{
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_FLUSH);
	parts(&rig, 0, HEADER, { NOWHERE, 1, WRITABLE });
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(rig_counters(&rig).io_errors == 1));
	check_silence(&rig);
	check_counters(&rig, .io_errors = 1, .flushes_completed = 1);
	/* One byte behind the end of memory is as bad. */
	parts(&rig, 0, HEADER, { RIG_RAM_BYTES - 4, 5, WRITABLE });
	rig_avail(&rig, 0);
	rig_kick(&rig);
	/* The gate counts, and the failure to tell counts again. */
	ck_assert(eventually(rig_counters(&rig).io_errors == 3));
	check_silence(&rig);
	rig_close(&rig);
}
END_TEST

/* Not negotiated, so the table is not looked at. */
START_TEST(an_indirect_descriptor_that_was_not_negotiated_is_dropped)
{
	static const struct rig_part flush[] = { HEADER, STATUS };
	struct rig rig;

	start(&rig, NULL);
	prepare(&rig, T_FLUSH);
	rig_parts_indirect(&rig, 0, flush, 2);
	check_dropped(&rig);
	rig_close(&rig);
}
END_TEST

/*
 * One after another
 */

/* 12.5.13 multiple_chains_drained_in_one_notify, 12.9.7 outer loop */
START_TEST(chains_are_served_in_the_order_of_the_ring)
{
	static const uint16_t heads[] = { 6, 0, 3 };
	struct rig rig;

	start(&rig, NULL);
	for (unsigned int i = 0; i < 3; i++) {
		const struct rig_part data = { RIG_DATA + i * 512, 512,
					       WRITABLE };

		rig_data(&rig, heads[i], T_IN, i + 1, &data, 1);
	}
	rig_avail_all(&rig, heads, 3);
	rig_kick(&rig);
	rig_wait_used(&rig, 3);
	for (unsigned int i = 0; i < 3; i++) {
		const uint8_t *ram = rig_at(&rig, RIG_DATA + i * 512);

		ck_assert_uint_eq(rig_used(&rig, (uint16_t)i).id, heads[i]);
		ck_assert_uint_eq(rig_used(&rig, (uint16_t)i).len, 513);
		ck_assert_uint_eq(*rig_chain_status(&rig, heads[i]), OK);
		ck_assert_uint_eq(ram[0], storage_pattern((i + 1) * 512));
		ck_assert_uint_eq(ram[511],
				  storage_pattern((i + 1) * 512 + 511));
	}
	check_counters(&rig, .reads_completed = 3, .bytes_read = 3 * 512);
	rig_close(&rig);
}
END_TEST

/* 12.6.13 used_idx_advances_across_repeated_notifies, 12.7.15 boundary */
START_TEST(used_idx_advances_across_repeated_notifies)
{
	struct rig rig;

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		start(&rig,
		      &(struct rig_options){
			      .features = event_idx ? RIG_EVENT_IDX : 0 });
		for (uint16_t i = 1; i <= 40; i++) {
			ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
			ck_assert_uint_eq(rig_used_idx(&rig), i);
		}
		rig_close(&rig);
	}
}
END_TEST

/* 12.7.18 mem_unset_warned_latch_fires_once */
START_TEST(without_memory_nothing_is_drained_and_it_is_told_once)
{
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	start(&rig, &(struct rig_options){ .no_memory = true });
	rig_chain(&rig, 0, T_IN, 0, 512);
	rig_avail(&rig, 0);
	for (int i = 0; i < 3; i++) {
		rig_kick(&rig);
		recorder_wait(&rec, KTVBLK_MESSAGE_MEMORY_UNSET);
		check_silence(&rig);
	}
	check_counters(&rig, .io_errors = 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	/* The latch is the session's: 12.1.11 reset_clears_latch */
	rig_reset(&rig);
	rig_start(&rig);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_MEMORY_UNSET, 2);
	ck_assert_int_eq(rig_destroy(&rig), KTVBLK_JOINED);
	rig_free(&rig);
	recorder_stop(&rec);
}
END_TEST

TEST_PROGRAM("drain", unknown_types_return_unsupp_and_count_nothing,
	     a_short_header_returns_ioerr,
	     changed_fragmented_header_is_accepted,
	     an_unreadable_header_returns_ioerr,
	     no_data_and_data_that_is_not_sectors_return_ioerr,
	     data_in_the_wrong_direction_returns_ioerr,
	     a_flush_with_data_returns_ioerr_on_read_only_too,
	     a_write_to_a_read_only_disk_returns_ioerr,
	     read_only_and_normal_flushes_are_ok_and_counted,
	     changed_multi_byte_status_is_ioerr_in_its_last_byte,
	     a_status_behind_the_data_of_its_descriptor,
	     a_used_ring_outside_memory_is_an_error_without_an_interrupt,
	     a_status_that_is_not_writable_drops_the_chain,
	     a_chain_of_one_descriptor_is_dropped,
	     status_write_failure_skips_add_used_and_irqfd,
	     an_indirect_descriptor_that_was_not_negotiated_is_dropped,
	     chains_are_served_in_the_order_of_the_ring,
	     used_idx_advances_across_repeated_notifies,
	     without_memory_nothing_is_drained_and_it_is_told_once)
