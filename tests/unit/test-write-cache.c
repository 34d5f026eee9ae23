/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The write cache as the driver has it: field writeback, with CONFIG_WCE, and
 * what a completed write is worth.
 * _i of some loops: 0 fenced, 1 zero-copy.
 */

#include <errno.h>
#include <string.h>

#include "ranges.h"
#include "wedge.h"

#define WRITEBACK (VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce))

static int writeback(struct rig *rig)
{
	uint8_t value = 0xee;

	ktvblk_mmio_read(rig->dev, WRITEBACK, &value, 1);
	return value;
}

static void set_writeback(struct rig *rig, uint8_t value)
{
	ktvblk_mmio_write(rig->dev, WRITEBACK, &value, 1);
}

static uint64_t offered(struct rig *rig)
{
	rig_write(rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return rig_read(rig, VIRTIO_MMIO_DEVICE_FEATURES);
}

static void open_rig(struct rig *rig, int zero_copy, uint64_t features,
		     bool no_flush, uint32_t write_cache)
{
	rig_open(rig,
		 &(struct rig_options){
			 .config = { .flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
				     .write_cache = write_cache },
			 .features = features,
			 .no_flush = no_flush });
}

/* Is each write flushed, or none? */
static bool writes_through(struct rig *rig)
{
	const unsigned int before = storage_calls(rig->storage, OP_FLUSH);
	unsigned int n;

	ck_assert_int_eq(rig_request(rig, T_OUT, 0, 512), OK);
	ck_assert_int_eq(rig_request(rig, T_OUT, 2, 512), OK);
	n = storage_calls(rig->storage, OP_FLUSH) - before;
	ck_assert(n == 0 || n == 2);
	return n;
}

START_TEST(it_is_offered_where_there_is_a_flush)
{
	struct rig rig;

	rig_open(&rig, NULL);
	ck_assert(offered(&rig) & RIG_CONFIG_WCE);
	ck_assert_int_eq(writeback(&rig), 1);
	rig_close(&rig);
	rig_open(&rig, &(struct rig_options){ .config.features_masked =
						      UINT64_C(1)
						      << VIRTIO_BLK_F_FLUSH });
	ck_assert(!(offered(&rig) & RIG_CONFIG_WCE));
	ck_assert_int_eq(writeback(&rig), 0);
	rig_close(&rig);
	rig_open(&rig, &(struct rig_options){ .config.features_masked =
						      RIG_CONFIG_WCE });
	ck_assert(!(offered(&rig) & RIG_CONFIG_WCE));
	ck_assert_int_eq(writeback(&rig), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(the_driver_says_how_it_is)
{
	struct rig rig;

	open_rig(&rig, _i, RIG_CONFIG_WCE, false, KTVBLK_WRITE_CACHE_ON);
	rig_start(&rig);
	ck_assert_int_eq(writeback(&rig), 1);
	ck_assert(!writes_through(&rig));
	set_writeback(&rig, 0);
	ck_assert_int_eq(writeback(&rig), 0);
	ck_assert(writes_through(&rig));
	/* It may flush as well, and there is nothing to be flushed. */
	ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), OK);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 2);
	set_writeback(&rig, 1);
	ck_assert_int_eq(writeback(&rig), 1);
	ck_assert(!writes_through(&rig));
	/* Anything but 0 is that. */
	set_writeback(&rig, 0);
	set_writeback(&rig, 0xfe);
	ck_assert_int_eq(writeback(&rig), 1);
	rig_close(&rig);
}
END_TEST

START_TEST(it_begins_as_the_vmm_says_after_each_reset)
{
	struct rig rig;

	open_rig(&rig, _i, RIG_CONFIG_WCE, false, KTVBLK_WRITE_CACHE_OFF);
	rig_start(&rig);
	ck_assert_int_eq(writeback(&rig), 0);
	ck_assert(writes_through(&rig));
	set_writeback(&rig, 1);
	ck_assert(!writes_through(&rig));
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(writeback(&rig), 0);
	ck_assert(writes_through(&rig));
	rig_close(&rig);
	open_rig(&rig, _i, RIG_CONFIG_WCE, false, KTVBLK_WRITE_CACHE_ON);
	rig_start(&rig);
	set_writeback(&rig, 0);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(writeback(&rig), 1);
	ck_assert(!writes_through(&rig));
	rig_close(&rig);
}
END_TEST

/* Section 5.2.5.2; and whatever it writes there it has no means to flush. */
START_TEST(a_driver_without_flush_begins_without_a_cache)
{
	struct rig rig;

	open_rig(&rig, _i, RIG_CONFIG_WCE, true, KTVBLK_WRITE_CACHE_ON);
	rig_start(&rig);
	ck_assert_int_eq(writeback(&rig), 0);
	ck_assert(writes_through(&rig));
	set_writeback(&rig, 1);
	ck_assert(writes_through(&rig));
	rig_close(&rig);
}
END_TEST

/* Then what FLUSH says holds, as ever. */
START_TEST(a_driver_without_it_cannot_write_it)
{
	struct rig rig;

	for (uint32_t cache = 0; cache <= KTVBLK_WRITE_CACHE_OFF; cache++) {
		open_rig(&rig, _i, 0, false, cache);
		rig_start(&rig);
		set_writeback(&rig, cache == KTVBLK_WRITE_CACHE_OFF);
		ck_assert_int_eq(writeback(&rig),
				 cache == KTVBLK_WRITE_CACHE_ON);
		ck_assert(!writes_through(&rig));
		rig_close(&rig);
		open_rig(&rig, _i, 0, true, cache);
		rig_start(&rig);
		ck_assert(writes_through(&rig));
		rig_close(&rig);
	}
}
END_TEST

