/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * DISCARD and WRITE_ZEROES, and what storage answers: it cannot, it fails, it is
 * interrupted, it hangs, it answers later.
 * _i of these loops: 0 fenced, 1 zero-copy.
 */

#include <errno.h>
#include <string.h>

#include "bounds.h"
#include "device.h"
#include "ranges.h"
#include "wedge.h"

#define MIB (1u << 20)

struct fixture {
	struct rig rig;
	struct recorder rec;
};

static void start_with(struct fixture *f, struct rig_options options,
		       int zero_copy)
{
	wedge_record(&f->rec);
	options.config.flags |= zero_copy ? KTVBLK_ZERO_COPY : 0;
	options.features |= options.config.discard ? RIG_WRITE_ZEROES
						   : RIG_RANGES;
	rig_open(&f->rig, &options);
	rig_start(&f->rig);
}

static void start(struct fixture *f, int zero_copy)
{
	start_with(f, (struct rig_options){ 0 }, zero_copy);
}

static void finish(struct fixture *f)
{
	rig_close(&f->rig);
	recorder_stop(&f->rec);
}

#define script(f, ...)                                                         \
	do {                                                                   \
		const int64_t answers_[] = { __VA_ARGS__ };                    \
                                                                               \
		storage_script((f)->rig.storage, answers_,                     \
			       ARRAY_SIZE(answers_));                          \
	} while (0)

#define check_calls(f, op, n)                                                  \
	ck_assert_uint_eq(storage_calls((f)->rig.storage, op), n)

static const int64_t refusals[] = { -EOPNOTSUPP, -ENOSYS, -ENOTTY, -EPERM };

/* A hint that the storage cannot take is taken all the same. */
START_TEST(a_refused_discard_is_done_and_not_asked_for_again)
{
	struct fixture f;

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		start(&f, _i);
		script(&f, AS_USUAL, refusals[i]);
		ck_assert_int_eq(request(&f.rig, T_DISCARD, { 0, 1, 0 },
					 { 2, 1, 0 }, { 4, 1, 0 }),
				 OK);
		ck_assert_int_eq(request(&f.rig, T_DISCARD, { 6, 1, 0 }), OK);
		check_calls(&f, OP_DISCARD, 2);
		rig_reset(&f.rig);
		rig_start(&f.rig);
		ck_assert_int_eq(request(&f.rig, T_DISCARD, { 8, 1, 0 }), OK);
		check_calls(&f, OP_DISCARD, 2);
		disk_expect(&f.rig, 0, 1, 0xdd);
		disk_expect(&f.rig, 1, 127, -1);
		/* Zeros are another matter. */
		ck_assert_int_eq(request(&f.rig, T_ZEROES, { 8, 1, UNMAP }),
				 OK);
		check_calls(&f, OP_WRITE_ZEROES, 1);
		ck_assert_uint_eq(rig_counters(&f.rig).discards_completed, 3);
		ck_assert_uint_eq(rig_counters(&f.rig).io_errors, 0);
		ck_assert_int_eq(recorder_count(&f.rec, NULL), 0);
		finish(&f);
	}
}
END_TEST

START_TEST(a_place_that_cannot_be_discarded_says_nothing_of_others)
{
	struct fixture f;

	start(&f, _i);
	script(&f, -EINVAL);
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { 0, 1, 0 }, { 2, 1, 0 }),
			 OK);
	check_calls(&f, OP_DISCARD, 2);
	disk_expect(&f.rig, 0, 2, -1);
	disk_expect(&f.rig, 2, 1, 0xdd);
	finish(&f);
}
END_TEST

