/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * QueueReady 0 behind DRIVER_OK (sections 4.2.2.1, 4.2.2.2): the queue is the
 * driver's again once the write has come back, within the budget of a reset and
 * fenced as one, and the rest of the device is as it was.
 */

#include <string.h>

#include "device.h"
#include "wedge.h"

#define BUDGET 50

static void stop_queue(struct rig *rig)
{
	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, 0);
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 0);
}

/* Rings that were never used, of another size, as a driver sets them up. */
static void start_queue(struct rig *rig)
{
	memset(rig_at(rig, RIG_AVAIL), 0, 4096);
	memset(rig_at(rig, RIG_USED), 0, 4096);
	rig->avail_idx = rig->used_seen = 0;
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 1);
}

START_TEST(a_queue_that_is_not_ready_is_left_alone)
{
	const struct traces before = traces_now();
	struct recorder rec;
	struct rig rig;
	uint64_t sum;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	stop_queue(&rig);
	ck_assert(eventually(worker_tid(&rig) == 0));
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_VRING);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_IDLE);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	sum = wedge_ram_sum(&rig);
	rig_kick(&rig);
	stop_queue(&rig);
	ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	recorder_stop(&rec);
	traces_expect_gone(&before);
}
END_TEST

START_TEST(a_stopped_queue_may_be_set_up_and_started_again)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(rig_read_sector(&rig), 0);
		/* Not while it is used. */
		rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 4);
		ck_assert_uint_eq(rig.dev->queues[0].config.size, 16);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, 1);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, 7);
		stop_queue(&rig);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 8);
		ck_assert_uint_eq(rig.dev->queues[0].config.size, 8);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 16);
		start_queue(&rig);
	}
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_RUNNING);
	/* A reset forgets that it was stopped. */
	stop_queue(&rig);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(a_queue_is_stopped_within_the_budget_whatever_hangs)
{
	const struct traces before = traces_now();
	struct recorder rec;
	uint64_t start, sum;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 1);
	start = clock_start();
	stop_queue(&rig);
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	expect_text(recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
		    "KTVBLK_FENCED", "yes");
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	start_queue(&rig);
	rig_chain(&rig, 0, VIRTIO_BLK_T_OUT, 2, 512);
	rig_avail(&rig, 0);
	sum = wedge_ram_sum(&rig);
	rig_kick(&rig);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), VIRTIO_BLK_S_OK);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	wedge_close(&rig);
	recorder_stop(&rec);
	traces_expect_gone(&before);
}
END_TEST

START_TEST(a_queue_that_needs_a_reset_is_not_started_by_less)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	rig_set_avail_idx(&rig, 100);
	rig_kick(&rig);
	ck_assert(eventually(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET));
	stop_queue(&rig);
	ck_assert(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET);
	start_queue(&rig);
	ck_assert(eventually(worker_tid(&rig) == 0));
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_NEEDS_RESET);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(a_queue_is_stopped_on_a_device_that_was_told_to_stop)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	stop_queue(&rig);
	start_queue(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_STOPPING);
	stop_queue(&rig);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("queue-stop", a_queue_that_is_not_ready_is_left_alone,
	     a_stopped_queue_may_be_set_up_and_started_again,
	     a_queue_is_stopped_within_the_budget_whatever_hangs,
	     a_queue_that_needs_a_reset_is_not_started_by_less,
	     a_queue_is_stopped_on_a_device_that_was_told_to_stop)
