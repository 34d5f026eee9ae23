/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Each step for all sessions, then the next:
 *
 *   signal stop ─► join until the deadline ─┬─► joined, or had panicked
 *                                           └─► revoke: take the gate, shut it
 *                                               behind us, leave the worker to
 *                                               ktvblk-drop, which joins it
 *
 * A clean end creates no thread and makes no record. The worker and we each set
 * `fate` when we are through with the other; see ending_last_act(). A worker that
 * is through with us has not ended before the kernel says so: the destructors
 * of thread-local data and the kernel's own work for a thread that exits come
 * behind, and can wait for the storage as well as any call.
 */

#include "ending.h"
#include "teardown.h"
#include "thread.h"
#include "util.h"

/* The records of a worker that cannot be waited for, in two sets. */
static typeof(log_RESET_HELPER_SPAWN_FAILED) *const log_no_helper[2][5] = {
	{ [KTVBLK_HELPER_SPAWN_FAILED] = log_RESET_HELPER_SPAWN_FAILED,
	  [KTVBLK_HELPER_DISCONNECTED] = log_RESET_HELPER_DISCONNECTED },
	{ [KTVBLK_HELPER_SPAWN_FAILED] = log_DESTROY_HELPER_SPAWN_FAILED,
	  [KTVBLK_HELPER_DISCONNECTED] = log_DESTROY_HELPER_DISCONNECTED },
};

void session_signal_stop(struct session *session)
{
	const struct identity *id = &session->id;
	int r;

	/* Release, pairs with the worker's loads: it sees what we left it. */
	atomic_store(&session->stop, true);
	ports_changed(session->ports);
	for (unsigned int attempt = 0; attempt < STOP_ATTEMPTS; attempt++) {
		r = eventfd_signal(session->stop_fd);
		if (r == 0)
			return;
		if (r != -EAGAIN) {
			log_event(id, STOP_WRITE_FAILED, attempt, -r);
			/* A worker that sleeps is woken by this as well. */
			eventfd_signal(session->kick_fd);
			return;
		}
		log_event(id, STOP_RETRIED, attempt);
		sched_yield();
	}
	log_event(id, STOP_GAVE_UP, STOP_ATTEMPTS);
}

static int join_until(pthread_t thread, uint64_t deadline_ns)
{
	const struct timespec ts = ns_to_timespec(deadline_ns);

	return pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &ts);
}

/* On the log thread: the reaper has only to return; then its stack goes. */
static void reaped(struct log_job *job)
{
	struct session *session = container_of(job, struct session, job);

	pthread_join(session->reaper, NULL);
	ports_remains_gone(session->ports);
	session_unref(session);
}

/* ktvblk-drop: wait for as long as it takes, off everybody's way. */
static void *reaper_main(void *arg)
{
	struct session *session = (struct session *)arg;

	pthread_setname_np(pthread_self(), "ktvblk-drop");
	pthread_join(session->thread, NULL);
	ending_reclaimed(session);
	session->job.run = reaped;
	log_run_later(&session->job);
	return NULL;
}

/*
 * On a stack that was mapped at the start: a worker stuck in a page fault may
 * keep the lock of the address space, and then no new one can be mapped.
 */
static int start_reaper(struct session *session)
{
	return thread_start_on(&session->reaper, session->pages.drop_stack,
			       DROP_STACK_BYTES, reaper_main, session);
}

/* Those that are not joined yet. True: some of them still are not. */
static bool join_rest(struct stopping *each, size_t n, uint64_t deadline_ns)
{
	bool timed_out = false;

	for (size_t i = 0; i < n; i++) {
		if (each[i].error != ETIMEDOUT)
			continue;
		each[i].error =
			join_until(each[i].session->thread, deadline_ns);
		timed_out |= each[i].error == ETIMEDOUT;
	}
	return timed_out;
}

/*
 * The deadline may have passed while nobody ran, the workers as little as we:
 * the process was stopped, or the machine. Then look once more. Where it had
 * passed before we came a look has to be short, as there may be many of us.
 */
static void join_workers(struct stopping *each, size_t n, uint64_t deadline_ns)
{
	const bool late = now_ns() >= deadline_ns;
	const bool timed_out = join_rest(each, n, deadline_ns);
	const uint64_t now = now_ns();

	if (timed_out && (late || now - deadline_ns >= OVERSLEPT_NS))
		join_rest(each, n, now + (late ? LATE_LOOK_NS : LOOK_AGAIN_NS));
}

