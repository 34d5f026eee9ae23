/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * DISCARD and WRITE_ZEROES as a driver asks for them: what is offered, what is
 * done, and that of a request with anything wrong in it nothing is.
 * _i of some loops: 0 fenced, 1 zero-copy.
 */

#include <errno.h>
#include <string.h>

#include "bounds.h"
#include "device.h"
#include "ranges.h"

#define CONFIG VIRTIO_MMIO_CONFIG
#define DISK_SECTORS (RIG_DISK_BYTES / 512)
#define MANY 32u

static void start(struct rig *rig, int zero_copy)
{
	rig_open(rig, &(struct rig_options){
			      .config.flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
			      .features = RIG_RANGES,
			      .queue_size = 256 });
	rig_start(rig);
}

static uint64_t features_of(struct rig *rig)
{
	rig_write(rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return rig_read(rig, VIRTIO_MMIO_DEVICE_FEATURES);
}

static uint32_t config_of(struct rig *rig, size_t offset)
{
	return rig_read(rig, CONFIG + (uint32_t)offset);
}
#define config_of(rig, field)                                                  \
	config_of(rig, offsetof(struct virtio_blk_config, field))

static void check_offer(const struct rig_options *options, bool discard,
			bool zeroes, bool unmap)
{
	struct rig rig;

	rig_open(&rig, options);
	ck_assert_int_eq((features_of(&rig) & RIG_DISCARD) != 0, discard);
	ck_assert_int_eq((features_of(&rig) & RIG_WRITE_ZEROES) != 0, zeroes);
	ck_assert_uint_eq(config_of(&rig, max_discard_sectors),
			  discard ? DISCARD_SECTORS_MAX : 0);
	ck_assert_uint_eq(config_of(&rig, max_discard_seg),
			  discard ? RANGES_MAX : 0);
	ck_assert_uint_eq(config_of(&rig, discard_sector_alignment), discard);
	ck_assert_uint_eq(config_of(&rig, max_write_zeroes_sectors),
			  zeroes ? ZERO_SECTORS_MAX : 0);
	ck_assert_uint_eq(config_of(&rig, max_write_zeroes_seg),
			  zeroes ? ZERO_RANGES_MAX : 0);
	ck_assert_uint_eq(config_of(&rig, write_zeroes_may_unmap), unmap);
	rig_close(&rig);
}

START_TEST(what_is_offered_is_what_the_storage_can)
{
	check_offer(NULL, true, true, true);
	check_offer(&(struct rig_options){ .lacks = NO_DISCARD }, false, true,
		    true);
	/* Then they are written. */
	check_offer(&(struct rig_options){ .lacks = NO_WRITE_ZEROES }, true,
		    true, false);
	check_offer(&(struct rig_options){ .config.discard =
						   KTVBLK_DISCARD_OFF },
		    false, true, false);
	check_offer(&(struct rig_options){ .config.flags = KTVBLK_READ_ONLY },
		    false, false, false);
	check_offer(&(struct rig_options){ .config.features_masked =
						   RIG_RANGES },
		    false, false, false);
}
END_TEST

START_TEST(ranges_are_discarded_and_nothing_else)
{
	struct rig rig;

	start(&rig, _i);
	ck_assert_int_eq(request(&rig, T_DISCARD, { 3, 2, 0 }, { 0, 1, 0 },
				 { DISK_SECTORS - 1, 1, 0 }),
			 OK);
	disk_expect(&rig, 0, 1, 0xdd);
	disk_expect(&rig, 1, 2, -1);
	disk_expect(&rig, 3, 2, 0xdd);
	disk_expect(&rig, 5, DISK_SECTORS - 6, -1);
	disk_expect(&rig, DISK_SECTORS - 1, 1, 0xdd);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_DISCARD), 3);
	ck_assert_uint_eq(rig_counters(&rig).discards_completed, 1);
	ck_assert_uint_eq(rig_counters(&rig).bytes_written, 0);
	ck_assert_uint_eq(rig_counters(&rig).writes_completed, 0);
	rig_close(&rig);
}
END_TEST

