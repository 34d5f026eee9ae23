/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the driver says of its queue before DRIVER_OK. Nothing here is looked
 * up in guest memory: that is the worker's, when it gets there.
 */

#include "device.h"

void queue_reset(struct ktvblk_dev *dev)
{
	dev->queue = (struct queue_config){ .size = dev->queue_size_max };
	dev->queue_stopped = false;
}

void queue_set_size(struct ktvblk_dev *dev, uint32_t value)
{
	/* The register is taken as 16 bits wide. */
	const uint16_t size = (uint16_t)value;

	if (size == 0 || size > dev->queue_size_max || (size & (size - 1))) {
		log_event(&dev->session->id, QUEUE_SIZE_INVALID, value);
		return;
	}
	dev->queue.size = size;
}

void queue_set_address(struct ktvblk_dev *dev, uint64_t *addr, uint32_t value,
		       bool high, uint64_t align)
{
	const uint64_t next = high ? (uint64_t)value << 32 | (uint32_t)*addr
				   : (*addr >> 32 << 32) | value;

	if (next & (align - 1)) {
		log_event(&dev->session->id, QUEUE_ADDRESS_MISALIGNED, next);
		return;
	}
	*addr = next;
}
