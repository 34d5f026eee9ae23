/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What each register reads and takes. Registers are 32 bits wide and nothing
 * else; config space takes any access, and no offset or length, however large,
 * reaches beyond it.
 */

#include <endian.h>
#include <linux/virtio_ids.h>
#include <string.h>

#include "device.h"
#include "wedge.h"

#define CONFIG VIRTIO_MMIO_CONFIG
#define CONFIG_BYTES sizeof(struct virtio_blk_config)

static void open_sized(struct rig *rig, uint64_t bytes, uint64_t flags)
{
	const struct rig_options options = {
		.config = { .capacity_bytes = bytes, .flags = flags },
	};

	rig_open(rig, &options);
}

static uint64_t features_of(struct rig *rig)
{
	uint64_t features;

	rig_write(rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	features = (uint64_t)rig_read(rig, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
	rig_write(rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return features | rig_read(rig, VIRTIO_MMIO_DEVICE_FEATURES);
}

static uint64_t bit(int n)
{
	return UINT64_C(1) << n;
}

/* 12.1.1 */
START_TEST(magic_version_device_id)
{
	struct rig rig;

	rig_open(&rig, NULL);
	ck_assert_uint_eq(rig_read(&rig, 0x000), 0x74726976);
	ck_assert_uint_eq(rig_read(&rig, 0x004), 2);
	ck_assert_uint_eq(rig_read(&rig, 0x008), VIRTIO_ID_BLOCK);
	ck_assert_uint_eq(rig_read(&rig, 0x00c), 0);
	rig_close(&rig);
}
END_TEST

/* 12.1.2, 12.1.3 */
START_TEST(advertised_features_include_what_the_reference_has)
{
	const uint64_t all =
		bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_BLK_SIZE) |
		bit(VIRTIO_BLK_F_FLUSH) | RIG_EVENT_IDX | RIG_VERSION_1;
	struct rig rig;

	rig_open(&rig, NULL);
	ck_assert_uint_eq(features_of(&rig) & all, all);
	rig_close(&rig);
}
END_TEST

/*
 * SIZE_MAX is not offered: SeaBIOS's product of it and SEG_MAX is too large for
 * it, and the larger segments of those that do not take it are served anyway.
 */
START_TEST(advertised_features_changed_by_indirect_desc_and_size_max)
{
	struct rig rig;

	rig_open(&rig, NULL);
	ck_assert_uint_eq(features_of(&rig),
			  0x10120006e44ull | RIG_INDIRECT_DESC);
	rig_close(&rig);
	open_sized(&rig, 0, KTVBLK_READ_ONLY);
	ck_assert_uint_eq(features_of(&rig),
			  0x10120000e64ull | RIG_INDIRECT_DESC);
	rig_close(&rig);
}
END_TEST

START_TEST(masked_features_are_not_offered)
{
	const struct rig_options options = {
		.config = { .features_masked =
				    RIG_INDIRECT_DESC | RIG_EVENT_IDX |
				    bit(VIRTIO_BLK_F_FLUSH) | RIG_DISCARD },
	};
	struct rig rig;

	rig_open(&rig, &options);
	ck_assert_uint_eq(features_of(&rig), 0x10100004444ull);
	rig_close(&rig);
}
END_TEST

/* 12.1.46 */
START_TEST(features_page_2_returns_zero)
{
	static const uint32_t pages[] = { 2, 3, 32, UINT32_MAX };
	struct rig rig;

	rig_open(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		rig_write(&rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, pages[i]);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_DEVICE_FEATURES),
				  0);
	}
	rig_close(&rig);
}
END_TEST

/*
 * Config space
 */

/* 12.1.4 */
START_TEST(capacity_in_config_space)
{
	uint64_t sectors;
	struct rig rig;

	open_sized(&rig, 256u << 20, 0);
	ktvblk_mmio_read(rig.dev, CONFIG, &sectors, 8);
	ck_assert_uint_eq(le64toh(sectors), 524288);
	ck_assert_uint_eq(rig_identity(&rig).capacity_sectors, 524288);
	rig_close(&rig);
}
END_TEST

/* 12.1.27 */
START_TEST(capacity_custom_size)
{
	static const uint64_t sizes[] = { 512,	1000,	    4096,
					  4097, 1ull << 40, UINT64_MAX };
	struct rig rig;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t sectors;

		open_sized(&rig, sizes[i], 0);
		ktvblk_mmio_read(rig.dev, CONFIG, &sectors, 8);
		ck_assert_uint_eq(le64toh(sectors), sizes[i] / 512);
		ck_assert_uint_eq(rig_identity(&rig).capacity_sectors,
				  sizes[i] / 512);
		rig_close(&rig);
	}
}
END_TEST

