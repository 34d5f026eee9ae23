/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The thread, and the connections it serves one after another. It waits in poll()
 * only, and in the stops of queues, which have a budget: never for the front end,
 * nor for the storage.
 */

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "teardown.h"
#include "thread.h"
#include "util.h"
#include "vhost-user/vhost-user.h"

static bool is_to_end(const struct vhost_user *vu)
{
	return atomic_load(&vu->dev->stop_requested_ns) ||
	       atomic_load(&vu->fate) == TRANSPORT_LEFT;
}

static void set_name(const struct vhost_user *vu)
{
	char name[16];

	snprintf(name, sizeof(name), "ktvblk-vu-%u",
		 (unsigned int)(vu->dev->disk_id->instance_id % 100000));
	pthread_setname_np(pthread_self(), name);
}

/* The process at the other end; 0: not known. */
static uint64_t peer_of(int fd)
{
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	return (uint64_t)(uint32_t)peer.pid;
}

/*
 * May the front end run where we do not? Who has each on a CPU of its own wants
 * it quick. Where that is not known they may share the only one there is.
 */
static bool runs_elsewhere(uint64_t peer)
{
	cpu_set_t its, ours;

	return peer && !sched_getaffinity((pid_t)peer, sizeof(its), &its) &&
	       !sched_getaffinity(0, sizeof(ours), &ours) &&
	       !CPU_EQUAL(&its, &ours);
}

static void connection_begins(struct vhost_user *vu, int fd)
{
	vu->fd = fd;
	vu->features = vu->protocol = 0;
	vu->status = 0;
	vu->fresh = true;
	cache_begin(vu);
	atomic_store(&vu->config_changed, false);
	atomic_store(&vu->connected, true);
	vu->dev->driver_elsewhere = runs_elsewhere(peer_of(fd));
	log_event(&vu->dev->id, VHOST_USER_CONNECTED, peer_of(fd));
}

/* Stop what runs, and let go all that was the front end's. */
static void connection_ends(struct vhost_user *vu)
{
	struct ktvblk_mem *before = vu->table.mem;

	vrings_reset(vu);
	vrings_close(vu);
	inflight_clear(&vu->inflight);
	channel_close(&vu->channel);
	if (vu->log)
		lease_unref(page_log_lease(vu->log));
	vu->log = NULL;
	vu->table.mem = NULL;
	table_clear(&vu->table);
	ktvblk_mem_unref(before);
	message_end(&vu->in);
	if (vu->fd >= 0)
		close(vu->fd);
	vu->fd = -1;
	atomic_store(&vu->connected, false);
}

/* Messages, until there are no more of them. */
static void serve_messages(struct vhost_user *vu)
{
	const char *why = NULL;

	while (!is_to_end(vu)) {
		switch (wire_receive(vu->fd, &vu->in, &why)) {
		case WIRE_MORE:
			return;
		case WIRE_MESSAGE:
			why = front_handle(vu, &vu->in);
			if (!why)
				break;
			/* fallthrough */
		case WIRE_BAD:
			log_event(&vu->dev->id, VHOST_USER_CLOSED,
				  only_if(true, vu->in.header.request), why);
			connection_ends(vu);
			return;
		case WIRE_CLOSED:
			if (vu->in.have)
				log_event(&vu->dev->id, VHOST_USER_CLOSED,
					  NOTHING,
					  "the end, in the midst of a message");
			else
				log_event(&vu->dev->id,
					  VHOST_USER_DISCONNECTED);
			connection_ends(vu);
			return;
		}
		message_end(&vu->in);
	}
}

/* No descriptors or memory may come back; else the socket is of no use. */
static void accept_failed(struct vhost_user *vu, int error)
{
	log_event(&vu->dev->id, VHOST_USER_ACCEPT_FAILED, error);
	if (error == EMFILE || error == ENFILE || error == ENOMEM ||
	    error == ENOBUFS) {
		poll(NULL, 0, ACCEPT_RETRY_MS);
		return;
	}
	closep(&vu->listen_fd);
	vu->listen_fd = -1;
}

