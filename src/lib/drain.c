/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Notifications off; take chains and begin with them until none is left, or as
 * many are in flight as may be; complete what has ended; and again, until there
 * is neither. Notifications on, and look once more. Stop and pause are looked
 * at between chains, so a guest that never lets the ring run dry cannot keep
 * the device.
 *
 * Before notifications are on again the ring is polled for a while, if lately
 * that would have found something: it saves the driver a kick and us a sleep.
 *
 * Interrupts: with EVENT_IDX the driver says which completion it wants to hear
 * of, so that is checked for each, before anything that may block; for a few
 * together where nothing does, as each costs more than such a read. Without,
 * there is one for a drain, unless the driver wants none (section 2.7.7.2), and
 * one before a storage call if a completion has waited for its own since 100
 * us: it can wait for the call it came right before, not for a queue of slow
 * ones.
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <poll.h>
#include <sys/epoll.h>

#include "drain.h"
#include "io.h"
#include "util.h"

/* Completions the driver was not interrupted for yet. */
struct pending {
	bool any;
	uint64_t since_ns; /* without EVENT_IDX */
};

static enum pop_result pop(struct session *session, uint16_t *ret_head)
{
	struct virtqueue *vq = &session->vq;
	uint16_t avail_idx;
	enum pop_result result = virtqueue_pop(vq, ret_head, &avail_idx);

	if (session_stopping(session))
		return result; /* whoever's ring that was */
	if (result == POP_BAD_INDEX) {
		count_add(&session->stats->invalid_avail_idx_count, 1);
		log_event(&session->id, QUEUE_POISONED_INDEX, avail_idx,
			  vq->next_avail);
		session_poison(session);
	} else if (result == POP_NO_ACCESS) {
		count_io_error(session->stats);
		log_event(&session->id, QUEUE_POISONED_ACCESS, vq->next_avail);
		session_poison(session);
	} else if (result == POP_HEAD &&
		   flight_has_head(&session->flight, *ret_head)) {
		/* Its descriptors are ours: two lives of one are none. */
		count_io_error(session->stats);
		log_event(&session->id, QUEUE_POISONED_HEAD, *ret_head);
		session_poison(session);
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
		session_note(session, VIRTIO_MMIO_INT_VRING);
}

/* At the end of a drain nothing stays unsaid. */
static void settle(struct session *session, struct pending *pending)
{
	check(session, pending);
	tell(session, pending);
}

static void complete(struct session *session, struct pending *pending,
		     const struct request *request, uint8_t status,
		     uint32_t used_len)
{
	/* Although it has the gate, stuck in guest memory: see teardown.c. */
	if (session_revoked(session))
		return;
	/* Without the status byte in place there is no used entry either. */
	if (!mem_write_byte(session->mem, request->status_addr, status)) {
		virtqueue_forget(&session->vq, request->head);
		count_io_error(session->stats);
		return;
	}
	if (dirty_is_wanted(&session->vq.dirty) && !session_revoked(session))
		dirty_tell(&session->vq.dirty, request->status_addr, 1);
	if (!virtqueue_push(&session->vq, request->head, used_len)) {
		virtqueue_forget(&session->vq, request->head);
		log_event(&session->id, USED_WRITE_FAILED, request->head,
			  request->label);
		count_io_error(session->stats);
		return;
	}
	if (!pending->any && !session->vq.event_idx)
		pending->since_ns = now_ns();
	pending->any = true;
}

static void trace_done(const struct session *session,
		       const struct request *request, uint8_t status,
		       uint32_t used_len)
{
	if (request->well_formed)
		log_event(&session->id, REQUEST_DONE, request->type,
			  request->type, request->sector, request->head, status,
			  used_len);
}

/* Take tokens for the request, or put it back; how long to wait then. */
static enum drain_end take_tokens(struct session *session,
				  const struct request *request, uint64_t now,
				  uint64_t *ret_wait_ns)
{
	/* The two that move data, and the id; of those with ranges, none. */
	const uint64_t bytes = request->type <= VIRTIO_BLK_T_OUT ||
					       request->type ==
						       VIRTIO_BLK_T_GET_ID
				       ? request->data_len
				       : 0;
	struct throttle_verdict verdict;

	if (!disk_throttle_take(session->throttle, &session->revoked, bytes,
				now, &verdict))
		return DRAIN_INTERRUPTED;
	if (verdict.ops_ok && verdict.bytes_ok)
		return DRAIN_DONE;
	/* Once for each request, however often it is looked at. */
	if (!atomic_exchange(&session->throttled, true)) {
		count_add(&session->stats->throttled_count, 1);
		count_add(&session->stats->currently_throttled, 1);
	}
	virtqueue_unpop(&session->vq);
	log_event(&session->id, THROTTLE_STALLED, request->head, verdict.ops_ok,
		  verdict.bytes_ok, verdict.wait_ns);
	*ret_wait_ns = verdict.wait_ns;
	return DRAIN_STALLED;
}

static void answer(struct session *session, struct pending *pending,
		   const struct request *request, uint8_t status,
		   uint32_t used_len)
{
	trace_done(session, request, status, used_len);
	complete(session, pending, request, status, used_len);
}

/* What a start or a step came to. False: abandoned. */
static bool settle_io(struct session *session, struct pending *pending,
		      struct io *io, enum io_end end)
{
	if (end == IO_OUT)
		return session->gate_held;
	session_request_ended(session, io->slot);
	if (end == IO_DONE)
		answer(session, pending, &io->request, io->status,
		       io->used_len);
	flight_put(&session->flight, io);
	return end == IO_DONE;
}

/* Does it begin, and the copies of those before it take, hardly any time? */
static bool is_at_once(const struct session *session,
		       const struct request *request)
{
	return session->engine->reads_at_once &&
	       request->type == VIRTIO_BLK_T_IN &&
	       request->data_len <= IRQ_BATCH_BYTES &&
	       session->vq.num_added < IRQ_BATCH;
}

/* Begin with what passed the gates. False: abandoned. */
static bool serve(struct session *session, struct pending *pending,
		  struct io *io, uint64_t now)
{
	const struct watch_request request = {
		.type = io->request.type,
		.sector = io->request.sector,
		.length = io->request.data_len,
		.since_ns = now,
	};
	enum io_end end;

