/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Reads and writes, each both fenced (through the session's buffer) and with
 * zero-copy: the guest must not be able to tell which.
 */

#include <string.h>

#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR

#define MIB (1u << 20)
#define NOWHERE 0x10000000u

/* _i of these loops: 0 fenced, 1 zero-copy. */
static void start(struct rig *rig, int zero_copy, uint64_t disk_bytes)
{
	const struct rig_options options = {
		.config.flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
		.queue_size = 256,
		.disk_bytes = disk_bytes,
	};

	rig_open(rig, &options);
	rig_start(rig);
}

/* One request at head 0; its status, and what its used entry says. */
#define request(rig, type, sector, used_len, ...)                              \
	({                                                                     \
		const struct rig_part data_[] = { __VA_ARGS__ };               \
                                                                               \
		rig_data(rig, 0, type, sector, data_, ARRAY_SIZE(data_));      \
		ck_assert_uint_eq(rig_serve(rig, 0), used_len);                \
		*rig_chain_status(rig, 0);                                     \
	})

#define read_ok(rig, sector, len, ...)                                         \
	ck_assert_uint_eq(request(rig, T_IN, sector, (len) + 1, __VA_ARGS__),  \
			  OK)
#define write_ok(rig, sector, ...)                                             \
	ck_assert_uint_eq(request(rig, T_OUT, sector, 1, __VA_ARGS__), OK)
#define ioerr(rig, type, sector, ...)                                          \
	ck_assert_uint_eq(request(rig, type, sector, 1, __VA_ARGS__), IOERR)

static uint8_t ram_byte(struct rig *rig, uint64_t addr)
{
	return *(uint8_t *)rig_at(rig, addr);
}

/* Guest memory holds what the disk was made with. */
static void check_pattern(struct rig *rig, uint64_t addr, uint64_t offset,
			  uint64_t len)
{
	uint64_t i = 0;

	while (i < len &&
	       ram_byte(rig, addr + i) == storage_pattern(offset + i))
		i++;
	ck_assert_uint_eq(i, len);
}

static void check_fill(struct rig *rig, uint64_t addr, int value, uint64_t len)
{
	uint64_t i = 0;

	while (i < len && ram_byte(rig, addr + i) == value)
		i++;
	ck_assert_uint_eq(i, len);
}

/* The disk holds what guest memory does. */
static void check_disk(struct rig *rig, uint64_t offset, uint64_t addr,
		       uint64_t len)
{
	const uint8_t *disk = rig->storage->bytes + offset;
	uint64_t i = 0;

	while (i < len && ram_byte(rig, addr + i) == disk[i])
		i++;
	ck_assert_uint_eq(i, len);
}

/* A pattern of the guest's own, another than the disk's. */
static void fill_own(struct rig *rig, uint64_t addr, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		*(uint8_t *)rig_at(rig, addr + i) =
			(uint8_t)(i * 7 + (i >> 12) + 99);
}

#define check_counters(rig, ...)                                               \
	do {                                                                   \
		const struct ktvblk_counters want_ = { __VA_ARGS__ };          \
		const struct ktvblk_counters have_ = rig_counters(rig);        \
                                                                               \
		ck_assert_mem_eq(&have_, &want_, sizeof(want_));               \
	} while (0)

/* 12.4.1 handle_read_pulls_bytes, 12.5.1 process_requests_full_read_chain */
START_TEST(full_read_chain)
{
	struct rig rig;

	start(&rig, _i, 0);
	read_ok(&rig, 3, 512, { RIG_DATA, 512, WRITABLE });
	check_pattern(&rig, RIG_DATA, 3 * 512, 512);
	check_fill(&rig, RIG_DATA + 512, 0, 512);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	check_counters(&rig, .reads_completed = 1, .bytes_read = 512);
	rig_close(&rig);
}
END_TEST

/* 12.4.2 handle_write_persists_bytes, 12.5.2 process_requests_full_write */
START_TEST(full_write_chain)
{
	struct rig rig;

	start(&rig, _i, 0);
	fill_own(&rig, RIG_DATA, 512);
	write_ok(&rig, 1, { RIG_DATA, 512, READABLE });
	check_disk(&rig, 512, RIG_DATA, 512);
	ck_assert_uint_eq(rig.storage->bytes[511], storage_pattern(511));
	ck_assert_uint_eq(rig.storage->bytes[1024], storage_pattern(1024));
	check_counters(&rig, .writes_completed = 1, .bytes_written = 512);
	rig_close(&rig);
}
END_TEST

/* 12.4.8 write_at_full_capacity_succeeds */
START_TEST(the_last_sector_can_be_read_and_written)
{
	const uint64_t last = RIG_DISK_BYTES / 512 - 1;
	struct rig rig;

	start(&rig, _i, 0);
	read_ok(&rig, last, 512, { RIG_DATA, 512, WRITABLE });
	check_pattern(&rig, RIG_DATA, last * 512, 512);
	fill_own(&rig, RIG_DATA, 512);
	write_ok(&rig, last, { RIG_DATA, 512, READABLE });
	check_disk(&rig, last * 512, RIG_DATA, 512);
	rig_close(&rig);
}
END_TEST

/*
 * 12.4.3 and 12.4.4 reject_out_of_range_sector, 12.8.14 write_sector_overflow:
 * behind the end, over the end, and where sector * 512 or the end wraps.
 */
START_TEST(out_of_range_requests_return_ioerr_and_do_nothing)
{
	static const uint64_t behind[] = {
		RIG_DISK_BYTES / 512,
		RIG_DISK_BYTES / 512 - 1,
		UINT64_MAX,
		UINT64_MAX / 512,
		UINT64_MAX / 512 + 1,
		(UINT64_C(1) << 55) + 1,
		UINT64_C(1) << 63,
		(UINT64_C(1) << 55) - 1,
		UINT64_MAX - RIG_DISK_BYTES,
	};
	struct rig rig;

	start(&rig, _i, 0);
	for (size_t i = 0; i < ARRAY_SIZE(behind); i++) {
		ioerr(&rig, T_IN, behind[i], { RIG_DATA, 1024, WRITABLE });
		ioerr(&rig, T_OUT, behind[i], { RIG_DATA, 1024, READABLE });
	}
	check_fill(&rig, RIG_DATA, 0, 1024);
	check_counters(&rig, .io_errors = 2 * ARRAY_SIZE(behind));
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	rig_close(&rig);
}
END_TEST

/*
 * 12.5.7 and 12.5.8 all_zero_len_segments_is_zero_byte_ok; the range is looked
 * at all the same, and a place right behind the last sector is inside.
 */
START_TEST(all_zero_len_segments_are_zero_bytes_ok)
{
	const uint64_t end = RIG_DISK_BYTES / 512;
	struct rig rig;

	start(&rig, _i, 0);
	for (uint64_t sector = 0; sector <= end; sector += end) {
		read_ok(&rig, sector, 0, { RIG_DATA, 0, WRITABLE },
			{ NOWHERE, 0, WRITABLE });
		write_ok(&rig, sector, { RIG_DATA, 0, READABLE },
			 { NOWHERE, 0, READABLE });
	}
	ioerr(&rig, T_IN, end + 1, { RIG_DATA, 0, WRITABLE });
	check_counters(&rig, .reads_completed = 2, .writes_completed = 2,
		       .io_errors = 1);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	rig_close(&rig);
}
END_TEST

/* 12.4.13 scatter_gather_read_two_segments, 12.4.15 multi_segment_scatter */
START_TEST(scatter_gather_read_of_two_segments)
{
	struct rig rig;

	start(&rig, _i, 0);
	read_ok(&rig, 2, 1024, { RIG_DATA + 0x1000, 300, WRITABLE },
		{ NOWHERE, 0, WRITABLE }, { RIG_DATA, 724, WRITABLE });
	check_pattern(&rig, RIG_DATA + 0x1000, 1024, 300);
	check_fill(&rig, RIG_DATA + 0x1000 + 300, 0, 300);
	check_pattern(&rig, RIG_DATA, 1324, 724);
	check_fill(&rig, RIG_DATA + 724, 0, 300);
	check_counters(&rig, .reads_completed = 1, .bytes_read = 1024);
	rig_close(&rig);
}
END_TEST

START_TEST(scatter_gather_write_of_odd_segments)
{
	struct rig rig;

	start(&rig, _i, 0);
	fill_own(&rig, RIG_DATA, 2048);
	write_ok(&rig, 5, { RIG_DATA, 1, READABLE },
		 { RIG_DATA + 1, 510, READABLE }, { NOWHERE, 0, READABLE },
		 { RIG_DATA + 511, 513, READABLE });
	check_disk(&rig, 5 * 512, RIG_DATA, 1024);
	rig_close(&rig);
}
END_TEST

/* 12.5.14 read_chain_builds_iovecs: 128 segments, backwards in memory */
START_TEST(reads_and_writes_of_128_segments)
{
	struct rig_part parts[128];
	struct rig rig;

	start(&rig, _i, 0);
	for (unsigned int i = 0; i < 128; i++)
		parts[i] = (struct rig_part){ RIG_DATA + (127 - i) * 600, 512,
					      WRITABLE };
	rig_data(&rig, 0, T_IN, 0, parts, 128);
	ck_assert_uint_eq(rig_serve(&rig, 0), RIG_DISK_BYTES + 1);
	for (unsigned int i = 0; i < 128; i++) {
		check_pattern(&rig, parts[i].addr, i * 512, 512);
		check_fill(&rig, parts[i].addr + 512, 0, 88);
		fill_own(&rig, parts[i].addr, 512);
		*(uint8_t *)rig_at(&rig, parts[i].addr) = (uint8_t)i;
		parts[i].flags = READABLE;
	}
	rig_data(&rig, 0, T_OUT, 0, parts, 128);
	ck_assert_uint_eq(rig_serve(&rig, 0), 1);
	for (unsigned int i = 0; i < 128; i++)
		check_disk(&rig, i * 512, parts[i].addr, 512);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 1);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 1);
	rig_close(&rig);
}
END_TEST

