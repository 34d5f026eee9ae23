/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Bytes from anywhere, judged: is it a state that this device can be in? What a
 * guest may bring about by itself is none of it refused, so that no guest can keep
 * its disk from being moved.
 */

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "save.h"
#include "util.h"

#define S_KNOWN                                                                \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |                \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |             \
	 VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)

/* No request takes more, and one is only granted where nothing is owed. */
#define DEBT_MAX ((int64_t)UINT32_MAX)

/* Made as that one was, but for features which that one did not have. */
static bool suits(const struct saved *saved, const struct ktvblk_dev *dev)
{
	return !(saved->features & ~dev->features) &&
	       saved->capacity_bytes == disk_id_sectors(dev->disk_id)
						<< SECTOR_SHIFT &&
	       saved->block_bytes == dev->disk.block_bytes &&
	       saved->read_only == dev->disk.read_only &&
	       saved->n_queues == dev->n_queues &&
	       saved->queue_size_max == dev->queue_size_max;
}

static bool has(const struct saved *saved, uint32_t bit)
{
	return saved->status & bit;
}

/* As status.c lets it come to be. */
static bool registers_ok(const struct saved *saved)
{
	const uint64_t version_1 = UINT64_C(1) << VIRTIO_F_VERSION_1;

	if (!saved->capacity_was_read && saved->read_sectors)
		return false;
	if ((saved->status & ~(uint32_t)S_KNOWN) ||
	    (saved->interrupt_status &
	     ~(uint32_t)(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG)))
		return false;
	if (has(saved, VIRTIO_CONFIG_S_FEATURES_OK) &&
	    (!(saved->driver_features & version_1) ||
	     (saved->driver_features & ~saved->features)))
		return false;
	if (has(saved, VIRTIO_CONFIG_S_DRIVER_OK))
		return has(saved, VIRTIO_CONFIG_S_FEATURES_OK);
	return !has(saved, VIRTIO_CONFIG_S_NEEDS_RESET) && !saved->flush_failed;
}

static bool bucket_ok(const struct bucket *bucket)
{
	if (!bucket->rate)
		return !bucket->available && !bucket->remainder;
	return bucket->available >= -DEBT_MAX &&
	       bucket->remainder < NSEC_PER_SEC;
}

static bool has_event_idx(const struct saved *saved)
{
	return saved->driver_features >> VIRTIO_RING_F_EVENT_IDX & 1;
}

bool saved_is_regular(const struct saved *saved,
		      const struct saved_queue *queue,
		      const struct ktvblk_mem *mem)
{
	const struct queue_config *config = &queue->config;
	const uint16_t unanswered =
		(uint16_t)(queue->next_avail - queue->next_used);

	return mem && config->avail_addr && unanswered <= config->size &&
	       virtqueue_is_in_memory(config, has_event_idx(saved), mem);
}

static bool config_ok(const struct queue_config *config, uint32_t size_max)
{
	return config->size && config->size <= size_max &&
	       !(config->size & (config->size - 1)) &&
	       config->desc_addr % VRING_DESC_ALIGN_SIZE == 0 &&
	       config->avail_addr % VRING_AVAIL_ALIGN_SIZE == 0 &&
	       config->used_addr % VRING_USED_ALIGN_SIZE == 0;
}

/* One that nothing serves. */
static bool idle_ok(const struct saved *saved, const struct saved_queue *queue)
{
	const bool stopped = queue->flags & SAVED_STOPPED;

	if ((queue->flags & (SAVED_POISONED | SAVED_UNRULY)) ||
	    queue->next_avail || queue->next_used)
		return false;
	if (!has(saved, VIRTIO_CONFIG_S_DRIVER_OK))
		return !stopped;
	/* Stopped, or else there was no worker to be had. */
	return stopped ? !(queue->flags & SAVED_READY)
		       : has(saved, VIRTIO_CONFIG_S_NEEDS_RESET);
}

static bool running_ok(const struct saved *saved,
		       const struct saved_queue *queue,
		       const struct ktvblk_mem *mem)
{
	const bool poisoned = queue->flags & SAVED_POISONED;
	const bool unruly = queue->flags & SAVED_UNRULY;

	if (!has(saved, VIRTIO_CONFIG_S_DRIVER_OK) ||
	    (queue->flags & SAVED_STOPPED))
		return false;
	/* The first is started whatever it is, and then does nothing. */
	if (!(queue->flags & SAVED_READY))
		return queue == saved->queues && !poisoned && !unruly &&
		       !queue->next_avail && !queue->next_used;
	if (poisoned)
		return !unruly && has(saved, VIRTIO_CONFIG_S_NEEDS_RESET);
	return unruly || saved_is_regular(saved, queue, mem);
}

int saved_check(const struct saved *saved, const struct ktvblk_dev *dev)
{
	bool ok = suits(saved, dev) && registers_ok(saved) &&
		  bucket_ok(&saved->throttle.ops) &&
		  bucket_ok(&saved->throttle.bytes);

	for (uint32_t i = 0; ok && i < saved->n_queues; i++) {
		const struct saved_queue *queue = &saved->queues[i];

		ok = config_ok(&queue->config, dev->queue_size_max) &&
		     (queue->flags & SAVED_RUNNING
			      ? running_ok(saved, queue, dev->holdings->mem)
			      : idle_ok(saved, queue));
	}
	return ok ? 0 : -EINVAL;
}