/* 12.1.5, 12.1.18; 12.9.13 changed: no size_max */
START_TEST(changed_blk_size_and_seg_max_but_no_size_max_in_config_space)
{
	struct rig rig;

	rig_open(&rig, NULL);
	ck_assert_uint_eq(rig_read(&rig, CONFIG + 0x08), 0);
	ck_assert_uint_eq(rig_read(&rig, CONFIG + 0x0c), 128);
	ck_assert_uint_eq(rig_read(&rig, CONFIG + 0x10), 0);
	ck_assert_uint_eq(rig_read(&rig, CONFIG + 0x14), 512);
	rig_close(&rig);
}
END_TEST

/* Else a driver would build requests that never fit into its queue. */
START_TEST(seg_max_fits_the_queue_where_there_are_no_indirect_tables)
{
	static const struct {
		uint16_t queue_size_max;
		uint64_t masked;
		uint32_t seg_max;
	} rows[] = {
		{ 16, RIG_INDIRECT_DESC, 14 },
		{ 2, RIG_INDIRECT_DESC, 1 },
		{ 256, RIG_INDIRECT_DESC, 128 },
		{ 128, RIG_INDIRECT_DESC, 126 },
		{ 16, 0, 128 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct rig_options options = { 0 };
		struct rig rig;

		options.config.queue_size_max = rows[i].queue_size_max;
		options.config.features_masked = rows[i].masked;
		rig_open(&rig, &options);
		ck_assert_uint_eq(rig_read(&rig, CONFIG + 0x0c),
				  rows[i].seg_max);
		rig_close(&rig);
	}
}
END_TEST

/* All bytes as they must be, and zeros. */
static const unsigned char expected[128] = {
	0x80, 0, 0,  0, 0, 0, 0, 0, /* 128 sectors */
	0,    0, 0,  0, /* size_max */
	0x80, 0, 0,  0, /* seg_max */
	0,    0, 0,  0, /* geometry */
	0,    2, 0,  0, /* blk_size */
	0,    0, 1,  0, /* topology: min_io_size */
	0,    0, 0,  0, /* opt_io_size */
	1,    0, 0,  0, /* writeback, num_queues */
	0,    0, 32, 0, /* max_discard_sectors */
	0x80, 0, 0,  0, /* max_discard_seg */
	1,    0, 0,  0, /* discard_sector_alignment */
	0,    0, 2,  0, /* max_write_zeroes_sectors */
	16,   0, 0,  0, /* max_write_zeroes_seg */
	1,    0, 0,  0, /* write_zeroes_may_unmap */
};

/* 12.1.19, 12.1.21 */
START_TEST(config_space_struct_layout_byte_for_byte)
{
	unsigned char bytes[CONFIG_BYTES];
	struct rig rig;

	rig_open(&rig, NULL);
	memset(bytes, 0xaa, sizeof(bytes));
	ktvblk_mmio_read(rig.dev, CONFIG, bytes, sizeof(bytes));
	ck_assert_mem_eq(bytes, expected, sizeof(bytes));
	ck_assert_uint_eq(offsetof(struct virtio_blk_config, blk_size), 20);
	rig_close(&rig);
}
END_TEST

/* 12.1.20; every offset and width, and nothing beyond the buffer */
START_TEST(config_space_zero_past_struct_size)
{
	struct rig rig;

	rig_open(&rig, NULL);
	for (size_t offset = 0; offset < 80; offset++)
		for (size_t len = 0; len <= 24; len++) {
			unsigned char bytes[32];

			memset(bytes, 0xaa, sizeof(bytes));
			ktvblk_mmio_read(rig.dev, CONFIG + offset, bytes, len);
			ck_assert_mem_eq(bytes, expected + offset, len);
			ck_assert_uint_eq(bytes[len], 0xaa);
		}
	rig_close(&rig);
}
END_TEST

/* Field notes 2.3: config offset and length wrap. */
START_TEST(config_space_offsets_do_not_wrap)
{
	static const uint64_t offsets[] = { 0x300,	    0xfff,
					    0x1000,	    UINT32_MAX - 1,
					    UINT64_MAX - 8, UINT64_MAX - 3,
					    UINT64_MAX };
	static const unsigned char zeros[8];
	struct rig rig;

	rig_open(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++)
		for (size_t len = 1; len <= 8; len++) {
			unsigned char bytes[8] = { 0xaa, 0xaa, 0xaa, 0xaa,
						   0xaa, 0xaa, 0xaa, 0xaa };

			ktvblk_mmio_read(rig.dev, offsets[i], bytes, len);
			ck_assert_mem_eq(bytes, zeros, len);
			ktvblk_mmio_write(rig.dev, offsets[i], bytes, len);
		}
	ck_assert_uint_eq(rig_status(&rig), 0);
	rig_close(&rig);
}
END_TEST

/* 12.1.22, 12.1.43, 12.1.44, M0015: also after DRIVER_OK */
START_TEST(config_space_writes_silently_dropped)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, NULL);
	for (int started = 0; started < 2; started++) {
		unsigned char bytes[CONFIG_BYTES];

		rig_write(&rig, CONFIG, 7);
		rig_write(&rig, 0x300, 7);
		memset(bytes, 0xff, sizeof(bytes));
		ktvblk_mmio_write(rig.dev, CONFIG, bytes, sizeof(bytes));
		ktvblk_mmio_read(rig.dev, CONFIG, bytes, sizeof(bytes));
		ck_assert_mem_eq(bytes, expected, sizeof(bytes));
		ck_assert_uint_eq(rig_read(&rig, 0x300), 0);
		if (!started)
			rig_start(&rig);
	}
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/*
 * Accesses of other shapes
 */