	if (watch_begin(session->watch, io->slot, &request))
		log_watch_requests();
	if (!is_at_once(session, &io->request))
		check_fenced(session, pending);
	if (!session->vq.event_idx && pending->any &&
	    now - pending->since_ns >= IRQ_HOLD_NS)
		settle(session, pending);
	virtqueue_prefetch(&session->vq);
	session->engine->more = session->vq.n_avail > 0;
	end = io_start(session, io);
	if (end == IO_OUT)
		flight_keep(&session->flight, io);
	return settle_io(session, pending, io, end);
}

/* One chain. DRAIN_DONE: go on with the next. */
static enum drain_end handle_chain(struct session *session,
				   struct pending *pending, struct io *io,
				   uint64_t *ret_wait_ns)
{
	enum drain_end end;
	uint8_t status;
	uint64_t now;

	switch (request_read(&io->request, &session->vq, &session->rules,
			     &session->id, session->stats, &status)) {
	case REQUEST_DROP:
		session_unthrottle(session);
		virtqueue_forget(&session->vq, io->request.head);
		goto done;
	case REQUEST_COMPLETE:
		/* The head that waited may have become one of these. */
		session_unthrottle(session);
		answer(session, pending, &io->request, status, 1);
		/* No storage call follows, and more of these may. */
		check(session, pending);
		goto done;
	case REQUEST_SERVE:
		break;
	}
	/* When it began, for the watch, need not be that exact. */
	now = session->vq.event_idx && !disk_throttle_limits(session->throttle)
		      ? tick_ns()
		      : now_ns();
	if (session_stopping(session)) {
		virtqueue_unpop(&session->vq);
		flight_put(&session->flight, io);
		return DRAIN_INTERRUPTED;
	}
	end = take_tokens(session, &io->request, now, ret_wait_ns);
	if (end != DRAIN_DONE) {
		flight_put(&session->flight, io);
		return end;
	}
	session_unthrottle(session);
	return serve(session, pending, io, now) ? DRAIN_DONE : DRAIN_ABANDONED;

done:
	flight_put(&session->flight, io);
	return DRAIN_DONE;
}

static enum drain_end take_chain(struct session *session,
				 struct pending *pending, uint16_t head,
				 uint64_t *ret_wait_ns)
{
	struct io *io = flight_take(&session->flight);

	io->request.revoked = &session->revoked;
	io->request.dirty = &session->vq.dirty;
	io->request.head = head;
	return handle_chain(session, pending, io, ret_wait_ns);
}

/* Hand what was begun to the kernel. False: abandoned. */
static bool push(struct session *session)
{
	struct engine *engine = session->engine;

	if (!engine->n_out || !engine->ops->push)
		return true;
	if (session_stopping(session))
		return false;
	session_leave(session);
	engine->ops->push(engine);
	return session_enter(session);
}

/* Chains until there is none; *ret_dry: that is why it ended. */
static enum drain_end take_chains(struct session *session,
				  struct pending *pending, bool *ret_dry,
				  uint64_t *ret_wait_ns)
{
	enum drain_end end = DRAIN_DONE;
	const struct engine *engine = session->engine;
	const bool idle = engine->overlaps && !engine->n_out;
	enum pop_result result;
	uint16_t head;

	*ret_dry = false;
	while (end == DRAIN_DONE) {
		if (session_interrupted(session))
			return DRAIN_INTERRUPTED;
		if (!flight_has_room(&session->flight))
			return DRAIN_FULL;
		result = pop(session, &head);
		if (session_stopping(session)) {
			if (result == POP_HEAD)
				virtqueue_unpop(&session->vq);
			return DRAIN_INTERRUPTED;
		}
		if (result == POP_EMPTY) {
			/* A driver may take back what it made available. */
			session_unthrottle(session);
			*ret_dry = true;
			return DRAIN_DONE;
		}
		if (session->poisoned)
			return DRAIN_DONE;
		/* Behind the look at the ring: see yield_disk(). */
		if (ports_disk_is_taken(session->ports)) {
			virtqueue_unpop(&session->vq);
			return DRAIN_INTERRUPTED;
		}
		end = take_chain(session, pending, head, ret_wait_ns);
		/* Storage with nothing to do need not wait for the rest. */
		if (end == DRAIN_DONE && idle && engine->n_out == BURST_MAX &&
		    !push(session))
			return DRAIN_ABANDONED;
	}
	return end;
}

static void tell_refused(struct session *session)
{
	struct engine *engine = session->engine;

	if (!engine->refused || engine->refused_told)
		return;
	engine->refused_told = true;
	log_event(&session->id, ENGINE_REFUSED, engine->refused);
}

/*
 * Complete what has ended, in that order, or a part: so the storage gets what the
 * driver has next before all else is copied; how many. False: abandoned.
 */
static bool reap(struct session *session, struct pending *pending,
		 unsigned int *ret_n)
{
	struct engine *engine = session->engine;
	const unsigned int most = engine->overlaps ? BURST_MAX : UINT_MAX;
	struct transfer *transfer;

	*ret_n = 0;
	tell_refused(session);
	engine->more = false;
	while (*ret_n < most && engine->n_out &&
	       (transfer = engine->ops->reap(engine))) {
		struct io *io = io_of(transfer);

		++*ret_n;
		if (!settle_io(session, pending, io, io_step(session, io)))
			return false;
		/* A driver that sleeps wakes up while we do the rest. */
		if (*ret_n == 1)
			check(session, pending);
	}
	return true;
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

/* One turn. *ret_more: there is to be another one. */
static enum drain_end turn(struct session *session, struct pending *pending,
			   uint64_t *ret_wait_ns, bool *ret_more)
{
	struct virtqueue *vq = &session->vq;
	unsigned int n_reaped;
	enum drain_end end;
	bool dry, more;

	*ret_more = false;
	if (!virtqueue_disable_notify(vq))
		log_event(&session->id, NOTIFY_DISABLE_FAILED);
	end = take_chains(session, pending, &dry, ret_wait_ns);
	if (end == DRAIN_ABANDONED || !push(session) ||
	    !reap(session, pending, &n_reaped))
		return DRAIN_ABANDONED;
	if (end == DRAIN_INTERRUPTED || session->poisoned)
		return end;
	if (n_reaped) {
		*ret_more = true;
		return end;
	}
	more = dry && !session->engine->n_out && poll_ring(session, pending);
	if (!more && (dry || end == DRAIN_STALLED) &&
	    !virtqueue_enable_notify(vq, &more)) {
		log_event(&session->id, NOTIFY_ENABLE_FAILED);
		more = false; /* trying again could go on for ever */
	}
	*ret_more = dry && more;
	return end;
}

enum drain_end drain(struct session *session, uint64_t *ret_wait_ns)
{
	struct pending pending = { 0 };
	enum drain_end end;
	unsigned int n;
	bool more;

	if (!session->vq.ring.ready)
		return DRAIN_DONE;
	if (session->poisoned) {
		/* What is in flight still has an end. */
		if (!reap(session, &pending, &n))
			return DRAIN_ABANDONED;
		settle(session, &pending);
		return DRAIN_DONE;
	}
	do {
		end = turn(session, &pending, ret_wait_ns, &more);
		if (end == DRAIN_ABANDONED)
			return end;
	} while (more);
	settle(session, &pending);
	return end;
}

/* One that has ended behind a stop. */
static void end_out(struct session *session, struct pending *pending,
		    struct io *io)
{
	/* Dropped: the storage never had it. */
	if (session->gate_held && io->transfer.result != -ECANCELED) {
		settle_io(session, pending, io, io_step(session, io));
		return;
	}
	/* It may have been begun all the same: see engine-uring.c. */
	if (session->gate_held)
		io_tell_dirty(session, io);
	io_ended(session, io);
	session_request_ended(session, io->slot);
}

/* Nobody else is to wake the worker any more. */
static void ignore_others(const struct session *session)
{
	const int fds[] = { session->stop_fd, session->kick_fd,
			    session->timer_fd };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		epoll_ctl(session->epoll_fd, EPOLL_CTL_DEL, fds[i], NULL);
}

/* With the gate open: until one may have ended. */
static void await_ended(const struct session *session)
{
	struct engine *engine = session->engine;
	struct epoll_event event;

	if (engine->fd >= 0)
		epoll_wait(session->epoll_fd, &event, 1, -1);
	else if (engine->ops->wait(engine, -1, -1) < 0)
		poll(NULL, 0, URING_RETRY_MS); /* it cannot, and may later */
}

void drain_out(struct session *session)
{
	struct engine *engine = session->engine;
	struct transfer *transfer;

	session->flight.closed = true;
	if (engine->ops->drop && !session_finishes(session))
		engine->ops->drop(engine);
	if (engine->n_out)
		ignore_others(session);
	for (;;) {
		struct pending pending = { 0 };

		/* Before a wait: an abandoned drain has taken these, not used. */
		while (engine->n_out && (transfer = engine->ops->reap(engine)))
			end_out(session, &pending, io_of(transfer));
		if (session->gate_held)
			settle(session, &pending);
		if (!engine->n_out)
			return;
		if (session->gate_held)
			session_leave(session);
		await_ended(session);
		/* What was held back until then is nobody's any more. */
		if (!session_enter(session) && engine->ops->drop)
			engine->ops->drop(engine);
	}
}

void drain_resume(struct session *session)
{
	if (!session->borrows)
		return;
	if (!virtqueue_resume(&session->vq)) {
		count_io_error(session->stats);
		log_event(&session->id, QUEUE_POISONED_ACCESS,
			  session->vq.next_avail);
		session_poison(session);
		return;
	}
	/* An earlier one may have ended between a used entry and its interrupt. */
	session_raise(session, VIRTIO_MMIO_INT_VRING);
}

bool drain_wanted(const struct session *session)
{
	bool more = false;

	return session->mem && session->vq.ring.ready && !session->poisoned &&
	       !ports_pause_wanted(session->ports) &&
	       flight_has_room(&session->flight) &&
	       (!virtqueue_has_more(&session->vq, &more) || more);
}
