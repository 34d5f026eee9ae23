/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A device that was changed while it ran, by the VMM or the driver, and is saved:
 * the one that goes on knows of it.
 */

#include "fleet.h"
#include "move.h"
#include "ranges.h"
#include "wedge.h"

#define CONFIG VIRTIO_MMIO_INT_CONFIG
#define GENERATION VIRTIO_MMIO_CONFIG_GENERATION
#define KIB UINT64_C(1024)

static uint32_t read_half(struct rig *rig, unsigned int i)
{
	return rig_read(rig, VIRTIO_MMIO_CONFIG + 4 * i);
}

static uint64_t read_sectors(struct rig *rig)
{
	return read_half(rig, 0) | (uint64_t)read_half(rig, 1) << 32;
}

static void resize(struct rig *rig, uint64_t bytes)
{
	ck_assert_int_eq(ktvblk_set_capacity(rig->dev, bytes), 0);
}

/* To one that has been given that size. */
static void move_to_size(struct rig *rig, uint64_t bytes)
{
	struct image image;

	image_take(&image, rig);
	move_over(rig, move_make(rig, &rig->options.config, true));
	resize(rig, bytes);
	ck_assert_int_eq(ktvblk_restore(rig->dev, image.bytes, image.size), 0);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
}

START_TEST(the_size_it_had_last_is_the_one_to_have)
{
	struct image image, again;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	ck_assert_uint_eq(read_sectors(&rig), 128);
	resize(&rig, 32 * KIB);
	image_take(&image, &rig);
	rig_irqs(&rig);
	move_over(&rig, move_make(&rig, &rig.options.config, true));
	ck_assert_int_eq(ktvblk_restore(rig.dev, image.bytes, image.size),
			 -EINVAL);
	resize(&rig, 32 * KIB);
	ck_assert_int_eq(ktvblk_restore(rig.dev, image.bytes, image.size), 0);
	image_take(&again, &rig);
	ck_assert_uint_eq(again.size, image.size);
	ck_assert_mem_eq(again.bytes, image.bytes, image.size);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	/* It has not looked yet, and is told once more. */
	ck_assert_uint_gt(rig_irqs(&rig), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), CONFIG);
	ck_assert_uint_eq(rig_read(&rig, GENERATION), 1);
	ck_assert_uint_eq(read_sectors(&rig), 64);
	ck_assert_int_eq(rig_request(&rig, T_IN, 63, 512), OK);
	ck_assert_int_eq(rig_request(&rig, T_IN, 64, 512), IOERR);
	rig_close(&rig);
}
END_TEST

/* It reads one half there, and one here. */
START_TEST(a_size_that_a_move_tears_is_seen_by_its_generation)
{
	const uint64_t old = 0x1ffffffffull << 9, new = 0x200000000ull << 9;

	for (unsigned int at = 0; at < 4; at++) {
		uint32_t before, half[2];
		struct rig rig;

		rig_open(&rig, NULL);
		rig_start(&rig);
		resize(&rig, old);
		if (at == 0) {
			resize(&rig, new);
			move_to_size(&rig, new);
		}
		before = rig_read(&rig, GENERATION);
		for (unsigned int i = 0; i < 2; i++) {
			if (at == i + 1) {
				resize(&rig, new);
				move_to_size(&rig, new);
			}
			half[i] = read_half(&rig, i);
		}
		if (at == 3) {
			resize(&rig, new);
			move_to_size(&rig, new);
		}
		ck_assert_int_eq(before != rig_read(&rig, GENERATION), at > 0);
		if (at == 0)
			ck_assert_uint_eq(half[0] | (uint64_t)half[1] << 32,
					  new >> 9);
		ck_assert_uint_eq(read_sectors(&rig), new >> 9);
		rig_close(&rig);
	}
}
END_TEST

START_TEST(who_read_the_old_size_hears_of_it_at_driver_ok_elsewhere)
{
	for (unsigned int again = 0; again < 2; again++) {
		struct rig rig;

		rig_open(&rig, NULL);
		rig_prepare(&rig);
		ck_assert_uint_eq(read_sectors(&rig), 128);
		resize(&rig, 32 * KIB);
		if (again)
			ck_assert_uint_eq(read_sectors(&rig), 64);
		move_to_size(&rig, 32 * KIB);
		ck_assert_uint_eq(rig_irqs(&rig), 0);
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
		ck_assert_uint_eq(rig_irqs(&rig), !again);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
				  again ? 0 : CONFIG);
		rig_close(&rig);
	}
}
END_TEST

