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
#include "vhost-user/vhost-user.h"

void device_kick(struct ktvblk_dev *dev, uint32_t queue)
{
	/* Full means readable: nothing is lost, and it must not block. */
	eventfd_signal(dev->ports->kick_fds[queue]);
}

void device_interrupt(struct ktvblk_dev *dev)
{
	const int r = eventfd_signal(dev->ports->irq_fd);

	if (r < 0)
		log_event(&dev->id, IRQ_WRITE_FAILED, -r);
}

static bool has_worker(const struct ktvblk_dev *dev)
{
	for (unsigned int i = 0; i < dev->n_queues; i++)
		if (dev->queues[i].session->has_thread)
			return true;
	return false;
}

/* For the next reset. 0, or -errno with a record. */
static int have_spares(struct ktvblk_dev *dev, struct device_queue *queue)
{
	int r = 0;

	if (!dev->spare_era)
		dev->spare_era = era_new();
	if (!dev->spare_era)
		r = -ENOMEM;
	if (r == 0 && !queue->spare)
		r = device_make_session(dev, queue, &queue->spare);
	if (r < 0)
		log_event(&queue->session->id, START_FAILED, "session", -r);
	return r;
}

int device_start_session(struct ktvblk_dev *dev, struct device_queue *queue,
			 const struct ring_position *at)
{
	struct session *session = queue->session;
	struct session_start start = {
		.holdings = dev->holdings,
		.loan = queue->loan,
		.ring = queue->config,
		.at = *at,
		.features = dev->driver_features,
		.dirty = dev->dirty,
		.driver_elsewhere = dev->driver_elsewhere,
	};
	cpu_set_t cpus;
	int r;

	/* The VMM's, who has no lock where a transport has a thread. */
	pthread_mutex_lock(&dev->session_lock);
	cpus = dev->cpus;
	if (dev->has_cpus)
		start.cpus = &cpus;
	start.init = dev->init;
	start.init_data = dev->init_data;
	pthread_mutex_unlock(&dev->session_lock);
	pages_take(&session->pages, &queue->pages);
	r = have_spares(dev, queue);
	if (r == 0)
		r = session_start(session, &start);
	if (r < 0)
		pages_take(&queue->pages, &session->pages);
	return r;
}

static bool start_worker(struct ktvblk_dev *dev, struct device_queue *queue)
{
	static const struct ring_position at_first;

	if (dev->stop_requested_ns || dev->reset_requested_ns ||
	    device_start_session(dev, queue, &at_first) == 0)
		return true;
	session_needs_reset(queue->session);
	return false;
}

void device_start(struct ktvblk_dev *dev)
{
	dev->started = true;
	for (unsigned int i = 0; i < dev->n_queues; i++) {
		struct device_queue *queue = &dev->queues[i];

		queue->stopped = i > 0 && !queue->config.ready;
		if (!queue->stopped && !start_worker(dev, queue))
			break;
	}
	device_tell_missed_resize(dev);
}

/* With what the device holds for it. */
static void set_session(struct ktvblk_dev *dev, struct device_queue *queue,
			struct session *session)
{
	session_set_era(session, dev->era);
	pthread_mutex_lock(&dev->session_lock);
	queue->session = session;
	if (queue == dev->queues)
		dev->id.stop_fd = session->stop_fd;
	pthread_mutex_unlock(&dev->session_lock);
}

/* A queue's next session, the last one having been stopped. */
static void next_session(struct ktvblk_dev *dev, struct device_queue *queue,
			 bool reset)
{
	struct session *old = queue->session, *next = queue->spare;

	/*
	 * None to spare: the last was used up, and there was no start since; or
	 * there will be none, as the device was told to stop.
	 */
	if (!next) {
		session_set_era(old, dev->era);
		if (reset)
			session_renew(old);
		return;
	}
	set_session(dev, queue, next);
	if (old->started) {
		queue->spare = NULL;
		session_unref(old);
	} else {
		session_renew(old);
		queue->spare = old;
	}
}

/* The registers at reset; anew if a worker left behind has the old ones. */
static void next_era(struct ktvblk_dev *dev)
{
	struct era *old = dev->era;

	/* Without one to spare no worker has been started since. */
	if (!dev->era_is_kept || !dev->spare_era) {
		era_renew(old);
		return;
	}
	pthread_mutex_lock(&dev->session_lock);
	dev->era = dev->spare_era;
	pthread_mutex_unlock(&dev->session_lock);
	dev->spare_era = NULL;
	dev->era_is_kept = false;
	era_unref(old);
}