/* First without the hole, then by writing; and the next time at once. */
START_TEST(refused_zeros_are_written)
{
	struct fixture f;

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		start(&f, _i);
		script(&f, refusals[i]);
		ck_assert_int_eq(request(&f.rig, T_ZEROES, { 1, 2, UNMAP },
					 { 4, 1, UNMAP }),
				 OK);
		check_calls(&f, OP_WRITE_ZEROES, 3);
		check_calls(&f, OP_WRITE, 0);
		ck_assert_uint_eq(f.rig.storage->range_flags, 0);
		script(&f, refusals[i]);
		ck_assert_int_eq(request(&f.rig, T_ZEROES, { 8, 2, UNMAP },
					 { 12, 3, 0 }),
				 OK);
		check_calls(&f, OP_WRITE_ZEROES, 4);
		check_calls(&f, OP_WRITE, 2);
		disk_expect(&f.rig, 0, 1, -1);
		disk_expect(&f.rig, 1, 2, 0);
		disk_expect(&f.rig, 3, 1, -1);
		disk_expect(&f.rig, 4, 1, 0);
		disk_expect(&f.rig, 5, 3, -1);
		disk_expect(&f.rig, 8, 2, 0);
		disk_expect(&f.rig, 10, 2, -1);
		disk_expect(&f.rig, 12, 3, 0);
		disk_expect(&f.rig, 15, 113, -1);
		/* No bytes of the guest's. */
		ck_assert_uint_eq(rig_counters(&f.rig).bytes_written, 0);
		ck_assert_uint_eq(rig_counters(&f.rig).write_zeroes_completed,
				  2);
		finish(&f);
	}
}
END_TEST

START_TEST(zeros_that_cannot_be_in_one_place_are_written_there)
{
	struct fixture f;

	start(&f, _i);
	script(&f, -EINVAL, -EINVAL);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 1, 2, UNMAP },
				 { 4, 1, UNMAP }),
			 OK);
	check_calls(&f, OP_WRITE, 1);
	check_calls(&f, OP_WRITE_ZEROES, 3);
	ck_assert_uint_eq(f.rig.storage->range_flags, KTVBLK_IO_MAY_UNMAP);
	disk_expect(&f.rig, 1, 2, 0);
	disk_expect(&f.rig, 4, 1, 0);
	finish(&f);
}
END_TEST

START_TEST(storage_without_these_ops_has_zeros_written)
{
	struct fixture f;

	start_with(&f,
		   (struct rig_options){ .lacks = NO_WRITE_ZEROES,
					 .disk_bytes = 8 * MIB },
		   _i);
	/* The guest's bytes were in that buffer before. */
	memset(rig_at(&f.rig, RIG_DATA), 0x5a, MIB);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, 0, MIB), OK);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 1, 4096 + 3, UNMAP },
				 { 8192, 1, 0 }),
			 OK);
	disk_expect(&f.rig, 0, 1, 0x5a);
	disk_expect(&f.rig, 1, 4096 + 3, 0);
	disk_expect(&f.rig, 4100, 8192 - 4100, -1);
	disk_expect(&f.rig, 8192, 1, 0);
	disk_expect(&f.rig, 8193, 16384 - 8193, -1);
	/* In the buffer's size, not all at once. */
	ck_assert_uint_ge(storage_calls(f.rig.storage, OP_WRITE), 1 + 3 + 1);
	finish(&f);
}
END_TEST

START_TEST(zeros_are_not_a_hole_where_nothing_is_to_be_discarded)
{
	struct fixture f;

	start_with(&f,
		   (struct rig_options){ .config.discard = KTVBLK_DISCARD_OFF },
		   _i);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 1, 2, UNMAP }), OK);
	check_calls(&f, OP_WRITE_ZEROES, 1);
	ck_assert_uint_eq(f.rig.storage->range_flags, 0);
	disk_expect(&f.rig, 1, 2, 0);
	finish(&f);
}
END_TEST

/* What is wrong with it is told: the place and why. */
START_TEST(an_error_is_one_and_is_recorded)
{
	static const struct {
		uint32_t type;
		const char *id;
	} rows[] = { { T_DISCARD, KTVBLK_MESSAGE_DISCARD_FAILED },
		     { T_ZEROES, KTVBLK_MESSAGE_WRITE_ZEROES_FAILED } };
	const struct kept_record *r;
	struct fixture f;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		start(&f, _i);
		script(&f, AS_USUAL, -EIO);
		ck_assert_int_eq(request(&f.rig, rows[i].type, { 1, 1, 0 },
					 { 3, 1, 0 }, { 5, 1, 0 }),
				 IOERR);
		r = recorder_wait(&f.rec, rows[i].id);
		expect_number(r, "KTVBLK_SECTOR", 3);
		expect_number(r, "ERRNO", EIO);
		disk_expect(&f.rig, 2, 126, -1);
		ck_assert_uint_eq(rig_counters(&f.rig).io_errors, 1);
		ck_assert_int_eq(request(&f.rig, rows[i].type, { 3, 1, 0 }),
				 OK);
		finish(&f);
	}
}
END_TEST

