/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_PORTS_H
#define KTVBLK_PORTS_H

/*
 * What lives as long as the device and is shared by all its sessions: the
 * eventfds, and the accounts of workers, left-behind workers and pauses. Who
 * waits for one of these to change, a parked worker, one that waits for its
 * predecessor, a VMM that pauses, sleeps on `changes`.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "gate.h"

struct ports {
	_Atomic unsigned int refs;
	int irq_fd;
	int state_fd; /* counts changes of state, for the VMM */

	_Atomic uint32_t changes; /* futex: counts them */
	_Atomic uint32_t orphans; /* left behind, and may still use the disk */
	_Atomic uint32_t remains; /* left behind, and not all of it is free */
	/*
	 * In one word, as what is said of them is of one moment: see ports.c.
	 * The pause that is asked for, if its number is odd; the workers, those
	 * not left behind that may still run; and how many of them obeyed.
	 */
	_Atomic uint64_t account;
	/*
	 * Held while it is found that the device is paused and that is told, and
	 * while that stops being true: so nobody is told of a pause that is not.
	 */
	struct gate telling;
	int parked_fd; /* to be told, once; -1: nobody */

	unsigned int n_queues;
	int kick_fds[]; /* one for each queue */
};

/*
 * A worker's part in the account: the pause that it obeyed last. So an earlier
 * park is never taken for a later one, and who is left behind speaks for nobody.
 */
struct seat {
	_Atomic uint32_t obeyed;
};

/* 0 or -errno. */
int ports_new(unsigned int n_queues, struct ports **ret_ports);
struct ports *ports_ref(struct ports *ports);
void ports_unref(struct ports *ports);

/* Wake all who sleep on changes. */
void ports_changed(struct ports *ports);

/* The device's state may be another one now: tell the VMM. */
void ports_state_changed(struct ports *ports);

/* Sleep unless there was a change since changes was `seen`. */
void ports_wait(struct ports *ports, uint32_t seen, uint64_t deadline_ns);

/*
 * Sleep until it is so; whoever makes it so tells of a change. False: it was not
 * by the deadline; 0: there is none.
 */
bool ports_await(struct ports *ports, bool (*is_so)(const void *arg),
		 const void *arg, uint64_t deadline_ns);

/* Which one; odd: it is asked for. */
static inline uint32_t ports_pause_number(const struct ports *ports)
{
	return (uint32_t)(atomic_load(&ports->account) >> 32);
}

static inline bool ports_pause_wanted(const struct ports *ports)
{
	return ports_pause_number(ports) & 1;
}

/* While one that was left behind lives, no other touches the disk. */
static inline bool ports_disk_is_taken(const struct ports *ports)
{
	return atomic_load(&ports->orphans) != 0;
}

/* Those that are not left behind. */
static inline unsigned int ports_workers(const struct ports *ports)
{
	return (uint16_t)(atomic_load(&ports->account) >> 16);
}

/* On the worker: obey this pause. True: it is news. */
bool ports_obey(struct ports *ports, struct seat *seat, uint32_t pause);

/* No worker, or each of them parked, and none left behind. */
bool ports_are_paused(const struct ports *ports);

/*
 * Tell the parked eventfd if the device is paused. It is the VMM's, who may have
 * made it blocking: full, it is not written. 0, -EAGAIN then, or -errno.
 */
int ports_tell_parked(struct ports *ports);

/*
 * The VMM's side, one at a time: ask for a pause, if none is asked for, and have
 * fd told (-1: nobody), which belongs to the ports from here on; as above. And
 * the end of it.
 */
int ports_pause(struct ports *ports, int fd);
void ports_resume(struct ports *ports);

/* Get all workers to look at what they are to do. 0 or -errno. */
int ports_kick_all(struct ports *ports);

/* Accounts: a worker comes; and one goes, which had obeyed this last. */
void ports_worker_comes(struct ports *ports, struct seat *seat);
void ports_worker_gone(struct ports *ports, uint32_t obeyed);

/* One is left behind; and, if it was not gone before, no more a worker. */
void ports_orphan_comes(struct ports *ports);
void ports_worker_left(struct ports *ports, struct seat *seat);

/* Something else is left behind that no other has to wait for. */
void ports_remains_come(struct ports *ports);

/* It uses nothing any more; and all it had is free. */
void ports_orphan_gone(struct ports *ports);
void ports_remains_gone(struct ports *ports);

#endif
