/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_TEARDOWN_H
#define KTVBLK_TEARDOWN_H

/* Ending a session within a budget, whatever its worker is stuck in. */

#include "session.h"

/* Ask the worker to stop; never waits. */
void session_signal_stop(struct session *session);

struct stop_how {
	uint64_t deadline_ns;
	uint32_t timeout_ms; /* the budget, for the record */
	bool destroying; /* or resetting */
};

/*
 * Stop the worker and wait for it until the deadline; the gate may take 20 ms
 * more. Afterwards the session has no worker that may touch anything but what
 * the session owns, and the caller still has its reference.
 */
enum ktvblk_outcome session_stop(struct session *session,
				 const struct stop_how *how);

/*
 * Where no worker runs that would: drop the references handed over. Where one
 * is the last that may block, so a thread does it, to be joined as a worker is.
 * 0, or -errno if there was none to be had.
 */
int session_start_release(struct session *session);

/* For destroy, behind session_stop(): the same, and wait for that thread. */
enum ktvblk_outcome session_drop_handover(struct session *session,
					  const struct stop_how *how);

#endif