/* Not before FEATURES_OK, and of the bytes around it nothing changes. */
START_TEST(only_the_one_byte_is_written_and_only_once_it_is_agreed)
{
	unsigned char before[VIRTIO_MMIO_CONFIG], after[sizeof(before)];
	unsigned char zeros[sizeof(before)] = { 0 };
	struct rig rig;

	open_rig(&rig, _i, RIG_CONFIG_WCE, false, KTVBLK_WRITE_CACHE_ON);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_DRV);
	rig_write(&rig, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)RIG_CONFIG_WCE);
	set_writeback(&rig, 0);
	ck_assert_int_eq(writeback(&rig), 1);
	rig_reset(&rig);
	rig_start(&rig);
	ktvblk_mmio_read(rig.dev, VIRTIO_MMIO_CONFIG, before, sizeof(before));
	/* Neighbours, empty, far away, round the corner. */
	ktvblk_mmio_write(rig.dev, WRITEBACK - 1, zeros, 1);
	ktvblk_mmio_write(rig.dev, WRITEBACK + 1, zeros, 8);
	ktvblk_mmio_write(rig.dev, WRITEBACK - 4, zeros, 4);
	ktvblk_mmio_write(rig.dev, WRITEBACK, zeros, 0);
	ktvblk_mmio_write(rig.dev, UINT64_MAX - 3, zeros, 8);
	ck_assert_int_eq(writeback(&rig), 1);
	/* Any access it lies in. */
	ktvblk_mmio_write(rig.dev, WRITEBACK - 3, zeros, 4);
	ck_assert_int_eq(writeback(&rig), 0);
	set_writeback(&rig, 1);
	ktvblk_mmio_write(rig.dev, VIRTIO_MMIO_CONFIG, zeros, sizeof(zeros));
	ck_assert_int_eq(writeback(&rig), 0);
	ktvblk_mmio_read(rig.dev, VIRTIO_MMIO_CONFIG, after, sizeof(after));
	after[WRITEBACK - VIRTIO_MMIO_CONFIG] = 1;
	ck_assert_mem_eq(before, after, sizeof(before));
	rig_close(&rig);
}
END_TEST

/* What is with the storage when that changes is as it began. */
START_TEST(it_holds_for_what_begins_behind_it)
{
	struct later later;
	struct rig rig;

	later_init(&later);
	rig_open(&rig, &(struct rig_options){ .config.flags =
						      _i ? KTVBLK_ZERO_COPY : 0,
					      .features = RIG_CONFIG_WCE,
					      .later = &later });
	rig_start(&rig);
	rig_chain(&rig, 0, T_OUT, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	later_wait(&later, 1);
	set_writeback(&rig, 0);
	later_complete(&later, 0);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(later_ever(&later, OP_FLUSH), 0);

	rig_chain(&rig, 3, T_OUT, 0, 512);
	rig_avail(&rig, 3);
	rig_kick(&rig);
	later_wait(&later, 1);
	set_writeback(&rig, 1);
	later_complete(&later, 0);
	/* Now it is flushed, and not complete before. */
	later_wait(&later, 1);
	ck_assert_uint_eq(later_ever(&later, OP_FLUSH), 1);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	later_complete(&later, 0);
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

START_TEST(ranges_are_flushed_too)
{
	struct rig rig;

	open_rig(&rig, _i, RIG_CONFIG_WCE | RIG_RANGES, false,
		 KTVBLK_WRITE_CACHE_OFF);
	rig_start(&rig);
	ck_assert_int_eq(request(&rig, T_DISCARD, { 0, 1, 0 }), OK);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 1);
	ck_assert_int_eq(request(&rig, T_ZEROES, { 0, 1, 0 }, { 3, 1, 0 }), OK);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 2);
	set_writeback(&rig, 1);
	ck_assert_int_eq(request(&rig, T_DISCARD, { 0, 1, 0 }), OK);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 2);
	rig_close(&rig);
}
END_TEST

/* A worker that a reset left behind is not told what the next driver wants. */
START_TEST(a_worker_left_behind_keeps_what_was_agreed)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, &(struct rig_options){
			       .config = { .flags = _i ? KTVBLK_ZERO_COPY : 0,
					   .reset_timeout_ms = 20 },
			       .features = RIG_CONFIG_WCE });
	rig_start(&rig);
	wedge(&rig, T_OUT, 0);
	set_writeback(&rig, 0);
	rig_reset(&rig);
	recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	ck_assert_int_eq(writeback(&rig), 1);
	storage_let_go(rig.storage);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 0);
	rig_start(&rig);
	ck_assert(!writes_through(&rig));
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

LOOP_PROGRAM("write cache", 2, it_is_offered_where_there_is_a_flush,
	     the_driver_says_how_it_is,
	     it_begins_as_the_vmm_says_after_each_reset,
	     a_driver_without_flush_begins_without_a_cache,
	     a_driver_without_it_cannot_write_it,
	     only_the_one_byte_is_written_and_only_once_it_is_agreed,
	     it_holds_for_what_begins_behind_it, ranges_are_flushed_too,
	     a_worker_left_behind_keeps_what_was_agreed)
