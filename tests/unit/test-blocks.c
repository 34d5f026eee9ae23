/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Storage that takes whole blocks larger than sectors, from aligned memory, as
 * O_DIRECT does: the guest is told, and what the storage could not do does not
 * reach it. _i of these loops: 0 fenced, 1 zero-copy.
 */

#include <errno.h>
#include <string.h>

#include "device.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define BLOCK 4096u
#define MIB (1u << 20)
#define CAPACITY VIRTIO_MMIO_CONFIG
#define BLK_SIZE (VIRTIO_MMIO_CONFIG + 0x14)

/* Memory in two pieces, so that a segment can become two. */
static const struct ktvblk_region in_pieces[] = {
	{ .guest_addr = 0, .size = MIB },
	{ .guest_addr = MIB, .size = MIB },
};

static void open_rig(struct rig *rig, int zero_copy, uint32_t mem_align)
{
	rig_open(rig, &(struct rig_options){
			      .config.flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
			      .disk_bytes = 64 * BLOCK + 3 * 512,
			      .block_bytes = BLOCK,
			      .mem_align = mem_align,
			      .queue_size = 256,
			      .regions = in_pieces,
			      .n_regions = ARRAY_SIZE(in_pieces) });
	rig_start(rig);
}

START_TEST(the_guest_is_told_of_the_blocks)
{
	struct rig rig;

	open_rig(&rig, _i, 512);
	ck_assert_uint_eq(rig_read(&rig, BLK_SIZE), BLOCK);
	/* Rounded down to whole ones. */
	ck_assert_uint_eq(rig_read(&rig, CAPACITY), 64 * BLOCK / 512);
	ck_assert_uint_eq(rig_identity(&rig).capacity_sectors,
			  64 * BLOCK / 512);
	ck_assert_int_eq(rig_request(&rig, T_IN, 63 * 8, BLOCK), OK);
	ck_assert_int_eq(rig_request(&rig, T_OUT, 63 * 8, BLOCK), OK);
	ck_assert_int_eq(rig_request(&rig, T_IN, 64 * 8, BLOCK), IOERR);
	rig_close(&rig);
}
END_TEST

START_TEST(what_is_not_whole_blocks_is_refused_and_recorded)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} rows[] = { { 0, 512 }, { 1, BLOCK }, { 8, BLOCK + 512 }, { 7, 512 } };
	const struct kept_record *r;
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	open_rig(&rig, _i, 512);
	for (int i = 0; i < (int)ARRAY_SIZE(rows); i++) {
		ck_assert_int_eq(rig_request(&rig, T_IN, rows[i].sector,
					     rows[i].len),
				 IOERR);
		ck_assert_int_eq(rig_request(&rig, T_OUT, rows[i].sector,
					     rows[i].len),
				 IOERR);
		r = recorder_wait_n(&rec, KTVBLK_MESSAGE_DATA_NOT_BLOCKS,
				    2 * i + 1);
		ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"),
				  rows[i].sector);
		ck_assert_uint_eq(kept_number(r, "KTVBLK_LENGTH"), rows[i].len);
		ck_assert_uint_eq(kept_number(r, "KTVBLK_BLOCK_SIZE"), BLOCK);
	}
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 2 * ARRAY_SIZE(rows));
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* Data of a guest that puts it anywhere; each is 2 blocks. */
static const struct {
	struct rig_part parts[4];
	size_t n;
} layouts[] = {
	{ { { RIG_DATA, 2 * BLOCK, 0 } }, 1 },
	{ { { RIG_DATA + 512, 2 * BLOCK, 0 } }, 1 },
	{ { { RIG_DATA + 1, 2 * BLOCK, 0 } }, 1 },
	{ { { RIG_DATA, 512, 0 }, { RIG_DATA + BLOCK, 2 * BLOCK - 512, 0 } },
	  2 },
	{ { { RIG_DATA + 3, 700, 0 },
	    { RIG_DATA + BLOCK, 0, 0 },
	    { RIG_DATA + 2 * BLOCK, BLOCK, 0 },
	    { RIG_DATA + 4 * BLOCK, BLOCK - 700, 0 } },
	  4 },
	{ { { MIB - 512, 2 * BLOCK, 0 } }, 1 },
	{ { { MIB - BLOCK, 2 * BLOCK, 0 } }, 1 },
};

