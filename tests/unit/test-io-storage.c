/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What storage may answer, fenced and with zero-copy: short, interrupted, an
 * error, nothing, more than there is. The guest hears OK only of what is done.
 */

#include <errno.h>
#include <string.h>

#include "bounds.h"
#include "device.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define MIB (1u << 20)

/* _i of these loops: 0 fenced, 1 zero-copy. */
struct fixture {
	struct rig rig;
	struct recorder rec;
};

static void start(struct fixture *f, int zero_copy, uint64_t disk_bytes)
{
	const struct rig_options options = {
		.config.flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
		.disk_bytes = disk_bytes,
	};

	recorder_start(&f->rec);
	rig_open(&f->rig, &options);
	rig_start(&f->rig);
}

static void finish(struct fixture *f)
{
	rig_close(&f->rig);
	recorder_stop(&f->rec);
}

/* The next answers of the storage. */
#define script(f, ...)                                                         \
	do {                                                                   \
		const int64_t answers_[] = { __VA_ARGS__ };                    \
                                                                               \
		storage_script((f)->rig.storage, answers_,                     \
			       ARRAY_SIZE(answers_));                          \
	} while (0)

/* n times the same answer, then as usual. */
static void script_n(struct fixture *f, int64_t answer, unsigned int n)
{
	int64_t answers[STORAGE_SCRIPT_MAX];

	for (unsigned int i = 0; i < n; i++)
		answers[i] = answer;
	storage_script(f->rig.storage, answers, n);
}

#define check_counters(f, ...)                                                 \
	do {                                                                   \
		const struct ktvblk_counters want_ = { __VA_ARGS__ };          \
		const struct ktvblk_counters have_ = rig_counters(&(f)->rig);  \
                                                                               \
		ck_assert_mem_eq(&have_, &want_, sizeof(want_));               \
	} while (0)

#define check_used_len(f, want)                                                \
	ck_assert_uint_eq(                                                     \
		rig_used(&(f)->rig, (uint16_t)((f)->rig.used_seen - 1)).len,   \
		want)

static void fill_ram(struct fixture *f, int value, size_t len)
{
	memset(rig_at(&f->rig, RIG_DATA), value, len);
}

/* Disk bytes [from, to) are this value. */
static void check_disk(struct fixture *f, int value, uint64_t from, uint64_t to)
{
	while (from < to && f->rig.storage->bytes[from] == value)
		from++;
	ck_assert_uint_eq(from, to);
}

static void check_ram(struct fixture *f, int value, uint64_t from, uint64_t to)
{
	const uint8_t *ram = rig_at(&f->rig, RIG_DATA);

	while (from < to && ram[from] == value)
		from++;
	ck_assert_uint_eq(from, to);
}

/* 12.5.3 write_chain_short_write_retries_to_completion */
START_TEST(short_writes_go_on_to_completion)
{
	struct fixture f;

	start(&f, _i, 0);
	fill_ram(&f, 0x5a, 2048);
	script(&f, 1, 700, 323);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 2, 2048), OK);
	check_disk(&f, 0x5a, 1024, 1024 + 2048);
	ck_assert_uint_eq(f.rig.storage->bytes[1023], storage_pattern(1023));
	ck_assert_uint_eq(storage_calls(f.rig.storage, OP_WRITE), 4);
	check_counters(&f, .writes_completed = 1, .bytes_written = 2048);
	check_used_len(&f, 1);
	ck_assert_uint_eq(rig_used_idx(&f.rig), 1);
	finish(&f);
}
END_TEST

START_TEST(short_writes_of_a_large_request_go_on_from_where_they_were)
{
	struct rig_part parts[3];
	struct fixture f;

	start(&f, _i, 4 * MIB);
	for (uint32_t i = 0; i < 3; i++) {
		parts[i] =
			(struct rig_part){ RIG_DATA + i * MIB, MIB, READABLE };
		memset(rig_at(&f.rig, parts[i].addr), (int)i + 1, MIB);
	}
	rig_data(&f.rig, 0, T_OUT, 1, parts, 3);
	script(&f, 100, MIB - 1, 513, 17);
	ck_assert_uint_eq(rig_serve(&f.rig, 0), 1);
	for (unsigned int i = 0; i < 3; i++)
		check_disk(&f, (int)i + 1, 512 + i * MIB, 512 + (i + 1) * MIB);
	check_counters(&f, .writes_completed = 1, .bytes_written = 3 * MIB);
	finish(&f);
}
END_TEST

