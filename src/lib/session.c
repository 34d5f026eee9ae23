/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See session.h. */

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>

#include "session.h"
#include "util.h"
#include "worker.h"

int session_new(struct disk_id *disk_id, const struct disk_config *disk,
		struct ports *ports, struct ktvblk_stats *stats,
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
	session->id.disk = disk_id_ref(disk_id);
	session->id.stop_fd = session->stop_fd;
	session->disk = *disk;
	session->ports = ports_ref(ports);
	session->stats = ktvblk_stats_ref(stats);
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

static void *map_pages(size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

/* Returns NULL, takes NULL. */
static void *unmap_pages(void *pages, size_t bytes)
{
	if (pages)
		munmap(pages, bytes);
	return NULL;
}

/* What the start can fail at, in order; the name of the step, or NULL. */
static const char *take_resources(struct session *session)
{
	session->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (session->epoll_fd < 0)
		return "epoll";
	session->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (session->timer_fd < 0)
		return "timer";
	if (watch_fd(session, session->ports->kick_fd, TOKEN_KICK) < 0)
		return "epoll: kick";
	if (watch_fd(session, session->stop_fd, TOKEN_STOP) < 0)
		return "epoll: stop";
	if (watch_fd(session, session->timer_fd, TOKEN_TIMER) < 0)
		return "epoll: timer";
	session->watch = watch_new(&session->id,
				   session->disk.stall_warn_ms * NSEC_PER_MSEC);
	if (!session->watch)
		return "watch";
	session->drop_stack = map_pages(DROP_STACK_BYTES);
	if (!session->drop_stack)
		return "stack";
	if (!session->disk.zero_copy) {
		session->bounce = map_pages(BOUNCE_BYTES);
		if (!session->bounce)
			return "buffer";
	}
	return NULL;
}

static void give_back_resources(struct session *session)
{
	closep(&session->epoll_fd);
	closep(&session->timer_fd);
	session->epoll_fd = session->timer_fd = -1;
	watch_unref(session->watch);
	session->watch = NULL;
	session->drop_stack =
		unmap_pages(session->drop_stack, DROP_STACK_BYTES);
	session->bounce = unmap_pages(session->bounce, BOUNCE_BYTES);
}

void session_unref(struct session *session)
{
	if (!session || !refs_put(&session->refs))
		return;
	closep(&session->stop_fd);
	give_back_resources(session);
	ports_unref(session->ports);
	ktvblk_stats_unref(session->stats);
	disk_id_unref(session->id.disk);
	free(session);
	log_unref(now_ns() + LOG_STOP_NS);
}

static void latch(struct session *session, const struct session_start *start)
{
	session->mem = ktvblk_mem_ref(start->mem);
	session->backend = ktvblk_backend_ref(start->backend);
	session->vq = (struct virtqueue){
		.mem = start->mem,
		.ring = start->ring,
		.event_idx = start->features >> VIRTIO_RING_F_EVENT_IDX & 1,
		.indirect = start->features >> VIRTIO_RING_F_INDIRECT_DESC & 1,
	};
	if (start->mem)
		virtqueue_map(&session->vq);
	session->has_cpus = start->cpus != NULL;
	if (start->cpus)
		session->cpus = *start->cpus;
}

int session_start(struct session *session, const struct session_start *start)
{
	const char *step = take_resources(session);
	int r;

	if (step) {
		r = -errno;
		goto fail;
	}
	latch(session, start);
	refs_get(&session->refs);
	ports_worker_comes(session->ports);
	if (atomic_load(&session->ports->orphans))
		log_event(&session->id, WAITING_FOR_ORPHAN);
	r = thread_start(&session->thread, NULL, worker_main, session);
	if (r == 0) {
		session->has_thread = true;
		return 0;
	}
	step = "thread";
	ports_worker_gone(session->ports);
	atomic_fetch_sub(&session->refs, 1);
	/* Never the last: the device has its own. */
	session->mem = ktvblk_mem_unref(session->mem);
	session->backend = ktvblk_backend_unref(session->backend);
fail:
	log_event(&session->id, START_FAILED, step, -r);
	give_back_resources(session);
	return r;
}

bool session_enter(struct session *session)
{
	gate_enter(&session->gate);
	/* The gate orders this; acquire is for a revoke that went without. */
	if (atomic_load_explicit(&session->revoked, memory_order_acquire)) {
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

void session_raise(struct session *session, uint32_t bits)
{
	int r;

	/* Release: the driver that reads the bit sees what it is about. */
	atomic_fetch_or_explicit(&session->interrupt_status, bits,
				 memory_order_release);
	r = eventfd_signal(session->ports->irq_fd);
	if (r < 0)
		log_event(&session->id, IRQ_WRITE_FAILED, -r);
}

void session_needs_reset(struct session *session)
{
	/* The worker only ever adds this bit: see status.c. */
	atomic_fetch_or(&session->status, VIRTIO_CONFIG_S_NEEDS_RESET);
	session_raise(session, VIRTIO_MMIO_INT_CONFIG);
}

void session_unthrottle(struct session *session)
{
	/* Mostly it does not, and then a look is enough. */
	if (atomic_load_explicit(&session->throttled, memory_order_relaxed) &&
	    atomic_exchange(&session->throttled, false))
		gauge_drop(&session->stats->currently_throttled);
}

void session_request_ended(struct session *session)
{
	struct watch_request request;

	if (!watch_end(session->watch))
		return;
	/* We alone write it, so it still stands there. */
	request = watch_snapshot(session->watch);
	log_event(&session->id, REQUEST_RESUMED, request.type, request.sector,
		  request.length,
		  (now_ns() - request.since_ns) / NSEC_PER_MSEC);
}

void session_record_reclaimed(const struct session *session)
{
	log_event(&session->id, RECLAIMED,
		  (now_ns() - session->stuck_since_ns) / NSEC_PER_MSEC);
}

void session_release(struct session *session)
{
	/* First the storage: its calls may use the memory. */
	session->backend = ktvblk_backend_unref(session->backend);
	session->mem = ktvblk_mem_unref(session->mem);
	session_release_handover(session);
	session->bounce = unmap_pages(session->bounce, BOUNCE_BYTES);
}

void session_release_handover(struct session *session)
{
	ktvblk_backend_unref(atomic_exchange(&session->handover_backend, NULL));
	ktvblk_mem_unref(atomic_exchange(&session->handover_mem, NULL));
}
