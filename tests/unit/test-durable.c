/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Nothing is called durable that is not: writes of a driver that cannot flush,
 * what comes after a flush that failed, and when those are cut off by a stop.
 * _i of these loops: 0 fenced, 1 zero-copy.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

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
#define F_FLUSH (UINT64_C(1) << VIRTIO_BLK_F_FLUSH)

struct fixture {
	struct rig rig;
	struct recorder rec;
};

static void open_with(struct fixture *f, const struct rig_options *options)
{
	recorder_start(&f->rec);
	rig_open(&f->rig, options);
}

static void start_with(struct fixture *f, const struct rig_options *options)
{
	open_with(f, options);
	rig_start(&f->rig);
}

/* A driver that takes FLUSH, or not. */
static void start(struct fixture *f, int zero_copy, bool takes_flush)
{
	start_with(f, &(struct rig_options){
			      .config.flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
			      .no_flush = !takes_flush,
			      .disk_bytes = 4 * MIB });
}

static void finish(struct fixture *f)
{
	rig_close(&f->rig);
	recorder_stop(&f->rec);
}

static void script(struct fixture *f, int64_t first, int64_t second)
{
	storage_script(f->rig.storage, (int64_t[]){ first, second }, 2);
}

static int request(struct fixture *f, uint32_t type)
{
	return rig_request(&f->rig, type, 8, type == T_FLUSH ? 0 : 1024);
}

#define check_calls(f, op, want)                                               \
	ck_assert_uint_eq(storage_calls((f)->rig.storage, op), want)
#define check_counters(f, ...)                                                 \
	do {                                                                   \
		const struct ktvblk_counters want_ = { __VA_ARGS__ };          \
		const struct ktvblk_counters have_ = rig_counters(&(f)->rig);  \
                                                                               \
		ck_assert_mem_eq(&have_, &want_, sizeof(want_));               \
	} while (0)

/*
 * Write-through
 */

static _Atomic unsigned int too_early;

/* In a flush: was the write completed before it? */
static void note_completed(struct storage *storage, enum storage_op op)
{
	struct fixture *f = (struct fixture *)storage->hook_data;

	if (op == OP_FLUSH && *rig_chain_status(&f->rig, 0) != SENTINEL)
		too_early++;
}

/* Section 5.2.6.2: FLUSH offered and not taken. */
START_TEST(a_write_of_a_driver_without_flush_is_durable_when_it_completes)
{
	struct fixture f;

	start(&f, _i, false);
	f.rig.storage->hook_data = &f;
	f.rig.storage->hook = note_completed;
	for (unsigned int i = 1; i <= 3; i++) {
		ck_assert_int_eq(request(&f, T_OUT), OK);
		check_calls(&f, OP_WRITE, i);
		check_calls(&f, OP_FLUSH, i);
	}
	ck_assert_uint_eq(too_early, 0);
	ck_assert_int_eq(request(&f, T_IN), OK);
	check_calls(&f, OP_FLUSH, 3);
	/* Flushes of the guest are counted, and these are not the guest's. */
	check_counters(&f, .writes_completed = 3, .bytes_written = 3 * 1024,
		       .reads_completed = 1, .bytes_read = 1024);
	finish(&f);
}
END_TEST

START_TEST(a_driver_that_took_flush_flushes_by_itself)
{
	struct fixture f;

	start(&f, _i, true);
	ck_assert_int_eq(request(&f, T_OUT), OK);
	check_calls(&f, OP_FLUSH, 0);
	ck_assert_int_eq(request(&f, T_FLUSH), OK);
	check_calls(&f, OP_FLUSH, 1);
	check_counters(&f, .writes_completed = 1, .bytes_written = 1024,
		       .flushes_completed = 1);
	finish(&f);
}
END_TEST

/* Who is not offered it cannot flush either. */
START_TEST(a_masked_flush_is_write_through)
{
	struct fixture f;

	start_with(&f,
		   &(struct rig_options){
			   .config = { .features_masked = F_FLUSH,
				       .flags = _i ? KTVBLK_ZERO_COPY : 0 } });
	ck_assert_int_eq(request(&f, T_OUT), OK);
	check_calls(&f, OP_FLUSH, 1);
	finish(&f);
}
END_TEST

/* The next driver may take it: what was negotiated is one session's. */
START_TEST(write_through_is_what_this_driver_negotiated)
{
	struct fixture f;

	start(&f, _i, false);
	ck_assert_int_eq(request(&f, T_OUT), OK);
	check_calls(&f, OP_FLUSH, 1);
	rig_reset(&f.rig);
	f.rig.options.no_flush = false;
	rig_start(&f.rig);
	ck_assert_int_eq(request(&f, T_OUT), OK);
	check_calls(&f, OP_FLUSH, 1);
	finish(&f);
}
END_TEST