/* One more connection: the only one, or refused. */
static void accept_one(struct vhost_user *vu, short revents)
{
	const int fd = accept4(vu->listen_fd, NULL, NULL,
			       SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		const int error = errno;

		/* Shut down it is always readable, and there is nobody. */
		if (revents & (POLLHUP | POLLERR | POLLNVAL))
			accept_failed(vu, error == EAGAIN ? EINVAL : error);
		else if (error != EAGAIN && error != EINTR &&
			 error != ECONNABORTED)
			accept_failed(vu, error);
		return;
	}
	if (vu->fd < 0) {
		connection_begins(vu, fd);
		return;
	}
	log_event(&vu->dev->id, VHOST_USER_REFUSED, peer_of(fd));
	close(fd);
}

/* What is polled, in this order; a descriptor of -1 is passed over. */
enum watched {
	WATCH_WAKE,
	WATCH_FRONT,
	WATCH_LISTEN,
	WATCH_CHANNEL,
	WATCH_CALLS, /* from here on, those that are told by message */
	WATCH_COUNT = WATCH_CALLS + KTVBLK_QUEUES_MAX,
};

static void fill(const struct vhost_user *vu, struct pollfd fds[WATCH_COUNT])
{
	fds[WATCH_WAKE] = (struct pollfd){ vu->wake_fd, POLLIN, 0 };
	fds[WATCH_FRONT] = (struct pollfd){ vu->fd, POLLIN, 0 };
	fds[WATCH_LISTEN] = (struct pollfd){ vu->listen_fd, POLLIN, 0 };
	fds[WATCH_CHANNEL] = (struct pollfd){ vu->channel.fd, POLLIN, 0 };
	if (channel_waits(&vu->channel))
		fds[WATCH_CHANNEL].events |= POLLOUT;
	for (unsigned int i = 0; i < KTVBLK_QUEUES_MAX; i++) {
		const struct vu_queue *vring = &vu->vrings[i];
		const bool told = i < vu->dev->n_queues && vring->in_band;

		fds[WATCH_CALLS + i] =
			(struct pollfd){ told ? vring->call_fd : -1, POLLIN,
					 0 };
	}
}

static void take_calls(struct vhost_user *vu, const struct pollfd *calls)
{
	for (unsigned int i = 0; i < vu->dev->n_queues; i++) {
		if (!calls[i].revents)
			continue;
		eventfd_drain(calls[i].fd);
		vu->channel.calls |= 1u << i;
	}
}

static void look(struct vhost_user *vu)
{
	struct pollfd fds[WATCH_COUNT];

	fill(vu, fds);
	if (poll(fds, WATCH_COUNT, -1) < 0)
		return;
	if (fds[WATCH_WAKE].revents)
		eventfd_drain(vu->wake_fd);
	take_calls(vu, &fds[WATCH_CALLS]);
	if (fds[WATCH_CHANNEL].revents & ~POLLOUT)
		channel_read(&vu->channel);
	if (atomic_exchange(&vu->config_changed, false))
		vu->channel.config_changed = true;
	channel_flush(&vu->channel, vu_has(vu, VU_P_REPLY_ACK));
	if (fds[WATCH_FRONT].revents)
		serve_messages(vu);
	/* Behind the end of the one before, which came first. */
	if (fds[WATCH_LISTEN].revents && !is_to_end(vu))
		accept_one(vu, fds[WATCH_LISTEN].revents);
}

/* A connection that there is, or may be. */
static bool serves(const struct vhost_user *vu, bool had_one)
{
	return vu->fd >= 0 || (vu->listen_fd >= 0 && !(vu->once && had_one));
}

static void *transport_main(void *arg)
{
	struct vhost_user *vu = (struct vhost_user *)arg;
	struct ktvblk_dev *dev = vu->dev;
	bool had_one = vu->fd >= 0;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	set_name(vu);
	if (vu->fd >= 0)
		connection_begins(vu, vu->fd);
	while (!is_to_end(vu) && serves(vu, had_one)) {
		look(vu);
		had_one |= vu->fd >= 0;
	}
	eventfd_signal(vu->ended_fd);
	if (atomic_exchange(&vu->fate, TRANSPORT_ENDED) == TRANSPORT_LEFT)
		/* By a destroy that could not wait: what it would have done. */
		ktvblk_destroy(dev);
	return NULL;
}