/* The last byte of memory is the guest's, the one behind it is not. */
START_TEST(a_segment_may_end_where_memory_does_and_not_one_byte_later)
{
	const uint64_t end = RIG_RAM_BYTES;
	struct rig rig;

	start(&rig, _i, 0);
	read_ok(&rig, 0, 512, { end - 512, 512, WRITABLE });
	check_pattern(&rig, end - 512, 0, 512);
	write_ok(&rig, 4, { end - 512, 512, READABLE });
	check_disk(&rig, 4 * 512, end - 512, 512);
	ioerr(&rig, T_IN, 0, { end - 511, 512, WRITABLE });
	ioerr(&rig, T_OUT, 0, { end - 511, 512, READABLE });
	ioerr(&rig, T_IN, 0, { end, 512, WRITABLE });
	ioerr(&rig, T_IN, 0, { UINT64_MAX - 511, 512, WRITABLE });
	ioerr(&rig, T_OUT, 0, { UINT64_MAX - 255, 512, READABLE });
	check_counters(&rig, .reads_completed = 1, .bytes_read = 512,
		       .writes_completed = 1, .bytes_written = 512,
		       .io_errors = 5);
	rig_close(&rig);
}
END_TEST

/* No part of a request is done of which some cannot be. */
START_TEST(one_segment_outside_memory_fails_all_before_any_io)
{
	struct rig rig;

	start(&rig, _i, 0);
	ioerr(&rig, T_IN, 0, { RIG_DATA, 512, WRITABLE },
	      { NOWHERE, 512, WRITABLE });
	check_fill(&rig, RIG_DATA, 0, 512);
	ioerr(&rig, T_OUT, 0, { RIG_DATA, 512, READABLE },
	      { NOWHERE, 512, READABLE });
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	check_counters(&rig, .io_errors = 2);
	rig_close(&rig);
}
END_TEST

