/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A device that is saved, and another that goes on with it: what a guest can see
 * is as it was.
 */

#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "fleet.h"
#include "mmio.h"
#include "move.h"
#include "wedge.h"

#define BUDGET 50

static int read_sector(struct rig *rig)
{
	return rig_request(rig, VIRTIO_BLK_T_IN, 1, 512);
}

static void open_idle(struct rig *rig)
{
	rig_open(rig, NULL);
}

static void open_started(struct rig *rig)
{
	open_idle(rig);
	rig_start(rig);
}

static void resume(struct rig *rig)
{
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
}

/* Not more than this: the call must not look at where it would write. */
static int save(struct rig *rig)
{
	unsigned char bytes[IMAGE_MAX];

	return ktvblk_save(rig->dev, bytes, sizeof(bytes));
}

START_TEST(what_cannot_be_saved_is_refused)
{
	unsigned char bytes[IMAGE_MAX + 1];
	struct rig rig;
	int n;

	open_started(&rig);
	ck_assert_int_eq(ktvblk_save(NULL, NULL, 0), -EINVAL);
	ck_assert_int_eq(ktvblk_save(NULL, bytes, sizeof(bytes)), -EINVAL);
	ck_assert_int_eq(ktvblk_save(rig.dev, NULL, 1), -EINVAL);
	n = ktvblk_save(rig.dev, NULL, 0);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(save(&rig), -EBUSY);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	memset(bytes, SENTINEL, sizeof(bytes));
	for (int size = 0; size < n; size++)
		ck_assert_int_eq(ktvblk_save(rig.dev, bytes, (size_t)size),
				 -ERANGE);
	ck_assert_uint_eq(bytes[0], SENTINEL);
	ck_assert_int_eq(ktvblk_save(rig.dev, bytes, (size_t)n), n);
	ck_assert_uint_eq(bytes[n], SENTINEL);
	/* Amid a reset, and behind it; and before the end. */
	ktvblk_request_reset(rig.dev);
	ck_assert_int_eq(save(&rig), -EBUSY);
	rig_reset(&rig);
	ck_assert_int_eq(save(&rig), n);
	ktvblk_request_stop(rig.dev);
	ck_assert_int_eq(save(&rig), -EBUSY);
	ck_assert_int_eq(ktvblk_save(rig.dev, NULL, 0), n);
	rig_close(&rig);
}
END_TEST

START_TEST(a_wedged_device_is_saved_when_its_worker_has_gone)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 1);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
	ck_assert_int_eq(save(&rig), -EBUSY);
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	ck_assert_int_eq(save(&rig), -EBUSY);
	storage_let_go(rig.storage);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert(eventually(ktvblk_is_paused(rig.dev)));
	ck_assert_int_gt(save(&rig), 0);
	wedge_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/*
 * Nothing happens before the resume, whatever waits, and then all that waited is
 * served although nobody kicks the new device.
 */
START_TEST(a_device_goes_on_where_it_was)
{
	const struct traces before = traces_now();

	for (unsigned int row = 0; row < 8; row++) {
		const unsigned int n_queues = row & 1 ? 2 : 1;
		const struct rig_options options = {
			.config = { .n_queues = n_queues,
				    .depth = row & 2 ? 32 : 1 },
			.features = (row & 4 ? RIG_EVENT_IDX : 0) |
				    (n_queues > 1 ? RIG_MQ : 0),
		};
		struct rig rig;

		rig_open(&rig, &options);
		rig_start(&rig);
		for (unsigned int q = 0; q < n_queues; q++) {
			rig_select(&rig, q);
			for (unsigned int i = 0; i < 20 + q; i++)
				ck_assert_int_eq(read_sector(&rig), 0);
		}
		ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
		for (unsigned int q = 0; q < n_queues; q++) {
			rig_select(&rig, q);
			rig_chain(&rig, 3, VIRTIO_BLK_T_IN, 2, 512);
			rig_avail(&rig, 3);
			rig_kick(&rig);
		}
		move(&rig);
		ck_assert_int_eq(ktvblk_get_state(rig.dev),
				 KTVBLK_STATE_PAUSED);
		ck_assert_uint_eq(rig_status(&rig), S_OK);
		for (unsigned int q = 0; q < n_queues; q++) {
			rig_select(&rig, q);
			ck_assert_uint_eq(*rig_chain_status(&rig, 3), SENTINEL);
			ck_assert_uint_eq(rig_used_idx(&rig), 20 + q);
		}
		resume(&rig);
		for (unsigned int q = 0; q < n_queues; q++) {
			rig_select(&rig, q);
			rig_wait_used(&rig, (uint16_t)(21 + q));
			ck_assert_uint_eq(*rig_chain_status(&rig, 3), 0);
			ck_assert_int_eq(read_sector(&rig), 0);
		}
		rig_close(&rig);
	}
	traces_expect_gone(&before);
}
END_TEST

