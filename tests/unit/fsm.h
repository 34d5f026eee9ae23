/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_FSM_H
#define TEST_FSM_H

/*
 * A device, the steps of a driver, and the records that they make.
 */

#include "wedge.h"

#define S_NEEDS VIRTIO_CONFIG_S_NEEDS_RESET
#define S_FAILED VIRTIO_CONFIG_S_FAILED

struct fsm {
	struct recorder rec;
	struct rig rig;
};

void fsm_open(struct fsm *fsm);
void fsm_close(struct fsm *fsm);

/* Write; what can be read then. */
uint32_t fsm_write(struct fsm *fsm, uint32_t value);
void fsm_write_features(struct fsm *fsm, uint64_t features);

/* From reset, step by step; and past all of them, as the device itself. */
void fsm_go_to(struct fsm *fsm, uint32_t status);
void fsm_set(struct fsm *fsm, uint32_t status);

/* The one record since the last clear; or none. */
const struct kept_record *fsm_only_record(struct fsm *fsm, const char *id);
void fsm_expect_silence(struct fsm *fsm);

#endif
