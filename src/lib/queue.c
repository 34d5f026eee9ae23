/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the driver says of a queue before DRIVER_OK, or while it is not ready.
 * Nothing here is looked up in guest memory: that is the worker's, when it gets
 * there.
 */

#include "device.h"

void queue_reset(const struct ktvblk_dev *dev, struct device_queue *queue)
{
	queue->config = (struct queue_config){ .size = dev->queue_size_max };
}

void queues_reset(struct ktvblk_dev *dev)
{
	for (unsigned int i = 0; i < dev->n_queues; i++) {
		queue_reset(dev, &dev->queues[i]);
		dev->queues[i].stopped = false;
	}
}

void queue_set_size(struct device_queue *queue, uint16_t size_max,
		    uint32_t value)
{
	/* The register is taken as 16 bits wide. */
	const uint16_t size = (uint16_t)value;

	if (size == 0 || size > size_max || (size & (size - 1))) {
		log_event(&queue->session->id, QUEUE_SIZE_INVALID, value);
		return;
	}
	queue->config.size = size;
}

void queue_set_address(const struct device_queue *queue, uint64_t *addr,
		       uint32_t value, bool high, uint64_t align)
{
	const uint64_t next = high ? (uint64_t)value << 32 | (uint32_t)*addr
				   : (*addr >> 32 << 32) | value;

	if (next & (align - 1)) {
		log_event(&queue->session->id, QUEUE_ADDRESS_MISALIGNED, next);
		return;
	}
	*addr = next;
}