#define WRITEBACK (VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce))

static void set_writeback(struct rig *rig, uint8_t value)
{
	ktvblk_mmio_write(rig->dev, WRITEBACK, &value, 1);
}

static int writeback(struct rig *rig)
{
	uint8_t value = 0xee;

	ktvblk_mmio_read(rig->dev, WRITEBACK, &value, 1);
	return value;
}

/* How the other one would begin is nothing to a driver that has chosen. */
START_TEST(a_write_cache_is_as_the_driver_had_it)
{
	for (uint8_t wants = 0; wants < 2; wants++) {
		unsigned int flushes;
		struct rig rig;

		rig_open(&rig,
			 &(struct rig_options){ .features = RIG_CONFIG_WCE });
		rig_start(&rig);
		set_writeback(&rig, wants);
		rig.options.config.write_cache = wants ? KTVBLK_WRITE_CACHE_OFF
						       : KTVBLK_WRITE_CACHE_ON;
		move(&rig);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		ck_assert_int_eq(writeback(&rig), wants);
		flushes = storage_calls(rig.storage, OP_FLUSH);
		ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 512), OK);
		ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH),
				  flushes + !wants);
		/* And that is its own again behind a reset. */
		rig_reset(&rig);
		ck_assert_int_eq(writeback(&rig), !wants);
		rig_close(&rig);
	}
}
END_TEST

/* Which a write of a driver without a cache finds out. */
START_TEST(a_write_that_could_not_be_flushed_is_not_forgotten)
{
	const int64_t answers[] = { AS_USUAL, -EIO };
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .features = RIG_CONFIG_WCE });
	rig_start(&rig);
	set_writeback(&rig, 0);
	storage_script(rig.storage, answers, 2);
	ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 512), IOERR);
	move(&rig);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 512), IOERR);
	ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), IOERR);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), OK);
	rig_close(&rig);
}
END_TEST

/* The limits are the VMM's to set there, too; what is owed by them is not. */
START_TEST(what_is_owed_by_other_limits_is_owed_elsewhere)
{
	/* A minute's worth on credit. */
	const struct ktvblk_throttle limits = { .bytes_per_sec = 1024 };
	struct throttle owed, kept;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	ck_assert_int_eq(ktvblk_set_throttle(rig.dev, &limits), 0);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 64 << 10), OK);
	rig_chain(&rig, 0, T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(rig_counters(&rig).currently_throttled));
	rig.options.config.throttle = limits;
	move(&rig);
	disk_throttle_look(rig.dev->throttle, &owed);
	ck_assert_int_lt(owed.bytes.available, -(30 << 10));
	/* And kept by who is given others. */
	ck_assert_int_eq(ktvblk_set_throttle(rig.dev,
					     &(struct ktvblk_throttle){
						     .bytes_per_sec = 512 }),
			 0);
	disk_throttle_look(rig.dev->throttle, &kept);
	ck_assert_int_lt(kept.bytes.available, -(30 << 10));
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	ck_assert(eventually(rig_counters(&rig).currently_throttled));
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	/* Without any it goes on. */
	ck_assert_int_eq(ktvblk_set_throttle(rig.dev,
					     &(struct ktvblk_throttle){ 0 }),
			 0);
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

static void mark(void *userdata, uint64_t guest_addr, uint64_t length)
{
	_Atomic unsigned int *told = (_Atomic unsigned int *)userdata;

	(void)guest_addr;
	(void)length;
	atomic_fetch_add(told, 1);
}

START_TEST(a_log_that_was_set_before_the_restore_is_told)
{
	_Atomic unsigned int told = 0;
	struct image image;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	image_take(&image, &rig);
	move_over(&rig, move_make(&rig, &rig.options.config, true));
	ck_assert_int_eq(ktvblk_set_dirty_log(rig.dev, mark, &told, 0), 0);
	ck_assert_int_eq(ktvblk_restore(rig.dev, image.bytes, image.size), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	/* Data, status, the entry and the index. */
	ck_assert_uint_ge(told, 4);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("save-changed", the_size_it_had_last_is_the_one_to_have,
	     a_size_that_a_move_tears_is_seen_by_its_generation,
	     who_read_the_old_size_hears_of_it_at_driver_ok_elsewhere,
	     a_write_cache_is_as_the_driver_had_it,
	     a_write_that_could_not_be_flushed_is_not_forgotten,
	     what_is_owed_by_other_limits_is_owed_elsewhere,
	     a_log_that_was_set_before_the_restore_is_told)
