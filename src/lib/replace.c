/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What workers use at each request, changed under them: guest memory, and who is
 * told of what is written there.
 *
 * A worker has its gate but around calls into storage and while it sleeps, and
 * keeps no address of guest memory over that: requests in flight have the guest's,
 * and a buffer of their own. So who has the gates of all workers may change what
 * they find behind them, be they stuck in storage, parked, or waiting for one that
 * was left behind, which keeps what it had. With zero-copy the storage itself is
 * in guest memory: then nothing may be in flight, for which the workers are paused.
 */

#include "device.h"
#include "errand.h"
#include "util.h"

static void leave_gates(struct ktvblk_dev *dev, unsigned int n)
{
	while (n-- > 0)
		gate_leave(&dev->queues[n].session->gate);
}

/* False: one was held until then, and none is had. */
static bool enter_gates(struct ktvblk_dev *dev, uint64_t deadline_ns)
{
	for (unsigned int i = 0; i < dev->n_queues; i++)
		if (!gate_enter_until(&dev->queues[i].session->gate,
				      deadline_ns)) {
			leave_gates(dev, i);
			return false;
		}
	return true;
}

/* With the gates. Of a worker that has let go nothing is in flight. */
static bool any_in_flight(const struct ktvblk_dev *dev)
{
	for (unsigned int i = 0; i < dev->n_queues; i++) {
		const struct session *session = dev->queues[i].session;

		if (session->holdings && session->flight.n_busy)
			return true;
	}
	return false;
}

static bool enter_idle_gates(struct ktvblk_dev *dev, uint64_t deadline_ns)
{
	for (;;) {
		const uint32_t seen = atomic_load(&dev->ports->changes);

		if (!enter_gates(dev, deadline_ns))
			return false;
		if (!any_in_flight(dev))
			return true;
		leave_gates(dev, dev->n_queues);
		if (now_ns() >= deadline_ns)
			return false;
		/* Who parks, or ends, tells of a change. */
		ports_wait(dev->ports, seen, deadline_ns);
	}
}

/* The gates, with no address of guest memory in use. */
static bool enter_gates_of_memory(struct ktvblk_dev *dev, uint64_t deadline_ns)
{
	const bool pauses = dev->disk.zero_copy &&
			    !ports_pause_wanted(dev->ports);
	bool entered;

	if (!dev->disk.zero_copy)
		return enter_gates(dev, deadline_ns);
	if (pauses) {
		ports_pause(dev->ports, -1);
		ports_kick_all(dev->ports);
	}
	entered = enter_idle_gates(dev, deadline_ns);
	if (pauses) {
		ports_resume(dev->ports);
		ports_kick_all(dev->ports);
	}
	return entered;
}

int ktvblk_set_dirty_log(struct ktvblk_dev *dev,
			 void (*fn)(void *userdata, uint64_t guest_addr,
				    uint64_t length),
			 void *userdata, uint32_t timeout_ms)
{
	const struct dirty_log log = { .fn = fn, .userdata = userdata };

	if (!dev)
		return -EINVAL;
	if (device_on_worker(dev))
		return -EDEADLK;
	if (dev->transport)
		return -EBUSY;

	SCOPED_NO_CANCEL();
	if (!enter_gates(dev, now_ns() + timeout_ms * NSEC_PER_MSEC))
		return -ETIMEDOUT;
	dev->dirty = log;
	for (unsigned int i = 0; i < dev->n_queues; i++)
		dev->queues[i].session->vq.dirty = log;
	leave_gates(dev, dev->n_queues);
	return 0;
}

/* The last reference to what was replaced, whose release may block. */
struct dropping {
	struct errand errand;
	struct holdings *holdings;
};

static void drop(struct errand *errand)
{
	struct dropping *dropping =
		container_of(errand, struct dropping, errand);
	struct holdings *holdings = dropping->holdings;

	dropping->holdings = NULL;
	holdings_unref(holdings);
}

static void dropped(struct errand *errand)
{
	struct dropping *dropping =
		container_of(errand, struct dropping, errand);

	/* Without a thread, here. */
	holdings_unref(dropping->holdings);
	free(dropping);
}

static int dropping_new(struct ports *ports, struct dropping **ret_dropping)
{
	struct dropping *dropping = calloc(1, sizeof(*dropping));
	int r;

	if (!dropping)
		return -ENOMEM;
	dropping->errand.name = "ktvblk-drop";
	dropping->errand.run = drop;
	dropping->errand.over = dropped;
	r = errand_prepare(&dropping->errand, ports);
	if (r < 0)
		free(dropping);
	else
		*ret_dropping = dropping;
	return r;
}

/* With its gate. */
static void switch_session(struct session *session, struct holdings *next)
{
	struct holdings *before = session->holdings;

	/* No worker, or one that has let go. */
	if (!before)
		return;
	session->holdings = holdings_ref(next);
	/* The device has one as well. */
	refs_put_not_last(&before->refs);
	session_use_memory(session, next->mem);
}

int ktvblk_replace_memory(struct ktvblk_dev *dev, struct ktvblk_mem *mem,
			  uint32_t timeout_ms)
{
	const uint64_t deadline_ns = now_ns() + timeout_ms * NSEC_PER_MSEC;
	struct dropping *dropping;
	struct holdings *next, *before;
	int r;

	if (!dev || !mem)
		return -EINVAL;
	if (device_on_worker(dev))
		return -EDEADLK;
	if (dev->transport || !dev->holdings || dev->stop_requested_ns)
		return -EBUSY;

	SCOPED_NO_CANCEL();
	r = dropping_new(dev->ports, &dropping);
	if (r < 0)
		return r;
	next = holdings_new(dev->holdings->backend);
	if (!next) {
		r = -ENOMEM;
		goto fail;
	}
	next->mem = ktvblk_mem_ref(mem);
	if (!enter_gates_of_memory(dev, deadline_ns)) {
		/* Of nothing in it this is the last reference. */
		holdings_unref(next);
		r = -ETIMEDOUT;
		goto fail;
	}
	for (unsigned int i = 0; i < dev->n_queues; i++)
		switch_session(dev->queues[i].session, next);
	leave_gates(dev, dev->n_queues);
	before = dev->holdings;
	dev->holdings = next;
	if (!before->mem)
		ports_kick_all(dev->ports);
	dropping->holdings = holdings_unref_quick(before);
	if (dropping->holdings) {
		errand_start(&dropping->errand);
		return 0;
	}
	r = 0;
fail:
	errand_forget(&dropping->errand);
	free(dropping);
	return r;
}
