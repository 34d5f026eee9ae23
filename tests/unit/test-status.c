/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The driver takes one legal step at a time; what it may not do leaves the
 * status as it was and makes one record; NEEDS_RESET, which the worker sets at
 * any time, is never lost.
 */

#include <string.h>
#include <syslog.h>

#include "device.h"
#include "wedge.h"

#define S_NEEDS VIRTIO_CONFIG_S_NEEDS_RESET
#define S_FAILED VIRTIO_CONFIG_S_FAILED

struct fsm {
	struct recorder rec;
	struct rig rig;
};

static void fsm_open(struct fsm *fsm)
{
	wedge_record(&fsm->rec);
	rig_open(&fsm->rig, NULL);
}

static void fsm_close(struct fsm *fsm)
{
	ktvblk_destroy(fsm->rig.dev);
	fsm->rig.dev = NULL;
	rig_free(&fsm->rig);
	recorder_stop(&fsm->rec);
}

/* Write; what can be read then. */
static uint32_t write_status(struct fsm *fsm, uint32_t value)
{
	rig_write(&fsm->rig, VIRTIO_MMIO_STATUS, value);
	return rig_status(&fsm->rig);
}

static void write_features(struct fsm *fsm, uint64_t features)
{
	for (uint32_t i = 0; i < 2; i++) {
		rig_write(&fsm->rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		rig_write(&fsm->rig, VIRTIO_MMIO_DRIVER_FEATURES,
			  (uint32_t)(features >> 32 * i));
	}
}

static void go_to(struct fsm *fsm, uint32_t status)
{
	static const uint32_t steps[] = { S_ACK, S_DRV, S_FEAT, S_OK };

	rig_write(&fsm->rig, VIRTIO_MMIO_STATUS, 0);
	for (size_t i = 0; i < ARRAY_SIZE(steps) && steps[i] <= status; i++) {
		if (steps[i] == S_FEAT)
			write_features(fsm, RIG_VERSION_1);
		ck_assert_uint_eq(write_status(fsm, steps[i]), steps[i]);
	}
	ck_assert_uint_eq(rig_status(&fsm->rig), status);
}

static void set_status(struct fsm *fsm, uint32_t status)
{
	atomic_store(&fsm->rig.dev->session->status, status);
}

/* The one record since the last clear. */
static const struct kept_record *only_record(struct fsm *fsm, const char *id)
{
	ck_assert_int_eq(recorder_count(&fsm->rec, NULL), 1);
	ck_assert_int_eq(recorder_count(&fsm->rec, id), 1);
	return recorder_find(&fsm->rec, id);
}

static void expect_silence(struct fsm *fsm)
{
	ck_assert_int_eq(recorder_count(&fsm->rec, NULL), 0);
}

START_TEST(each_step_in_its_turn_is_taken_in_silence)
{
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_OK);
	expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.24: DRIVER_OK without FEATURES_OK */
START_TEST(status_state_machine)
{
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_DRV);
	ck_assert_uint_eq(write_status(&fsm, S_DRV | VIRTIO_CONFIG_S_DRIVER_OK),
			  S_DRV);
	record = only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL);
	expect_number(record, "KTVBLK_DEVICE_STATUS", S_DRV);
	expect_number(record, "KTVBLK_REQUESTED", 7);
	expect_number(record, "KTVBLK_NEW_BITS", 4);
	ck_assert_int_eq(record->priority, LOG_WARNING);
	fsm_close(&fsm);
}
END_TEST

/* Every value from every state: only the five legal ones change anything. */
START_TEST(no_other_step_is_legal_from_anywhere)
{
	static const uint32_t states[] = { S_ACK, S_DRV, S_FEAT, S_OK };
	struct fsm fsm;

	fsm_open(&fsm);
	for (uint32_t value = 1; value < 0x200; value++) {
		go_to(&fsm, 0);
		ck_assert_uint_eq(write_status(&fsm, value),
				  value == S_ACK || value == S_FAILED ? value
								      : 0);
		for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
			const uint32_t next = i + 1 < ARRAY_SIZE(states)
						      ? states[i + 1]
						      : UINT32_MAX;

			if (states[i] == S_OK && value % 8)
				continue; /* each is a thread: some do */
			go_to(&fsm, states[i]);
			if (next == S_FEAT)
				write_features(&fsm, RIG_VERSION_1);
			ck_assert_uint_eq(write_status(&fsm, value),
					  value == next || value == (states[i] |
								     S_FAILED)
						  ? value
						  : states[i]);
		}
	}
	fsm_close(&fsm);
}
END_TEST

/* 12.1.25, 12.1.31 */
START_TEST(features_ok_rejected_without_version_1)
{
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_DRV);
	write_features(&fsm, 1u << VIRTIO_BLK_F_FLUSH | 1u << 13);
	ck_assert_uint_eq(write_status(&fsm, S_FEAT), S_DRV);
	/* Though bit 13 was not offered: the missing one comes first. */
	record = only_record(&fsm, KTVBLK_MESSAGE_FEATURES_NO_VERSION_1);
	expect_number(record, "KTVBLK_DRIVER_FEATURES",
		      1u << VIRTIO_BLK_F_FLUSH | 1u << 13);
	write_features(&fsm, RIG_VERSION_1);
	ck_assert_uint_eq(write_status(&fsm, S_FEAT), S_FEAT);
	fsm_close(&fsm);
}
END_TEST

