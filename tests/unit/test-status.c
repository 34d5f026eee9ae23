/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A driver may go its steps one by one, several at once, or without the first;
 * what it may not do leaves the status as it was and makes one record;
 * NEEDS_RESET, which the worker sets at any time, is never lost.
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
	atomic_store(&fsm->rig.dev->era->status, status);
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

/* What becomes of a write, by the rules: the status it leads to. */
static uint32_t outcome(uint32_t status, uint32_t value)
{
	const uint32_t new_bits = value & ~status;

	if ((value & status) != status ||
	    (new_bits & ~(uint32_t)(S_OK | S_FAILED)))
		return status;
	if (new_bits & S_FAILED)
		return status | S_FAILED | (new_bits & S_DRV);
	return (value & VIRTIO_CONFIG_S_DRIVER_OK) &&
			       !(value & VIRTIO_CONFIG_S_FEATURES_OK)
		       ? status
		       : value;
}

/* Every value from every state, with features that may be had. */
START_TEST(changed_every_step_but_a_few_is_legal_from_anywhere)
{
	static const uint32_t states[] = {
		0, S_ACK, VIRTIO_CONFIG_S_DRIVER, S_DRV, S_FEAT, S_OK
	};
	struct fsm fsm;

	fsm_open(&fsm);
	for (uint32_t value = 1; value < 0x200; value++)
		for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
			const uint32_t next = outcome(states[i], value);

			/* Each is a thread: some do. */
			if ((next & VIRTIO_CONFIG_S_DRIVER_OK) && value % 8)
				continue;
			write_status(&fsm, 0);
			write_features(&fsm, RIG_VERSION_1);
			if (states[i])
				ck_assert_uint_eq(write_status(&fsm, states[i]),
						  states[i]);
			ck_assert_uint_eq(write_status(&fsm, value), next);
		}
	fsm_close(&fsm);
}
END_TEST

/*
 * What drivers do that are about. Each gets its disk, in silence.
 */

static void select_queue(struct rig *rig)
{
	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, 0);
	rig_write(rig, VIRTIO_MMIO_QUEUE_NUM, 16);
	rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, RIG_DESC);
	rig_write(rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW, RIG_AVAIL);
	rig_write(rig, VIRTIO_MMIO_QUEUE_USED_LOW, RIG_USED);
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* 's': a status, 'f': features, 'q': the queue, until a status of DRIVER_OK. */
static const struct driver {
	const char *name;
	struct driver_step {
		char what;
		uint32_t status;
	} steps[8];
} drivers[] = {
	{ "the book's",
	  { { 's', 1 },
	    { 's', 3 },
	    { 'f', 0 },
	    { 's', 0xb },
	    { 'q', 0 },
	    { 's', 0xf } } },
	{ "two at once, the queue before the features",
	  { { 's', 3 }, { 'q', 0 }, { 'f', 0 }, { 's', 0xb }, { 's', 0xf } } },
	{ "two at once",
	  { { 's', 3 }, { 'f', 0 }, { 's', 0xb }, { 'q', 0 }, { 's', 0xf } } },
	{ "no ACKNOWLEDGE",
	  { { 's', 2 }, { 'f', 0 }, { 's', 0xa }, { 'q', 0 }, { 's', 0xe } } },
	{ "the other way round",
	  { { 's', 2 },
	    { 's', 3 },
	    { 'q', 0 },
	    { 'f', 0 },
	    { 's', 0xb },
	    { 's', 0xf } } },
	{ "ACKNOWLEDGE behind DRIVER_OK",
	  { { 's', 2 },
	    { 'f', 0 },
	    { 's', 0xa },
	    { 'q', 0 },
	    { 's', 0xe },
	    { 's', 0xf } } },
	{ "all at the end", { { 'f', 0 }, { 'q', 0 }, { 's', 0xf } } },
	{ "FEATURES_OK and DRIVER_OK at once",
	  { { 's', 1 }, { 's', 3 }, { 'f', 0 }, { 'q', 0 }, { 's', 0xf } } },
};

START_TEST(changed_each_driver_that_is_about_gets_its_disk)
{
	struct fsm fsm;

	fsm_open(&fsm);
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
		const struct driver_step *step = drivers[i].steps;
		struct rig *rig = &fsm.rig;

		rig_reset(rig);
		rig_start(rig); /* the rings; what is set up there goes */
		rig_reset(rig);
		for (; step->what; step++)
			switch (step->what) {
			case 'f':
				write_features(&fsm, RIG_VERSION_1);
				break;
			case 'q':
				select_queue(rig);
				break;
			default:
				ck_assert_msg(write_status(&fsm,
							   step->status) ==
						      step->status,
					      "%s: %#x", drivers[i].name,
					      step->status);
			}
		rig->avail_idx = rig->used_seen = 0;
		ck_assert_msg(!rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), "%s",
			      drivers[i].name);
	}
	expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* With the reason of the first; nothing starts. */
