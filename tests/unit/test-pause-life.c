/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A pause over the starts, resets and ends of its device; and of what is no
 * device.
 */

#include "wedge.h"

/* A chain at head 0 that nobody serves yet. */
static void make_available(struct rig *rig)
{
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	rig_kick(rig);
}

START_TEST(a_pause_survives_a_reset)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	for (int i = 0; i < 3; i++) {
		rig_reset(&rig);
		ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
		rig_prepare(&rig);
		make_available(&rig);
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
		ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
		ck_assert_int_eq(ktvblk_get_state(rig.dev),
				 KTVBLK_STATE_PAUSED);
		ck_assert(eventually(thread_state(worker_tid(&rig)) == 'S'));
		ck_assert_uint_eq(rig_used_idx(&rig), 0);
	}
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_wait_used(&rig, 1);
	rig_close(&rig);
}
END_TEST

START_TEST(a_device_paused_before_its_start_serves_nothing_until_resumed)
{
	struct rig rig;

	wedge_open_idle(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, 0), 0);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_IDLE);
	rig_prepare(&rig);
	make_available(&rig);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert(eventually(thread_state(worker_tid(&rig)) == 'S'));
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_wait_used(&rig, 1);
	rig_close(&rig);
}
END_TEST

/* 13.2 "reset/destroy of a parked worker always timed out" */
START_TEST(a_parked_worker_is_reset_and_destroyed_quickly)
{
	struct recorder rec;
	uint64_t start;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	start = clock_start();
	rig_reset(&rig);
	rig_start(&rig);
	/* Stop and pause at once: the stop wins. */
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
	rig_close(&rig);
	ck_assert_uint_lt(ms_since(start), bound_ms(500));
	ck_assert_ptr_null(rec.first);
	recorder_stop(&rec);
}
END_TEST

START_TEST(bad_arguments_are_refused_and_change_nothing)
{
	const unsigned int fds = count_fds();
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_pause_begin(NULL, -1), -EINVAL);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -2), -EINVAL);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, 100000), -EBADF);
	ck_assert_int_eq(ktvblk_pause(NULL, 1), -EINVAL);
	ck_assert_int_eq(ktvblk_is_paused(NULL), -EINVAL);
	ck_assert_int_eq(ktvblk_resume(NULL), -EINVAL);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_close(&rig);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

TEST_PROGRAM("pause-life", a_pause_survives_a_reset,
	     a_device_paused_before_its_start_serves_nothing_until_resumed,
	     a_parked_worker_is_reset_and_destroyed_quickly,
	     bad_arguments_are_refused_and_change_nothing)
