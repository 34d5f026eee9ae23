/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The registers of virtio-mmio version 2 (section 4.2.2): only what an offset
 * means. Transport registers are 32 bits wide, little-endian; config space
 * takes any width: config.c.
 */

#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "device.h"
#include "mmio.h"
#include "util.h"

#define MMIO_MAGIC 0x74726976u /* "virt" */
#define MMIO_VERSION 2u
#define ALL_ONES UINT32_MAX

/* Is there a queue that the driver has selected? */
static bool queue_is_there(const struct ktvblk_dev *dev)
{
	return dev->queue_sel < dev->n_queues;
}

static uint32_t read_register(struct ktvblk_dev *dev, uint64_t offset)
{
	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MMIO_MAGIC;
	case VIRTIO_MMIO_VERSION:
		return MMIO_VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return VIRTIO_ID_BLOCK;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return dev->device_features_sel > 1
			       ? 0
			       : (uint32_t)(dev->features >>
					    32 * dev->device_features_sel);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return queue_is_there(dev) ? dev->queue_size_max : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return queue_is_there(dev) &&
		       dev->queues[dev->queue_sel].config.ready;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		/* Acquire, pairs with session_raise(). */
		return atomic_load_explicit(&dev->era->interrupt_status,
					    memory_order_acquire);
	case VIRTIO_MMIO_STATUS:
		return atomic_load_explicit(&dev->era->status,
					    memory_order_acquire);
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return ALL_ONES; /* no such region */
	case VIRTIO_MMIO_CONFIG_GENERATION:
		config_look(dev);
		return dev->config_generation;
	default: /* VendorID too, and QueueReset: it is over when it returns */
		return 0;
	}
}

void ktvblk_mmio_read(struct ktvblk_dev *dev, uint64_t offset, void *data,
		      size_t len)
{
	uint32_t value;

	if (!data || !len)
		return;
	if (dev && dev->transport) {
		memset(data, 0, len);
	} else if (dev && offset >= VIRTIO_MMIO_CONFIG) {
		config_read(dev, offset - VIRTIO_MMIO_CONFIG, data, len);
	} else if (dev && len == sizeof(value)) {
		value = htole32(read_register(dev, offset));
		memcpy(data, &value, sizeof(value));
	} else {
		memset(data, 0xff, len);
	}
}

static void write_driver_features(struct ktvblk_dev *dev, uint32_t value)
{
	const unsigned int shift = 32 * (dev->driver_features_sel & 1);

	if (dev->driver_features_sel > 1 || !status_takes_features(dev))
		return;
	dev->driver_features &= ~((uint64_t)UINT32_MAX << shift);
	dev->driver_features |= (uint64_t)value << shift;
}

/*
 * The device must not touch a queue that is not ready (section 4.2.2.1), and the
 * driver may make one that it uses not ready at any time, to free its memory.
 */
static void write_queue_ready(struct ktvblk_dev *dev,
			      struct device_queue *queue, uint32_t value)
{
	if (status_takes_queue(dev)) {
		queue->config.ready = value == 1;
		if (queue->config.ready && queue->stopped)
			device_start_queue(dev, queue);
	} else if (value == 0 && queue->config.ready) {
		queue->config.ready = false;
		device_stop_queue(dev, queue);
	}
}

/*
 * As QueueReady 0, and the queue's registers are those of a reset; what the
 * driver sets up next is another queue (section 2.6.1).
 */
static void write_queue_reset(struct ktvblk_dev *dev,
			      struct device_queue *queue, uint32_t value)
{
	const bool in_use = !status_takes_queue(dev);

	if (value != 1 || !status_has_feature(dev, VIRTIO_F_RING_RESET))
		return;
	queue_reset(dev, queue);
	if (in_use)
		device_stop_queue(dev, queue);
}

static void write_queue(struct ktvblk_dev *dev, uint64_t offset, uint32_t value)
{
	struct device_queue *queue = &dev->queues[dev->queue_sel];
	struct queue_config *config = &queue->config;

	if (offset == VIRTIO_MMIO_QUEUE_READY)
		write_queue_ready(dev, queue, value);
	if (offset == VIRTIO_MMIO_QUEUE_RESET)
		write_queue_reset(dev, queue, value);
	if (!status_takes_queue(dev))
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		queue_set_size(queue, dev->queue_size_max, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		queue_set_address(queue, &config->desc_addr, value,
				  offset == VIRTIO_MMIO_QUEUE_DESC_HIGH,
				  VRING_DESC_ALIGN_SIZE);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		queue_set_address(queue, &config->avail_addr, value,
				  offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
				  VRING_AVAIL_ALIGN_SIZE);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		queue_set_address(queue, &config->used_addr, value,
				  offset == VIRTIO_MMIO_QUEUE_USED_HIGH,
				  VRING_USED_ALIGN_SIZE);
		break;
	}
}

static void write_register(struct ktvblk_dev *dev, uint64_t offset,
			   uint32_t value)
{
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		dev->device_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		write_driver_features(dev, value);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		dev->driver_features_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		dev->queue_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		if (value < dev->n_queues)
			device_kick(dev, value);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		atomic_fetch_and_explicit(&dev->era->interrupt_status, ~value,
					  memory_order_acq_rel);
		break;
	case VIRTIO_MMIO_STATUS:
		if (value)
			status_write(dev, value);
		else
			device_reset(dev);
		break;
	default:
		if (queue_is_there(dev))
			write_queue(dev, offset, value);
	}
}

void ktvblk_mmio_write(struct ktvblk_dev *dev, uint64_t offset,
		       const void *data, size_t len)
{
	uint32_t value;

	if (!dev || dev->transport || !data)
		return;
	if (offset >= VIRTIO_MMIO_CONFIG) {
		config_write(dev, offset - VIRTIO_MMIO_CONFIG, data, len);
		return;
	}
	if (len != sizeof(value))
		return;
	memcpy(&value, data, sizeof(value));
	write_register(dev, offset, le32toh(value));
}
