/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_MOVE_H
#define TEST_MOVE_H

/*
 * A device's state as bytes, and devices that take it on. The rig keeps its
 * memory, its storage and its driver, who is to see nothing of it.
 */

#include "rig.h"
#include "save.h"

#define IMAGE_MAX 1024u

struct image {
	unsigned char bytes[IMAGE_MAX];
	size_t size;
};

/* Pause the device and save it, which must go well. */
void image_take(struct image *image, struct rig *rig);

/* The same bytes, read; and other bytes for them, with a crc that is right. */
struct saved image_read(const struct image *image);
void image_write(struct image *image, const struct saved *saved);
void image_seal(struct image *image);

/* Another device on the rig's storage, which has its memory if `memory`. */
struct ktvblk_dev *move_make(struct rig *rig,
			     const struct ktvblk_config *config, bool memory);

/*
 * The rig has that device instead of its own, which is destroyed: so the worker
 * of the one is gone before the other is resumed.
 */
void move_over(struct rig *rig, struct ktvblk_dev *dev);

/* All of it: pause, save, another device, destroy, restore; it is paused. */
void move(struct rig *rig);

#endif