/* The worker is gone and joined; its reference is ours. */
static enum ktvblk_outcome joined(struct session *session,
				  const struct stop_how *how)
{
	session->has_thread = false;
	if (session->watch)
		watch_gone(session->watch);
	session_unthrottle(session);
	/* Never the last: the caller has one. */
	session_unref(session);
	if (!session->panic)
		return KTVBLK_JOINED;
	log_event_by(how->destroying ? log_DESTROY_PANICKED
				     : log_RESET_PANICKED,
		     &session->id, NULL, session->panic);
	session->panic = NULL; /* told */
	return KTVBLK_PANICKED;
}

/*
 * From here on the worker may finish its call, but finds the gate shut. False:
 * it holds the gate itself, stuck in guest memory, and may go on there.
 */
static bool shut_gate(struct session *session, uint64_t deadline_ns)
{
	const bool entered = gate_enter_until(&session->gate, deadline_ns);

	atomic_store(&session->revoked, true);
	session_unthrottle(session);
	if (entered)
		gate_leave(&session->gate);
	return entered;
}

static void record_left(struct session *session, const struct stop_how *how,
			const struct watch_snapshot *seen, bool fenced,
			enum ktvblk_outcome outcome, int error)
{
	const struct watch_request *request = &seen->oldest;
	const bool busy = request->busy;
	const uint64_t age_ms = (now_ns() - request->since_ns) / NSEC_PER_MSEC;

	const struct maybe type = only_if(busy, request->type);
	const struct maybe sector = only_if(busy, request->sector);
	const struct maybe length = only_if(busy, request->length);
	const struct maybe age = only_if(busy, age_ms);
	const uint64_t n = seen->n_in_flight;
	const char *is_fenced = fenced ? "yes" : "no";

	if (outcome == KTVBLK_TIMED_OUT)
		log_event_by(how->destroying ? log_DESTROY_TIMED_OUT
					     : log_RESET_TIMED_OUT,
			     &session->id, session->watch, how->timeout_ms,
			     is_fenced, type, sector, length, age, n);
	else
		log_event_by(log_no_helper[how->destroying][outcome],
			     &session->id, session->watch, how->timeout_ms,
			     is_fenced, type, sector, length, age, n, error);
}

/*
 * Nobody will join the worker: it cleans up itself, unless it was through
 * already. What its thread does behind that nobody will know.
 */
static void detach(struct session *session, bool ended)
{
	pthread_detach(session->thread);
	if (atomic_exchange(&session->fate, FATE_DETACHED) == FATE_ENDED ||
	    ended)
		ending_detached(session);
}

/* Behind its gate, where nothing begins any more. */
static enum ktvblk_outcome leave_behind(struct stopping *stopping,
					const struct stop_how *how,
					uint64_t exit_ns)
{
	struct session *session = stopping->session;
	int error = stopping->error == ETIMEDOUT ? 0 : stopping->error;
	enum ktvblk_outcome outcome = KTVBLK_TIMED_OUT;
	struct watch_snapshot seen = { 0 };
	bool ended;

	if (session->watch)
		seen = watch_snapshot(session->watch);
	if (session->disk.zero_copy && seen.any_data)
		stopping->fenced = false;
	ended = atomic_exchange(&session->fate, FATE_ORPHANED) == FATE_ENDED;
	/* On its way out, as a rule; many that are not must not add up. */
	if (ended && !join_until(session->thread, exit_ns))
		return joined(session, how);
	ports_orphan_comes(session->ports);
	if (!ended)
		ports_worker_left(session->ports, &session->seat);
	session->has_thread = false;
	gate_enter(&session->untold);
	if (error) {
		outcome = KTVBLK_HELPER_DISCONNECTED;
	} else {
		error = -start_reaper(session);
		if (error)
			outcome = KTVBLK_HELPER_SPAWN_FAILED;
	}
	record_left(session, how, &seen, stopping->fenced, outcome, error);
	/* Behind the gate, with a buffer of its own, it has no use for that. */
	if (stopping->fenced)
		session_return_loan(session);
	gate_leave(&session->untold);
	if (outcome != KTVBLK_TIMED_OUT)
		detach(session, ended);
	return outcome;
}