/* One for a request, however many calls it takes; none for none. */
START_TEST(a_write_in_many_chunks_is_flushed_once)
{
	struct rig_part parts[3];
	struct fixture f;

	start(&f, _i, false);
	for (uint32_t i = 0; i < 3; i++)
		parts[i] = (struct rig_part){ RIG_DATA + i * MIB, MIB - 512,
					      READABLE };
	script(&f, 700, 1);
	rig_data(&f.rig, 0, T_OUT, 0, parts, 3);
	ck_assert_uint_eq(rig_serve(&f.rig, 0), 1);
	ck_assert_uint_eq(*rig_chain_status(&f.rig, 0), OK);
	ck_assert_uint_ge(storage_calls(f.rig.storage, OP_WRITE), 3);
	check_calls(&f, OP_FLUSH, 1);

	parts[0].len = 0;
	rig_data(&f.rig, 0, T_OUT, 0, parts, 1);
	ck_assert_uint_eq(rig_serve(&f.rig, 0), 1);
	ck_assert_uint_eq(*rig_chain_status(&f.rig, 0), OK);
	check_calls(&f, OP_FLUSH, 1);
	finish(&f);
}
END_TEST

START_TEST(a_write_that_cannot_be_made_durable_fails)
{
	const struct kept_record *r;
	struct fixture f;

	start(&f, _i, false);
	script(&f, AS_USUAL, -EIO);
	ck_assert_int_eq(request(&f, T_OUT), IOERR);
	check_counters(&f, .io_errors = 1);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_FLUSH_FAILED);
	ck_assert_uint_eq(kept_number(r, "ERRNO"), EIO);
	finish(&f);
}
END_TEST

START_TEST(a_write_that_failed_is_not_flushed)
{
	struct fixture f;

	start(&f, _i, false);
	script(&f, -EIO, AS_USUAL);
	ck_assert_int_eq(request(&f, T_OUT), IOERR);
	check_calls(&f, OP_FLUSH, 0);
	finish(&f);
}
END_TEST

START_TEST(storage_without_a_flush_is_durable_as_it_is)
{
	struct fixture f;

	start(&f, _i, false);
	rig_reset(&f.rig);
	f.rig.dev->holdings->backend->ops.flush = NULL;
	rig_start(&f.rig);
	ck_assert_int_eq(request(&f, T_OUT), OK);
	check_counters(&f, .writes_completed = 1, .bytes_written = 1024);
	finish(&f);
}
END_TEST

static void hold_from(struct storage *storage, enum storage_op op)
{
	if (op == *(const enum storage_op *)storage->hook_data)
		storage_hold(storage);
}

/* A write hangs in this call when the device is told to stop. */
static void stop_in(struct fixture *f, enum storage_op op)
{
	f->rig.storage->hook_data = &op;
	f->rig.storage->hook = hold_from;
	rig_chain(&f->rig, 0, T_OUT, 0, 512);
	rig_avail(&f->rig, 0);
	rig_kick(&f->rig);
	ck_assert(eventually(storage_calls(f->rig.storage, op) == 1));
	storage_wait_held(f->rig.storage, 1);
	ck_assert_int_eq(ktvblk_request_stop(f->rig.dev), 0);
	storage_let_go(f->rig.storage);
	ck_assert_int_eq(rig_destroy(&f->rig), KTVBLK_JOINED);
	ck_assert_uint_eq(rig_used_idx(&f->rig), 0);
	ck_assert_uint_eq(*rig_chain_status(&f->rig, 0), SENTINEL);
	check_counters(f, 0);
}

START_TEST(after_a_stop_the_write_is_not_flushed)
{
	struct fixture f;

	start(&f, _i, false);
	stop_in(&f, OP_WRITE);
	check_calls(&f, OP_FLUSH, 0);
	rig_free(&f.rig);
	recorder_stop(&f.rec);
}
END_TEST

/* A worker left behind in the flush does not complete the write later. */
START_TEST(a_write_whose_flush_hangs_is_fenced_by_a_reset)
{
	const enum storage_op op = OP_FLUSH;
	struct fixture f;

	start_with(&f, &(struct rig_options){
			       .config = { .flags = _i ? KTVBLK_ZERO_COPY : 0,
					   .reset_timeout_ms = 20 },
			       .no_flush = true });
	f.rig.storage->hook_data = (void *)(uintptr_t)&op;
	f.rig.storage->hook = hold_from;
	rig_chain(&f.rig, 0, T_OUT, 0, 512);
	rig_avail(&f.rig, 0);
	rig_kick(&f.rig);
	ck_assert(eventually(storage_calls(f.rig.storage, OP_FLUSH) == 1));
	rig_reset(&f.rig);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	f.rig.storage->hook = NULL;
	storage_let_go(f.rig.storage);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(rig_used_idx(&f.rig), 0);
	ck_assert_uint_eq(*rig_chain_status(&f.rig, 0), SENTINEL);
	check_counters(&f, 0);
	finish(&f);
}
END_TEST

