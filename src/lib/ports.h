/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_PORTS_H
#define KTVBLK_PORTS_H

/*
 * What lives as long as the device and yet is shared with its workers: the two
 * eventfds, and the account of who works, who is left behind, and who is
 * parked. Whoever waits for a change in that account, a parked worker, one that
 * waits for its predecessor, a VMM that pauses, sleeps on `changes`.
 */

#include <stdbool.h>
#include <stdint.h>

struct ports {
	_Atomic unsigned int refs;
	int kick_fd;
	int irq_fd;

	_Atomic uint32_t changes; /* futex: counts them */
	_Atomic uint32_t workers; /* all that may still run */
	_Atomic uint32_t orphans; /* those of them that were left behind */
	/*
	 * Odd: a pause is asked for, and which one. `parked` is the last that a
	 * worker obeyed, so an earlier park is never taken for a later one.
	 */
	_Atomic uint32_t pause;
	_Atomic uint32_t parked;
	_Atomic int parked_fd; /* to be told, once; -1: nobody */
};

/* 0 or -errno. */
int ports_new(struct ports **ret_ports);
struct ports *ports_ref(struct ports *ports);
void ports_unref(struct ports *ports);

/* Wake all who sleep on changes. */
void ports_changed(struct ports *ports);

/* Sleep unless there was a change since changes was `seen`. */
void ports_wait(struct ports *ports, uint32_t seen, uint64_t deadline_ns);

bool ports_pause_wanted(const struct ports *ports);

/* No worker, or the only one parked, and none left behind. */
bool ports_are_paused(const struct ports *ports);

/* Tell the parked eventfd if it is time to. 0 or -errno of telling it. */
int ports_tell_parked(struct ports *ports);

/* Accounts: a worker comes, goes, is left behind, and goes after all. */
void ports_worker_comes(struct ports *ports);
void ports_worker_gone(struct ports *ports);
void ports_orphan_comes(struct ports *ports);
void ports_orphan_gone(struct ports *ports);

#endif
