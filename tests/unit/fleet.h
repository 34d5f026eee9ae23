/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_FLEET_H
#define TEST_FLEET_H

/*
 * Many requests of one sector at once: number i has the head i * 3, its data in
 * a sector of guest memory of its own, and is about sector i of the disk.
 */

#include "rig.h"

#define FLEET_MAX 64u
#define FLEET_QUEUE 256u

/* Options for a device that takes so many. */
struct rig_options fleet_options(void);

uint64_t fleet_data(unsigned int i); /* a guest's address */
void fleet_chain(struct rig *rig, unsigned int i, uint32_t type);

/* Numbers first to first + n - 1, made available at once and kicked. */
void fleet_send(struct rig *rig, unsigned int first, unsigned int n,
		uint32_t type);

/* What the n-th used entry is about. */
unsigned int fleet_used(struct rig *rig, unsigned int n);

int fleet_status(struct rig *rig, unsigned int i);

/* It was answered so, and a read has the disk's bytes. */
void fleet_expect(struct rig *rig, unsigned int i, uint8_t status);
bool fleet_untouched(struct rig *rig, unsigned int i);

#endif