/* End the sessions of these queues, all by one deadline. True: all are gone. */
static bool stop_queues(struct ktvblk_dev *dev, struct device_queue *queues,
			unsigned int n, uint64_t since_ns)
{
	struct stopping each[KTVBLK_QUEUES_MAX];
	bool all_gone = true;
	const struct stop_how how = {
		.timeout_ms = dev->reset_timeout_ms,
		.deadline_ns = since_ns + dev->reset_timeout_ms * NSEC_PER_MSEC,
	};

	for (unsigned int i = 0; i < n; i++)
		each[i].session = queues[i].session;
	sessions_stop(each, n, &how);
	for (unsigned int i = 0; i < n; i++) {
		const struct virtqueue *vq = &each[i].session->vq;

		/*
		 * Of one left behind: it stands, unless it is not fenced. Relaxed:
		 * pairs with move_to() and count_to(), where it may be right now.
		 */
		queues[i].at = (struct ring_position){
			.next_avail = __atomic_load_n(&vq->next_avail,
						      __ATOMIC_RELAXED),
			.counter = __atomic_load_n(&vq->taken.counter,
						   __ATOMIC_RELAXED),
		};
		if (stop_is_clean(each[i].outcome))
			pages_take(&queues[i].pages, &each[i].session->pages);
		else
			all_gone = false;
	}
	dev->era_is_kept |= !all_gone;
	return all_gone;
}

/* A reset that was asked for before has begun its budget then. */
static uint64_t reset_since_ns(const struct ktvblk_dev *dev)
{
	return dev->reset_requested_ns ? dev->reset_requested_ns : now_ns();
}

void device_end_sessions(struct ktvblk_dev *dev)
{
	SCOPED_NO_CANCEL();
	stop_queues(dev, dev->queues, dev->n_queues, reset_since_ns(dev));
	dev->reset_requested_ns = 0;
	next_era(dev);
	config_reset(dev);
	for (unsigned int i = 0; i < dev->n_queues; i++)
		next_session(dev, &dev->queues[i], true);
}

void device_reset(struct ktvblk_dev *dev)
{
	SCOPED_NO_CANCEL();
	dev->queue_sel = 0;
	dev->device_features_sel = dev->driver_features_sel = 0;
	dev->driver_features = 0;
	dev->config_generation++;
	dev->capacity_was_read = false;
	queues_reset(dev);
	device_end_sessions(dev);
	/* An interrupt the old sessions raised is nobody's any more. */
	eventfd_drain(dev->ports->irq_fd);
	ports_state_changed(dev->ports);
}

void device_stop_queue(struct ktvblk_dev *dev, struct device_queue *queue)
{
	SCOPED_NO_CANCEL();
	queue->stopped = true;
	stop_queues(dev, queue, 1, reset_since_ns(dev));
	next_session(dev, queue, false);
	ports_state_changed(dev->ports);
}

bool device_start_queue(struct ktvblk_dev *dev, struct device_queue *queue)
{
	queue->stopped = false;
	return !(atomic_load(&dev->era->status) &
		 VIRTIO_CONFIG_S_NEEDS_RESET) &&
	       start_worker(dev, queue);
}

bool device_stop_running(struct ktvblk_dev *dev, struct device_queue *queue,
			 unsigned int n, uint64_t since_ns)
{
	bool clean;

	SCOPED_NO_CANCEL();
	clean = stop_queues(dev, queue, n, since_ns);
	for (unsigned int i = 0; i < n; i++)
		next_session(dev, &queue[i], true);
	ports_state_changed(dev->ports);
	return clean;
}

void device_renew(struct ktvblk_dev *dev, bool goes_on)
{
	const bool flush_failed = atomic_load(&dev->era->flush_failed);

	SCOPED_NO_CANCEL();
	next_era(dev);
	atomic_store(&dev->era->flush_failed, goes_on && flush_failed);
	config_agree(dev);
	for (unsigned int i = 0; i < dev->n_queues; i++)
		set_session(dev, &dev->queues[i], dev->queues[i].session);
	ports_state_changed(dev->ports);
}