/* Those whose error says that they have a worker. */
static void join_or_leave(struct stopping *each, size_t n,
			  const struct stop_how *how)
{
	uint64_t gate_ns, exit_ns;

	join_workers(each, n, how->deadline_ns);
	/* Where that was overslept a worker may be in its gate just now. */
	gate_ns =
		MAX(how->deadline_ns + GATE_GRACE_NS, now_ns() + LATE_LOOK_NS);
	for (size_t i = 0; i < n; i++) {
		if (!each[i].error)
			continue;
		each[i].session->stuck_since_ns = now_ns();
		each[i].fenced = shut_gate(each[i].session, gate_ns);
	}
	exit_ns =
		MAX(how->deadline_ns + LOOK_AGAIN_NS, now_ns() + LATE_LOOK_NS);
	for (size_t i = 0; i < n; i++)
		if (each[i].error)
			each[i].outcome = leave_behind(&each[i], how, exit_ns);
		else if (each[i].session->has_thread)
			each[i].outcome = joined(each[i].session, how);
}

void sessions_stop(struct stopping *each, size_t n, const struct stop_how *how)
{
	for (size_t i = 0; i < n; i++) {
		session_signal_stop(each[i].session);
		each[i].outcome = KTVBLK_JOINED;
		each[i].error = each[i].session->has_thread ? ETIMEDOUT : 0;
	}
	join_or_leave(each, n, how);
}

/* A thread in the worker's place whose only act is the last one. */
static void *drop_main(void *arg)
{
	struct session *session = (struct session *)arg;

	pthread_setname_np(pthread_self(), "ktvblk-drop");
	if (session->watch)
		watch_enter(session->watch);
	ending_last_act(session);
	return NULL;
}

/* The session is to have a last act again. */
static void take_over(struct session *session, struct holdings **holdings)
{
	session->started = true;
	session->holdings = *holdings;
	*holdings = NULL;
	refs_get(&session->refs);
	atomic_store(&session->fate, FATE_RUNNING);
	ports_worker_comes(session->ports, &session->seat);
}

static void hand_back(struct session *session, struct holdings **holdings)
{
	ports_worker_gone(session->ports, session->seat.obeyed);
	*holdings = session->holdings;
	session->holdings = NULL;
	session_unref(session); /* never the last: the caller has one */
}

int session_start_drop(struct session *session, struct holdings **holdings)
{
	int r;

	/* Only to tell where it is, so it can do without. */
	if (!session->watch)
		session->watch = watch_new(&session->id, UINT64_MAX, NULL, 0);
	take_over(session, holdings);
	r = thread_start(&session->thread, drop_main, session);
	if (r == 0)
		session->has_thread = true;
	else
		hand_back(session, holdings);
	return r;
}

static void drop_later(struct log_job *job)
{
	ending_last_act(container_of(job, struct session, job));
}

/* Was the last act done? */
static bool has_ended(const void *arg)
{
	return atomic_load(&((const struct session *)arg)->fate) == FATE_ENDED;
}

/* No thread is to be had: then the log thread has to do it. */
static enum ktvblk_outcome drop_by_log_thread(struct session *session,
					      struct holdings **holdings,
					      const struct stop_how *how)
{
	const struct watch_snapshot nothing = { 0 };

	take_over(session, holdings);
	session->stuck_since_ns = now_ns();
	session->job.run = drop_later;
	log_run_later(&session->job);
	if (!ports_await(session->ports, has_ended, session,
			 how->deadline_ns)) {
		gate_enter(&session->untold);
		ports_orphan_comes(session->ports);
		if (atomic_exchange(&session->fate, FATE_DETACHED) !=
		    FATE_ENDED) {
			ports_worker_left(session->ports, &session->seat);
			record_left(session, how, &nothing, true,
				    KTVBLK_TIMED_OUT, 0);
			gate_leave(&session->untold);
			return KTVBLK_TIMED_OUT;
		}
		ports_orphan_gone(session->ports);
		ports_remains_gone(session->ports);
		gate_leave(&session->untold);
	}
	session_unref(session);
	return KTVBLK_JOINED;
}

enum ktvblk_outcome session_drop(struct session *session,
				 struct holdings **holdings,
				 const struct stop_how *how)
{
	struct stopping one = { .session = session, .error = ETIMEDOUT };
	struct stop_how this_how = *how;

	/* A thread made just now gets a moment, also of a spent budget. */
	this_how.deadline_ns =
		MAX(how->deadline_ns, now_ns() + RELEASE_GRACE_NS);
	if (session_start_drop(session, holdings) == 0) {
		join_or_leave(&one, 1, &this_how);
		return one.outcome;
	}
	return drop_by_log_thread(session, holdings, &this_how);
}