START_TEST(written_zeros_that_fail_are_an_error)
{
	const struct kept_record *r;
	struct fixture f;

	start_with(&f, (struct rig_options){ .lacks = NO_WRITE_ZEROES }, _i);
	script(&f, 1024, -ENOSPC);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 1, 8, 0 }), IOERR);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_WRITE_ZEROES_FAILED);
	expect_number(r, "KTVBLK_SECTOR", 1);
	expect_number(r, "ERRNO", ENOSPC);
	disk_expect(&f.rig, 1, 2, 0);
	disk_expect(&f.rig, 3, 125, -1);
	/* A short answer is followed up, one of nothing is an error. */
	script(&f, 512, 1024);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 20, 8, 0 }), OK);
	disk_expect(&f.rig, 20, 8, 0);
	disk_expect(&f.rig, 28, 1, -1);
	script(&f, 0);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 40, 8, 0 }), IOERR);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_WRITE_NO_PROGRESS);
	/* And one of more than was asked for. */
	recorder_clear(&f.rec);
	f.rig.storage->overlong = true;
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 60, 8, 0 }), IOERR);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_WRITE_ZEROES_FAILED);
	expect_number(r, "ERRNO", EIO);
	finish(&f);
}
END_TEST

START_TEST(interrupted_calls_are_tried_again_but_not_for_ever)
{
	int64_t answers[EINTR_RETRY_MAX + 1];
	struct fixture f;

	start(&f, _i);
	for (unsigned int i = 0; i < ARRAY_SIZE(answers); i++)
		answers[i] = -EINTR;
	storage_script(f.rig.storage, answers, EINTR_RETRY_MAX);
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { 1, 1, 0 }), OK);
	check_calls(&f, OP_DISCARD, EINTR_RETRY_MAX + 1);
	storage_script(f.rig.storage, answers, EINTR_RETRY_MAX + 1);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 2, 1, 0 }), IOERR);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_INTERRUPTED_TOO_OFTEN);
	disk_expect(&f.rig, 2, 126, -1);
	finish(&f);
}
END_TEST

/*
 * Durable
 */

START_TEST(a_flush_behind_them_reaches_the_storage)
{
	struct fixture f;

	start(&f, _i);
	ck_assert_int_eq(rig_request(&f.rig, T_FLUSH, 0, 0), OK);
	check_calls(&f, OP_FLUSH, 1);
	ck_assert_int_eq(rig_request(&f.rig, T_FLUSH, 0, 0), OK);
	check_calls(&f, OP_FLUSH, 1);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 1, 1, 0 }), OK);
	ck_assert_int_eq(rig_request(&f.rig, T_FLUSH, 0, 0), OK);
	check_calls(&f, OP_FLUSH, 2);
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { 1, 1, 0 }), OK);
	ck_assert_int_eq(rig_request(&f.rig, T_FLUSH, 0, 0), OK);
	check_calls(&f, OP_FLUSH, 3);
	finish(&f);
}
END_TEST

START_TEST(without_flush_they_are_durable_when_they_complete)
{
	struct fixture f;

	start_with(&f, (struct rig_options){ .no_flush = true }, _i);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 1, 1, 0 }, { 3, 1, 0 }),
			 OK);
	check_calls(&f, OP_FLUSH, 1);
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { 1, 1, 0 }), OK);
	check_calls(&f, OP_FLUSH, 2);
	/* Behind a failed flush nothing is; and nothing is touched. */
	script(&f, AS_USUAL, -EIO);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 5, 1, 0 }), IOERR);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 7, 1, 0 }), IOERR);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_FLUSH_FAILED_BEFORE);
	disk_expect(&f.rig, 7, 1, -1);
	finish(&f);
}
END_TEST

/*
 * Storage that hangs
 */

