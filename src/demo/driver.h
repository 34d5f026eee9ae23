/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_DRIVER_H
#define DEMO_DRIVER_H

/*
 * The guest's side, in small: a virtio-blk driver that speaks to the device's
 * registers and through a split queue in guest memory, and sleeps until its
 * interrupt. In a real VMM the guest's kernel does all this.
 */

#include <stdint.h>

#include "guest.h"

#define DRIVER_SLOTS 32 /* requests in flight, at most */
#define DRIVER_DATA_BYTES (UINT32_C(64) << 10) /* of each, at most */

struct driver {
	struct ktvblk_dev *dev;
	struct guest *guest;
	uint64_t features; /* negotiated */
	uint64_t capacity; /* in sectors; followed where the disk has another */
	uint16_t avail_idx; /* chains made available */
	uint16_t told_idx; /* and told the device */
	uint16_t used_idx; /* chains taken back */
	uint32_t busy; /* a bit for each slot */
	int last_slot;
	uint64_t kicks;
	uint64_t interrupts;
};

/* Bring the device from reset to DRIVER_OK. */
void driver_start(struct driver *driver, struct ktvblk_dev *dev,
		  struct guest *guest);

/* What no driver may do: take a status bit back. True if it is refused. */
bool driver_break_a_rule(struct driver *driver);

/* Reset the device; what was in flight is forgotten. */
void driver_reset(struct driver *driver);

/* A free slot, or -1. What is written is put at driver_data() before. */
int driver_free_slot(struct driver *driver);
void *driver_data(const struct driver *driver, int slot);

/* Make a request of type VIRTIO_BLK_T_* available; told with driver_kick(). */
void driver_submit(struct driver *driver, int slot, uint32_t type,
		   uint64_t sector, uint32_t bytes);
void driver_kick(struct driver *driver);

/* The slot of a request that is done, -1 if none is within timeout_ms. */
int driver_wait(struct driver *driver, int timeout_ms, uint8_t *ret_status);

/* Wait until the disk has another size; false: not within timeout_ms. */
bool driver_await_change(struct driver *driver, int timeout_ms);

/* All in one, with nothing else in flight: the status, or -1. */
int driver_request(struct driver *driver, int slot, uint32_t type,
		   uint64_t sector, uint32_t bytes);

#endif