/*
 * After a flush that failed
 */

/* The page cache has dropped what it could not write, and says so once. */
START_TEST(changed_after_a_failed_flush_all_fail_until_reset)
{
	const struct kept_record *r;
	struct fixture f;

	start(&f, _i, true);
	ck_assert_int_eq(request(&f, T_OUT), OK);
	script(&f, -EIO, AS_USUAL);
	for (unsigned int i = 0; i < 4; i++)
		ck_assert_int_eq(request(&f, T_FLUSH), IOERR);
	check_calls(&f, OP_FLUSH, 1);
	ck_assert_int_eq(recorder_count(&f.rec, KTVBLK_MESSAGE_FLUSH_FAILED),
			 1);
	r = recorder_wait_n(&f.rec, KTVBLK_MESSAGE_FLUSH_FAILED_BEFORE, 3);
	ck_assert_str_eq(kept_field(r, "KTVBLK_REQ_TYPE"), "flush");
	/* What promises nothing goes on. */
	ck_assert_int_eq(request(&f, T_OUT), OK);
	ck_assert_int_eq(request(&f, T_IN), OK);
	check_counters(&f, .io_errors = 4, .writes_completed = 2,
		       .bytes_written = 2 * 1024, .reads_completed = 1,
		       .bytes_read = 1024);

	rig_reset(&f.rig);
	rig_start(&f.rig);
	ck_assert_int_eq(request(&f, T_FLUSH), OK);
	check_calls(&f, OP_FLUSH, 2);
	finish(&f);
}
END_TEST

/* Whatever the storage fails with: none says that nothing was dropped. */
START_TEST(no_error_of_a_flush_is_taken_back)
{
	static const int errors[] = { EIO, ENOSPC, EDQUOT, EINTR, EAGAIN };
	struct fixture f;

	start(&f, _i, true);
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		script(&f, -errors[i], AS_USUAL);
		ck_assert_int_eq(request(&f, T_FLUSH), IOERR);
		ck_assert_int_eq(request(&f, T_FLUSH), IOERR);
		check_calls(&f, OP_FLUSH, i + 1);
		rig_reset(&f.rig);
		rig_start(&f.rig);
	}
	finish(&f);
}
END_TEST

START_TEST(after_a_failed_flush_no_write_through_reaches_the_storage)
{
	const struct kept_record *r;
	struct fixture f;

	start(&f, _i, false);
	script(&f, AS_USUAL, -EIO);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_int_eq(request(&f, T_OUT), IOERR);
	check_calls(&f, OP_WRITE, 1);
	check_calls(&f, OP_FLUSH, 1);
	r = recorder_wait_n(&f.rec, KTVBLK_MESSAGE_FLUSH_FAILED_BEFORE, 2);
	ck_assert_str_eq(kept_field(r, "KTVBLK_REQ_TYPE"), "out");
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 8);
	ck_assert_int_eq(request(&f, T_IN), OK);
	check_counters(&f, .io_errors = 3, .reads_completed = 1,
		       .bytes_read = 1024);
	rig_reset(&f.rig);
	rig_start(&f.rig);
	ck_assert_int_eq(request(&f, T_OUT), OK);
	finish(&f);
}
END_TEST

/*
 * Storage that becomes shorter
 */

static void check_ram(struct fixture *f, int value, uint64_t from, uint64_t to)
{
	const uint8_t *ram = rig_at(&f->rig, RIG_DATA);

	while (from < to && ram[from] == value)
		from++;
	ck_assert_uint_eq(from, to);
}

/* The reference pads with zeros, as if they had been written. */
START_TEST(changed_inside_the_size_it_told_short_storage_is_an_error)
{
	static const struct {
		uint64_t size;
		uint64_t got;
	} rows[] = { { 0, 0 },
		     { 8 * 512, 0 },
		     { 8 * 512 + 100, 100 },
		     { 10 * 512 - 1, 1023 } };
	const struct kept_record *r;
	struct fixture f;

	for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++) {
		start(&f, _i, true);
		f.rig.storage->size = rows[i].size;
		memset(rig_at(&f.rig, RIG_DATA), 0xaa, 1024);
		ck_assert_int_eq(request(&f, T_IN), IOERR);
		check_ram(&f, 0xaa, rows[i].got, 1024);
		r = recorder_wait(&f.rec, KTVBLK_MESSAGE_READ_NO_PROGRESS);
		ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 8);
		ck_assert_uint_eq(kept_number(r, "KTVBLK_TOTAL_READ"),
				  rows[i].got);
		ck_assert_uint_eq(kept_number(r, "KTVBLK_LENGTH"), 1024);
		check_counters(&f, .io_errors = 1);
		finish(&f);
	}
}
END_TEST