/* Memory in three pieces that meet at 1 MiB and at 1 MiB + 4096. */
static const struct ktvblk_region in_pieces[] = {
	{ .guest_addr = MIB + 4096, .size = MIB },
	{ .guest_addr = 0, .size = MIB },
	{ .guest_addr = MIB, .size = 4096 },
	{ .guest_addr = 4 * MIB, .size = 4096 }, /* behind a hole */
};

static void start_in_pieces(struct rig *rig, int zero_copy)
{
	const struct rig_options options = {
		.config.flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
		.queue_size = 256,
		.disk_bytes = 16 * MIB,
		.regions = in_pieces,
		.n_regions = ARRAY_SIZE(in_pieces),
	};

	rig_open(rig, &options);
	rig_start(rig);
}

START_TEST(a_segment_over_region_borders_is_split)
{
	struct rig rig;

	start_in_pieces(&rig, _i);
	read_ok(&rig, 8, 8192, { MIB - 1000, 8192, WRITABLE });
	check_pattern(&rig, MIB - 1000, 8 * 512, 8192);
	check_fill(&rig, MIB - 1001, 0, 1);
	check_fill(&rig, MIB - 1000 + 8192, 0, 1);
	fill_own(&rig, MIB - 1000, 8192);
	write_ok(&rig, 100, { MIB - 1000, 8192, READABLE });
	check_disk(&rig, 100 * 512, MIB - 1000, 8192);
	/* Into the hole, and over it. */
	ioerr(&rig, T_IN, 0, { 2 * MIB + 4096 - 511, 512, WRITABLE });
	ioerr(&rig, T_IN, 0, { 4 * MIB - 512, 1024, WRITABLE });
	read_ok(&rig, 0, 512, { 4 * MIB, 512, WRITABLE });
	check_pattern(&rig, 4 * MIB, 0, 512);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 2);
	rig_close(&rig);
}
END_TEST

