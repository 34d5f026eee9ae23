/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See session.h. */

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "session.h"
#include "thread.h"
#include "util.h"
#include "worker.h"

int session_new(const struct session_disk *disk, unsigned int queue,
		struct session **ret_session)
{
	struct session *session = calloc(1, sizeof(*session));
	int r;

	if (!session)
		return -ENOMEM;
	session->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (session->stop_fd < 0) {
		r = -errno;
		goto fail_session;
	}
	r = log_ref();
	if (r < 0)
		goto fail_stop;
	atomic_init(&session->refs, 1);
	session->epoll_fd = session->timer_fd = -1;
	session->bell_fd = session->error_fd = -1;
	session->id.disk = disk_id_ref(disk->id);
	session->id.stop_fd = session->stop_fd;
	if (disk->ports->n_queues > 1)
		session->id.of_queue = queue + 1;
	session->disk = *disk->config;
	session->ports = ports_ref(disk->ports);
	session->kick_fd = disk->ports->kick_fds[queue];
	session->irq_fd = disk->ports->irq_fd;
	session->stats = ktvblk_stats_ref(disk->stats);
	session->throttle = disk_throttle_ref(disk->throttle);
	*ret_session = session;
	return 0;

fail_stop:
	close(session->stop_fd);
fail_session:
	free(session);
	return r;
}