START_TEST(zeros_are_there_with_unmap_and_without)
{
	struct rig rig;

	start(&rig, _i);
	ck_assert_int_eq(request(&rig, T_ZEROES, { 3, 2, UNMAP }), OK);
	ck_assert_uint_eq(rig.storage->range_flags, KTVBLK_IO_MAY_UNMAP);
	ck_assert_int_eq(request(&rig, T_ZEROES, { 8, 1, 0 }, { 10, 4, 0 }),
			 OK);
	ck_assert_uint_eq(rig.storage->range_flags, 0);
	disk_expect(&rig, 0, 3, -1);
	disk_expect(&rig, 3, 2, 0);
	disk_expect(&rig, 5, 3, -1);
	disk_expect(&rig, 8, 1, 0);
	disk_expect(&rig, 9, 1, -1);
	disk_expect(&rig, 10, 4, 0);
	disk_expect(&rig, 14, DISK_SECTORS - 14, -1);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	ck_assert_uint_eq(rig_counters(&rig).write_zeroes_completed, 2);
	/* What comes next has nothing of it left. */
	ck_assert_int_eq(rig_request(&rig, T_OUT, 3, 512), OK);
	ck_assert_int_eq(rig_request(&rig, T_IN, 8, 512), OK);
	rig_close(&rig);
}
END_TEST

/* As many as there may be, in pieces that end in the midst of a range. */
START_TEST(as_many_ranges_as_are_offered_in_any_pieces)
{
	struct test_range ranges[RANGES_MAX + 1];
	struct rig_part parts[RANGES_MAX];
	const uint32_t bytes = RANGES_MAX * RANGE_BYTES;
	struct rig rig;

	start(&rig, _i);
	for (unsigned int i = 0; i <= RANGES_MAX; i++)
		ranges[i] = (struct test_range){ i % DISK_SECTORS, 1, 0 };
	ranges_put(&rig, RIG_DATA, ranges, RANGES_MAX);
	for (unsigned int i = 0; i < MANY; i++)
		parts[i] = (struct rig_part){ RIG_DATA + i * 61, 61, READABLE };
	parts[MANY] = (struct rig_part){ RIG_DATA + MANY * 61,
					 bytes - MANY * 61, READABLE };
	rig_data(&rig, 0, T_DISCARD, 0, parts, MANY + 1);
	ck_assert_uint_eq(rig_serve(&rig, 0), 1);
	ck_assert_int_eq(*rig_chain_status(&rig, 0), OK);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_DISCARD), RANGES_MAX);
	disk_expect(&rig, 0, DISK_SECTORS, 0xdd);
	ck_assert_int_eq(
		ranges_request(&rig, T_DISCARD, ranges, RANGES_MAX + 1), IOERR);
	ck_assert_int_eq(
		ranges_request(&rig, T_ZEROES, ranges, ZERO_RANGES_MAX), OK);
	ck_assert_int_eq(ranges_request(&rig, T_ZEROES, ranges,
					ZERO_RANGES_MAX + 1),
			 IOERR);
	rig_close(&rig);
}
END_TEST

struct bad {
	const char *what;
	uint32_t type;
	int status;
	const char *reason;
	struct test_range ranges[3];
};

