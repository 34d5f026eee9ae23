/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_SAVE_H
#define KTVBLK_SAVE_H

/*
 * What a paused device is, as a struct and as bytes:
 *
 *   device ── save.c ──► struct saved ── save-image.c ──► bytes
 *   device ◄── save.c ── struct saved ◄── save-image.c ── bytes
 *                             ▲
 *                        save-check.c: may it be true, of this device?
 *
 * Bytes are anybody's. What is taken from them has passed save-check.c whole, and
 * until then nothing of the device has changed.
 */

#include "device.h"
#include "throttle.h"

enum saved_queue_flags {
	SAVED_READY = 1,
	SAVED_RUNNING = 2, /* it has a worker */
	SAVED_STOPPED = 4, /* see struct device_queue */
	SAVED_POISONED = 8,
	/*
	 * The driver has it so that it cannot be judged: rings that are not all
	 * guest memory, or more chains that were never answered than it is long.
	 * What comes of that is found out as in any service.
	 */
	SAVED_UNRULY = 16,
	SAVED_QUEUE_FLAGS = 31,
};

struct saved_queue {
	uint32_t flags;
	struct queue_config config; /* `ready` is a flag */
	uint16_t next_avail, next_used;
};

struct saved {
	/* what the device was made as, and has to be */
	uint64_t capacity_bytes; /* what it was last */
	uint64_t features; /* offered */
	uint32_t block_bytes;
	uint32_t n_queues;
	uint32_t queue_size_max;
	bool read_only;

	/* the register file */
	uint64_t driver_features;
	uint32_t status;
	uint32_t interrupt_status;
	uint32_t device_features_sel;
	uint32_t driver_features_sel;
	uint32_t queue_sel;
	uint32_t config_generation;
	uint64_t shown_sectors; /* these three: see struct ktvblk_dev */
	bool capacity_was_read;
	uint64_t read_sectors;
	bool flush_failed;
	bool writeback;

	/* Of each bucket the balance, and whether there is one: a rate. */
	struct throttle throttle;

	struct saved_queue queues[KTVBLK_QUEUES_MAX];
};

/* save-image.c: how long the bytes are; and both ways. 0 or -EINVAL. */
size_t saved_bytes(uint32_t n_queues);
void saved_encode(const struct saved *saved, unsigned char *to);
int saved_decode(struct saved *saved, const unsigned char *from, size_t size);

/* save-check.c: is the queue one that can be judged? */
bool saved_is_regular(const struct saved *saved,
		      const struct saved_queue *queue,
		      const struct ktvblk_mem *mem);

/* Can the device, which has guest memory, be that? 0 or -EINVAL. */
int saved_check(const struct saved *saved, const struct ktvblk_dev *dev);

#endif
