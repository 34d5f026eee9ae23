/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Resets that are asked for before they are made: they share a budget, and have
 * begun by then.
 */

#include "wedge.h"

#define MANY 8

START_TEST(resets_that_were_asked_for_share_one_budget)
{
	struct rig rigs[MANY];
	struct recorder rec;
	uint64_t start;

	wedge_record(&rec);
	for (int i = 0; i < MANY; i++) {
		wedge_open(&rigs[i], 200, 0);
		wedge(&rigs[i], VIRTIO_BLK_T_IN, 0);
	}
	start = clock_start();
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(ktvblk_request_reset(rigs[i].dev), 0);
		ck_assert_int_eq(ktvblk_request_reset(rigs[i].dev), 0);
		ck_assert_int_eq(ktvblk_get_state(rigs[i].dev),
				 KTVBLK_STATE_STOPPING);
	}
	for (int i = 0; i < MANY; i++)
		rig_reset(&rigs[i]);
	ck_assert_uint_ge(ms_since(start), 200);
	/* Each wedged one may be looked at for a moment more. */
	ck_assert_uint_lt(ms_since(start), bound_ms(200 + 50));
	recorder_wait_n(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT, MANY);
	for (int i = 0; i < MANY; i++) {
		storage_let_go(rigs[i].storage);
		rig_start(&rigs[i]);
		ck_assert_int_eq(rig_read_sector(&rigs[i]), 0);
		/* The next one has a budget of its own. */
		ck_assert_int_eq(ktvblk_get_state(rigs[i].dev),
				 KTVBLK_STATE_RUNNING);
		wedge_close(&rigs[i]);
	}
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_reset_that_was_asked_for_is_one_that_has_begun)
{
	struct recorder rec;
	struct rig rig;

	ck_assert_int_eq(ktvblk_request_reset(NULL), -EINVAL);
	wedge_record(&rec);
	wedge_open_idle(&rig, WAIT_MS, 0);
	/* Nothing to stop: no effect. */
	ck_assert_int_eq(ktvblk_request_reset(rig.dev), 0);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_IDLE);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(ktvblk_request_reset(rig.dev), 0);
	ck_assert(eventually(worker_tid(&rig) == 0));
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_IDLE);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	/* Or a destroy. */
	ck_assert_int_eq(ktvblk_request_reset(rig.dev), 0);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	ck_assert_int_eq(ktvblk_request_reset(rig.dev), 0);
	rig_close(&rig);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	recorder_stop(&rec);
}
END_TEST

TEST_PROGRAM("reset-asked", resets_that_were_asked_for_share_one_budget,
	     a_reset_that_was_asked_for_is_one_that_has_begun)