START_TEST(saving_and_restoring_leave_guest_memory_alone)
{
	uint64_t sum;
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(read_sector(&rig), 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 2, 512);
	rig_avail(&rig, 0);
	/* Not even looked at: it need not have come yet. */
	mprotect(rig.ram, WEDGE_RAM_BYTES, PROT_NONE);
	move(&rig);
	ck_assert(eventually(worker_tid(&rig) &&
			     thread_state(worker_tid(&rig)) == 'S'));
	mprotect(rig.ram, WEDGE_RAM_BYTES, PROT_READ | PROT_WRITE);
	sum = wedge_ram_sum(&rig);
	move(&rig);
	ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
	resume(&rig);
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

START_TEST(the_same_device_gives_the_same_bytes)
{
	const struct rig_options options = {
		.config = { .throttle = { .iops = 1000,
					  .bytes_per_sec = 1 << 20 } },
	};
	struct image first, second;
	struct rig rig;

	rig_open(&rig, &options);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 64 << 10), 0);
	image_take(&first, &rig);
	for (unsigned int i = 0; i < 3; i++) {
		/* Tokens do not gather meanwhile. */
		poll(NULL, 0, 2);
		image_take(&second, &rig);
		ck_assert_uint_eq(first.size, second.size);
		ck_assert_mem_eq(first.bytes, second.bytes, first.size);
		move(&rig);
	}
	resume(&rig);
	ck_assert_int_eq(read_sector(&rig), 0);
	image_take(&second, &rig);
	ck_assert_mem_ne(first.bytes, second.bytes, first.size);
	rig_close(&rig);
}
END_TEST

/* A driver is moved before each of its steps, and sees nothing of it. */
START_TEST(a_set_up_goes_on_where_it_was)
{
	static const struct {
		uint32_t offset, value, reads;
	} steps[] = {
		{ VIRTIO_MMIO_STATUS, S_ACK, S_ACK },
		{ VIRTIO_MMIO_STATUS, S_DRV, S_DRV },
		{ VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1, 0 },
		{ VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1, 0 },
		{ VIRTIO_MMIO_DRIVER_FEATURES, 1, 0 },
		{ VIRTIO_MMIO_STATUS, S_FEAT, S_FEAT },
		{ VIRTIO_MMIO_QUEUE_SEL, 1, 0 },
		{ VIRTIO_MMIO_QUEUE_SEL, 0, 0 },
		{ VIRTIO_MMIO_QUEUE_NUM, 16, 0 },
		{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, RIG_AVAIL, 0 },
		{ VIRTIO_MMIO_QUEUE_USED_HIGH, 1, 0 },
		{ VIRTIO_MMIO_QUEUE_USED_LOW, RIG_USED, 0 },
		{ VIRTIO_MMIO_QUEUE_USED_HIGH, 0, 0 },
		{ VIRTIO_MMIO_QUEUE_READY, 1, 1 },
		{ VIRTIO_MMIO_STATUS, S_OK, S_OK },
	};
	const struct rig_options options = { .config = { .n_queues = 2 } };
	struct rig rig;

	rig_open(&rig, &options);
	rig_reset(&rig); /* the generation is another one then */
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		move(&rig);
		ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_IDLE);
		resume(&rig);
		rig_write(&rig, steps[i].offset, steps[i].value);
		move(&rig);
		resume(&rig);
		if (steps[i].reads)
			ck_assert_uint_eq(rig_read(&rig, steps[i].offset),
					  steps[i].reads);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION),
				  1);
		if (i >= 2)
			ck_assert_uint_eq(
				rig_read(&rig, VIRTIO_MMIO_DEVICE_FEATURES) & 1,
				1);
		if (steps[i].offset != VIRTIO_MMIO_STATUS || i < 13)
			continue;
		/* The second queue, not ready at DRIVER_OK, can come yet. */
		ck_assert_int_eq(read_sector(&rig), 0);
		rig.options.features = RIG_MQ;
		rig_select(&rig, 1);
		rig_set_up_queue(&rig);
		move(&rig);
		resume(&rig);
		ck_assert_int_eq(read_sector(&rig), 0);
	}
	rig_close(&rig);
}
END_TEST

