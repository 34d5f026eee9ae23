/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See vrings.h. */

#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "teardown.h"
#include "util.h"
#include "vhost-user/vhost-user.h"
#include "worker.h"

static struct device_queue *queue_of(struct vhost_user *vu, unsigned int i)
{
	return &vu->dev->queues[i];
}

static bool runs(struct vhost_user *vu, unsigned int i)
{
	return device_queue_runs(queue_of(vu, i));
}

static bool any_runs(struct vhost_user *vu)
{
	for (unsigned int i = 0; i < vu->dev->n_queues; i++)
		if (runs(vu, i))
			return true;
	return false;
}

static void close_fd(int *fd)
{
	closep(fd);
	*fd = -1;
}

static void forget(struct vu_queue *vring)
{
	*vring = (struct vu_queue){ .kick_fd = -1,
				    .call_fd = -1,
				    .error_fd = -1 };
}

void vrings_init(struct vhost_user *vu)
{
	for (unsigned int i = 0; i < vu->dev->n_queues; i++)
		forget(&vu->vrings[i]);
}

void vrings_close(struct vhost_user *vu)
{
	for (unsigned int i = 0; i < vu->dev->n_queues; i++) {
		struct vu_queue *vring = &vu->vrings[i];

		close_fd(&vring->kick_fd);
		close_fd(&vring->call_fd);
		close_fd(&vring->error_fd);
		own_marks_unref(vring->marks);
		queue_of(vu, i)->loan = NULL;
		forget(vring);
	}
}

/*
 * Several queues are stopped by one message each. Where storage hangs they share
 * one budget, that of the first: the others hang in the same.
 */
static uint64_t budget_since(struct vhost_user *vu)
{
	if (!vu->stops_since_ns || !ports_disk_is_taken(vu->dev->ports))
		vu->stops_since_ns = now_ns();
	return vu->stops_since_ns;
}

static void note_stopped(struct vhost_user *vu, unsigned int i)
{
	struct vu_queue *vring = &vu->vrings[i];

	vring->at = queue_of(vu, i)->at;
	queue_of(vu, i)->loan = NULL;
}

/*
 * A front end that has made its eventfd one that blocks, behind our back, and
 * filled it, holds a worker in a write: it is let go by reading it.
 */
static void let_go(const struct session *session)
{
	struct pollfd call = { session->irq_fd, POLLOUT, 0 };
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };

	if (poll(&call, 1, 0) == 0)
		preadv2(session->irq_fd, &iov, 1, -1, RWF_NOWAIT);
}

void vring_stop(struct vhost_user *vu, unsigned int i)
{
	if (!runs(vu, i))
		return;
	session_signal_stop(queue_of(vu, i)->session);
	let_go(queue_of(vu, i)->session);
	device_stop_running(vu->dev, queue_of(vu, i), 1, budget_since(vu));
	note_stopped(vu, i);
}

void vrings_stop(struct vhost_user *vu)
{
	bool ran[KTVBLK_QUEUES_MAX];

	if (!any_runs(vu))
		return;
	for (unsigned int i = 0; i < vu->dev->n_queues; i++) {
		ran[i] = runs(vu, i);
		if (!ran[i])
			continue;
		session_signal_stop(queue_of(vu, i)->session);
		let_go(queue_of(vu, i)->session);
	}
	device_stop_running(vu->dev, vu->dev->queues, vu->dev->n_queues,
			    budget_since(vu));
	for (unsigned int i = 0; i < vu->dev->n_queues; i++)
		if (ran[i])
			note_stopped(vu, i);
}

void vrings_halt(struct vhost_user *vu)
{
	vrings_stop(vu);
	for (unsigned int i = 0; i < vu->dev->n_queues; i++) {
		close_fd(&vu->vrings[i].kick_fd);
		vu->vrings[i].has_kick = vu->vrings[i].enabled = false;
	}
}

void vrings_reset(struct vhost_user *vu)
{
	vrings_halt(vu);
	for (unsigned int i = 0; i < vu->dev->n_queues; i++) {
		struct vu_queue *vring = &vu->vrings[i];

		vring->has_addr = false;
		vring->size = 0;
		vring->at = (struct ring_position){ 0 };
		own_marks_unref(vring->marks);
		vring->marks = NULL;
	}
	vu->fresh = true;
}

static bool may_run(const struct vhost_user *vu, const struct vu_queue *vring)
{
	return vring->has_addr && vring->size && vring->has_kick &&
	       vu->table.mem &&
	       (vring->enabled ||
		!(vu->features >> VU_F_PROTOCOL_FEATURES & 1));
}

/* The front end's addresses are its own; the guest's are what sessions know. */
static const char *translate(const struct vhost_user *vu,
			     const struct vu_queue *vring,
			     struct queue_config *config)
{
	const struct vhost_vring_addr *addr = &vring->addr;

