/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * FAILED and NEEDS_RESET: the one is the driver's at any time, the other, which
 * the worker sets at any time, is never lost.
 */

#include <string.h>
#include <syslog.h>

#include "device.h"
#include "fsm.h"

/* 12.1.52 */
START_TEST(set_status_failed_accepted_at_every_fsm_state)
{
	static const uint32_t states[] = { 0, S_ACK, S_DRV, S_FEAT, S_OK };
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		const uint32_t with = states[i] | S_FAILED;

		fsm_go_to(&fsm, states[i]);
		recorder_clear(&fsm.rec);
		ck_assert_uint_eq(fsm_write(&fsm, with), with);
		record = fsm_only_record(&fsm,
					 KTVBLK_MESSAGE_STATUS_GUEST_FAILED);
		expect_number(record, "KTVBLK_DEVICE_STATUS", states[i]);
		expect_number(record, "KTVBLK_REQUESTED", with);
		/* From here only the reset helps. */
		ck_assert_uint_eq(fsm_write(&fsm, with | S_ACK), with);
		ck_assert_uint_eq(fsm_write(&fsm, with | S_OK), with);
	}
	fsm_close(&fsm);
}
END_TEST

START_TEST(a_device_given_up_by_its_driver_still_serves)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK | S_FAILED);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	rig_close(&rig);
}
END_TEST

/* 12.1.53 */
START_TEST(set_status_failed_plus_unknown_bit_rejected)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(fsm_write(&fsm, S_FAILED | 0x10), 0);
	fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.54 */
START_TEST(set_status_failed_accepted_on_top_of_needs_reset)
{
	struct fsm fsm;

	fsm_open(&fsm);
	fsm_go_to(&fsm, S_OK);
	session_needs_reset(fsm.rig.dev->queues[0].session);
	ck_assert_uint_eq(fsm_write(&fsm, S_OK | S_NEEDS | S_FAILED),
			  S_OK | S_NEEDS | S_FAILED);
	fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_GUEST_FAILED);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.55 */
START_TEST(set_status_failed_idempotent_rewrite_is_noop)
{
	struct fsm fsm;

	fsm_open(&fsm);
	fsm_write(&fsm, S_FAILED);
	recorder_clear(&fsm.rec);
	ck_assert_uint_eq(fsm_write(&fsm, S_FAILED), S_FAILED);
	fsm_expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.3.26 */
START_TEST(set_status_preserves_needs_reset_when_already_set)
{
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	fsm_set(&fsm, S_NEEDS);
	ck_assert_uint_eq(fsm_write(&fsm, S_ACK), S_NEEDS);
	record = fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_NEEDS_RESET);
	expect_number(record, "KTVBLK_DEVICE_STATUS", S_NEEDS);
	expect_number(record, "KTVBLK_REQUESTED", S_ACK);
	ck_assert_ptr_null(kept_field(record, "KTVBLK_NEW_BITS"));

	/* Naming the bit does not help either. */
	recorder_clear(&fsm.rec);
	ck_assert_uint_eq(fsm_write(&fsm, S_NEEDS | S_ACK), S_NEEDS);
	record = fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_NEEDS_RESET);
	expect_number(record, "KTVBLK_NEW_BITS", S_ACK);
	ck_assert_uint_eq(fsm_write(&fsm, 0), 0);
	fsm_close(&fsm);
}
END_TEST

START_TEST(a_driver_cannot_set_needs_reset)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(fsm_write(&fsm, S_NEEDS), 0);
	fsm_go_to(&fsm, S_OK);
	ck_assert_uint_eq(fsm_write(&fsm, S_OK | S_NEEDS), S_OK);
	fsm_close(&fsm);
}
END_TEST

struct poisoner {
	struct session *session;
	pthread_barrier_t *both;
};

static void *needs_reset(void *arg)
{
	struct poisoner *poisoner = (struct poisoner *)arg;

	pthread_barrier_wait(poisoner->both);
	session_needs_reset(poisoner->session);
	return NULL;
}

/* 12.3.27: 1024 times a step of the driver's meets the worker's NEEDS_RESET */
START_TEST(set_status_cas_preserves_concurrent_needs_reset)
{
	static const uint32_t steps[] = { S_ACK, S_DRV, S_FAILED };
	const unsigned int n = rounds("CYCLES", 1024, 128);
	pthread_barrier_t both;
	struct fsm fsm;

	fsm_open(&fsm);
	pthread_barrier_init(&both, NULL, 2);
	for (unsigned int i = 0; i < n; i++) {
		struct poisoner poisoner = { fsm.rig.dev->queues[0].session,
					     &both };
		const uint32_t step = steps[i % ARRAY_SIZE(steps)];
		pthread_t thread;
		uint32_t status;

		fsm_set(&fsm, step == S_DRV ? S_ACK : 0);
		ck_assert_int_eq(pthread_create(&thread, NULL, needs_reset,
						&poisoner),
				 0);
		pthread_barrier_wait(&both);
		rig_write(&fsm.rig, VIRTIO_MMIO_STATUS, step);
		pthread_join(thread, NULL);
		status = rig_status(&fsm.rig);
		ck_assert_msg(status & S_NEEDS, "round %u lost it: %#x", i,
			      status);
	}
	/* And once without chance. */
	fsm_set(&fsm, S_ACK);
	session_needs_reset(fsm.rig.dev->queues[0].session);
	ck_assert_uint_eq(fsm_write(&fsm, S_DRV), S_ACK | S_NEEDS);
	pthread_barrier_destroy(&both);
	fsm_close(&fsm);
}
END_TEST

START_TEST(the_gates_of_features_and_queue_open_and_close_with_the_status)
{
	static const struct {
		uint32_t status;
		bool features, queue;
	} rows[] = {
		{ 0, true, true },
		{ S_ACK, true, true },
		{ S_DRV, true, true },
		{ S_FEAT, false, true },
		{ S_OK, false, false },
		/* Neither looks at these two. */
		{ S_DRV | S_FAILED, true, true },
		{ S_FEAT | S_NEEDS, false, true },
	};
	struct fsm fsm;

	fsm_open(&fsm);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		fsm_set(&fsm, rows[i].status);
		ck_assert(status_takes_features(fsm.rig.dev) ==
			  rows[i].features);
		ck_assert(status_takes_queue(fsm.rig.dev) == rows[i].queue);
	}
	fsm_close(&fsm);
}
END_TEST

TEST_PROGRAM("status-failed", set_status_failed_accepted_at_every_fsm_state,
	     a_device_given_up_by_its_driver_still_serves,
	     set_status_failed_plus_unknown_bit_rejected,
	     set_status_failed_accepted_on_top_of_needs_reset,
	     set_status_failed_idempotent_rewrite_is_noop,
	     set_status_preserves_needs_reset_when_already_set,
	     a_driver_cannot_set_needs_reset,
	     set_status_cas_preserves_concurrent_needs_reset,
	     the_gates_of_features_and_queue_open_and_close_with_the_status)
