/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Notifications off; take and serve chains until none is left; notifications
 * on, and look again. Stop and pause are looked at between chains, so a guest
 * that never lets the ring run dry cannot keep the device.
 *
 * Before notifications are on again the ring is polled for a while, if lately
 * that would have found something: it saves the driver a kick and us a sleep.
 *
 * Interrupts: with EVENT_IDX the driver says which completion it wants to hear
 * of, so that is checked for each, before anything that may block. Without,
 * there is one for a drain, unless the driver wants none (section 2.7.7.2), and
 * one before a storage call if a completion has waited for its own since 100
 * us: it can wait for the call it came right before, not for a queue of slow
 * ones.
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "drain.h"
#include "io.h"
#include "util.h"

/* Completions the driver was not interrupted for yet. */
struct pending {
	bool any;
	uint64_t since_ns; /* without EVENT_IDX */
};

static void poison(struct session *session)
{
	session->poisoned = true;
	session_needs_reset(session);
}

static enum pop_result pop(struct session *session)
{
	struct virtqueue *vq = &session->vq;
	uint16_t avail_idx;
	enum pop_result result =
		virtqueue_pop(vq, &session->request.head, &avail_idx);

	if (session_stopping(session))
		return result; /* whoever's ring that was */
	if (result == POP_BAD_INDEX) {
		count_add(&session->stats->invalid_avail_idx_count, 1);
		log_event(&session->id, QUEUE_POISONED_INDEX, avail_idx,
			  vq->next_avail);
		poison(session);
	} else if (result == POP_NO_ACCESS) {
		count_io_error(session->stats);
		log_event(&session->id, QUEUE_POISONED_ACCESS, vq->next_avail);
		poison(session);
	}
	return result;
}

/*
 * Interrupt for what was completed, if the driver wants it. A full barrier lies
 * behind the last completion: see virtqueue.c.
 */
static bool interrupt_fenced(struct session *session, struct pending *pending)
{
	bool needs = true;

	if (!virtqueue_needs_irq(&session->vq, &needs))
		log_event(&session->id, NOTIFY_CHECK_FAILED);
	if (!needs)
		return false;
	pending->any = false;
	session_raise(session, VIRTIO_MMIO_INT_VRING);
	return true;
}

/* With EVENT_IDX, for those since the last look. */
static void check_fenced(struct session *session, struct pending *pending)
{
	if (session->vq.event_idx && session->vq.num_added)
		interrupt_fenced(session, pending);
}

static void check(struct session *session, struct pending *pending)
{
	atomic_thread_fence(memory_order_seq_cst);
	check_fenced(session, pending);
}

/*
 * Say all that is unsaid. A driver that wants no interrupt may look at the bit,
 * and looks at the used index once it wants one again.
 */
static void tell(struct session *session, struct pending *pending)
{
	if (!pending->any)
		return;
	pending->any = false;
	if (session->vq.event_idx || !interrupt_fenced(session, pending))
		atomic_fetch_or_explicit(&session->interrupt_status,
					 VIRTIO_MMIO_INT_VRING,
					 memory_order_release);
}

/* At the end of a drain nothing stays unsaid. */
static void settle(struct session *session, struct pending *pending)
{
	check(session, pending);
	tell(session, pending);
}

static void complete(struct session *session, struct pending *pending,
		     uint8_t status, uint32_t used_len)
{
	const struct request *request = &session->request;

	/* Although it has the gate, stuck in guest memory: see teardown.c. */
	if (session_revoked(session))
		return;
	/* Without the status byte in place there is no used entry either. */
	if (!mem_write(session->mem, request->status_addr, &status, 1)) {
		count_io_error(session->stats);
		return;
	}
	if (!virtqueue_push(&session->vq, request->head, used_len)) {
		log_event(&session->id, USED_WRITE_FAILED, request->head,
			  request->label);
		count_io_error(session->stats);
		return;
	}
	if (!pending->any && !session->vq.event_idx)
		pending->since_ns = now_ns();
	pending->any = true;
}

static void trace_done(const struct session *session, uint8_t status,
		       uint32_t used_len)
{
	const struct request *request = &session->request;

	if (request->well_formed)
		log_event(&session->id, REQUEST_DONE, request->type,
			  request->type, request->sector, request->head, status,
			  used_len);
}

/* Take tokens for the request, or put it back; how long to wait then. */
static bool throttled(struct session *session, uint64_t now,
		      uint64_t *ret_wait_ns)
{
	const struct request *request = &session->request;
	const uint64_t bytes =
		request->type == VIRTIO_BLK_T_FLUSH ? 0 : request->data_len;
	const struct throttle_verdict verdict =
		throttle_take(&session->throttle, bytes, now);

	if (verdict.ops_ok && verdict.bytes_ok)
		return false;
	/* Once for each request, however often it is looked at. */
	if (!atomic_exchange(&session->throttled, true)) {
		count_add(&session->stats->throttled_count, 1);
		count_add(&session->stats->currently_throttled, 1);
	}
	virtqueue_unpop(&session->vq);
	log_event(&session->id, THROTTLE_STALLED, request->head, verdict.ops_ok,
		  verdict.bytes_ok, verdict.wait_ns);
	*ret_wait_ns = verdict.wait_ns;
	return true;
}