/* clang-format off */
#define GOOD { 1, 1, 0 }
static const struct bad bad[] = {
{ "unmap of a discard", T_DISCARD, UNSUPP, "unmap flag of a discard",
  { GOOD, { 2, 1, UNMAP }, GOOD } },
{ "unknown flag", T_DISCARD, UNSUPP, "unknown flag",
  { GOOD, GOOD, { 2, 1, 2 } } },
{ "unknown flag beside unmap", T_ZEROES, UNSUPP, "unknown flag",
  { GOOD, GOOD, { 2, 1, 3 } } },
{ "the highest flag", T_ZEROES, UNSUPP, "unknown flag",
  { { 2, 1, 0x80000000u }, GOOD, GOOD } },
{ "a flag behind other flaws", T_ZEROES, UNSUPP, "unknown flag",
  { { UINT64_MAX, UINT32_MAX, 0 }, { 0, 0, 0 }, { 2, 1, 4 } } },
{ "no sectors", T_DISCARD, IOERR, "no sectors", { GOOD, { 2, 0, 0 }, GOOD } },
{ "no sectors", T_ZEROES, IOERR, "no sectors", { GOOD, GOOD, { 2, 0, 0 } } },
{ "too many", T_DISCARD, IOERR, "too many sectors",
  { GOOD, GOOD, { 0, DISCARD_SECTORS_MAX + 1, 0 } } },
{ "too many", T_ZEROES, IOERR, "too many sectors",
  { GOOD, GOOD, { 0, ZERO_SECTORS_MAX + 1, UNMAP } } },
{ "far too many", T_ZEROES, IOERR, "too many sectors",
  { GOOD, { 0, UINT32_MAX, 0 }, GOOD } },
{ "over the end", T_DISCARD, IOERR, "not inside the disk",
  { GOOD, GOOD, { DISK_SECTORS - 1, 2, 0 } } },
{ "behind the end", T_ZEROES, IOERR, "not inside the disk",
  { GOOD, { DISK_SECTORS, 1, 0 }, GOOD } },
{ "sector times 512 wraps", T_DISCARD, IOERR, "not inside the disk",
  { GOOD, GOOD, { (UINT64_C(1) << 55) + 1, 1, 0 } } },
{ "the end wraps", T_ZEROES, IOERR, "not inside the disk",
  { GOOD, GOOD, { (UINT64_C(1) << 55) - 1, 1, 0 } } },
{ "the last there is", T_DISCARD, IOERR, "not inside the disk",
  { GOOD, GOOD, { UINT64_MAX, 1, 0 } } },
};
/* clang-format on */

START_TEST(one_bad_range_and_none_is_touched)
{
	const struct kept_record *r;
	unsigned int n_ioerr = 0;
	struct recorder rec;
	struct rig rig;

	start(&rig, _i);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct bad *b = &bad[i];

		recorder_start(&rec);
		ck_assert_msg(ranges_request(&rig, b->type, b->ranges, 3) ==
				      b->status,
			      "%s: %u", b->what, *rig_chain_status(&rig, 0));
		r = recorder_wait(&rec, KTVBLK_MESSAGE_RANGE_REFUSED);
		ck_assert_str_eq(kept_field(r, "KTVBLK_REASON"), b->reason);
		ck_assert_str_eq(kept_field(r, "KTVBLK_REQ_TYPE"),
				 b->type == T_DISCARD ? "discard"
						      : "write_zeroes");
		recorder_stop(&rec);
		n_ioerr += b->status == IOERR;
		/* Records are limited in number for each device. */
		if (i % 8 == 7) {
			disk_expect(&rig, 0, DISK_SECTORS, -1);
			rig_close(&rig);
			start(&rig, _i);
			n_ioerr = 0;
		}
	}
	disk_expect(&rig, 0, DISK_SECTORS, -1);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_DISCARD), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE_ZEROES), 0);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, n_ioerr);
	rig_close(&rig);
}
END_TEST