/* 12.5.4 write_chain_zero_progress_is_ioerr */
START_TEST(a_write_of_nothing_is_an_error)
{
	const struct kept_record *r;
	struct fixture f;

	start(&f, _i, 0);
	script(&f, 512, 0);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 2, 1024), IOERR);
	check_counters(&f, .io_errors = 1);
	check_used_len(&f, 1);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_WRITE_NO_PROGRESS);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 2);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_TOTAL_WRITTEN"), 512);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_LENGTH"), 1024);
	finish(&f);
}
END_TEST

/* 12.5.5 read_chain_eintr_retries_to_completion */
START_TEST(interrupted_calls_are_tried_again)
{
	struct fixture f;

	start(&f, _i, 0);
	script(&f, -EINTR, -EINTR);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 0, 512), OK);
	script(&f, -EINTR, 100, -EINTR);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 0, 512), OK);
	check_counters(&f, .reads_completed = 1, .bytes_read = 512,
		       .writes_completed = 1, .bytes_written = 512);
	ck_assert_int_eq(recorder_count(&f.rec, NULL), 0);
	finish(&f);
}
END_TEST

/*
 * 12.5.6 read_chain_eintr_forever_hits_retry_cap, and the same for writes: 16
 * times it is tried again, the 17th is the end.
 */
START_TEST(sixteen_interruptions_are_borne_and_the_seventeenth_not)
{
	const uint32_t types[] = { T_IN, T_OUT };
	struct fixture f;

	start(&f, _i, 0);
	for (unsigned int i = 0; i < 2; i++) {
		const struct kept_record *r;

		script_n(&f, -EINTR, EINTR_RETRY_MAX);
		ck_assert_int_eq(rig_request(&f.rig, types[i], 5, 512), OK);
		script_n(&f, -EINTR, EINTR_RETRY_MAX + 1);
		ck_assert_int_eq(rig_request(&f.rig, types[i], 5, 512), IOERR);
		check_used_len(&f, 1);
		ck_assert_uint_eq(rig_counters(&f.rig).io_errors, i + 1);
		r = recorder_wait_n(&f.rec,
				    KTVBLK_MESSAGE_INTERRUPTED_TOO_OFTEN,
				    (int)i + 1);
		ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 5);
	}
	ck_assert_uint_eq(EINTR_RETRY_MAX, 16);
	ck_assert_uint_eq(storage_calls(f.rig.storage, OP_READ), 17 + 17);
	ck_assert_uint_eq(storage_calls(f.rig.storage, OP_WRITE), 17 + 17);
	finish(&f);
}
END_TEST

/* They are counted for the request, not anew after each step. */
START_TEST(progress_does_not_renew_the_patience)
{
	int64_t answers[2 * 17];
	struct fixture f;

	start(&f, _i, 0);
	for (unsigned int i = 0; i < 17; i++) {
		answers[2 * i] = 1;
		answers[2 * i + 1] = -EINTR;
	}
	storage_script(f.rig.storage, answers, 2 * 17);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 0, 512), IOERR);
	check_counters(&f, .io_errors = 1);
	ck_assert_uint_eq(storage_calls(f.rig.storage, OP_WRITE), 2 * 17);
	finish(&f);
}
END_TEST

START_TEST(a_failed_read_is_ioerr_and_leaves_guest_memory_alone)
{
	const struct kept_record *r;
	struct fixture f;

	start(&f, _i, 0);
	fill_ram(&f, 0xaa, 512);
	script(&f, -EIO);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 7, 512), IOERR);
	check_ram(&f, 0xaa, 0, 512);
	check_counters(&f, .io_errors = 1);
	check_used_len(&f, 1);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_READ_FAILED);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 7);
	ck_assert_uint_eq(kept_number(r, "ERRNO"), EIO);
	finish(&f);
}
END_TEST