/* 12.1.38, M0001 */
START_TEST(non_4byte_read_returns_ff)
{
	static const size_t widths[] = { 1, 2, 3, 5, 8, 16 };
	struct rig rig;

	rig_open(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(widths); i++)
		for (uint64_t offset = 0; offset < CONFIG; offset += 4) {
			unsigned char bytes[17] = { 0 };

			ktvblk_mmio_read(rig.dev, offset, bytes, widths[i]);
			for (size_t j = 0; j < widths[i]; j++)
				ck_assert_uint_eq(bytes[j], 0xff);
			ck_assert_uint_eq(bytes[widths[i]], 0);
		}
	rig_close(&rig);
}
END_TEST

/* 12.1.39 */
START_TEST(non_4byte_write_ignored)
{
	static const size_t widths[] = { 0, 1, 2, 3, 5, 8 };
	const uint64_t one = 1;
	struct rig rig;

	rig_open(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(widths); i++)
		ktvblk_mmio_write(rig.dev, VIRTIO_MMIO_STATUS, &one, widths[i]);
	ck_assert_uint_eq(rig_status(&rig), 0);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_ACK);
	/* A reset of another width is none either. */
	ktvblk_mmio_write(rig.dev, VIRTIO_MMIO_STATUS, &(uint64_t){ 0 }, 8);
	ck_assert_uint_eq(rig_status(&rig), S_ACK);
	rig_close(&rig);
}
END_TEST

START_TEST(an_unaligned_offset_is_no_register)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_ACK);
	for (uint32_t offset = 1; offset < CONFIG - 1; offset++) {
		if (offset % 4 == 0)
			continue;
		ck_assert_uint_eq(rig_read(&rig, offset), 0);
		rig_write(&rig, offset, 0);
	}
	ck_assert_uint_eq(rig_status(&rig), S_ACK);
	rig_close(&rig);
}
END_TEST

START_TEST(nothing_to_write_to_or_from_is_no_access)
{
	uint32_t value = 0;
	struct rig rig;

	ktvblk_mmio_read(NULL, 0, &value, 4);
	ck_assert_uint_eq(value, UINT32_MAX);
	ktvblk_mmio_write(NULL, 0, &value, 4);
	rig_open(&rig, NULL);
	ktvblk_mmio_read(rig.dev, 0, NULL, 4);
	ktvblk_mmio_read(rig.dev, 0, &value, 0);
	ktvblk_mmio_read(rig.dev, CONFIG, NULL, 4);
	ktvblk_mmio_read(NULL, CONFIG, NULL, 0);
	ktvblk_mmio_write(rig.dev, VIRTIO_MMIO_STATUS, NULL, 4);
	ck_assert_uint_eq(value, UINT32_MAX);
	rig_close(&rig);
}
END_TEST

/*
 * Registers of one direction
 */