/* 12.3.24 */
START_TEST(features_ok_rejected_with_unadvertised_bit)
{
	const uint64_t discard = UINT64_C(1) << VIRTIO_BLK_F_DISCARD;
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_DRV);
	write_features(&fsm, RIG_VERSION_1 | discard);
	ck_assert_uint_eq(write_status(&fsm, S_FEAT), S_DRV);
	record = only_record(&fsm, KTVBLK_MESSAGE_FEATURES_NOT_OFFERED);
	expect_number(record, "KTVBLK_NOT_OFFERED", (int64_t)discard);
	expect_number(record, "KTVBLK_DRIVER_FEATURES",
		      (int64_t)(RIG_VERSION_1 | discard));
	expect_number(record, "KTVBLK_DEVICE_FEATURES",
		      (int64_t)fsm.rig.dev->features);
	write_features(&fsm, RIG_VERSION_1);
	ck_assert_uint_eq(write_status(&fsm, S_FEAT), S_FEAT);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.26 */
START_TEST(status_reset_via_zero)
{
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_ACK);
	ck_assert_uint_eq(write_status(&fsm, 0), 0);
	expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.40 */
START_TEST(driver_features_gated_by_status)
{
	struct fsm fsm;

	fsm_open(&fsm);
	write_features(&fsm, RIG_VERSION_1);
	ck_assert_uint_eq(fsm.rig.dev->driver_features, 0);
	go_to(&fsm, S_ACK);
	write_features(&fsm, RIG_VERSION_1);
	ck_assert_uint_eq(fsm.rig.dev->driver_features, 0);
	go_to(&fsm, S_DRV);
	write_features(&fsm, RIG_VERSION_1 | RIG_EVENT_IDX);
	ck_assert_uint_eq(fsm.rig.dev->driver_features,
			  RIG_VERSION_1 | RIG_EVENT_IDX);
	/* Each half by itself, replaced and not added to. */
	rig_write(&fsm.rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	rig_write(&fsm.rig, VIRTIO_MMIO_DRIVER_FEATURES, 0x200);
	ck_assert_uint_eq(fsm.rig.dev->driver_features, RIG_VERSION_1 | 0x200);
	/* There is no third half. */
	rig_write(&fsm.rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
	rig_write(&fsm.rig, VIRTIO_MMIO_DRIVER_FEATURES, 0);
	rig_write(&fsm.rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, UINT32_MAX);
	rig_write(&fsm.rig, VIRTIO_MMIO_DRIVER_FEATURES, 0);
	ck_assert_uint_eq(fsm.rig.dev->driver_features, RIG_VERSION_1 | 0x200);
	expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.41 */
START_TEST(features_rejected_after_features_ok)
{
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_FEAT);
	write_features(&fsm, 0);
	ck_assert_uint_eq(fsm.rig.dev->driver_features, RIG_VERSION_1);
	go_to(&fsm, S_OK);
	write_features(&fsm, 0);
	ck_assert_uint_eq(fsm.rig.dev->driver_features, RIG_VERSION_1);
	expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.47 */
START_TEST(status_skip_acknowledge_rejected)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(write_status(&fsm, VIRTIO_CONFIG_S_DRIVER), 0);
	only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.48 */
START_TEST(status_idempotent_rewrite_is_noop)
{
	static const uint32_t states[] = { S_ACK, S_DRV, S_FEAT, S_OK };
	struct fsm fsm;

	fsm_open(&fsm);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		go_to(&fsm, states[i]);
		ck_assert_uint_eq(write_status(&fsm, states[i]), states[i]);
	}
	expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.49 */
START_TEST(status_multi_bit_transition_rejected_and_logged)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(write_status(&fsm, S_DRV), 0);
	expect_number(only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL),
		      "KTVBLK_NEW_BITS", S_DRV);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.50 */
START_TEST(status_clear_bit_rejected_and_logged)
{
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_DRV);
	ck_assert_uint_eq(write_status(&fsm, S_ACK), S_DRV);
	record = only_record(&fsm, KTVBLK_MESSAGE_STATUS_BIT_CLEARED);
	expect_number(record, "KTVBLK_DEVICE_STATUS", S_DRV);
	expect_number(record, "KTVBLK_REQUESTED", S_ACK);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.52 */
START_TEST(set_status_failed_accepted_at_every_fsm_state)
{
	static const uint32_t states[] = { 0, S_ACK, S_DRV, S_FEAT, S_OK };
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		const uint32_t with = states[i] | S_FAILED;

		go_to(&fsm, states[i]);
		recorder_clear(&fsm.rec);
		ck_assert_uint_eq(write_status(&fsm, with), with);
		record = only_record(&fsm, KTVBLK_MESSAGE_STATUS_GUEST_FAILED);
		expect_number(record, "KTVBLK_DEVICE_STATUS", states[i]);
		expect_number(record, "KTVBLK_REQUESTED", with);
		/* From here only the reset helps. */
		ck_assert_uint_eq(write_status(&fsm, with | S_ACK), with);
		ck_assert_uint_eq(write_status(&fsm, with | S_OK), with);
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
	ck_assert_uint_eq(write_status(&fsm, S_FAILED | 0x10), 0);
	only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.54 */
START_TEST(set_status_failed_accepted_on_top_of_needs_reset)
{
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_OK);
	session_needs_reset(fsm.rig.dev->session);
	ck_assert_uint_eq(write_status(&fsm, S_OK | S_NEEDS | S_FAILED),
			  S_OK | S_NEEDS | S_FAILED);
	only_record(&fsm, KTVBLK_MESSAGE_STATUS_GUEST_FAILED);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.55 */
START_TEST(set_status_failed_idempotent_rewrite_is_noop)
{
	struct fsm fsm;

	fsm_open(&fsm);
	write_status(&fsm, S_FAILED);
	recorder_clear(&fsm.rec);
	ck_assert_uint_eq(write_status(&fsm, S_FAILED), S_FAILED);
	expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.3.26 */
START_TEST(set_status_preserves_needs_reset_when_already_set)
{
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	set_status(&fsm, S_NEEDS);
	ck_assert_uint_eq(write_status(&fsm, S_ACK), S_NEEDS);
	record = only_record(&fsm, KTVBLK_MESSAGE_STATUS_NEEDS_RESET);
	expect_number(record, "KTVBLK_DEVICE_STATUS", S_NEEDS);
	expect_number(record, "KTVBLK_REQUESTED", S_ACK);
	ck_assert_ptr_null(kept_field(record, "KTVBLK_NEW_BITS"));

	/* Naming the bit does not help either. */
	recorder_clear(&fsm.rec);
	ck_assert_uint_eq(write_status(&fsm, S_NEEDS | S_ACK), S_NEEDS);
	record = only_record(&fsm, KTVBLK_MESSAGE_STATUS_NEEDS_RESET);
	expect_number(record, "KTVBLK_NEW_BITS", S_ACK);
	ck_assert_uint_eq(write_status(&fsm, 0), 0);
	fsm_close(&fsm);
}
END_TEST

START_TEST(a_driver_cannot_set_needs_reset)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(write_status(&fsm, S_NEEDS), 0);
	go_to(&fsm, S_OK);
	ck_assert_uint_eq(write_status(&fsm, S_OK | S_NEEDS), S_OK);
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
		struct poisoner poisoner = { fsm.rig.dev->session, &both };
		const uint32_t step = steps[i % ARRAY_SIZE(steps)];
		pthread_t thread;
		uint32_t status;

		set_status(&fsm, step == S_DRV ? S_ACK : 0);
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
	set_status(&fsm, S_ACK);
	session_needs_reset(fsm.rig.dev->session);
	ck_assert_uint_eq(write_status(&fsm, S_DRV), S_ACK | S_NEEDS);
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
		{ 0, false, false },
		{ S_ACK, false, false },
		{ S_DRV, true, false },
		{ S_FEAT, false, true },
		{ S_OK, false, false },
		/* Neither looks at these two. */
		{ S_DRV | S_FAILED, true, false },
		{ S_FEAT | S_NEEDS, false, true },
	};
	struct fsm fsm;

	fsm_open(&fsm);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		set_status(&fsm, rows[i].status);
		ck_assert(status_takes_features(fsm.rig.dev) ==
			  rows[i].features);
		ck_assert(status_takes_queue(fsm.rig.dev) == rows[i].queue);
	}
	fsm_close(&fsm);
}
END_TEST

TEST_PROGRAM("status", each_step_in_its_turn_is_taken_in_silence,
	     status_state_machine, no_other_step_is_legal_from_anywhere,
	     features_ok_rejected_without_version_1,
	     features_ok_rejected_with_unadvertised_bit, status_reset_via_zero,
	     driver_features_gated_by_status,
	     features_rejected_after_features_ok,
	     status_skip_acknowledge_rejected,
	     status_idempotent_rewrite_is_noop,
	     status_multi_bit_transition_rejected_and_logged,
	     status_clear_bit_rejected_and_logged,
	     set_status_failed_accepted_at_every_fsm_state,
	     a_device_given_up_by_its_driver_still_serves,
	     set_status_failed_plus_unknown_bit_rejected,
	     set_status_failed_accepted_on_top_of_needs_reset,
	     set_status_failed_idempotent_rewrite_is_noop,
	     set_status_preserves_needs_reset_when_already_set,
	     a_driver_cannot_set_needs_reset,
	     set_status_cas_preserves_concurrent_needs_reset,
	     the_gates_of_features_and_queue_open_and_close_with_the_status)