START_TEST(a_queue_that_was_stopped_stays_so_and_can_come_back)
{
	struct rig rig;

	rig_open(&rig, &(struct rig_options){
			       .config = { .n_queues = 2 },
			       .features = RIG_MQ |
					   UINT64_C(1) << VIRTIO_F_RING_RESET,
		       });
	rig_start(&rig);
	for (unsigned int q = 0; q < 2; q++) {
		rig_select(&rig, q);
		ck_assert_int_eq(read_sector(&rig), 0);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, q);
		rig_write(&rig,
			  q ? VIRTIO_MMIO_QUEUE_RESET : VIRTIO_MMIO_QUEUE_READY,
			  q);
		move(&rig);
		resume(&rig);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 0);
		ck_assert_uint_eq(ports_workers(rig.dev->ports), 1);
		rig_select(&rig, !q);
		ck_assert_int_eq(read_sector(&rig), 0);
		rig_select(&rig, q);
		rig_set_up_queue(&rig);
		ck_assert_int_eq(read_sector(&rig), 0);
	}
	rig_close(&rig);
}
END_TEST

START_TEST(what_only_a_reset_mends_still_needs_one)
{
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .config = { .n_queues = 2 },
					      .features = RIG_MQ });
	rig_start(&rig);
	rig_select(&rig, 1);
	ck_assert_int_eq(read_sector(&rig), 0);
	rig_set_avail_idx(&rig, 1000);
	rig_kick(&rig);
	ck_assert(eventually(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET));
	move(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_NEEDS_RESET);
	resume(&rig);
	/* Also where its index is good again; the other queue is served. */
	rig_set_avail_idx(&rig, 2);
	rig_kick(&rig);
	rig_select(&rig, 0);
	ck_assert_int_eq(read_sector(&rig), 0);
	rig_select(&rig, 1);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	ck_assert_uint_eq(rig_counters(&rig).invalid_avail_idx_count, 0);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(read_sector(&rig), 0);
	/* A driver that gave up. */
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK | VIRTIO_CONFIG_S_FAILED);
	move(&rig);
	ck_assert_uint_eq(rig_status(&rig), S_OK | VIRTIO_CONFIG_S_FAILED);
	rig_close(&rig);
}
END_TEST

START_TEST(an_interrupt_that_was_not_acknowledged_is_raised_again)
{
	struct rig rig;

	open_started(&rig);
	ck_assert_int_eq(read_sector(&rig), 0);
	ck_assert(eventually(rig_irqs(&rig)));
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	rig_irqs(&rig);
	move(&rig);
	ck_assert_uint_eq(rig_irqs(&rig), 1);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_VRING);
	rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	move(&rig);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(a_flush_that_failed_stays_so)
{
	static const int64_t answers[] = { -EIO };
	struct rig rig;

	open_started(&rig);
	storage_script(rig.storage, answers, 1);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0),
			 VIRTIO_BLK_S_IOERR);
	for (unsigned int i = 0; i < 2; i++) {
		move(&rig);
		resume(&rig);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0),
				 VIRTIO_BLK_S_IOERR);
	}
	ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 1);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
	rig_close(&rig);
}
END_TEST

/* What a write before it left behind is not known to be durable there. */
START_TEST(the_first_flush_behind_a_restore_is_done)
{
	struct rig rig;

	open_started(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 1);
	move(&rig);
	resume(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_FLUSH), 2);
	rig_close(&rig);
}
END_TEST