static int watch_fd(struct session *session, int fd, uint32_t token)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = token };

	return epoll_ctl(session->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int session_open_engine(struct session *session, int *ret_refused)
{
	struct engine *engine = session->engine;
	const struct pages *pages = &session->pages;
	int r = 0;

	*ret_refused = 0;
	if (engine->ops->open)
		r = engine->ops->open(engine, ret_refused);
	if (r == 0 && engine->ops->buffers && pages->bounce)
		engine->ops->buffers(engine, pages->bounce, pages->bounce_bytes,
				     session->flight.n);
	return r;
}

static void close_engine(struct session *session)
{
	if (session->engine)
		session->engine->ops->close(session->engine);
	session->engine = NULL;
}

static unsigned int n_in_flight(const struct session *session,
				const struct session_start *start)
{
	return MIN(session->disk.shape.n_ios, (unsigned int)start->ring.size);
}

static int duplicate(int fd, int *ret_fd)
{
	*ret_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd >= 0 && *ret_fd < 0 ? -1 : 0;
}

/* With its own descriptors, as the lender's come and go. 0 or -1, errno. */
static int borrow(struct session *session, const struct loan *loan)
{
	int irq_fd;

	session->vq.taken.again =
		calloc(KTVBLK_QUEUE_SIZE_MAX, sizeof(uint16_t));
	if (!session->vq.taken.again ||
	    duplicate(loan->call_fd >= 0 ? loan->call_fd
					 : session->ports->irq_fd,
		      &irq_fd) < 0)
		return -1;
	session->borrows = true;
	session->irq_fd = irq_fd;
	if (duplicate(loan->kick_fd, &session->bell_fd) < 0 ||
	    duplicate(loan->error_fd, &session->error_fd) < 0)
		return -1;
	return session->bell_fd < 0
		       ? 0
		       : watch_fd(session, session->bell_fd, TOKEN_BELL);
}

static void give_back_lines(struct session *session)
{
	free(session->vq.taken.again);
	session->vq.taken.again = NULL;
	if (!session->borrows)
		return;
	closep(&session->irq_fd);
	closep(&session->bell_fd);
	closep(&session->error_fd);
	session->irq_fd = session->ports->irq_fd;
	session->bell_fd = session->error_fd = -1;
	session->borrows = false;
}

/* What the start can fail at, in order; the name of the step, or NULL. */
static const char *take_resources(struct session *session,
				  const struct session_start *start)
{
	session->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (session->epoll_fd < 0)
		return "epoll";
	session->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (session->timer_fd < 0)
		return "timer";
	if (watch_fd(session, session->kick_fd, TOKEN_KICK) < 0)
		return "epoll: kick";
	if (watch_fd(session, session->stop_fd, TOKEN_STOP) < 0)
		return "epoll: stop";
	if (watch_fd(session, session->timer_fd, TOKEN_TIMER) < 0)
		return "epoll: timer";
	if (start->loan && borrow(session, start->loan) < 0)
		return "driver's eventfds";
	session->watch = watch_new(&session->id,
				   session->disk.stall_warn_ms * NSEC_PER_MSEC,
				   session->ports, session->disk.shape.n_ios);
	if (!session->watch)
		return "watch";
	session->watch->epoll_fd = session->epoll_fd;
	if (!pages_map(&session->pages, &session->disk.shape))
		return "memory";
	session->engine = engine_new(session->disk.engine,
				     start->holdings->backend,
				     n_in_flight(session, start));
	if (!session->engine)
		return "engine";
	if (session->engine->fd >= 0 &&
	    watch_fd(session, session->engine->fd, TOKEN_ENDED) < 0)
		return "epoll: engine";
	return NULL;
}

static void give_back_resources(struct session *session)
{
	close_engine(session);
	give_back_lines(session);
	closep(&session->epoll_fd);
	closep(&session->timer_fd);
	session->epoll_fd = session->timer_fd = -1;
	watch_unref(session->watch);
	session->watch = NULL;
}

/* Kept in the pages that it is about. */
struct unmapping {
	struct log_job job;
	struct pages pages;
};

static void unmap_later(struct log_job *job)
{
	struct pages pages = container_of(job, struct unmapping, job)->pages;

	pages_unmap(&pages);
}

void session_unmap(struct pages *pages)
{
	struct unmapping *unmapping = (struct unmapping *)pages->drop_stack;

	if (!unmapping)
		return;
	unmapping->job.run = unmap_later;
	pages_take(&unmapping->pages, pages);
	log_run_later(&unmapping->job);
}

struct session *session_ref(struct session *session)
{
	refs_get(&session->refs);
	return session;
}

void session_unref(struct session *session)
{
	if (!session || !refs_put(&session->refs))
		return;
	closep(&session->stop_fd);
	session_return_loan(session);
	give_back_resources(session);
	session_unmap(&session->pages);
	era_unref(session->era);
	disk_throttle_unref(session->throttle);
	ports_unref(session->ports);
	ktvblk_stats_unref(session->stats);
	disk_id_unref(session->id.disk);
	free(session);
	log_unref(now_ns() + LOG_STOP_NS);
}

static void latch_loan(struct session *session, const struct loan *loan)
{
	struct taken *taken = &session->vq.taken;

	session->vq.next_avail = loan->at.next_avail;
	taken->counter = loan->at.counter;
	taken->region = loan->region;
	taken->size = session->vq.ring.size;
	session->vq.dirty = loan->dirty;
	for (unsigned int i = 0; i < LOAN_LEASES; i++)
		atomic_store(&session->lent[i], lease_ref(loan->leases[i]));
	session->mem = ktvblk_mem_ref(loan->mem);
	atomic_store(&session->lent_mem, loan->mem);
}

static void latch(struct session *session, const struct session_start *start)
{
	uint16_t *again = session->vq.taken.again;

	session->holdings = holdings_ref(start->holdings);
	session->mem = start->holdings->mem;
	session->backend = start->holdings->backend;
	session->vq = (struct virtqueue){
		.revoked = &session->revoked,
		.ring = start->ring,
		.next_avail = start->at.next_avail,
		.next_used = start->at.next_used,
		.event_idx = start->features >> VIRTIO_RING_F_EVENT_IDX & 1,
		.indirect = start->features >> VIRTIO_RING_F_INDIRECT_DESC & 1,
		.dirty = start->dirty,
	};
	session->vq.taken.again = again;
	if (start->loan)
		latch_loan(session, start->loan);
	session->vq.mem = session->mem;
	if (session->mem)
		virtqueue_map(&session->vq);
	flight_init(&session->flight, &session->pages,
		    n_in_flight(session, start));
	session->poisoned = start->at.poisoned;
	session->init = start->init;
	session->init_data = start->init_data;
	session->write_through = !(start->features >> VIRTIO_BLK_F_FLUSH & 1);
	session->has_wce = start->features >> VIRTIO_BLK_F_CONFIG_WCE & 1;
	session->rules = (struct request_rules){
		.read_only = session->disk.read_only,
		.discard = start->features >> VIRTIO_BLK_F_DISCARD & 1,
		.write_zeroes = start->features >> VIRTIO_BLK_F_WRITE_ZEROES &
				1,
	};
	session->has_cpus = start->cpus != NULL;
	session->driver_elsewhere = start->driver_elsewhere;
	if (start->cpus)
		session->cpus = *start->cpus;
}

void session_set_era(struct session *session, struct era *era)
{
	struct era *before = session->era;

	session->era = era_ref(era);
	era_unref(before);
}

void session_renew(struct session *session)
{
	if (session->started)
		return; /* and never again */
	atomic_store(&session->stop, false);
	eventfd_drain(session->stop_fd);
}

int session_start(struct session *session, const struct session_start *start)
{
	const char *step = take_resources(session, start);
	int r;

	if (step) {
		r = -errno;
		goto fail;
	}
	latch(session, start);
	refs_get(&session->refs);
	ports_worker_comes(session->ports, &session->seat);
	if (atomic_load(&session->ports->orphans))
		log_event(&session->id, WAITING_FOR_ORPHAN);
	r = thread_start(&session->thread, worker_main, session);
	if (r == 0) {
		session->has_thread = session->started = true;
		ports_state_changed(session->ports);
		return 0;
	}
	step = "thread";
	ports_worker_gone(session->ports, session->seat.obeyed);
	/* Neither is the last: the device has its own. */
	session_unref(session);
	session_release(session);
fail:
	log_event(&session->id, START_FAILED, step, -r);
	give_back_resources(session);
	return r;
}

bool session_enter(struct session *session)
{
	gate_enter(&session->gate);
	/* The gate orders this, but for a revoke that went without. */
	if (session_revoked(session)) {
		gate_leave(&session->gate);
		return false;
	}
	session->gate_held = true;
	return true;
}

void session_leave(struct session *session)
{
	session->gate_held = false;
	gate_leave(&session->gate);
}

void session_note(struct session *session, uint32_t bits)
{
	/* Else it is another's driver now. */
	if (!session_revoked(session))
		/* Release: who reads the bit sees what it is about. */
		atomic_fetch_or_explicit(&session->era->interrupt_status, bits,
					 memory_order_release);
}

void session_raise(struct session *session, uint32_t bits)
{
	int r;

	if (session_revoked(session))
		return;
	session_note(session, bits);
	r = eventfd_signal(session->irq_fd);
	/* Full is readable; a device's own is never that. */
	if (r < 0 && !(session->borrows && r == -EAGAIN))
		log_event(&session->id, IRQ_WRITE_FAILED, -r);
}

void session_needs_reset(struct session *session)
{
	if (session_revoked(session))
		return;
	/* The worker only ever adds this bit: see status.c. */
	atomic_fetch_or(&session->era->status, VIRTIO_CONFIG_S_NEEDS_RESET);
	session_raise(session, VIRTIO_MMIO_INT_CONFIG);
	if (session->error_fd >= 0)
		eventfd_signal(session->error_fd);
	ports_state_changed(session->ports);
}

void session_poison(struct session *session)
{
	session->poisoned = true;
	session_unthrottle(session);
	session_needs_reset(session);
}

void session_use_memory(struct session *session, struct ktvblk_mem *mem)
{
	struct virtqueue *vq = &session->vq;

	session->mem = vq->mem = mem;
	session->mem_unset_told = false;
	virtqueue_map(vq);
	if (!vq->ring.ready || session->poisoned ||
	    virtqueue_is_in_memory(&vq->ring, vq->event_idx, mem))
		return;
	log_event(&session->id, QUEUE_POISONED_MEMORY);
	session_poison(session);
}

void session_unthrottle(struct session *session)
{
	/* Mostly it does not, and then a look is enough. */
	if (atomic_load_explicit(&session->throttled, memory_order_relaxed) &&
	    atomic_exchange(&session->throttled, false)) {
		gauge_drop(&session->stats->currently_throttled);
		disk_throttle_leave(session->throttle, &session->revoked);
	}
}

void session_request_ended(struct session *session, uint32_t slot)
{
	const enum watch_found found = watch_end(session->watch, slot);
	struct watch_request request;

	if (found == WATCH_UNFOUND)
		return;
	ports_state_changed(session->ports);
	if (found != WATCH_MARKED)
		return;
	/* We alone write it, so it still stands there. */
	request = watch_request(session->watch, slot);
	log_event(&session->id, REQUEST_RESUMED, request.type, request.sector,
		  request.length,
		  (now_ns() - request.since_ns) / NSEC_PER_MSEC);
	/* Another one may have been too old behind it for long. */
	watch_close(session->watch, log_position());
	log_watch_requests();
}

void session_return_loan(struct session *session)
{
	for (unsigned int i = 0; i < LOAN_LEASES; i++)
		lease_unref(atomic_exchange(&session->lent[i], NULL));
	ktvblk_mem_unref(atomic_exchange(&session->lent_mem, NULL));
}

void session_release(struct session *session)
{
	struct holdings *holdings;

	/* Else replace.c could be at them. */
	gate_enter(&session->gate);
	holdings = session->holdings;
	session->holdings = NULL;
	session->mem = NULL;
	session->backend = NULL;
	gate_leave(&session->gate);
	close_engine(session);
	if (!atomic_load(&session->last))
		pages_idle(&session->pages);
	session_return_loan(session);
	holdings_unref(holdings);
}