	*config = (struct queue_config){ .size = vring->size, .ready = true };
	if (!table_translate(&vu->table, addr->desc_user_addr,
			     &config->desc_addr) ||
	    !table_translate(&vu->table, addr->avail_user_addr,
			     &config->avail_addr) ||
	    !table_translate(&vu->table, addr->used_user_addr,
			     &config->used_addr))
		return "a ring that is not in memory";
	return NULL;
}

/* Where the marks of this queue are. */
static const char *lend_marks(struct vhost_user *vu, unsigned int i,
			      struct loan *loan)
{
	struct vu_queue *vring = &vu->vrings[i];

	loan->region = inflight_region(&vu->inflight, i);
	if (loan->region) {
		loan->leases[LOAN_REGION] = &vu->inflight.mapping->lease;
		return vring->size > vu->inflight.queue_size
			       ? "a queue larger than its inflight region"
			       : NULL;
	}
	if (!vring->marks)
		vring->marks = own_marks_new(vring->size);
	if (!vring->marks)
		return "no memory";
	loan->region = &vring->marks->region;
	loan->leases[LOAN_REGION] = &vring->marks->lease;
	return NULL;
}

bool vrings_have_begun(const struct vhost_user *vu)
{
	for (unsigned int i = 0; i < vu->dev->n_queues; i++)
		if (vu->vrings[i].at.next_avail)
			return true;
	return false;
}

/* The driver's first, as far as can be seen, after a reset. */
static void renew_device(struct vhost_user *vu, const struct vu_queue *vring)
{
	if (any_runs(vu) || !(vu->fresh || vring->at.next_avail == 0))
		return;
	device_renew(vu->dev, vrings_have_begun(vu));
	cache_agree(vu);
	vu->fresh = false;
}

/* Where writes are to be told, if they are. */
static void lend_log(const struct vhost_user *vu, struct loan *loan)
{
	if (!vu->log || !(vu->features >> VHOST_F_LOG_ALL & 1))
		return;
	loan->dirty = page_log_dirty(vu->log);
	loan->leases[LOAN_LOG] = page_log_lease(vu->log);
}

const char *vring_update(struct vhost_user *vu, unsigned int i)
{
	struct device_queue *queue = queue_of(vu, i);
	struct vu_queue *vring = &vu->vrings[i];
	const char *why;

	if (runs(vu, i) || !may_run(vu, vring))
		return NULL;
	vring->loan = (struct loan){
		.mem = vu->table.mem,
		.kick_fd = vring->kick_fd,
		.call_fd = vring->call_fd,
		.error_fd = vring->error_fd,
		.at = vring->at,
	};
	why = translate(vu, vring, &queue->config);
	if (!why)
		why = lend_marks(vu, i, &vring->loan);
	if (why)
		return why;
	lend_log(vu, &vring->loan);
	vu->dev->driver_features = vu->features & vu->dev->features;
	renew_device(vu, vring);
	queue->loan = &vring->loan;
	vu->stops_since_ns = 0;
	if (!device_start_queue(vu->dev, queue) && vring->error_fd >= 0)
		eventfd_signal(vring->error_fd);
	return NULL;
}

/* What of it could not be finished, without a region of the front end's. */
static void put_back(struct vu_queue *vring, const struct identity *id)
{
	struct taken_rest rest;

	if (!vring->marks)
		return;
	rest = taken_rest(&vring->marks->region, vring->marks->region.desc_num,
			  vring->at.counter);
	vring->at.next_avail = (uint16_t)(vring->at.next_avail - rest.n_last);
	if (rest.n_out > rest.n_last)
		log_event(id, VHOST_USER_LOST,
			  (uint64_t)(rest.n_out - rest.n_last));
	own_marks_unref(vring->marks);
	vring->marks = NULL;
}

uint16_t vring_end(struct vhost_user *vu, unsigned int i)
{
	struct vu_queue *vring = &vu->vrings[i];
	/* The next session's is another. */
	const struct identity id = queue_of(vu, i)->session->id;

	vring_stop(vu, i);
	put_back(vring, &id);
	close_fd(&vring->kick_fd);
	vring->has_kick = false;
	return vring->at.next_avail;
}

/*
 * In the place of what a running session has, at once for its worker, which may
 * be writing there: the number stays.
 */
static int replace_fd(int fd, int in_place_of)
{
	return dup3(fd, in_place_of, O_CLOEXEC) < 0 ? -errno : 0;
}

