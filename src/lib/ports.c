/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See ports.h. All accesses are seq_cst: none is on the request path. */

#include <sys/eventfd.h>

#include "ports.h"
#include "util.h"

int ports_new(struct ports **ret_ports)
{
	struct ports *ports = calloc(1, sizeof(*ports));
	int r;

	if (!ports)
		return -ENOMEM;
	atomic_init(&ports->refs, 1);
	atomic_init(&ports->parked_fd, -1);
	ports->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ports->kick_fd < 0) {
		r = -errno;
		goto fail_ports;
	}
	ports->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ports->irq_fd < 0) {
		r = -errno;
		goto fail_kick;
	}
	*ret_ports = ports;
	return 0;

fail_kick:
	close(ports->kick_fd);
fail_ports:
	free(ports);
	return r;
}

struct ports *ports_ref(struct ports *ports)
{
	refs_get(&ports->refs);
	return ports;
}

void ports_unref(struct ports *ports)
{
	if (!ports || !refs_put(&ports->refs))
		return;
	close(ports->kick_fd);
	close(ports->irq_fd);
	if (ports->parked_fd >= 0)
		close(ports->parked_fd);
	free(ports);
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

	return workers == 0 || (workers == 1 && (pause & 1) &&
				atomic_load(&ports->parked) == pause &&
				atomic_load(&ports->orphans) == 0);
}

int ports_tell_parked(struct ports *ports)
{
	__attribute__((cleanup(closep))) int fd = -1;

	if (!ports_are_paused(ports))
		return 0;
	/* Whoever takes it out tells it, so it is told once. */
	fd = atomic_exchange(&ports->parked_fd, -1);
	return fd >= 0 ? eventfd_signal(fd) : 0;
}

void ports_worker_comes(struct ports *ports)
{
	const uint32_t pause = atomic_load(&ports->pause);

	/* Started while paused, it is born parked: it looks before it works. */
	if (pause & 1)
		atomic_store(&ports->parked, pause);
	atomic_fetch_add(&ports->workers, 1);
}

void ports_worker_gone(struct ports *ports)
{
	atomic_fetch_sub(&ports->workers, 1);
	ports_tell_parked(ports);
	ports_changed(ports);
}

void ports_orphan_comes(struct ports *ports)
{
	atomic_fetch_add(&ports->orphans, 1);
}

void ports_orphan_gone(struct ports *ports)
{
	atomic_fetch_sub(&ports->orphans, 1);
	ports_worker_gone(ports);
}