/* Serve what passed the gates. False: abandoned. */
static bool serve(struct session *session, struct pending *pending,
		  uint64_t now)
{
	const struct watch_request request = {
		.type = session->request.type,
		.sector = session->request.sector,
		.length = session->request.data_len,
		.since_ns = now,
	};
	struct io_result result;

	if (watch_begin(session->watch, &request))
		log_watch_requests();
	check_fenced(session, pending);
	if (!session->vq.event_idx && pending->any &&
	    now - pending->since_ns >= IRQ_HOLD_NS)
		settle(session, pending);
	virtqueue_prefetch(&session->vq);
	result = io_serve(session);
	session_request_ended(session);
	if (result.abandoned)
		return false;
	trace_done(session, result.status, result.used_len);
	complete(session, pending, result.status, result.used_len);
	return true;
}

/* One chain. DRAIN_DONE: go on with the next. */
static enum drain_end handle_chain(struct session *session,
				   struct pending *pending,
				   uint64_t *ret_wait_ns)
{
	uint8_t status;
	uint64_t now;

	switch (request_read(&session->request, &session->vq,
			     session->disk.read_only, &session->id,
			     session->stats, &status)) {
	case REQUEST_DROP:
		session_unthrottle(session);
		return DRAIN_DONE;
	case REQUEST_COMPLETE:
		/* The head that waited may have become one of these. */
		session_unthrottle(session);
		trace_done(session, status, 1);
		complete(session, pending, status, 1);
		/* No storage call follows, and more of these may. */
		check(session, pending);
		return DRAIN_DONE;
	case REQUEST_SERVE:
		break;
	}
	/* When it began, for the watch, need not be that exact. */
	now = session->vq.event_idx && !throttle_limits(&session->throttle)
		      ? tick_ns()
		      : now_ns();
	if (session_stopping(session))
		return DRAIN_INTERRUPTED;
	if (throttled(session, now, ret_wait_ns))
		return DRAIN_STALLED;
	session_unthrottle(session);
	return serve(session, pending, now) ? DRAIN_DONE : DRAIN_ABANDONED;
}

/* Chains until there is none; *ret_dry: that is why it ended. */
static enum drain_end drain_chains(struct session *session,
				   struct pending *pending, bool *ret_dry,
				   uint64_t *ret_wait_ns)
{
	enum drain_end end = DRAIN_DONE;
	enum pop_result result;

	*ret_dry = false;
	while (end == DRAIN_DONE) {
		if (session_interrupted(session))
			return DRAIN_INTERRUPTED;
		result = pop(session);
		if (session_stopping(session))
			return DRAIN_INTERRUPTED;
		switch (result) {
		case POP_HEAD:
			end = handle_chain(session, pending, ret_wait_ns);
			break;
		case POP_EMPTY:
			*ret_dry = true;
			return DRAIN_DONE;
		case POP_BAD_INDEX:
		case POP_NO_ACCESS:
			return DRAIN_DONE;
		}
	}
	return end;
}

/* Notifications are off. True: there is more; false: it is time to sleep. */
static bool poll_ring(struct session *session, struct pending *pending)
{
	uint64_t deadline_ns;
	bool more;

	if (!session->polling.window_ns)
		return false;
	settle(session, pending);
	deadline_ns = now_ns() + session->polling.window_ns;
	do {
		for (unsigned int i = 0; i < POLL_LOOKS; i++) {
			if (session_interrupted(session) ||
			    !virtqueue_has_more(&session->vq, &more))
				return false;
			if (more)
				return true;
			cpu_relax();
		}
	} while (now_ns() < deadline_ns);
	return false;
}

enum drain_end drain(struct session *session, uint64_t *ret_wait_ns)
{
	struct virtqueue *vq = &session->vq;
	struct pending pending = { 0 };
	enum drain_end end;
	bool dry, more;

	if (!vq->ring.ready || session->poisoned)
		return DRAIN_DONE;
	do {
		if (!virtqueue_disable_notify(vq))
			log_event(&session->id, NOTIFY_DISABLE_FAILED);
		end = drain_chains(session, &pending, &dry, ret_wait_ns);
		if (end == DRAIN_ABANDONED)
			return end;
		more = dry && poll_ring(session, &pending);
		if (!more && (dry || end == DRAIN_STALLED) &&
		    !virtqueue_enable_notify(vq, &more)) {
			log_event(&session->id, NOTIFY_ENABLE_FAILED);
			more = false; /* trying again could go on for ever */
		}
	} while (dry && more);
	settle(session, &pending);
	return end;
}

bool drain_wanted(const struct session *session)
{
	bool more = false;

	return session->mem && session->vq.ring.ready && !session->poisoned &&
	       (!virtqueue_has_more(&session->vq, &more) || more);
}
