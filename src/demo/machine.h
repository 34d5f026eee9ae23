/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_MACHINE_H
#define DEMO_MACHINE_H

/* A virtual machine, as far as a disk is concerned. */

#include "driver.h"
#include "guest.h"
#include "hang.h"

struct machine {
	struct guest guest;
	struct ktvblk_dev *dev;
	struct ktvblk_stats *stats; /* can be read when dev is gone */
	struct ktvblk_identity id; /* as on the records, before a reset */
	struct driver driver;
};

/* With this storage, the reference to which is taken over; see config. */
void machine_start(struct machine *machine, const struct ktvblk_config *config);

/* The guest reads the first sector, and the storage hangs; the slot. */
int machine_hang(struct machine *machine, struct hang *hang);

/* After ktvblk_destroy(): wait for the guest's memory and forget the rest. */
bool machine_end(struct machine *machine);

#endif