/* 128 segments of three pieces each are more iovecs than one call gets. */
START_TEST(more_than_256_pieces_go_in_several_calls)
{
	const uint64_t addr = MIB - 512, len = 512 + 4096 + 512;
	struct rig_part parts[128];
	struct rig rig;

	start_in_pieces(&rig, _i);
	fill_own(&rig, addr, len);
	for (unsigned int i = 0; i < 128; i++)
		parts[i] = (struct rig_part){ addr, (uint32_t)len, READABLE };
	rig_data(&rig, 0, T_OUT, 0, parts, 128);
	ck_assert_uint_eq(rig_serve(&rig, 0), 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	for (unsigned int i = 0; i < 128; i++)
		check_disk(&rig, i * len, addr, len);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), _i ? 2 : 1);

	/* The same in the other direction; the last one stays. */
	for (uint64_t i = 0; i < 128 * len; i++)
		rig.storage->bytes[i] = storage_pattern(i);
	for (unsigned int i = 0; i < 128; i++)
		parts[i].flags = WRITABLE;
	rig_data(&rig, 0, T_IN, 0, parts, 128);
	ck_assert_uint_eq(rig_serve(&rig, 0), 128 * len + 1);
	check_pattern(&rig, addr, 127 * len, len);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), _i ? 2 : 1);
	check_counters(&rig, .reads_completed = 1, .bytes_read = 128 * len,
		       .writes_completed = 1, .bytes_written = 128 * len);
	rig_close(&rig);
}
END_TEST

/* The buffer holds 1 MiB; segments that do not end where it does. */
START_TEST(requests_larger_than_the_buffer)
{
	const uint64_t len = 5 * MIB / 2;
	struct rig rig;

	start(&rig, _i, 4 * MIB);
	read_ok(&rig, 3, len, { RIG_DATA, MIB - 700, WRITABLE },
		{ RIG_DATA + MIB - 700, MIB, WRITABLE },
		{ RIG_DATA + 2 * MIB - 700, MIB / 2 + 700, WRITABLE });
	check_pattern(&rig, RIG_DATA, 3 * 512, len);
	check_fill(&rig, RIG_DATA + len, 0, 512);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), _i ? 1 : 3);

	fill_own(&rig, RIG_DATA, len);
	write_ok(&rig, 9, { RIG_DATA, MIB / 2 + 700, READABLE },
		 { RIG_DATA + MIB / 2 + 700, MIB, READABLE },
		 { RIG_DATA + 3 * MIB / 2 + 700, MIB - 700, READABLE });
	check_disk(&rig, 9 * 512, RIG_DATA, len);
	ck_assert_uint_eq(rig.storage->bytes[9 * 512 + len],
			  storage_pattern(9 * 512 + len));
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), _i ? 1 : 3);
	check_counters(&rig, .reads_completed = 1, .bytes_read = len,
		       .writes_completed = 1, .bytes_written = len);
	rig_close(&rig);
}
END_TEST

/* A disk whose capacity was given, on storage of fewer bytes. */
static void start_thin(struct rig *rig, int zero_copy, uint64_t capacity,
		       uint64_t size)
{
	const struct rig_options options = {
		.config = { .flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
			    .capacity_bytes = capacity },
		.disk_bytes = size,
		.queue_size = 256,
	};

	rig_open(rig, &options);
	rig_start(rig);
}

/*
 * 12.4.9 read_short_pads_with_zeros, 12.8.13 partial_data_read_zero_pads. Only
 * where the capacity was given: changed_inside_the_size_it_told_...
 */
START_TEST(behind_the_end_of_the_storage_there_are_zeros)
{
	struct rig rig;

	start_thin(&rig, _i, RIG_DISK_BYTES, 100);
	memset(rig_at(&rig, RIG_DATA), 0xaa, 4096);
	read_ok(&rig, 0, 1024, { RIG_DATA, 60, WRITABLE },
		{ RIG_DATA + 60, 964, WRITABLE });
	check_pattern(&rig, RIG_DATA, 0, 100);
	check_fill(&rig, RIG_DATA + 100, 0, 924);
	check_fill(&rig, RIG_DATA + 1024, 0xaa, 512);
	read_ok(&rig, 4, 512, { RIG_DATA + 1024, 512, WRITABLE });
	check_fill(&rig, RIG_DATA + 1024, 0, 512);
	/* Padding is not counted. */
	check_counters(&rig, .reads_completed = 2, .bytes_read = 100);
	rig_close(&rig);
}
END_TEST