/* What got to the disk before the error is not counted. */
START_TEST(a_failed_write_is_ioerr_whatever_was_written_before)
{
	const struct kept_record *r;
	struct fixture f;

	start(&f, _i, 0);
	fill_ram(&f, 0x5a, 1024);
	script(&f, 300, -ENOSPC);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 7, 1024), IOERR);
	check_disk(&f, 0x5a, 7 * 512, 7 * 512 + 300);
	ck_assert_uint_eq(f.rig.storage->bytes[7 * 512 + 300],
			  storage_pattern(7 * 512 + 300));
	check_counters(&f, .io_errors = 1);
	check_used_len(&f, 1);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_WRITE_FAILED);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 7);
	ck_assert_uint_eq(kept_number(r, "ERRNO"), ENOSPC);
	finish(&f);
}
END_TEST

START_TEST(after_an_error_the_next_request_is_served)
{
	struct fixture f;

	start(&f, _i, 0);
	script(&f, -EIO, -EIO, -EIO);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 0, 512), IOERR);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 0, 512), IOERR);
	ck_assert_int_eq(rig_request(&f.rig, T_FLUSH, 0, 0), IOERR);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 0, 512), OK);
	check_counters(&f, .io_errors = 3, .reads_completed = 1,
		       .bytes_read = 512);
	finish(&f);
}
END_TEST

/* Storage that claims more than it was given is broken: nothing is believed. */
START_TEST(more_bytes_than_asked_for_are_an_error_and_overrun_nothing)
{
	struct fixture f;

	start(&f, _i, 0);
	f.rig.storage->overlong = true;
	fill_ram(&f, 0xaa, 2048);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 0, 1024), IOERR);
	check_ram(&f, 0xaa, 1024, 2048);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 0, 1024), IOERR);
	check_used_len(&f, 1);
	check_counters(&f, .io_errors = 2);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_READ_FAILED);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_WRITE_FAILED);
	f.rig.storage->overlong = false;
	finish(&f);
}
END_TEST

/* The buffer's earlier content belongs to another request. */
START_TEST(no_byte_of_an_earlier_request_comes_back_in_a_short_read)
{
	struct fixture f;

	recorder_start(&f.rec);
	rig_open(&f.rig,
		 &(struct rig_options){
			 .config = { .flags = _i ? KTVBLK_ZERO_COPY : 0,
				     .capacity_bytes = RIG_DISK_BYTES } });
	rig_start(&f.rig);
	fill_ram(&f, 0x77, 4096);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 0, 4096), OK);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 0, 4096), OK);
	fill_ram(&f, 0xaa, 4096);
	script(&f, 10, 0);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 0, 4096), OK);
	check_ram(&f, 0x77, 0, 10);
	check_ram(&f, 0, 10, 4096);
	finish(&f);
}
END_TEST

/* A request hangs in its first call: stop the device, let the call go. */
static void stop_in_first_call(struct fixture *f)
{
	storage_hold(f->rig.storage);
	rig_avail(&f->rig, 0);
	rig_kick(&f->rig);
	storage_wait_held(f->rig.storage, 1);
	ck_assert_int_eq(ktvblk_request_stop(f->rig.dev), 0);
	storage_let_go(f->rig.storage);
	ck_assert_int_eq(rig_destroy(&f->rig), KTVBLK_JOINED);
	ck_assert_uint_eq(storage_calls(f->rig.storage, OP_WRITE), 1);
	ck_assert_uint_eq(rig_used_idx(&f->rig), 0);
	ck_assert_uint_eq(*rig_chain_status(&f->rig, 0), SENTINEL);
	rig_free(&f->rig);
	recorder_stop(&f->rec);
}

START_TEST(after_a_stop_no_further_chunk_is_moved)
{
	struct rig_part parts[2];
	struct fixture f;

	start(&f, _i, 2 * MIB);
	for (uint32_t i = 0; i < 2; i++) {
		parts[i] =
			(struct rig_part){ RIG_DATA + i * MIB, MIB, READABLE };
		memset(rig_at(&f.rig, parts[i].addr), 0x5a, MIB);
	}
	rig_data(&f.rig, 0, T_OUT, 0, parts, 2);
	/* Short, so that zero-copy too would have to call again. */
	script_n(&f, MIB, 4);
	stop_in_first_call(&f);
}
END_TEST