/* Short is not yet the end: the device asks for the rest. */
START_TEST(changed_a_short_read_is_followed_up)
{
	const uint8_t *ram;
	struct fixture f;

	start(&f, _i, true);
	ram = rig_at(&f.rig, RIG_DATA);
	script(&f, 600, 1);
	ck_assert_int_eq(request(&f, T_IN), OK);
	ck_assert_mem_eq(ram, f.rig.storage->bytes + 8 * 512, 1024);
	check_calls(&f, OP_READ, 3);
	check_counters(&f, .reads_completed = 1, .bytes_read = 1024);

	/* An error behind good bytes is no end of the storage. */
	script(&f, 600, -EIO);
	ck_assert_int_eq(request(&f, T_IN), IOERR);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_READ_FAILED);
	finish(&f);
}
END_TEST

/* A file of so many bytes of 0x5a. */
static int disk_file(size_t bytes)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	for (size_t i = 0; i < bytes; i++)
		ck_assert_int_eq(write(fd, "\x5a", 1), 1);
	return fd;
}

START_TEST(a_file_that_was_truncated_is_an_error)
{
	struct fixture f;
	int fd = disk_file(9000), other = dup(fd);

	start_with(&f, &(struct rig_options){ .config.flags =
						      _i ? KTVBLK_ZERO_COPY : 0,
					      .disk_fd = fd });
	ck_assert_int_eq(request(&f, T_IN), OK);
	check_ram(&f, 0x5a, 0, 1024);
	ck_assert_int_eq(ftruncate(other, 8 * 512), 0);
	ck_assert_int_eq(request(&f, T_IN), IOERR);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_READ_NO_PROGRESS);
	ck_assert_int_eq(ftruncate(other, 9000), 0);
	ck_assert_int_eq(request(&f, T_IN), OK);
	close(other);
	finish(&f);
}
END_TEST

/* Of a file it is known what it had, also where the capacity was given. */
START_TEST(a_thin_file_is_zeros_behind_the_size_it_had_and_not_before)
{
	struct fixture f;
	int fd = disk_file(8 * 512 + 700), other = dup(fd);

	start_with(&f, &(struct rig_options){
			       .config = { .flags = _i ? KTVBLK_ZERO_COPY : 0,
					   .capacity_bytes = MIB },
			       .disk_fd = fd });
	ck_assert_int_eq(request(&f, T_IN), OK);
	check_ram(&f, 0x5a, 0, 700);
	check_ram(&f, 0, 700, 1024);
	memset(rig_at(&f.rig, RIG_DATA), 0xaa, 512);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 100, 512), OK);
	check_ram(&f, 0, 0, 512);
	ck_assert_int_eq(ftruncate(other, 8 * 512 + 699), 0);
	ck_assert_int_eq(request(&f, T_IN), IOERR);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 100, 512), OK);
	/* A write makes it longer. */
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 99, 512), OK);
	ck_assert_int_eq(request(&f, T_IN), OK);
	close(other);
	finish(&f);
}
END_TEST

LOOP_PROGRAM("durable", 2,
	     a_write_of_a_driver_without_flush_is_durable_when_it_completes,
	     a_driver_that_took_flush_flushes_by_itself,
	     a_masked_flush_is_write_through,
	     write_through_is_what_this_driver_negotiated,
	     a_write_in_many_chunks_is_flushed_once,
	     a_write_that_cannot_be_made_durable_fails,
	     a_write_that_failed_is_not_flushed,
	     storage_without_a_flush_is_durable_as_it_is,
	     after_a_stop_the_write_is_not_flushed,
	     a_write_whose_flush_hangs_is_fenced_by_a_reset,
	     changed_after_a_failed_flush_all_fail_until_reset,
	     no_error_of_a_flush_is_taken_back,
	     after_a_failed_flush_no_write_through_reaches_the_storage,
	     changed_inside_the_size_it_told_short_storage_is_an_error,
	     changed_a_short_read_is_followed_up,
	     a_file_that_was_truncated_is_an_error,
	     a_thin_file_is_zeros_behind_the_size_it_had_and_not_before)