/* Unknown and write-only registers read 0; others by their table. */
START_TEST(what_is_not_readable_reads_zero)
{
	static const uint32_t readable[] = { 0x000, 0x004, 0x008, 0x010, 0x034,
					     0x044, 0x060, 0x070, 0x0fc };
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	for (uint32_t offset = 0; offset < CONFIG; offset += 4) {
		bool skip = offset >= 0x0b0 && offset <= 0x0bc;

		for (size_t i = 0; i < ARRAY_SIZE(readable); i++)
			skip |= offset == readable[i];
		if (!skip)
			ck_assert_msg(rig_read(&rig, offset) == 0, "at %#x",
				      offset);
	}
	rig_close(&rig);
}
END_TEST

/* 13.3.19: there is no shared memory, whichever is selected. */
START_TEST(shared_memory_registers_read_all_ones_changed)
{
	struct rig rig;

	rig_open(&rig, NULL);
	for (uint32_t i = 0; i < 3; i++) {
		rig_write(&rig, VIRTIO_MMIO_SHM_SEL, i);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_SHM_LEN_LOW),
				  UINT32_MAX);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_SHM_LEN_HIGH),
				  UINT32_MAX);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_SHM_BASE_LOW),
				  UINT32_MAX);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_SHM_BASE_HIGH),
				  UINT32_MAX);
	}
	rig_close(&rig);
}
END_TEST

START_TEST(writes_to_read_only_registers_are_ignored)
{
	static const uint32_t offsets[] = { 0x000, 0x004, 0x008, 0x00c,
					    0x010, 0x034, 0x060, 0x0b0,
					    0x0c0, 0x0fc, 0x018, 0x0e4 };
	uint32_t before[0x40], after[0x40];
	struct rig rig;

	rig_open(&rig, NULL);
	rig_prepare(&rig);
	for (uint32_t i = 0; i < 0x40; i++)
		before[i] = rig_read(&rig, i * 4);
	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		rig_write(&rig, offsets[i], 0);
		rig_write(&rig, offsets[i], UINT32_MAX);
	}
	for (uint32_t i = 0; i < 0x40; i++)
		after[i] = rig_read(&rig, i * 4);
	ck_assert_mem_eq(before, after, sizeof(before));
	rig_close(&rig);
}
END_TEST

/* 12.1.36 */
START_TEST(interrupt_status_and_ack)
{
	struct rig rig;

	rig_open(&rig, NULL);
	for (uint32_t bits = 0; bits < 4; bits++) {
		atomic_store(&rig.dev->era->interrupt_status, bits);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
				  bits);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
				  bits);
	}
	rig_close(&rig);
}
END_TEST

/* 12.1.37 */
START_TEST(interrupt_ack_clears_bits)
{
	struct rig rig;

	rig_open(&rig, NULL);
	session_raise(rig.dev->queues[0].session,
		      VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
	rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK, 0);
	rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK, 0xfffffffc);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 3);
	rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_CONFIG);
	rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	rig_close(&rig);
}
END_TEST

/* 12.1.6 */
START_TEST(reset_bumps_config_generation)
{
	struct rig rig;

	rig_open(&rig, NULL);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION), 0);
	for (uint32_t i = 1; i <= 2; i++) {
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_ACK);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION),
				  i - 1);
		rig_reset(&rig);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION),
				  i);
	}
	rig.dev->config_generation = UINT32_MAX;
	rig_reset(&rig);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION), 0);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("mmio", magic_version_device_id,
	     advertised_features_include_what_the_reference_has,
	     advertised_features_changed_by_indirect_desc_and_size_max,
	     masked_features_are_not_offered, features_page_2_returns_zero,
	     capacity_in_config_space, capacity_custom_size,
	     changed_blk_size_and_seg_max_but_no_size_max_in_config_space,
	     seg_max_fits_the_queue_where_there_are_no_indirect_tables,
	     config_space_struct_layout_byte_for_byte,
	     config_space_zero_past_struct_size,
	     config_space_offsets_do_not_wrap,
	     config_space_writes_silently_dropped, non_4byte_read_returns_ff,
	     non_4byte_write_ignored, an_unaligned_offset_is_no_register,
	     nothing_to_write_to_or_from_is_no_access,
	     what_is_not_readable_reads_zero,
	     shared_memory_registers_read_all_ones_changed,
	     writes_to_read_only_registers_are_ignored,
	     interrupt_status_and_ack, interrupt_ack_clears_bits,
	     reset_bumps_config_generation)
