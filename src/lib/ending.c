/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See ending.h. */

#include "ending.h"
#include "util.h"

void ending_reclaimed(struct session *session)
{
	/* The record of the wedge comes before the one of its end. */
	gate_enter(&session->untold);
	gate_leave(&session->untold);
	if (session->watch)
		watch_gone(session->watch);
	/* It may have counted when that was forbidden already. */
	session_unthrottle(session);
	ports_orphan_gone(session->ports);
	log_event(&session->id, RECLAIMED,
		  (now_ns() - session->stuck_since_ns) / NSEC_PER_MSEC);
}

void ending_detached(struct session *session)
{
	ending_reclaimed(session);
	ports_remains_gone(session->ports);
	session_unref(session);
}

/* Nobody else's code runs in here. */
static void last_act(void *arg)
{
	struct session *session = (struct session *)arg;
	struct ports *ports = ports_ref(session->ports);
	const uint32_t obeyed = atomic_load(&session->seat.obeyed);

	if (session->watch)
		watch_leave(session->watch);
	/*
	 * Pairs with the exchanges in teardown.c: whoever comes second knows
	 * of the other. But for the last case the session may be freed now.
	 */
	switch (atomic_exchange(&session->fate, FATE_ENDED)) {
	case FATE_RUNNING:
		ports_worker_gone(ports, obeyed);
		break;
	case FATE_DETACHED:
		ending_detached(session);
		break;
	}
	ports_unref(ports);
}

void ending_last_act(struct session *session)
{
	if (session->gate_held)
		session_leave(session);
	/* A release callback may end the thread as well. */
	pthread_cleanup_push(last_act, session);
	session_release(session);
	pthread_cleanup_pop(1);
}
