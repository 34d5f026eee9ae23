/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See fsm.h. */

#include "device.h"
#include "fsm.h"

void fsm_open(struct fsm *fsm)
{
	wedge_record(&fsm->rec);
	rig_open(&fsm->rig, NULL);
}

void fsm_close(struct fsm *fsm)
{
	ktvblk_destroy(fsm->rig.dev);
	fsm->rig.dev = NULL;
	rig_free(&fsm->rig);
	recorder_stop(&fsm->rec);
}

/* Write; what can be read then. */
uint32_t fsm_write(struct fsm *fsm, uint32_t value)
{
	rig_write(&fsm->rig, VIRTIO_MMIO_STATUS, value);
	return rig_status(&fsm->rig);
}

void fsm_write_features(struct fsm *fsm, uint64_t features)
{
	for (uint32_t i = 0; i < 2; i++) {
		rig_write(&fsm->rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		rig_write(&fsm->rig, VIRTIO_MMIO_DRIVER_FEATURES,
			  (uint32_t)(features >> 32 * i));
	}
}

void fsm_go_to(struct fsm *fsm, uint32_t status)
{
	static const uint32_t steps[] = { S_ACK, S_DRV, S_FEAT, S_OK };

	rig_write(&fsm->rig, VIRTIO_MMIO_STATUS, 0);
	for (size_t i = 0; i < ARRAY_SIZE(steps) && steps[i] <= status; i++) {
		if (steps[i] == S_FEAT)
			fsm_write_features(fsm, RIG_VERSION_1);
		ck_assert_uint_eq(fsm_write(fsm, steps[i]), steps[i]);
	}
	ck_assert_uint_eq(rig_status(&fsm->rig), status);
}

void fsm_set(struct fsm *fsm, uint32_t status)
{
	atomic_store(&fsm->rig.dev->era->status, status);
}

/* The one record since the last clear. */
const struct kept_record *fsm_only_record(struct fsm *fsm, const char *id)
{
	ck_assert_int_eq(recorder_count(&fsm->rec, NULL), 1);
	ck_assert_int_eq(recorder_count(&fsm->rec, id), 1);
	return recorder_find(&fsm->rec, id);
}

void fsm_expect_silence(struct fsm *fsm)
{
	ck_assert_int_eq(recorder_count(&fsm->rec, NULL), 0);
}