START_TEST(a_debt_is_kept_and_no_burst_given)
{
	/* A minute's worth on credit. */
	const struct rig_options options = {
		.config = { .throttle = { .bytes_per_sec = 1024 } },
	};
	struct ktvblk_config config = options.config;
	struct throttle owed, kept;
	struct image image;
	struct saved saved;
	struct rig rig;

	rig_open(&rig, &options);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 64 << 10), 0);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(rig_counters(&rig).currently_throttled));
	image_take(&image, &rig);
	saved = image_read(&image);
	owed = saved.throttle;
	ck_assert_int_lt(owed.bytes.available, -(30 << 10));
	move(&rig);
	disk_throttle_look(rig.dev->throttle, &kept);
	ck_assert_int_eq(kept.bytes.available, owed.bytes.available);
	ck_assert_uint_eq(kept.bytes.remainder, owed.bytes.remainder);
	resume(&rig);
	/* It waits there as well. */
	ck_assert(eventually(rig_counters(&rig).currently_throttled));
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	/* With a smaller bucket, no more than that holds; without, nothing. */
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	saved.throttle.bytes.available = 1024;
	image_write(&image, &saved);
	config.throttle.bytes_per_sec = 100;
	move_over(&rig, move_make(&rig, &config, true));
	ck_assert_int_eq(ktvblk_restore(rig.dev, image.bytes, image.size), 0);
	disk_throttle_look(rig.dev->throttle, &kept);
	ck_assert_int_eq(kept.bytes.available, 100);
	memset(&config.throttle, 0, sizeof(config.throttle));
	move_over(&rig, move_make(&rig, &config, true));
	ck_assert_int_eq(ktvblk_restore(rig.dev, image.bytes, image.size), 0);
	resume(&rig);
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

static void count_init(void *userdata)
{
	atomic_fetch_add((_Atomic unsigned int *)userdata, 1);
}

START_TEST(a_restored_device_has_workers_as_it_was_told)
{
	_Atomic unsigned int n = 0;
	struct image image;
	struct rig rig;

	open_started(&rig);
	image_take(&image, &rig);
	move_over(&rig, move_make(&rig, &rig.options.config, true));
	ktvblk_set_worker_init(rig.dev, count_init, (void *)&n);
	/* A pause that was asked for before is the same one. */
	ck_assert_int_eq(ktvblk_pause(rig.dev, 0), 0);
	ck_assert_int_eq(ktvblk_restore(rig.dev, image.bytes, image.size), 0);
	ck_assert(eventually(n == 1));
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
	resume(&rig);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 0);
	ck_assert_int_eq(read_sector(&rig), 0);
	rig_close(&rig);
}
END_TEST

/* A guest that breaks rules is moved as any: else it could not be moved at all. */
START_TEST(an_unruly_driver_is_moved_too)
{
	struct rig rig;

	open_started(&rig);
	/* A chain in a circle is never answered. */
	rig_desc(&rig, 5, RIG_DATA, 16, VRING_DESC_F_NEXT, 5);
	for (unsigned int i = 0; i < 40; i++)
		rig_drop(&rig, 5);
	move(&rig);
	resume(&rig);
	ck_assert_int_eq(read_sector(&rig), 0);
	rig_reset(&rig);
	/* Rings that are nowhere, and nobody has looked yet. */
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 1);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	move(&rig);
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	resume(&rig);
	ck_assert(eventually(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET));
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("save", what_cannot_be_saved_is_refused,
	     a_wedged_device_is_saved_when_its_worker_has_gone,
	     a_device_goes_on_where_it_was,
	     saving_and_restoring_leave_guest_memory_alone,
	     the_same_device_gives_the_same_bytes,
	     a_set_up_goes_on_where_it_was,
	     a_queue_that_was_stopped_stays_so_and_can_come_back,
	     what_only_a_reset_mends_still_needs_one,
	     an_interrupt_that_was_not_acknowledged_is_raised_again,
	     a_flush_that_failed_stays_so,
	     the_first_flush_behind_a_restore_is_done,
	     a_debt_is_kept_and_no_burst_given,
	     a_restored_device_has_workers_as_it_was_told,
	     an_unruly_driver_is_moved_too)