int ktvblk_request_reset(struct ktvblk_dev *dev)
{
	if (!dev)
		return -EINVAL;
	if (dev->transport || !has_worker(dev) || dev->stop_requested_ns ||
	    dev->reset_requested_ns)
		return 0;
	dev->reset_requested_ns = now_ns();
	for (unsigned int i = 0; i < dev->n_queues; i++)
		session_signal_stop(dev->queues[i].session);
	ports_state_changed(dev->ports);
	return 0;
}

/*
 * What the device held goes with the last worker, while that is waited for: here
 * nothing may block. Where there is none, holdings stays.
 */
static void let_go(struct ktvblk_dev *dev)
{
	for (unsigned int i = 0; i < dev->n_queues; i++)
		atomic_store(&dev->queues[i].session->last, true);
	dev->holdings = holdings_unref_quick(dev->holdings);
}

int ktvblk_request_stop(struct ktvblk_dev *dev)
{
	if (!dev)
		return -EINVAL;
	if (dev->stop_requested_ns)
		return 0;
	dev->stop_requested_ns = now_ns();
	if (dev->transport) {
		/* What is the device's is its thread's, as long as that runs. */
		transport_request_stop(dev->transport);
		device_signal_stop(dev);
		ports_state_changed(dev->ports);
		return 0;
	}
	let_go(dev);
	for (unsigned int i = 0; i < dev->n_queues; i++)
		session_signal_stop(dev->queues[i].session);
	/* Where there is no worker; if this fails destroy tries again. */
	if (dev->holdings && !has_worker(dev))
		session_start_drop(dev->queues[0].session, &dev->holdings);
	ports_state_changed(dev->ports);
	return 0;
}

/* What is only to be freed yet is so by threads that wait for nobody. */
static bool all_gone_or_one_stuck(const void *arg)
{
	const struct ports *ports = (const struct ports *)arg;

	return !atomic_load(&ports->remains) || atomic_load(&ports->orphans);
}

/* Is there anything that earlier resets left behind? */
static bool remains(struct ports *ports, uint64_t deadline_ns)
{
	return !ports_await(ports, all_gone_or_one_stuck, ports, deadline_ns) ||
	       atomic_load(&ports->remains);
}

/* All workers: the worst of how they ended. *ret_idle: one without any. */
static enum ktvblk_outcome stop_all(struct ktvblk_dev *dev,
				    const struct stop_how *how,
				    struct session **ret_idle)
{
	enum ktvblk_outcome worst = KTVBLK_JOINED;
	struct stopping each[KTVBLK_QUEUES_MAX];

	/* Where all are left behind: they had workers, so there are spares. */
	*ret_idle = dev->queues[0].spare;
	for (unsigned int i = 0; i < dev->n_queues; i++)
		each[i].session = dev->queues[i].session;
	sessions_stop(each, dev->n_queues, how);
	for (unsigned int i = 0; i < dev->n_queues; i++) {
		worst = MAX(worst, each[i].outcome);
		if (!stop_is_clean(each[i].outcome))
			continue;
		*ret_idle = each[i].session;
		pages_take(&dev->queues[i].pages, &each[i].session->pages);
	}
	return worst;
}

enum ktvblk_outcome ktvblk_destroy(struct ktvblk_dev *dev)
{
	enum ktvblk_outcome outcome, drop = KTVBLK_JOINED;
	struct stop_how how = { .destroying = true };
	struct session *idle;

	if (!dev)
		return KTVBLK_JOINED;
	SCOPED_NO_CANCEL();
	how.timeout_ms = dev->destroy_timeout_ms;
	how.deadline_ns = dev->stop_requested_ns ? dev->stop_requested_ns
						 : now_ns();
	how.deadline_ns += dev->destroy_timeout_ms * NSEC_PER_MSEC;
	if (dev->transport) {
		ktvblk_request_stop(dev);
		if (!transport_join(dev->transport, how.deadline_ns))
			return KTVBLK_TIMED_OUT;
	}
	let_go(dev);
	outcome = stop_all(dev, &how, &idle);
	if (dev->holdings)
		drop = session_drop(idle, &dev->holdings, &how);
	if (drop != KTVBLK_JOINED)
		outcome = drop;
	if (stop_is_clean(outcome) && remains(dev->ports, how.deadline_ns)) {
		log_event(&dev->id, DESTROY_STILL_WEDGED);
		outcome = KTVBLK_TIMED_OUT;
	}
	log_suppressed(&dev->id);
	device_free(dev);
	return outcome;
}
