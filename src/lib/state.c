/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the device is, and what it is doing: from the facts, for any thread. The
 * sessions change with a reset, so whoever looks at one has a reference.
 */

#include <linux/virtio_config.h>

#include "device.h"
#include "sized.h"
#include "teardown.h"
#include "util.h"

/* The end of struct ktvblk_identity in version 1.0. */
#define IDENTITY_SIZE_1_0 24
_Static_assert(offsetof(struct ktvblk_identity, reserved) + sizeof(uint32_t) ==
		       IDENTITY_SIZE_1_0,
	       "ABI");

static pthread_mutex_t *lock_of(const struct ktvblk_dev *dev)
{
	return (pthread_mutex_t *)(uintptr_t)&dev->session_lock;
}

struct session *device_session(const struct ktvblk_dev *dev, unsigned int queue)
{
	SCOPED_LOCK(lock_of(dev));

	return session_ref(dev->queues[queue].session);
}

void device_signal_stop(const struct ktvblk_dev *dev)
{
	for (unsigned int i = 0; i < dev->n_queues; i++) {
		struct session *session = device_session(dev, i);

		if (atomic_load(&session->has_thread))
			session_signal_stop(session);
		session_unref(session);
	}
}

static uint32_t device_status(const struct ktvblk_dev *dev)
{
	SCOPED_LOCK(lock_of(dev));

	return atomic_load(&dev->era->status);
}

int ktvblk_get_identity(const struct ktvblk_dev *dev,
			struct ktvblk_identity *ret_identity, size_t size)
{
	if (!dev || !ret_identity || size < IDENTITY_SIZE_1_0)
		return -EINVAL;

	struct session *session = device_session(dev, 0);
	const struct ktvblk_identity identity = {
		.instance_id = dev->disk_id->instance_id,
		.capacity_sectors = disk_id_sectors(dev->disk_id),
		.stop_fd = session->stop_fd,
	};

	session_unref(session);
	sized_copy_out(ret_identity, size, &identity, sizeof(identity));
	return 0;
}

/* Idle, running or stalled. */
static int state_of_queue(const struct ktvblk_dev *dev, unsigned int queue)
{
	struct session *session = device_session(dev, queue);
	int state = KTVBLK_STATE_RUNNING;

	/* Behind it the watch is there. */
	if (!atomic_load(&session->has_thread))
		state = KTVBLK_STATE_IDLE;
	else if (watch_is_stalled(session->watch, now_ns()))
		state = KTVBLK_STATE_STALLED;
	session_unref(session);
	return state;
}

/* Of all queues: one that is stalled before those that run. */
static int state_of_queues(const struct ktvblk_dev *dev)
{
	int state = KTVBLK_STATE_IDLE;

	for (unsigned int i = 0; i < dev->n_queues; i++) {
		const int one = state_of_queue(dev, i);

		if (one == KTVBLK_STATE_STALLED)
			return one;
		if (one == KTVBLK_STATE_RUNNING)
			state = one;
	}
	if (state == KTVBLK_STATE_RUNNING && ports_are_paused(dev->ports))
		state = KTVBLK_STATE_PAUSED;
	return state;
}

int ktvblk_get_state(const struct ktvblk_dev *dev)
{
	if (!dev)
		return -EINVAL;
	if (atomic_load(&dev->stop_requested_ns) ||
	    atomic_load(&dev->reset_requested_ns))
		return KTVBLK_STATE_STOPPING;
	if (atomic_load(&dev->ports->orphans))
		return KTVBLK_STATE_WEDGED;
	if (device_status(dev) & VIRTIO_CONFIG_S_NEEDS_RESET)
		return KTVBLK_STATE_NEEDS_RESET;
	return state_of_queues(dev);
}

int ktvblk_state_fd(const struct ktvblk_dev *dev)
{
	return dev ? dev->ports->state_fd : -EINVAL;
}

const char *ktvblk_state_name(int state)
{
	static const char *const names[] = {
		[KTVBLK_STATE_IDLE] = "idle",
		[KTVBLK_STATE_RUNNING] = "running",
		[KTVBLK_STATE_PAUSED] = "paused",
		[KTVBLK_STATE_STALLED] = "stalled",
		[KTVBLK_STATE_WEDGED] = "wedged",
		[KTVBLK_STATE_NEEDS_RESET] = "needs reset",
		[KTVBLK_STATE_STOPPING] = "stopping",
	};

	return state >= 0 && (size_t)state < ARRAY_SIZE(names) ? names[state]
							       : "unknown";
}

const char *ktvblk_outcome_name(enum ktvblk_outcome outcome)
{
	static const char *const names[] = {
		[KTVBLK_JOINED] = "joined",
		[KTVBLK_PANICKED] = "panicked",
		[KTVBLK_TIMED_OUT] = "timed out",
		[KTVBLK_HELPER_SPAWN_FAILED] = "helper spawn failed",
		[KTVBLK_HELPER_DISCONNECTED] = "helper disconnected",
	};

	return (size_t)outcome < ARRAY_SIZE(names) ? names[outcome] : "unknown";
}