const char *vring_set_kick(struct vhost_user *vu, unsigned int i, int fd)
{
	struct vu_queue *vring = &vu->vrings[i];
	const struct session *session = queue_of(vu, i)->session;
	struct epoll_event event = { .events = EPOLLIN,
				     .data.u32 = TOKEN_BELL };

	close_fd(&vring->kick_fd);
	vring->kick_fd = fd;
	vring->has_kick = true;
	if (runs(vu, i) && (session->bell_fd < 0) != (fd < 0))
		vring_stop(vu, i);
	if (!runs(vu, i) || fd < 0)
		return vring_update(vu, i);
	epoll_ctl(session->epoll_fd, EPOLL_CTL_DEL, session->bell_fd, NULL);
	if (replace_fd(fd, session->bell_fd) < 0 ||
	    epoll_ctl(session->epoll_fd, EPOLL_CTL_ADD, session->bell_fd,
		      &event) < 0)
		return "a kick that cannot be waited for";
	return NULL;
}

const char *vring_set_call(struct vhost_user *vu, unsigned int i, int fd)
{
	struct vu_queue *vring = &vu->vrings[i];

	close_fd(&vring->call_fd);
	vring->call_fd = fd;
	vring->in_band = false;
	if (fd < 0 && vu_has(vu, VU_P_INBAND_NOTIFICATIONS)) {
		vring->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		vring->in_band = vring->call_fd >= 0;
	}
	/* Else to one that nobody reads: it polls. */
	fd = vring->call_fd >= 0 ? vring->call_fd : vu->dev->ports->irq_fd;
	if (!runs(vu, i))
		return NULL;
	if (replace_fd(fd, queue_of(vu, i)->session->irq_fd) < 0)
		return "no descriptor";
	/* QEMU starts a queue first, and then says where it listens. */
	atomic_store(&queue_of(vu, i)->session->irq_renewed, true);
	device_kick(vu->dev, i);
	return NULL;
}

void vring_set_error(struct vhost_user *vu, unsigned int i, int fd)
{
	struct vu_queue *vring = &vu->vrings[i];
	const struct session *session = queue_of(vu, i)->session;

	close_fd(&vring->error_fd);
	vring->error_fd = fd;
	if (runs(vu, i) && fd >= 0 && session->error_fd >= 0)
		replace_fd(fd, session->error_fd);
}

const char *vring_ring(struct vhost_user *vu, unsigned int i)
{
	struct vu_queue *vring = &vu->vrings[i];

	vring->has_kick = true;
	if (vring->call_fd < 0)
		vring_set_call(vu, i, -1);
	device_kick(vu->dev, i);
	return vring_update(vu, i);
}

/*
 * A worker has its gate but around calls into storage and while it sleeps, and
 * keeps no address over that: see replace.c. False: it is held up in there.
 */
static bool enter_gate(struct session *session)
{
	return gate_enter_until(&session->gate, now_ns() + GATE_GRACE_NS);
}

/* False: it has to be stopped for that. */
static bool switch_log(struct session *session, const struct loan *loan)
{
	struct lease *before = NULL;

	if (!enter_gate(session))
		return false;
	/* Else it has ended, and given back what it had. */
	if (atomic_load(&session->lent_mem)) {
		before = atomic_exchange(&session->lent[LOAN_LOG],
					 lease_ref(loan->leases[LOAN_LOG]));
		session->vq.dirty = loan->dirty;
	}
	gate_leave(&session->gate);
	lease_unref(before);
	return true;
}

const char *vrings_change_log(struct vhost_user *vu)
{
	const char *why = NULL;

	for (unsigned int i = 0; i < vu->dev->n_queues && !why; i++) {
		struct loan loan = { 0 };

		lend_log(vu, &loan);
		if (!runs(vu, i) || switch_log(queue_of(vu, i)->session, &loan))
			continue;
		vring_stop(vu, i);
		why = vring_update(vu, i);
	}
	return why;
}

/* The same; with zero-copy the storage itself may be in the old one. */
static bool switch_memory(struct session *session, struct ktvblk_mem *mem)
{
	struct ktvblk_mem *before = NULL;
	bool done = true;

	if (!enter_gate(session))
		return false;
	if (session->disk.zero_copy && session->flight.n_busy) {
		done = false;
	} else if (atomic_load(&session->lent_mem)) {
		before = atomic_exchange(&session->lent_mem,
					 ktvblk_mem_ref(mem));
		session_use_memory(session, mem);
	}
	gate_leave(&session->gate);
	ktvblk_mem_unref(before);
	return done;
}

const char *vrings_change_memory(struct vhost_user *vu)
{
	struct ktvblk_mem *before;
	const char *why = table_renew(&vu->table, &before);

	for (unsigned int i = 0; i < vu->dev->n_queues && !why; i++) {
		if (runs(vu, i) && vu->table.mem &&
		    switch_memory(queue_of(vu, i)->session, vu->table.mem))
			continue;
		vring_stop(vu, i);
		why = vring_update(vu, i);
	}
	ktvblk_mem_unref(before);
	return why;
}
