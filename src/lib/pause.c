/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Pause and resume: even and odd numbers in ports->pause, so that a resume is
 * never mistaken for an earlier one. See worker.c for the other side.
 */

#include <fcntl.h>

#include "device.h"
#include "util.h"

/* Get the workers to look at what was counted on. */
static void wake_workers(struct ktvblk_dev *dev)
{
	const int r = ports_kick_all(dev->ports);

	if (r < 0)
		log_event(&dev->id, PAUSE_KICK_FAILED, -r);
}

int ktvblk_pause_begin(struct ktvblk_dev *dev, int parked_fd)
{
	int fd = -1, r;

	if (!dev || parked_fd < -1)
		return -EINVAL;
	if (parked_fd >= 0) {
		fd = fcntl(parked_fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
	}
	if (!ports_pause_wanted(dev->ports))
		dev->paused_ns = now_ns();
	r = ports_pause(dev->ports, fd);
	/* Asked again, too: the kick before may have failed. */
	wake_workers(dev);
	if (!ports_workers(dev->ports) && !atomic_load(&dev->ports->orphans))
		log_event(&dev->id, PAUSE_NO_WORKER);
	if (r < 0)
		log_event(&dev->id, PARKED_FD_FAILED, -r);
	return 0;
}

bool device_on_worker(const struct ktvblk_dev *dev)
{
	for (unsigned int i = 0; i < dev->n_queues; i++) {
		struct session *session = device_session(dev, i);
		const bool is_us =
			atomic_load(&session->has_thread) &&
			pthread_equal(session->thread, pthread_self());

		session_unref(session);
		if (is_us)
			return true;
	}
	return false;
}

static bool are_paused(const void *arg)
{
	return ports_are_paused((const struct ports *)arg);
}

int ktvblk_pause(struct ktvblk_dev *dev, uint32_t timeout_ms)
{
	const uint64_t deadline_ns = now_ns() + timeout_ms * NSEC_PER_MSEC;
	bool ours;

	if (!dev)
		return -EINVAL;
	if (device_on_worker(dev))
		return -EDEADLK;
	ours = !ports_pause_wanted(dev->ports);
	if (ours)
		ktvblk_pause_begin(dev, -1);
	else
		wake_workers(dev);
	if (ports_await(dev->ports, are_paused, dev->ports, deadline_ns))
		return 0;
	if (ours)
		ktvblk_resume(dev);
	return -ETIMEDOUT;
}

int ktvblk_is_paused(const struct ktvblk_dev *dev)
{
	return dev ? ports_are_paused(dev->ports) : -EINVAL;
}

int ktvblk_resume(struct ktvblk_dev *dev)
{
	if (!dev)
		return -EINVAL;
	if (!ports_pause_wanted(dev->ports))
		return 0;
	ports_resume(dev->ports);
	wake_workers(dev);
	return 1;
}