/* As a number of bytes: no range, half of one, and more than one by a bit. */
START_TEST(what_is_not_whole_ranges_is_refused)
{
	static const uint32_t lens[] = { 0, 1, 15, 17, 31, 33, 0x10000 };
	static const uint32_t types[] = { T_DISCARD, T_ZEROES };
	struct recorder rec;
	struct rig rig;
	int n = 0;

	recorder_start(&rec);
	start(&rig, _i);
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++)
		for (size_t j = 0; j < ARRAY_SIZE(types); j++) {
			const struct rig_part data = { RIG_DATA, lens[i],
						       READABLE };

			ranges_put(&rig, RIG_DATA,
				   (const struct test_range[]){ GOOD, GOOD },
				   2);
			rig_data(&rig, 0, types[j], 0, &data, 1);
			rig_serve(&rig, 0);
			ck_assert_int_eq(*rig_chain_status(&rig, 0), IOERR);
			if (n < (int)LOG_LIMIT_BURST)
				recorder_wait_n(&rec,
						KTVBLK_MESSAGE_RANGES_INVALID,
						++n);
		}
	/* No data segment at all. */
	rig_data(&rig, 0, T_DISCARD, 0, NULL, 0);
	rig_serve(&rig, 0);
	ck_assert_int_eq(*rig_chain_status(&rig, 0), IOERR);
	disk_expect(&rig, 0, DISK_SECTORS, -1);
	ck_assert_uint_eq(rig_counters(&rig).io_errors,
			  ARRAY_SIZE(lens) * ARRAY_SIZE(types) + 1);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(ranges_that_cannot_be_read_are_refused)
{
	static const struct rig_part rows[][2] = {
		/* The other way, in part the other way, nowhere, half there. */
		{ { RIG_DATA, 32, WRITABLE }, { RIG_DATA, 0, WRITABLE } },
		{ { RIG_DATA, 16, READABLE }, { RIG_DATA + 16, 16, WRITABLE } },
		{ { 0x10000000u, 32, READABLE }, { RIG_DATA, 0, READABLE } },
		{ { RIG_DATA, 16, READABLE }, { 0x10000000u, 16, READABLE } },
		{ { RIG_RAM_BYTES - 8, 16, READABLE },
		  { RIG_DATA, 16, READABLE } },
	};
	struct rig rig;

	start(&rig, _i);
	ranges_put(&rig, RIG_DATA, (const struct test_range[]){ GOOD, GOOD },
		   2);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		rig_data(&rig, 0, T_DISCARD, 0, rows[i], 2);
		rig_serve(&rig, 0);
		ck_assert_int_eq(*rig_chain_status(&rig, 0), IOERR);
	}
	disk_expect(&rig, 0, DISK_SECTORS, -1);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, ARRAY_SIZE(rows));
	rig_close(&rig);
}
END_TEST

START_TEST(what_was_not_negotiated_is_unsupported)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	ck_assert_int_eq(request(&rig, T_DISCARD, GOOD), UNSUPP);
	ck_assert_int_eq(request(&rig, T_ZEROES, GOOD), UNSUPP);
	rig_reset(&rig);
	rig.options.features = RIG_DISCARD;
	rig_start(&rig);
	ck_assert_int_eq(request(&rig, T_DISCARD, GOOD), OK);
	ck_assert_int_eq(request(&rig, T_ZEROES, GOOD), UNSUPP);
	rig_reset(&rig);
	rig.options.features = RIG_WRITE_ZEROES;
	rig_start(&rig);
	ck_assert_int_eq(request(&rig, T_DISCARD, GOOD), UNSUPP);
	ck_assert_int_eq(request(&rig, T_ZEROES, GOOD), OK);
	ck_assert_int_eq(request(&rig, VIRTIO_BLK_T_SECURE_ERASE, GOOD),
			 UNSUPP);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_DISCARD), 1);
	rig_close(&rig);
}
END_TEST

START_TEST(a_read_only_disk_keeps_what_it_has)
{
	struct rig rig;

	rig_open(&rig,
		 &(struct rig_options){ .config.flags = KTVBLK_READ_ONLY });
	rig_start(&rig);
	ck_assert_int_eq(request(&rig, T_DISCARD, GOOD), IOERR);
	ck_assert_int_eq(request(&rig, T_ZEROES, GOOD), IOERR);
	disk_expect(&rig, 0, DISK_SECTORS, -1);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 2);
	rig_close(&rig);
}
END_TEST

/* During the first call the guest makes something else of the second range. */
static void change_ranges(struct storage *storage, enum storage_op op)
{
	struct rig *rig = storage->hook_data;

	(void)op;
	ranges_put(rig, RIG_DATA,
		   (const struct test_range[]){ { 60, 1, 7 },
						{ UINT64_MAX, UINT32_MAX, 7 } },
		   2);
}

