/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See ports.h. All accesses are seq_cst: on the request path that costs a load
 * nothing.
 *
 *   account   63 ......... 32 | 31 .. 16 | 15 .. 0
 *             pause            | workers  | of them obeyed
 */

#include <poll.h>
#include <sys/eventfd.h>

#include "bounds.h"
#include "ports.h"
#include "util.h"

/* A seat's, of one who was left behind; a pause's number is never this: it is
 * even. */
#define LEFT (UINT32_MAX - 1)

static int make_eventfd(int *ret_fd)
{
	*ret_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *ret_fd < 0 ? -errno : 0;
}

static int make_eventfds(struct ports *ports)
{
	int r = 0;

	for (unsigned int i = 0; i < ports->n_queues && r == 0; i++)
		r = make_eventfd(&ports->kick_fds[i]);
	if (r == 0)
		r = make_eventfd(&ports->irq_fd);
	if (r == 0)
		r = make_eventfd(&ports->state_fd);
	return r;
}

int ports_new(unsigned int n_queues, struct ports **ret_ports)
{
	struct ports *ports =
		calloc(1, sizeof(*ports) + n_queues * sizeof(int));
	int r;

	if (!ports)
		return -ENOMEM;
	atomic_init(&ports->refs, 1);
	ports->parked_fd = ports->irq_fd = ports->state_fd = -1;
	ports->n_queues = n_queues;
	for (unsigned int i = 0; i < n_queues; i++)
		ports->kick_fds[i] = -1;
	r = make_eventfds(ports);
	if (r < 0)
		ports_unref(ports);
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
	for (unsigned int i = 0; i < ports->n_queues; i++)
		closep(&ports->kick_fds[i]);
	closep(&ports->irq_fd);
	closep(&ports->state_fd);
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

bool ports_await(struct ports *ports, bool (*is_so)(const void *arg),
		 const void *arg, uint64_t deadline_ns)
{
	for (;;) {
		const uint32_t seen = atomic_load(&ports->changes);

		if (is_so(arg))
			return true;
		if (deadline_ns && now_ns() >= deadline_ns)
			return false;
		ports_wait(ports, seen, deadline_ns);
	}
}

int ports_kick_all(struct ports *ports)
{
	int r = 0;

	for (unsigned int i = 0; i < ports->n_queues; i++) {
		const int error = eventfd_signal(ports->kick_fds[i]);

		if (error < 0 && error != -EAGAIN)
			r = error;
	}
	return r;
}

/* Modulo 2^16: who leaves may be counted before what it obeyed was. */
struct account {
	uint32_t pause;
	uint16_t workers;
	uint16_t obeyed;
};

static struct account unpack(uint64_t word)
{
	return (struct account){
		.pause = (uint32_t)(word >> 32),
		.workers = (uint16_t)(word >> 16),
		.obeyed = (uint16_t)word,
	};
}

static uint64_t pack(struct account account)
{
	return (uint64_t)account.pause << 32 | (uint32_t)account.workers << 16 |
	       account.obeyed;
}

/* So many more workers, and so many more who obeyed this pause, if it is on. */
static void count(struct ports *ports, int workers, int obeyed, uint32_t pause)
{
	uint64_t word = atomic_load(&ports->account);
	struct account next;

	do {
		next = unpack(word);
		next.workers = (uint16_t)(next.workers + workers);
		if (next.pause == pause)
			next.obeyed = (uint16_t)(next.obeyed + obeyed);
	} while (!atomic_compare_exchange_weak(&ports->account, &word,
					       pack(next)));
}

bool ports_are_paused(const struct ports *ports)
{
	const struct account now = unpack(atomic_load(&ports->account));

	/* Behind the account: see ports_worker_left(). */
	return atomic_load(&ports->orphans) == 0 &&
	       (now.workers == 0 ||
		((now.pause & 1) && now.obeyed == now.workers));
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
	uint64_t word = atomic_load(&ports->account);
	struct account next;

	/* seq_cst, before the kick: the worker reads the kick, then this. */
	do {
		next = unpack(word);
		next.pause++;
		next.obeyed = 0;
	} while (!atomic_compare_exchange_weak(&ports->account, &word,
					       pack(next)));
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

bool ports_obey(struct ports *ports, struct seat *seat, uint32_t pause)
{
	uint32_t before = atomic_load(&seat->obeyed);

	if (before == pause || before == LEFT ||
	    !atomic_compare_exchange_strong(&seat->obeyed, &before, pause))
		return false;
	count(ports, 0, 1, pause);
	return true;
}

void ports_worker_comes(struct ports *ports, struct seat *seat)
{
	const uint32_t pause = ports_pause_number(ports);

	/* Started while paused, it is born parked: it looks before it works. */
	atomic_store(&seat->obeyed, pause);
	count(ports, 1, pause & 1, pause);
}

static void fewer(struct ports *ports)
{
	ports_tell_parked(ports);
	ports_changed(ports);
	ports_state_changed(ports);
}

/* What it obeyed counts no more. */
static void one_less(struct ports *ports, uint32_t obeyed)
{
	count(ports, -1, -(int)(obeyed & 1), obeyed);
}

void ports_worker_gone(struct ports *ports, uint32_t obeyed)
{
	one_less(ports, obeyed);
	fewer(ports);
}

void ports_remains_come(struct ports *ports)
{
	atomic_fetch_add(&ports->remains, 1);
}

void ports_orphan_comes(struct ports *ports)
{
	ports_remains_come(ports);
	atomic_fetch_add(&ports->orphans, 1);
	ports_state_changed(ports);
}

void ports_worker_left(struct ports *ports, struct seat *seat)
{
	/* Behind ports_orphan_comes(): at no time is there nobody. */
	one_less(ports, atomic_exchange(&seat->obeyed, LEFT));
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
