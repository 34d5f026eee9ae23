/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_PORTS_H
#define KTVBLK_PORTS_H

/*
 * What lives as long as the device and is shared by all its sessions: the three
 * eventfds, and the accounts of workers, left-behind workers and pauses. Who
 * waits for one of these to change, a parked worker, one that waits for its
 * predecessor, a VMM that pauses, sleeps on `changes`.
 */

#include <stdbool.h>
#include <stdint.h>

#include "gate.h"

struct ports {
	_Atomic unsigned int refs;
	int kick_fd;
	int irq_fd;
	int state_fd; /* counts changes of state, for the VMM */

	_Atomic uint32_t changes; /* futex: counts them */
	_Atomic uint32_t workers; /* those not left behind that may still run */
	_Atomic uint32_t orphans; /* left behind, and may still use the disk */
	_Atomic uint32_t remains; /* left behind, and not all of it is free */
	/*
	 * Odd: a pause is asked for, and which one. `parked` is the last that a
	 * worker obeyed, so an earlier park is never taken for a later one.
	 */
	_Atomic uint32_t pause;
	_Atomic uint32_t parked;
	/*
	 * Held while it is found that the device is paused and that is told, and
	 * while that stops being true: so nobody is told of a pause that is not.
	 */
	struct gate telling;
	int parked_fd; /* to be told, once; -1: nobody */
};

/* 0 or -errno. */
int ports_new(struct ports **ret_ports);
struct ports *ports_ref(struct ports *ports);
void ports_unref(struct ports *ports);

/* Wake all who sleep on changes. */
void ports_changed(struct ports *ports);

/* The device's state may be another one now: tell the VMM. */
void ports_state_changed(struct ports *ports);

/* Sleep unless there was a change since changes was `seen`. */
void ports_wait(struct ports *ports, uint32_t seen, uint64_t deadline_ns);

bool ports_pause_wanted(const struct ports *ports);

/* No worker, or the only one parked, and none left behind. */
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

/* Accounts: a worker comes and goes. */
void ports_worker_comes(struct ports *ports);
void ports_worker_gone(struct ports *ports);

/* One is left behind; and, if it was not gone before, no more a worker. */
void ports_orphan_comes(struct ports *ports);
void ports_worker_left(struct ports *ports);

/* It uses nothing any more; and all it had is free. */
void ports_orphan_gone(struct ports *ports);
void ports_remains_gone(struct ports *ports);

#endif