START_TEST(ranges_are_read_once)
{
	struct rig rig;

	start(&rig, _i);
	rig.storage->hook_data = &rig;
	rig.storage->hook = change_ranges;
	ck_assert_int_eq(request(&rig, T_ZEROES, { 3, 2, 0 }, { 8, 1, UNMAP }),
			 OK);
	disk_expect(&rig, 3, 2, 0);
	disk_expect(&rig, 8, 1, 0);
	disk_expect(&rig, 9, DISK_SECTORS - 9, -1);
	rig_close(&rig);
}
END_TEST

START_TEST(ranges_are_whole_blocks)
{
	static const struct test_range rows[] = {
		{ 1, 8, 0 }, { 8, 7, 0 }, { 8, 1, 0 }, { 4, 4, 0 }
	};
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .config.flags =
						      _i ? KTVBLK_ZERO_COPY : 0,
					      .features = RIG_RANGES,
					      .block_bytes = 4096,
					      .mem_align = 512 });
	rig_start(&rig);
	ck_assert_uint_eq(config_of(&rig, discard_sector_alignment), 8);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ck_assert_int_eq(ranges_request(&rig, T_DISCARD, &rows[i], 1),
				 IOERR);
		ck_assert_int_eq(ranges_request(&rig, T_ZEROES, &rows[i], 1),
				 IOERR);
	}
	disk_expect(&rig, 0, DISK_SECTORS, -1);
	ck_assert_int_eq(request(&rig, T_DISCARD, { 8, 8, 0 }), OK);
	ck_assert_int_eq(request(&rig, T_ZEROES, { 16, 16, 0 }), OK);
	disk_expect(&rig, 0, 8, -1);
	disk_expect(&rig, 8, 8, 0xdd);
	disk_expect(&rig, 16, 16, 0);
	rig_close(&rig);
}
END_TEST

/* False: the fourth came when there was another token. */
static bool the_fourth_operation_waits(void)
{
	struct rig rig;
	bool waited;

	rig_open(&rig, &(struct rig_options){
			       .config.throttle = { .bytes_per_sec = 512,
						    .iops = 1,
						    .iops_burst = 3 },
			       .features = RIG_RANGES });
	rig_start(&rig);
	ck_assert_int_eq(request(&rig, T_DISCARD, { 0, 32, 0 }), OK);
	ck_assert_int_eq(request(&rig, T_ZEROES, { 0, 32, 0 }), OK);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	ck_assert_uint_eq(rig_counters(&rig).throttled_count, 0);
	ranges_chain(&rig, T_DISCARD, (const struct test_range[]){ GOOD }, 1);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	rig_wait_used(&rig, 4);
	waited = rig_counters(&rig).throttled_count == 1;
	rig_close(&rig);
	return waited;
}

/* One operation each, of no bytes: else it would wait for a second and more. */
START_TEST(the_throttle_counts_one_operation_and_no_bytes)
{
	ck_assert(eventually(the_fourth_operation_waits()));
}
END_TEST

int main(void)
{
	const TTest *const twice[] = {
		ranges_are_discarded_and_nothing_else,
		zeros_are_there_with_unmap_and_without,
		as_many_ranges_as_are_offered_in_any_pieces,
		one_bad_range_and_none_is_touched,
		what_is_not_whole_ranges_is_refused,
		ranges_that_cannot_be_read_are_refused,
		ranges_are_read_once,
		ranges_are_whole_blocks,
	};
	const TTest *const once[] = {
		what_is_offered_is_what_the_storage_can,
		what_was_not_negotiated_is_unsupported,
		a_read_only_disk_keeps_what_it_has,
		the_throttle_counts_one_operation_and_no_bytes,
	};
	int r = run_loops("ranges, fenced and not", 2, twice,
			  ARRAY_SIZE(twice));

	return run_tests("ranges", once, ARRAY_SIZE(once)) || r;
}