/* The end may be in any chunk; what one before it held does not come back. */
START_TEST(the_end_of_the_storage_may_be_in_any_chunk)
{
	static const uint64_t sizes[] = { MIB - 1, MIB, MIB + 1, 2 * MIB + 1 };
	const uint64_t len = 3 * MIB;
	struct rig rig;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		start_thin(&rig, _i, len, sizes[i]);
		memset(rig_at(&rig, RIG_DATA), 0xaa, len + 1);
		read_ok(&rig, 0, len, { RIG_DATA, MIB, WRITABLE },
			{ RIG_DATA + MIB, MIB, WRITABLE },
			{ RIG_DATA + 2 * MIB, MIB, WRITABLE });
		check_pattern(&rig, RIG_DATA, 0, sizes[i]);
		check_fill(&rig, RIG_DATA + sizes[i], 0, len - sizes[i]);
		check_fill(&rig, RIG_DATA + len, 0xaa, 1);
		check_counters(&rig, .reads_completed = 1,
			       .bytes_read = sizes[i]);
		rig_close(&rig);
	}
}
END_TEST

/* 12.8.12 zero_capacity_read_returns_ioerr */
START_TEST(on_a_disk_of_no_sectors_nothing_can_be_read_or_written)
{
	const struct rig_options options = {
		.config = { .capacity_bytes = 511,
			    .flags = _i ? KTVBLK_ZERO_COPY : 0 },
	};
	struct rig rig;

	rig_open(&rig, &options);
	rig_start(&rig);
	ioerr(&rig, T_IN, 0, { RIG_DATA, 512, WRITABLE });
	ioerr(&rig, T_OUT, 0, { RIG_DATA, 512, READABLE });
	read_ok(&rig, 0, 0, { RIG_DATA, 0, WRITABLE });
	check_counters(&rig, .io_errors = 2, .reads_completed = 1);
	rig_close(&rig);
}
END_TEST

/* Capacity is what was configured; the storage may have more. */
START_TEST(storage_behind_the_capacity_is_out_of_range)
{
	const struct rig_options options = {
		.config = { .capacity_bytes = 2 * 512 + 100,
			    .flags = _i ? KTVBLK_ZERO_COPY : 0 },
	};
	struct rig rig;

	rig_open(&rig, &options);
	rig_start(&rig);
	read_ok(&rig, 1, 512, { RIG_DATA, 512, WRITABLE });
	ioerr(&rig, T_IN, 2, { RIG_DATA, 512, WRITABLE });
	ioerr(&rig, T_IN, 1, { RIG_DATA, 1024, WRITABLE });
	rig_close(&rig);
}
END_TEST

/* Both directions through an indirect table, as Linux does it. */
START_TEST(requests_through_an_indirect_table)
{
	static const struct rig_part in[] = {
		{ RIG_HEADER, 16, READABLE },
		{ RIG_DATA, 1024, WRITABLE },
		{ RIG_STATUS, 1, WRITABLE },
	};
	const struct rig_options options = {
		.config.flags = _i ? KTVBLK_ZERO_COPY : 0,
		.features = RIG_INDIRECT_DESC,
	};
	struct rig rig;

	rig_open(&rig, &options);
	rig_start(&rig);
	rig_header(&rig, RIG_HEADER, T_IN, 2);
	*rig_chain_status(&rig, 0) = SENTINEL;
	rig_parts_indirect(&rig, 9, in, ARRAY_SIZE(in));
	ck_assert_uint_eq(rig_serve(&rig, 9), 1025);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	check_pattern(&rig, RIG_DATA, 1024, 1024);
	rig_close(&rig);
}
END_TEST

LOOP_PROGRAM("io", 2, full_read_chain, full_write_chain,
	     the_last_sector_can_be_read_and_written,
	     out_of_range_requests_return_ioerr_and_do_nothing,
	     all_zero_len_segments_are_zero_bytes_ok,
	     scatter_gather_read_of_two_segments,
	     scatter_gather_write_of_odd_segments,
	     reads_and_writes_of_128_segments,
	     a_segment_may_end_where_memory_does_and_not_one_byte_later,
	     one_segment_outside_memory_fails_all_before_any_io,
	     a_segment_over_region_borders_is_split,
	     more_than_256_pieces_go_in_several_calls,
	     requests_larger_than_the_buffer,
	     behind_the_end_of_the_storage_there_are_zeros,
	     the_end_of_the_storage_may_be_in_any_chunk,
	     on_a_disk_of_no_sectors_nothing_can_be_read_or_written,
	     storage_behind_the_capacity_is_out_of_range,
	     requests_through_an_indirect_table)