void transport_config_changed(struct vhost_user *vu)
{
	atomic_store(&vu->config_changed, true);
	eventfd_signal(vu->wake_fd);
}

void transport_request_stop(struct vhost_user *vu)
{
	eventfd_signal(vu->wake_fd);
}

bool transport_join(struct vhost_user *vu, uint64_t deadline_ns)
{
	const struct timespec ts = ns_to_timespec(deadline_ns + LOOK_AGAIN_NS);

	if (!vu->has_thread)
		return true;
	vu->has_thread = false;
	eventfd_signal(vu->wake_fd);
	if (pthread_clockjoin_np(vu->thread, NULL, CLOCK_MONOTONIC, &ts) == 0)
		return true;
	pthread_detach(vu->thread);
	return atomic_exchange(&vu->fate, TRANSPORT_LEFT) == TRANSPORT_ENDED;
}

void transport_free(struct vhost_user *vu)
{
	if (!vu)
		return;
	if (vu->fd >= 0)
		connection_ends(vu);
	closep(&vu->listen_fd);
	closep(&vu->wake_fd);
	closep(&vu->ended_fd);
	free(vu);
}

/* A socket of this kind; *ret_listens. 0 or -EINVAL. */
static int check_socket(int fd, bool *ret_listens)
{
	int domain = 0, type = 0, listens = 0;
	socklen_t size = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 ||
	    domain != AF_UNIX || type != SOCK_STREAM)
		return -EINVAL;
	*ret_listens = listens;
	return 0;
}

static int open_fds(struct vhost_user *vu, int fd, bool listens)
{
	const int ours = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int flags;

	if (ours < 0)
		return -errno;
	if (listens)
		vu->listen_fd = ours;
	else
		vu->fd = ours;
	/* Several threads may wait at a listening one: one of them is to. */
	flags = fcntl(ours, F_GETFL);
	if (flags < 0 ||
	    (listens && fcntl(ours, F_SETFL, flags | O_NONBLOCK) < 0))
		return -errno;
	vu->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vu->wake_fd < 0)
		return -errno;
	vu->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return vu->ended_fd < 0 ? -errno : 0;
}

/* Without its thread: nothing of the device's is to be stopped. */
static void discard(struct vhost_user *vu)
{
	closep(&vu->fd);
	vu->fd = -1;
	transport_free(vu);
}

int ktvblk_vhost_user_start(struct ktvblk_dev *dev, int fd, uint64_t flags)
{
	struct vhost_user *vu;
	bool listens;
	int r;

	if (!dev || (flags & ~(uint64_t)KTVBLK_VHOST_USER_ONCE))
		return -EINVAL;
	r = check_socket(fd, &listens);
	if (r < 0)
		return r;
	if (dev->stop_requested_ns)
		return -ESHUTDOWN;
	if (dev->transport || dev->holdings->mem ||
	    atomic_load(&dev->era->status))
		return -EBUSY;
	vu = calloc(1, sizeof(*vu));
	if (!vu)
		return -ENOMEM;
	vu->dev = dev;
	vu->once = flags & KTVBLK_VHOST_USER_ONCE;
	vu->listen_fd = vu->fd = vu->wake_fd = vu->ended_fd = -1;
	channel_init(&vu->channel);
	vrings_init(vu);
	r = open_fds(vu, fd, listens);
	if (r == 0) {
		dev->transport = vu;
		r = thread_start(&vu->thread, transport_main, vu);
	}
	if (r < 0) {
		dev->transport = NULL;
		discard(vu);
		return r;
	}
	vu->has_thread = true;
	return 0;
}

int ktvblk_vhost_user_ended_fd(const struct ktvblk_dev *dev)
{
	return dev && dev->transport ? dev->transport->ended_fd : -EINVAL;
}

int ktvblk_vhost_user_is_connected(const struct ktvblk_dev *dev)
{
	return dev && dev->transport ? atomic_load(&dev->transport->connected)
				     : -EINVAL;
}
