/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A driver may go its steps one by one, several at once, or without the first;
 * what it may not do leaves the status as it was and makes one record.
 */

#include <string.h>
#include <syslog.h>

#include "device.h"
#include "fsm.h"

START_TEST(each_step_in_its_turn_is_taken_in_silence)
{
	struct fsm fsm;

	fsm_open(&fsm);
	fsm_go_to(&fsm, S_OK);
	fsm_expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.24: DRIVER_OK without FEATURES_OK */
START_TEST(status_state_machine)
{
	const struct kept_record *record;
	struct fsm fsm;

	fsm_open(&fsm);
	fsm_go_to(&fsm, S_DRV);
	ck_assert_uint_eq(fsm_write(&fsm, S_DRV | VIRTIO_CONFIG_S_DRIVER_OK),
			  S_DRV);
	record = fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL);
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
			fsm_write(&fsm, 0);
			fsm_write_features(&fsm, RIG_VERSION_1);
			if (states[i])
				ck_assert_uint_eq(fsm_write(&fsm, states[i]),
						  states[i]);
			ck_assert_uint_eq(fsm_write(&fsm, value), next);
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
				fsm_write_features(&fsm, RIG_VERSION_1);
				break;
			case 'q':
				select_queue(rig);
				break;
			default:
				ck_assert_msg(fsm_write(&fsm, step->status) ==
						      step->status,
					      "%s: %#x", drivers[i].name,
					      step->status);
			}
		rig->avail_idx = rig->used_seen = 0;
		ck_assert_msg(!rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), "%s",
			      drivers[i].name);
	}
	fsm_expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* With the reason of the first; nothing starts. */
START_TEST(driver_ok_with_features_that_are_not_ours_starts_nothing)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(fsm_write(&fsm, S_OK), 0);
	fsm_only_record(&fsm, KTVBLK_MESSAGE_FEATURES_NO_VERSION_1);
	ck_assert_int_eq(ktvblk_get_state(fsm.rig.dev), KTVBLK_STATE_IDLE);
	fsm_write_features(&fsm, RIG_VERSION_1);
	ck_assert_uint_eq(fsm_write(&fsm, S_OK), S_OK);
	ck_assert_int_ne(ktvblk_get_state(fsm.rig.dev), KTVBLK_STATE_IDLE);
	fsm_close(&fsm);
}
END_TEST

/* EDK2 names the step it failed at when it gives up. */
START_TEST(changed_a_driver_that_gives_up_may_name_more_than_failed)
{
	struct fsm fsm;

	fsm_open(&fsm);
	fsm_go_to(&fsm, S_DRV);
	ck_assert_uint_eq(fsm_write(&fsm, S_FEAT | S_FAILED), S_DRV | S_FAILED);
	fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_GUEST_FAILED);
	recorder_clear(&fsm.rec);
	ck_assert_uint_eq(fsm_write(&fsm, S_OK | S_FAILED), S_DRV | S_FAILED);
	fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL);
	fsm_write(&fsm, 0);
	ck_assert_uint_eq(fsm_write(&fsm, S_OK | S_FAILED), S_DRV | S_FAILED);
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
	fsm_go_to(&fsm, S_DRV);
	fsm_write_features(&fsm, 1u << VIRTIO_BLK_F_FLUSH | 1u << 13);
	ck_assert_uint_eq(fsm_write(&fsm, S_FEAT), S_DRV);
	/* Though bit 13 was not offered: the missing one comes first. */
	record = fsm_only_record(&fsm, KTVBLK_MESSAGE_FEATURES_NO_VERSION_1);
	expect_number(record, "KTVBLK_DRIVER_FEATURES",
		      1u << VIRTIO_BLK_F_FLUSH | 1u << 13);
	fsm_write_features(&fsm, RIG_VERSION_1);
	ck_assert_uint_eq(fsm_write(&fsm, S_FEAT), S_FEAT);
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
	fsm_go_to(&fsm, S_DRV);
	fsm_write_features(&fsm, RIG_VERSION_1 | erase);
	ck_assert_uint_eq(fsm_write(&fsm, S_FEAT), S_DRV);
	record = fsm_only_record(&fsm, KTVBLK_MESSAGE_FEATURES_NOT_OFFERED);
	expect_number(record, "KTVBLK_NOT_OFFERED", (int64_t)erase);
	expect_number(record, "KTVBLK_DRIVER_FEATURES",
		      (int64_t)(RIG_VERSION_1 | erase));
	expect_number(record, "KTVBLK_DEVICE_FEATURES",
		      (int64_t)fsm.rig.dev->features);
	fsm_write_features(&fsm, RIG_VERSION_1);
	ck_assert_uint_eq(fsm_write(&fsm, S_FEAT), S_FEAT);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.26 */
START_TEST(status_reset_via_zero)
{
	struct fsm fsm;

	fsm_open(&fsm);
	fsm_go_to(&fsm, S_ACK);
	ck_assert_uint_eq(fsm_write(&fsm, 0), 0);
	fsm_expect_silence(&fsm);
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
		fsm_write(&fsm, 0);
		ck_assert_uint_eq(fsm.rig.dev->driver_features, 0);
		if (states[i])
			fsm_write(&fsm, states[i]);
		fsm_write_features(&fsm, RIG_VERSION_1 | RIG_EVENT_IDX);
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
	fsm_expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.41 */
START_TEST(features_rejected_after_features_ok)
{
	struct fsm fsm;

	fsm_open(&fsm);
	fsm_go_to(&fsm, S_FEAT);
	fsm_write_features(&fsm, 0);
	ck_assert_uint_eq(fsm.rig.dev->driver_features, RIG_VERSION_1);
	fsm_go_to(&fsm, S_OK);
	fsm_write_features(&fsm, 0);
	ck_assert_uint_eq(fsm.rig.dev->driver_features, RIG_VERSION_1);
	fsm_expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.47 */
START_TEST(changed_status_without_acknowledge_is_taken)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(fsm_write(&fsm, VIRTIO_CONFIG_S_DRIVER),
			  VIRTIO_CONFIG_S_DRIVER);
	ck_assert_uint_eq(fsm_write(&fsm, S_DRV), S_DRV);
	fsm_expect_silence(&fsm);
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
		fsm_go_to(&fsm, states[i]);
		ck_assert_uint_eq(fsm_write(&fsm, states[i]), states[i]);
	}
	fsm_expect_silence(&fsm);
	fsm_close(&fsm);
}
END_TEST

/* 12.1.49 */
START_TEST(changed_status_multi_bit_transition_is_taken)
{
	struct fsm fsm;

	fsm_open(&fsm);
	ck_assert_uint_eq(fsm_write(&fsm, S_DRV), S_DRV);
	fsm_expect_silence(&fsm);
	ck_assert_uint_eq(fsm_write(&fsm, S_DRV | 0x20), S_DRV);
	expect_number(fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_ILLEGAL),
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
	fsm_go_to(&fsm, S_DRV);
	ck_assert_uint_eq(fsm_write(&fsm, S_ACK), S_DRV);
	record = fsm_only_record(&fsm, KTVBLK_MESSAGE_STATUS_BIT_CLEARED);
	expect_number(record, "KTVBLK_DEVICE_STATUS", S_DRV);
	expect_number(record, "KTVBLK_REQUESTED", S_ACK);
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
	     status_clear_bit_rejected_and_logged)
