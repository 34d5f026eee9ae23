/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_TEARDOWN_H
#define KTVBLK_TEARDOWN_H

/*
 * Ending sessions within a budget, whatever their workers are stuck in: one
 * budget, however many they are.
 *
 * Where a thread of the VMM's can wait in reset, the stop of a queue, destroy,
 * request_stop, request_reset, pause and new, and for how long:
 *
 *   join of the workers  the deadline; 20 ms more where the process did not run
 *                        when that passed, and where the worker has done its last
 *                        act and its thread is on its way out; of those 1 ms for
 *                        each device where the deadline had passed before
 *   gates of sessions    20 ms behind the deadline
 *   join of ktvblk-drop  never: the log thread does it
 *   a release without a  the deadline, 20 ms if that is past: a thread of its own
 *   worker               runs it, or else the log thread
 *   what a reset left    the deadline, and only for memory that is about to be
 *   behind               free; not for its worker
 *   parking a worker     pause(): its timeout
 *   telling a pause      20 ms; see ports.h
 *   other limits         20 ms for the lock of the throttle
 *   other memory, and    their timeouts, for the gates of the workers, and with
 *   who is told of it    zero-copy for what is in flight
 *   another size         never: the storage is asked by an errand
 *   errands              the deadline, in destroy only
 *   the log thread       20 ms, in the last device's destroy; its lock and those
 *                        of the watch are held for copies only
 *   eventfds             never: they do not block
 *   the storage's size   new(): as long as capacity() takes; not asked if the
 *                        configuration has it
 *   memory               reset and stop take and give back none, but for what the
 *                        C library needs for the thread ktvblk-drop. The others
 *                        may, and wait if the kernel's lock of the address space
 *                        is kept by a page fault that hangs; see README, Limits
 *
 * Nobody on these ways closes the storage, runs a release callback, reads procfs,
 * calls libsystemd, maps or unmaps.
 */

#include "session.h"

/* Ask the worker to stop; never waits. */
void session_signal_stop(struct session *session);

struct stop_how {
	uint64_t deadline_ns;
	uint32_t timeout_ms; /* the budget, for the record */
	bool destroying; /* or resetting */
};

struct stopping {
	struct session *session;
	enum ktvblk_outcome outcome;
	/* For teardown.c: what its join answered, and could its gate be shut? */
	int error;
	bool fenced;
};

/*
 * Stop their workers and wait for all until the deadline; the gates may take 20
 * ms more. Afterwards no session has a worker that may touch anything but what
 * the session owns, and the caller still has its references.
 */
void sessions_stop(struct stopping *each, size_t n, const struct stop_how *how);

/* Was the worker seen to end, so that nothing of the session is left? */
static inline bool stop_is_clean(enum ktvblk_outcome outcome)
{
	return outcome == KTVBLK_JOINED || outcome == KTVBLK_PANICKED;
}

/*
 * A thread that lets *holdings go, which are the session's from then on: for
 * what may block where no worker is left to do it. The session has no thread.
 * 0, or -errno and nothing has changed.
 */
int session_start_drop(struct session *session, struct holdings **holdings);

/*
 * The same for destroy, with whatever can be had, and wait for it: how it ended.
 */
enum ktvblk_outcome session_drop(struct session *session,
				 struct holdings **holdings,
				 const struct stop_how *how);

#endif
