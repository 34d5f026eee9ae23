/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See save.h: what a device is, and a device that is that. */

#include <linux/virtio_config.h>
#include <string.h>

#include "save.h"
#include "util.h"

/* Its worker is parked, and so all of it can be read; or it has none. */
static bool is_running(const struct session *session)
{
	return session->has_thread &&
	       atomic_load(&session->fate) == FATE_RUNNING;
}

static void look_at_queue(const struct ktvblk_dev *dev, struct saved *saved,
			  uint32_t i)
{
	const struct device_queue *queue = &dev->queues[i];
	const struct session *session = queue->session;
	const struct ktvblk_mem *mem = dev->holdings->mem;
	struct saved_queue *to = &saved->queues[i];

	to->config = queue->config;
	to->flags = (queue->config.ready ? (uint32_t)SAVED_READY : 0) |
		    (queue->stopped ? (uint32_t)SAVED_STOPPED : 0);
	if (!is_running(session))
		return;
	to->flags |= SAVED_RUNNING;
	to->next_avail = session->vq.next_avail;
	to->next_used = session->vq.next_used;
	if (session->poisoned)
		to->flags |= SAVED_POISONED;
	else if (queue->config.ready && !saved_is_regular(saved, to, mem))
		to->flags |= SAVED_UNRULY;
}

/*
 * Of one without a limit there is nothing to say. A paused disk gathers no tokens
 * from when that was asked for, so that what is saved twice is the same.
 */
static void look_at_bucket(struct bucket *bucket, uint64_t paused_ns)
{
	if (!bucket->rate)
		*bucket = (struct bucket){ 0 };
	else if (paused_ns)
		bucket_can_take(bucket, 1, paused_ns);
}

/* What another size of the disk changes, on any thread: before that or behind. */
static void look_at_size(struct ktvblk_dev *dev, struct saved *saved)
{
	SCOPED_LOCK(&dev->session_lock);

	saved->capacity_bytes = disk_id_sectors(dev->disk_id) << SECTOR_SHIFT;
	saved->status = atomic_load(&dev->era->status);
	saved->interrupt_status = atomic_load(&dev->era->interrupt_status);
}

static void look(struct ktvblk_dev *dev, struct saved *saved)
{
	const struct era *era = dev->era;

	*saved = (struct saved){
		.features = dev->features,
		.block_bytes = dev->disk.block_bytes,
		.n_queues = dev->n_queues,
		.queue_size_max = dev->queue_size_max,
		.read_only = dev->disk.read_only,
		.driver_features = dev->driver_features,
		.device_features_sel = dev->device_features_sel,
		.driver_features_sel = dev->driver_features_sel,
		.queue_sel = dev->queue_sel,
		.config_generation = dev->config_generation,
		.shown_sectors = dev->shown_sectors,
		.capacity_was_read = dev->capacity_was_read,
		.read_sectors = dev->capacity_was_read ? dev->read_sectors : 0,
		.flush_failed = atomic_load(&era->flush_failed),
		.writeback = atomic_load(&era->cache) == CACHE_BACK,
	};
	look_at_size(dev, saved);
	disk_throttle_look(dev->throttle, &saved->throttle);
	for (uint32_t i = 0; i < dev->n_queues; i++)
		look_at_queue(dev, saved, i);
}

static bool is_ending(const struct ktvblk_dev *dev)
{
	return dev->stop_requested_ns || dev->reset_requested_ns;
}

int ktvblk_save(struct ktvblk_dev *dev, void *buf, size_t size)
{
	uint64_t paused_ns;
	struct saved saved;
	size_t bytes;

	if (!dev || (!buf && size))
		return -EINVAL;
	bytes = saved_bytes(dev->n_queues);
	if (!buf)
		return (int)bytes;
	if (dev->transport || is_ending(dev) || !ports_are_paused(dev->ports))
		return -EBUSY;
	if (size < bytes)
		return -ERANGE;
	look(dev, &saved);
	paused_ns = ports_pause_wanted(dev->ports) ? dev->paused_ns : 0;
	look_at_bucket(&saved.throttle.ops, paused_ns);
	look_at_bucket(&saved.throttle.bytes, paused_ns);
	saved_encode(&saved, (unsigned char *)buf);
	return (int)bytes;
}

/* The register file; what a worker may add to meanwhile is there before it. */
static void take_on(struct ktvblk_dev *dev, const struct saved *saved)
{
	SCOPED_LOCK(&dev->session_lock);

	atomic_store(&dev->era->status, saved->status);
	atomic_store(&dev->era->interrupt_status, saved->interrupt_status);
	atomic_store(&dev->era->flush_failed, saved->flush_failed);
	config_set_cache(dev, saved->writeback);
	dev->driver_features = saved->driver_features;
	dev->device_features_sel = saved->device_features_sel;
	dev->driver_features_sel = saved->driver_features_sel;
	dev->queue_sel = saved->queue_sel;
	dev->config_generation = saved->config_generation;
	dev->shown_sectors = saved->shown_sectors;
	dev->capacity_was_read = saved->capacity_was_read;
	dev->read_sectors = saved->read_sectors;
	for (uint32_t i = 0; i < dev->n_queues; i++) {
		dev->queues[i].config = saved->queues[i].config;
		dev->queues[i].stopped = saved->queues[i].flags & SAVED_STOPPED;
	}
}

/* All workers, each where its queue was left, or none. 0 or -errno. */
static int start_workers(struct ktvblk_dev *dev, const struct saved *saved)
{
	int r = 0;

	for (uint32_t i = 0; i < dev->n_queues && r == 0; i++) {
		const struct saved_queue *queue = &saved->queues[i];
		const struct ring_position at = {
			.next_avail = queue->next_avail,
			.next_used = queue->next_used,
			.poisoned = queue->flags & SAVED_POISONED,
		};

		if (queue->flags & SAVED_RUNNING)
			r = device_start_session(dev, &dev->queues[i], &at);
	}
	if (r < 0)
		device_end_sessions(dev);
	return r;
}

/* Paused, before there is a worker: so each is parked from the first. */
static int come_up(struct ktvblk_dev *dev, const struct saved *saved)
{
	const bool was_paused = ports_pause_wanted(dev->ports);
	struct saved before;
	int r;

	look(dev, &before);
	if (!was_paused)
		ports_pause(dev->ports, -1);
	take_on(dev, saved);
	r = start_workers(dev, saved);
	if (r == 0)
		return 0;
	take_on(dev, &before);
	if (!was_paused)
		ports_resume(dev->ports);
	return r;
}

int ktvblk_restore(struct ktvblk_dev *dev, const void *buf, size_t size)
{
	struct saved saved;
	int r;

	if (!dev || !buf)
		return -EINVAL;
	if (dev->transport || is_ending(dev) || dev->started)
		return -EBUSY;
	if (!dev->holdings->mem)
		return -EINVAL;
	r = saved_decode(&saved, (const unsigned char *)buf, size);
	if (r == 0)
		r = saved_check(&saved, dev);
	if (r == 0)
		r = come_up(dev, &saved);
	if (r < 0)
		return r;
	backend_may_be_dirty(dev->holdings->backend);
	dev->started = saved.status & VIRTIO_CONFIG_S_DRIVER_OK;
	dev->paused_ns = now_ns();
	disk_throttle_set_balance(dev->throttle, &saved.throttle,
				  dev->paused_ns);
	/* Whoever waited for it may have been told by another's eventfd. */
	if (saved.interrupt_status)
		device_interrupt(dev);
	device_tell_missed_resize(dev);
	ports_state_changed(dev->ports);
	return 0;
}
