/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The device started, reset, stopped, destroyed. All that a reset needs was had
 * before it, at the creation or at the last start: it allocates, maps and makes
 * nothing, so it cannot fail, nor wait for a kernel that a stuck worker keeps
 * busy. DRIVER_OK may.
 */

#include <linux/virtio_config.h>

#include "device.h"
#include "teardown.h"
#include "util.h"

void device_kick(struct ktvblk_dev *dev)
{
	/* Full means readable: nothing is lost, and it must not block. */
	eventfd_signal(dev->ports->kick_fd);
}

/* For the next reset. 0, or -errno with a record. */
static int have_spare(struct ktvblk_dev *dev)
{
	int r = dev->spare ? 0 : device_make_session(dev, &dev->spare);

	if (r < 0)
		log_event(&dev->session->id, START_FAILED, "session", -r);
	return r;
}

void device_start(struct ktvblk_dev *dev)
{
	struct session *session = dev->session;
	const struct session_start start = {
		.holdings = dev->holdings,
		.ring = dev->queue,
		.features = dev->driver_features,
		.cpus = dev->has_cpus ? &dev->cpus : NULL,
		.init = dev->init,
		.init_data = dev->init_data,
	};

	if (dev->stop_requested_ns)
		return;
	pages_take(&session->pages, &dev->pages);
	if (have_spare(dev) < 0 || session_start(session, &start) < 0) {
		pages_take(&dev->pages, &session->pages);
		session_needs_reset(session);
	}
}

/* The balance goes on: a reset is no way to free tokens. */
static void inherit_throttle(struct session *to, const struct session *from)
{
	to->throttle = from->throttle;
	if (from->throttle_lost)
		throttle_drain(&to->throttle, now_ns());
}

/*
 * End the session and begin the next one: at the state of reset, or with the
 * registers as they are.
 */
static void next_session(struct ktvblk_dev *dev, bool reset)
{
	struct session *old = dev->session, *next = dev->spare;
	struct stop_how how = {
		.timeout_ms = dev->reset_timeout_ms,
		.deadline_ns = dev->reset_requested_ns ? dev->reset_requested_ns
						       : now_ns(),
	};
	bool left;

	how.deadline_ns += dev->reset_timeout_ms * NSEC_PER_MSEC;
	left = !stop_is_clean(session_stop(old, &how));
	dev->reset_requested_ns = 0;
	if (!left)
		pages_take(&dev->pages, &old->pages);
	/*
	 * None to spare: the last was used up, and there was no start since; or
	 * there will be none, as the device was told to stop.
	 */
	if (!next) {
		if (reset)
			session_renew(old);
		return;
	}
	inherit_throttle(next, old);
	if (!reset) {
		atomic_store(&next->status, atomic_load(&old->status));
		atomic_store(&next->interrupt_status,
			     atomic_load(&old->interrupt_status));
	}
	pthread_mutex_lock(&dev->session_lock);
	dev->session = next;
	pthread_mutex_unlock(&dev->session_lock);
	if (old->started) {
		dev->spare = NULL;
		session_unref(old);
	} else {
		session_renew(old);
		dev->spare = old;
	}
}

void device_reset(struct ktvblk_dev *dev)
{
	SCOPED_NO_CANCEL();
	dev->queue_sel = 0;
	dev->device_features_sel = dev->driver_features_sel = 0;
	dev->driver_features = 0;
	dev->config_generation++;
	queue_reset(dev);
	next_session(dev, true);
	/* An interrupt the old session raised is nobody's any more. */
	eventfd_drain(dev->ports->irq_fd);
	ports_state_changed(dev->ports);
}

void device_stop_queue(struct ktvblk_dev *dev)
{
	SCOPED_NO_CANCEL();
	dev->queue_stopped = true;
	next_session(dev, false);
	ports_state_changed(dev->ports);
}

void device_start_queue(struct ktvblk_dev *dev)
{
	dev->queue_stopped = false;
	if (!(atomic_load(&dev->session->status) & VIRTIO_CONFIG_S_NEEDS_RESET))
		device_start(dev);
}

int ktvblk_request_reset(struct ktvblk_dev *dev)
{
	if (!dev)
		return -EINVAL;
	if (!dev->session->has_thread || dev->stop_requested_ns ||
	    dev->reset_requested_ns)
		return 0;
	dev->reset_requested_ns = now_ns();
	session_signal_stop(dev->session);
	ports_state_changed(dev->ports);
	return 0;
}

/*
 * What the device held goes with the last worker, while that is waited for: here
 * nothing may block. Where there is none, holdings stays.
 */
static void let_go(struct ktvblk_dev *dev)
{
	atomic_store(&dev->session->last, true);
	dev->holdings = holdings_unref_quick(dev->holdings);
}

int ktvblk_request_stop(struct ktvblk_dev *dev)
{
	if (!dev)
		return -EINVAL;
	if (dev->stop_requested_ns)
		return 0;
	dev->stop_requested_ns = now_ns();
	let_go(dev);
	session_signal_stop(dev->session);
	/* Where there is no worker; if this fails destroy tries again. */
	if (dev->holdings && !dev->session->has_thread)
		session_start_drop(dev->session, &dev->holdings);
	ports_state_changed(dev->ports);
	return 0;
}

/*
 * Is there anything that earlier resets left behind? What is only to be freed
 * yet, by threads that wait for nobody, is waited for.
 */
static bool remains(struct ports *ports, uint64_t deadline_ns)
{
	for (;;) {
		const uint32_t seen = atomic_load(&ports->changes);

		if (!atomic_load(&ports->remains))
			return false;
		if (atomic_load(&ports->orphans) || now_ns() >= deadline_ns)
			return true;
		ports_wait(ports, seen, deadline_ns);
	}
}

enum ktvblk_outcome ktvblk_destroy(struct ktvblk_dev *dev)
{
	enum ktvblk_outcome outcome, drop = KTVBLK_JOINED;
	struct stop_how how = { .destroying = true };
	struct session *session;

	if (!dev)
		return KTVBLK_JOINED;
	SCOPED_NO_CANCEL();
	session = dev->session;
	how.timeout_ms = dev->destroy_timeout_ms;
	how.deadline_ns = dev->stop_requested_ns ? dev->stop_requested_ns
						 : now_ns();
	how.deadline_ns += dev->destroy_timeout_ms * NSEC_PER_MSEC;
	let_go(dev);
	outcome = session_stop(session, &how);
	if (stop_is_clean(outcome))
		pages_take(&dev->pages, &session->pages);
	else
		session = dev->spare; /* it had a worker, so there is one */
	if (dev->holdings)
		drop = session_drop(session, &dev->holdings, &how);
	if (drop != KTVBLK_JOINED)
		outcome = drop;
	if (stop_is_clean(outcome) && remains(dev->ports, how.deadline_ns)) {
		log_event(&dev->session->id, DESTROY_STILL_WEDGED);
		outcome = KTVBLK_TIMED_OUT;
	}
	log_suppressed(&dev->session->id);
	device_free(dev);
	return outcome;
}
