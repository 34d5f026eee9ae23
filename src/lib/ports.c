/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See ports.h. All accesses are seq_cst: none is on the request path. */

#include <poll.h>
#include <sys/eventfd.h>

#include "bounds.h"
#include "ports.h"
#include "util.h"

/* All or none, and -errno. */
static int make_eventfds(int *const *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		*fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (*fds[i] < 0) {
			const int r = -errno;

			while (i--)
				close(*fds[i]);
			return r;
		}
	}
	return 0;
}

int ports_new(struct ports **ret_ports)
{
	struct ports *ports = calloc(1, sizeof(*ports));
	int r;

	if (!ports)
		return -ENOMEM;
	atomic_init(&ports->refs, 1);
	ports->parked_fd = -1;
	r = make_eventfds((int *const[]){ &ports->kick_fd, &ports->irq_fd,
					  &ports->state_fd },
			  3);
	if (r < 0)
		free(ports);
	else
		*ret_ports = ports;
	return r;
}

struct ports *ports_ref(struct ports *ports)
{
	if (ports)
		refs_get(&ports->refs);
	return ports;
}

void ports_unref(struct ports *ports)
{
	if (!ports || !refs_put(&ports->refs))
		return;
	close(ports->kick_fd);
	close(ports->irq_fd);
	close(ports->state_fd);
	closep(&ports->parked_fd);
	free(ports);
}

void ports_state_changed(struct ports *ports)
{
	if (ports->state_fd >= 0)
		eventfd_signal(ports->state_fd);
}

void ports_changed(struct ports *ports)
{
	atomic_fetch_add(&ports->changes, 1);
	futex_wake(&ports->changes, INT_MAX);
}

void ports_wait(struct ports *ports, uint32_t seen, uint64_t deadline_ns)
{
	futex_wait(&ports->changes, seen, deadline_ns);
}

bool ports_pause_wanted(const struct ports *ports)
{
	return atomic_load(&ports->pause) & 1;
}

bool ports_are_paused(const struct ports *ports)
{
	const uint32_t workers = atomic_load(&ports->workers);
	const uint32_t pause = atomic_load(&ports->pause);

	return atomic_load(&ports->orphans) == 0 &&
	       (workers == 0 || (workers == 1 && (pause & 1) &&
				 atomic_load(&ports->parked) == pause));
}

/*
 * Bounded: whoever holds it does so for a few instructions, unless it is stopped
 * just there, and then a pause told too late is the lesser evil.
 */
static bool begin_telling(struct ports *ports)
{
	return gate_enter_until(&ports->telling, now_ns() + TELLING_NS);
}

static void end_telling(struct ports *ports, bool entered)
{
	if (entered)
		gate_leave(&ports->telling);
}

/* Only the VMM's side changes it, one at a time. */
static void count_on(struct ports *ports)
{
	/* seq_cst, before the kick: the worker reads the kick, then this. */
	atomic_fetch_add(&ports->pause, 1);
	ports_changed(ports);
}

static int tell(int fd)
{
	struct pollfd room = { .fd = fd, .events = POLLOUT };

	/* Full means readable: who looks is told. */
	return poll(&room, 1, 0) == 1 ? eventfd_signal(fd) : -EAGAIN;
}

/* With `telling` held. */
static int tell_if_paused(struct ports *ports)
{
	__attribute__((cleanup(closep))) int fd = -1;

	if (!ports_are_paused(ports))
		return 0;
	fd = ports->parked_fd;
	ports->parked_fd = -1;
	return fd >= 0 ? tell(fd) : 0;
}

int ports_pause(struct ports *ports, int fd)
{
	__attribute__((cleanup(closep), unused)) int old;
	const bool entered = begin_telling(ports);
	int r;

	/* Before the request, or the worker could park and find nobody. */
	old = ports->parked_fd;
	ports->parked_fd = fd;
	if (!ports_pause_wanted(ports))
		count_on(ports);
	r = tell_if_paused(ports);
	end_telling(ports, entered);
	return r;
}

void ports_resume(struct ports *ports)
{
	__attribute__((cleanup(closep), unused)) int old;
	const bool entered = begin_telling(ports);

	old = ports->parked_fd;
	ports->parked_fd = -1;
	count_on(ports);
	end_telling(ports, entered);
	ports_state_changed(ports);
}

int ports_tell_parked(struct ports *ports)
{
	int r;

	gate_enter(&ports->telling);
	r = tell_if_paused(ports);
	gate_leave(&ports->telling);
	return r;
}

void ports_worker_comes(struct ports *ports)
{
	const uint32_t pause = atomic_load(&ports->pause);

	/* Started while paused, it is born parked: it looks before it works. */
	if (pause & 1)
		atomic_store(&ports->parked, pause);
	atomic_fetch_add(&ports->workers, 1);
}

static void fewer(struct ports *ports)
{
	ports_tell_parked(ports);
	ports_changed(ports);
	ports_state_changed(ports);
}

void ports_worker_gone(struct ports *ports)
{
	atomic_fetch_sub(&ports->workers, 1);
	fewer(ports);
}

void ports_orphan_comes(struct ports *ports)
{
	atomic_fetch_add(&ports->remains, 1);
	atomic_fetch_add(&ports->orphans, 1);
	ports_state_changed(ports);
}

void ports_worker_left(struct ports *ports)
{
	/* Behind ports_orphan_comes(): at no time is there nobody. */
	atomic_fetch_sub(&ports->workers, 1);
}

void ports_orphan_gone(struct ports *ports)
{
	atomic_fetch_sub(&ports->orphans, 1);
	fewer(ports);
}

void ports_remains_gone(struct ports *ports)
{
	atomic_fetch_sub(&ports->remains, 1);
	ports_changed(ports);
}