START_TEST(driver_ok_with_features_that_are_not_ours_starts_nothing)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(write_status(&fsm, S_OK), 0);
	only_record(&fsm, KTVBLK_MESSAGE_FEATURES_NO_VERSION_1);
	ck_assert_int_eq(ktvblk_get_state(fsm.rig.dev), KTVBLK_STATE_IDLE);
	write_features(&fsm, RIG_VERSION_1);
	ck_assert_uint_eq(write_status(&fsm, S_OK), S_OK);
	ck_assert_int_ne(ktvblk_get_state(fsm.rig.dev), KTVBLK_STATE_IDLE);
	fsm_close(&fsm);
}
END_TEST

/* EDK2 names the step it failed at when it gives up. */
START_TEST(changed_a_driver_that_gives_up_may_name_more_than_failed)
{
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_DRV);
	ck_assert_uint_eq(write_status(&fsm, S_FEAT | S_FAILED),
			  S_DRV | S_FAILED);
	only_record(&fsm, KTVBLK_MESSAGE_STATUS_GUEST_FAILED);
	recorder_clear(&fsm.rec);
	ck_assert_uint_eq(write_status(&fsm, S_OK | S_FAILED),
			  S_DRV | S_FAILED);
	only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL);
	write_status(&fsm, 0);
	ck_assert_uint_eq(write_status(&fsm, S_OK | S_FAILED),
			  S_DRV | S_FAILED);
	ck_assert_int_eq(ktvblk_get_state(fsm.rig.dev), KTVBLK_STATE_IDLE);
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
	const uint64_t erase = UINT64_C(1) << VIRTIO_BLK_F_SECURE_ERASE;
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	go_to(&fsm, S_DRV);
	write_features(&fsm, RIG_VERSION_1 | erase);
	ck_assert_uint_eq(write_status(&fsm, S_FEAT), S_DRV);
	record = only_record(&fsm, KTVBLK_MESSAGE_FEATURES_NOT_OFFERED);
	expect_number(record, "KTVBLK_NOT_OFFERED", (int64_t)erase);
	expect_number(record, "KTVBLK_DRIVER_FEATURES",
		      (int64_t)(RIG_VERSION_1 | erase));
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
START_TEST(changed_driver_features_are_taken_until_features_ok)
{
	static const uint32_t states[] = { 0, S_ACK, VIRTIO_CONFIG_S_DRIVER,
					   S_DRV };
	struct fsm fsm;

	fsm_open(&fsm);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		write_status(&fsm, 0);
		ck_assert_uint_eq(fsm.rig.dev->driver_features, 0);
		if (states[i])
			write_status(&fsm, states[i]);
		write_features(&fsm, RIG_VERSION_1 | RIG_EVENT_IDX);
		ck_assert_uint_eq(fsm.rig.dev->driver_features,
				  RIG_VERSION_1 | RIG_EVENT_IDX);
	}
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
START_TEST(changed_status_without_acknowledge_is_taken)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(write_status(&fsm, VIRTIO_CONFIG_S_DRIVER),
			  VIRTIO_CONFIG_S_DRIVER);
	ck_assert_uint_eq(write_status(&fsm, S_DRV), S_DRV);
	expect_silence(&fsm);
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
START_TEST(changed_status_multi_bit_transition_is_taken)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(write_status(&fsm, S_DRV), S_DRV);
	expect_silence(&fsm);
	ck_assert_uint_eq(write_status(&fsm, S_DRV | 0x20), S_DRV);
	expect_number(only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL),
		      "KTVBLK_NEW_BITS", 0x20);
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
	session_needs_reset(fsm.rig.dev->queues[0].session);
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
		struct poisoner poisoner = { fsm.rig.dev->queues[0].session,
					     &both };
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
	session_needs_reset(fsm.rig.dev->queues[0].session);
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
		set_status(&fsm, rows[i].status);
		ck_assert(status_takes_features(fsm.rig.dev) ==
			  rows[i].features);
		ck_assert(status_takes_queue(fsm.rig.dev) == rows[i].queue);
	}
	fsm_close(&fsm);
}
END_TEST

TEST_PROGRAM("status", each_step_in_its_turn_is_taken_in_silence,
	     status_state_machine,
	     changed_every_step_but_a_few_is_legal_from_anywhere,
	     changed_each_driver_that_is_about_gets_its_disk,
	     driver_ok_with_features_that_are_not_ours_starts_nothing,
	     changed_a_driver_that_gives_up_may_name_more_than_failed,
	     features_ok_rejected_without_version_1,
	     features_ok_rejected_with_unadvertised_bit, status_reset_via_zero,
	     changed_driver_features_are_taken_until_features_ok,
	     features_rejected_after_features_ok,
	     changed_status_without_acknowledge_is_taken,
	     status_idempotent_rewrite_is_noop,
	     changed_status_multi_bit_transition_is_taken,
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