/* A reset in the midst of it: the rest is not touched, and nobody is told. */
static void hang(struct fixture *f, uint32_t type, unsigned int lacks,
		 int zero_copy)
{
	const struct test_range ranges[] = { { 1, 2, 0 }, { 9, 1, 0 } };
	const struct kept_record *r;
	uint64_t sum, start_ns;

	start_with(f,
		   (struct rig_options){ .config.reset_timeout_ms = 50,
					 .lacks = lacks },
		   zero_copy);
	storage_hold(f->rig.storage);
	ranges_chain(&f->rig, type, ranges, 2);
	rig_avail(&f->rig, 0);
	rig_kick(&f->rig);
	storage_wait_held(f->rig.storage, 1);
	start_ns = clock_start();
	rig_reset(&f->rig);
	ck_assert_uint_le(ms_since(start_ns), bound_ms(50 + 50));
	sum = wedge_ram_sum(&f->rig);
	r = recorder_wait(&f->rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	expect_text(r, "KTVBLK_REQ_TYPE",
		    type == T_DISCARD ? "discard" : "write_zeroes");
	expect_number(r, "KTVBLK_SECTOR", 1);
	expect_number(r, "KTVBLK_LENGTH", 1024);
	/* No guest memory is with the storage. */
	expect_text(r, "KTVBLK_FENCED", "yes");
	storage_let_go(f->rig.storage);
	recorder_wait(&f->rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(wedge_ram_sum(&f->rig), sum);
	disk_expect(&f->rig, 0, 1, -1);
	disk_expect(&f->rig, 3, 125, -1);
	ck_assert_uint_eq(rig_counters(&f->rig).discards_completed, 0);
	/* The guest gets its disk back. */
	rig_start(&f->rig);
	ck_assert_int_eq(ranges_request(&f->rig, type, ranges, 2), OK);
	finish(f);
}

START_TEST(a_reset_does_not_wait_for_a_hanging_discard)
{
	struct fixture f;

	hang(&f, T_DISCARD, 0, _i);
}
END_TEST

START_TEST(a_reset_does_not_wait_for_hanging_zeros)
{
	struct fixture f;

	hang(&f, T_ZEROES, 0, _i);
	hang(&f, T_ZEROES, NO_WRITE_ZEROES, _i);
}
END_TEST

START_TEST(after_a_stop_no_further_range_is_touched)
{
	static const struct test_range ranges[] = { { 1, 2, 0 }, { 9, 1, 0 } };
	struct fixture f;

	start(&f, _i);
	storage_hold(f.rig.storage);
	ranges_chain(&f.rig, T_ZEROES, ranges, 2);
	rig_avail(&f.rig, 0);
	rig_kick(&f.rig);
	storage_wait_held(f.rig.storage, 1);
	ck_assert_int_eq(ktvblk_request_stop(f.rig.dev), 0);
	storage_let_go(f.rig.storage);
	f.rig.dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(rig_destroy(&f.rig), KTVBLK_JOINED);
	check_calls(&f, OP_WRITE_ZEROES, 1);
	ck_assert_uint_eq(*rig_chain_status(&f.rig, 0), SENTINEL);
	rig_free(&f.rig);
	recorder_stop(&f.rec);
}
END_TEST

/* Found by the watch, before any reset, by its name. */
START_TEST(a_stalled_discard_is_seen)
{
	static const struct test_range range = { 5, 1, 0 };
	const struct kept_record *r;
	struct fixture f;

	start_with(&f, (struct rig_options){ .config.stall_warn_ms = 1 }, _i);
	storage_hold(f.rig.storage);
	ranges_chain(&f.rig, T_DISCARD, &range, 1);
	rig_avail(&f.rig, 0);
	rig_kick(&f.rig);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_REQUEST_STALLED);
	expect_text(r, "KTVBLK_REQ_TYPE", "discard");
	expect_number(r, "KTVBLK_SECTOR", 5);
	storage_let_go(f.rig.storage);
	recorder_wait(&f.rec, KTVBLK_MESSAGE_REQUEST_RESUMED);
	rig_wait_used(&f.rig, 1);
	finish(&f);
}
END_TEST

/*
 * Storage that answers later
 */

/* Many at once, answered in the order of the last first. */
START_TEST(many_are_with_the_storage_at_once)
{
	const unsigned int n = 5;
	struct later later;
	struct fixture f;

	later_init(&later);
	start_with(&f, (struct rig_options){ .later = &later }, _i);
	for (uint16_t i = 0; i < n; i++) {
		const uint64_t at = RIG_DATA + i * 64u;
		const struct rig_part data = { at, 2 * RANGE_BYTES, READABLE };

		ranges_put(&f.rig, at,
			   (const struct test_range[]){
				   { i * 8u, 1, i % 2u ? UNMAP : 0 },
				   { i * 8u + 4, 2, 0 } },
			   2);
		rig_data(&f.rig, (uint16_t)(3 * i), T_ZEROES, 0, &data, 1);
		rig_avail(&f.rig, (uint16_t)(3 * i));
		rig_kick(&f.rig);
		later_wait(&later, i + 1u);
	}
	ck_assert_uint_eq(later_look(&later, 1).op, KTVBLK_IO_WRITE_ZEROES);
	ck_assert_uint_eq(later_look(&later, 1).flags, KTVBLK_IO_MAY_UNMAP);
	ck_assert_uint_eq(later_look(&later, 1).offset, 8 * 512);
	ck_assert_uint_eq(later_look(&later, 1).length, 512);
	ck_assert_int_eq(later_look(&later, 1).n_iov, 0);
	while (rig_used_idx(&f.rig) < n)
		if (later_count(&later))
			later_complete(&later, later_count(&later) - 1);
	for (uint16_t i = 0; i < n; i++) {
		ck_assert_int_eq(*rig_chain_status(&f.rig, (uint16_t)(3 * i)),
				 OK);
		disk_expect(&f.rig, i * 8u, 1, 0);
		disk_expect(&f.rig, i * 8u + 1, 3, -1);
		disk_expect(&f.rig, i * 8u + 4, 2, 0);
		disk_expect(&f.rig, i * 8u + 6, 2, -1);
	}
	ck_assert_uint_eq(rig_counters(&f.rig).write_zeroes_completed, n);
	check_calls(&f, OP_WRITE, 0);
	finish(&f);
}
END_TEST

/* It is not asked for what it did not say that it takes. */
START_TEST(a_submit_that_takes_no_ranges_is_asked_to_write)
{
	struct later later;
	struct fixture f;

	later_init(&later);
	later.at_once = true;
	start_with(&f, (struct rig_options){ .later = &later }, _i);
	rig_reset(&f.rig);
	f.rig.dev->holdings->backend->ops.submit_flags = KTVBLK_SUBMIT_DISCARD;
	rig_start(&f.rig);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 1, 2, UNMAP }), OK);
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { 4, 1, 0 }), OK);
	ck_assert_uint_eq(later_ever(&later, OP_WRITE_ZEROES), 0);
	ck_assert_uint_eq(later_ever(&later, OP_WRITE), 1);
	ck_assert_uint_eq(later_ever(&later, OP_DISCARD), 1);
	disk_expect(&f.rig, 0, 1, -1);
	disk_expect(&f.rig, 1, 2, 0);
	finish(&f);
}
END_TEST

LOOP_PROGRAM("ranges, storage", 2,
	     a_refused_discard_is_done_and_not_asked_for_again,
	     a_place_that_cannot_be_discarded_says_nothing_of_others,
	     refused_zeros_are_written,
	     zeros_that_cannot_be_in_one_place_are_written_there,
	     storage_without_these_ops_has_zeros_written,
	     zeros_are_not_a_hole_where_nothing_is_to_be_discarded,
	     an_error_is_one_and_is_recorded,
	     written_zeros_that_fail_are_an_error,
	     interrupted_calls_are_tried_again_but_not_for_ever,
	     a_flush_behind_them_reaches_the_storage,
	     without_flush_they_are_durable_when_they_complete,
	     a_reset_does_not_wait_for_a_hanging_discard,
	     a_reset_does_not_wait_for_hanging_zeros,
	     after_a_stop_no_further_range_is_touched,
	     a_stalled_discard_is_seen, many_are_with_the_storage_at_once,
	     a_submit_that_takes_no_ranges_is_asked_to_write)
