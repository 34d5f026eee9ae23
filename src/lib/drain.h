/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_DRAIN_H
#define KTVBLK_DRAIN_H

/* One drain: what a worker does for one wake-up. */

#include "session.h"

enum drain_end {
	DRAIN_DONE, /* nothing is left, notifications are on */
	DRAIN_STALLED, /* a request waits for tokens, for wait_ns */
	DRAIN_FULL, /* there is more, once something in flight has ended */
	DRAIN_INTERRUPTED, /* there is more, but a stop or a pause first */
	DRAIN_ABANDONED, /* the session is over; see io.h */
};

/* On the worker, with the gate held. */
enum drain_end drain(struct session *session, uint64_t *ret_wait_ns);

/*
 * Behind the last drain: wait, with the gate open, for all that is in flight.
 * What can be completed is, as long as the session stands, and nothing begins.
 */
void drain_out(struct session *session);

/* Before the first drain: go on where an earlier session of the driver's was. */
void drain_resume(struct session *session);

/* After a drain that was done: has there come more? */
bool drain_wanted(const struct session *session);

#endif