static int request(struct rig *rig, size_t layout, uint32_t type)
{
	struct rig_part parts[4];
	const size_t n = layouts[layout].n;

	for (size_t i = 0; i < n; i++) {
		parts[i] = layouts[layout].parts[i];
		parts[i].flags = type == T_IN ? WRITABLE : READABLE;
	}
	rig_data(rig, 0, type, 16, parts, n);
	rig_serve(rig, 0);
	return *rig_chain_status(rig, 0);
}

/* Byte i of the data of a layout. */
static unsigned char *data_at(struct rig *rig, size_t layout, uint64_t i)
{
	const struct rig_part *part = layouts[layout].parts;

	for (; i >= part->len; part++)
		i -= part->len;
	return (unsigned char *)rig_at(rig, part->addr + i);
}

/* Does it hold what the disk does, from there on? */
static bool data_is(struct rig *rig, size_t layout, const unsigned char *disk)
{
	uint64_t i = 0;

	while (i < 2 * BLOCK && *data_at(rig, layout, i) == disk[i])
		i++;
	return i == 2 * BLOCK;
}

/* It goes through the buffer then, zero-copy or not. */
START_TEST(memory_may_be_aligned_to_nothing)
{
	struct rig rig;

	for (uint32_t align = 4; align <= 4096; align *= 32)
		for (size_t k = 0; k < ARRAY_SIZE(layouts); k++) {
			const unsigned char *disk;

			open_rig(&rig, _i, align);
			disk = rig.storage->bytes + 2 * BLOCK;
			ck_assert_int_eq(request(&rig, k, T_IN), OK);
			ck_assert(data_is(&rig, k, disk));
			for (uint64_t i = 0; i < 2 * BLOCK; i++)
				*data_at(&rig, k, i) = (unsigned char)(i * 3);
			ck_assert_int_eq(request(&rig, k, T_OUT), OK);
			ck_assert(data_is(&rig, k, disk));
			ck_assert_uint_eq(disk[1], 3);
			rig_close(&rig);
		}
}
END_TEST

/* Where the storage can take it, zero-copy is without a copy. */
START_TEST(an_aligned_write_with_zero_copy_is_not_copied)
{
	struct rig rig;

	open_rig(&rig, _i, 512);
	storage_hold(rig.storage);
	memset(rig_at(&rig, RIG_DATA), 1, BLOCK);
	rig_chain(&rig, 0, T_OUT, 0, BLOCK);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	memset(rig_at(&rig, RIG_DATA), 2, BLOCK);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(rig.storage->bytes[0], _i ? 2 : 1);
	rig_close(&rig);
}
END_TEST

/* A guest that is not told would send sectors. */
START_TEST(larger_blocks_cannot_be_hidden_from_the_guest)
{
	const uint64_t flags = _i ? KTVBLK_ZERO_COPY : 0;
	struct storage *storage = storage_new(64 * BLOCK);
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev = NULL;

	config.backend = storage_backend(storage);
	config.flags = flags;
	config.features_masked = UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE;
	ck_assert_int_eq(ktvblk_new(&config, &dev), 0);
	ktvblk_destroy(dev);
	config.backend->block_bytes = BLOCK;
	dev = NULL;
	ck_assert_int_eq(ktvblk_new(&config, &dev), -EINVAL);
	ck_assert_ptr_null(dev);
	ktvblk_backend_unref(config.backend);
	storage_free(storage);
}
END_TEST

START_TEST(a_disk_of_less_than_a_block_is_told)
{
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	rig_open(&rig, &(struct rig_options){ .disk_bytes = BLOCK - 1,
					      .block_bytes = BLOCK,
					      .mem_align = 512 });
	ck_assert_uint_eq(
		kept_number(recorder_wait(&rec,
					  KTVBLK_MESSAGE_CAPACITY_BELOW_SECTOR),
			    "KTVBLK_SECTOR_SIZE"),
		BLOCK);
	ck_assert_uint_eq(rig_read(&rig, CAPACITY), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

LOOP_PROGRAM("blocks", 2, the_guest_is_told_of_the_blocks,
	     what_is_not_whole_blocks_is_refused_and_recorded,
	     memory_may_be_aligned_to_nothing,
	     an_aligned_write_with_zero_copy_is_not_copied,
	     larger_blocks_cannot_be_hidden_from_the_guest,
	     a_disk_of_less_than_a_block_is_told)