START_TEST(a_stop_ends_an_interrupted_request)
{
	struct fixture f;

	start(&f, _i, 0);
	script_n(&f, -EINTR, 1);
	rig_chain(&f.rig, 0, T_OUT, 0, 512);
	stop_in_first_call(&f);
}
END_TEST

/* 12.4.5, 12.5.10 process_requests_flush_chain, 12.8.15 flush baseline */
START_TEST(a_flush_flushes_the_storage)
{
	struct fixture f;

	start(&f, _i, 0);
	ck_assert_int_eq(rig_request(&f.rig, T_FLUSH, UINT64_MAX, 0), OK);
	check_used_len(&f, 1);
	ck_assert_uint_eq(storage_calls(f.rig.storage, OP_FLUSH), 1);
	check_counters(&f, .flushes_completed = 1);
	finish(&f);
}
END_TEST

/*
 * 12.1.34 handle_flush_impl_err; it is not tried again, not even for EINTR.
 * What comes after it is in test-durable.c.
 */
START_TEST(a_failed_flush_is_ioerr)
{
	const struct kept_record *r;
	struct fixture f;

	start(&f, _i, 0);
	script(&f, -EINTR);
	ck_assert_int_eq(rig_request(&f.rig, T_FLUSH, 0, 0), IOERR);
	check_used_len(&f, 1);
	ck_assert_uint_eq(storage_calls(f.rig.storage, OP_FLUSH), 1);
	check_counters(&f, .io_errors = 1);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_FLUSH_FAILED);
	ck_assert_uint_eq(kept_number(r, "ERRNO"), EINTR);
	finish(&f);
}
END_TEST

/* Storage without a flush has nothing to do for one: OK, and counted. */
START_TEST(storage_without_a_flush_op_flushes_well)
{
	struct fixture f;

	start(&f, _i, 0);
	rig_reset(&f.rig);
	f.rig.dev->holdings->backend->ops.flush = NULL;
	rig_start(&f.rig);
	ck_assert_int_eq(rig_request(&f.rig, T_FLUSH, 0, 0), OK);
	check_used_len(&f, 1);
	check_counters(&f, .flushes_completed = 1);
	finish(&f);
}
END_TEST

/* Fenced, the disk gets the bytes of the moment the request was taken. */
START_TEST(a_held_write_is_not_changed_by_the_guest)
{
	struct fixture f;

	start(&f, 0, 0);
	fill_ram(&f, 0x11, 512);
	storage_hold(f.rig.storage);
	rig_chain(&f.rig, 0, T_OUT, 0, 512);
	rig_avail(&f.rig, 0);
	rig_kick(&f.rig);
	storage_wait_held(f.rig.storage, 1);
	fill_ram(&f, 0x22, 512);
	storage_let_go(f.rig.storage);
	rig_wait_used(&f.rig, 1);
	check_disk(&f, 0x11, 0, 512);
	finish(&f);
}
END_TEST

LOOP_PROGRAM("io-storage", 2, short_writes_go_on_to_completion,
	     short_writes_of_a_large_request_go_on_from_where_they_were,
	     a_write_of_nothing_is_an_error, interrupted_calls_are_tried_again,
	     sixteen_interruptions_are_borne_and_the_seventeenth_not,
	     progress_does_not_renew_the_patience,
	     a_failed_read_is_ioerr_and_leaves_guest_memory_alone,
	     a_failed_write_is_ioerr_whatever_was_written_before,
	     after_an_error_the_next_request_is_served,
	     more_bytes_than_asked_for_are_an_error_and_overrun_nothing,
	     no_byte_of_an_earlier_request_comes_back_in_a_short_read,
	     after_a_stop_no_further_chunk_is_moved,
	     a_stop_ends_an_interrupted_request, a_flush_flushes_the_storage,
	     a_failed_flush_is_ioerr, storage_without_a_flush_op_flushes_well,
	     a_held_write_is_not_changed_by_the_guest)
