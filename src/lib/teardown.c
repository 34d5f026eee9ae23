/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 *   signal stop ─► join until the deadline ─┬─► joined, or had panicked
 *                                           └─► revoke: take the gate, shut it
 *                                               behind us, leave the worker to
 *                                               ktvblk-drop, which joins it
 *
 * A clean end creates no thread and makes no record. The worker and we each set
 * `fate` when we are through with the other; see worker_finish().
 */

#include <linux/virtio_blk.h>

#include "teardown.h"
#include "util.h"
#include "worker.h"

/* One record for each way to leave a worker behind, in two sets. */
static typeof(log_RESET_TIMED_OUT) *const log_left[2][5] = {
	{ [KTVBLK_TIMED_OUT] = log_RESET_TIMED_OUT,
	  [KTVBLK_HELPER_SPAWN_FAILED] = log_RESET_HELPER_SPAWN_FAILED,
	  [KTVBLK_HELPER_DISCONNECTED] = log_RESET_HELPER_DISCONNECTED },
	{ [KTVBLK_TIMED_OUT] = log_DESTROY_TIMED_OUT,
	  [KTVBLK_HELPER_SPAWN_FAILED] = log_DESTROY_HELPER_SPAWN_FAILED,
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
			eventfd_signal(session->ports->kick_fd);
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
	struct session *session = container_of(job, struct session, reaped);

	pthread_join(session->reaper, NULL);
	session_unref(session);
}

/* ktvblk-drop: wait for as long as it takes, off everybody's way. */
static void *reaper_main(void *arg)
{
	struct session *session = (struct session *)arg;

	pthread_setname_np(pthread_self(), "ktvblk-drop");
	/* The record of the wedge comes before the one of its end. */
	gate_enter(&session->untold);
	gate_leave(&session->untold);
	pthread_join(session->thread, NULL);
	session_record_reclaimed(session);
	session->reaped.run = reaped;
	log_run_later(&session->reaped);
	return NULL;
}

/*
 * On a stack that was mapped at the start: a worker stuck in a page fault may
 * keep the lock of the address space, and then no new one can be mapped.
 */
static int start_reaper(struct session *session)
{
	pthread_attr_t attr;
	int r = -EINVAL;

	if (session->drop_stack) {
		pthread_attr_init(&attr);
		pthread_attr_setstack(&attr, session->drop_stack,
				      DROP_STACK_BYTES);
		r = thread_start(&session->reaper, &attr, reaper_main, session);
		pthread_attr_destroy(&attr);
	}
	/* Or the program's thread-local data leave no room on it. */
	if (r == -EINVAL)
		r = thread_start(&session->reaper, NULL, reaper_main, session);
	return r;
}

/* The worker is gone and joined; its reference is ours. */
static enum ktvblk_outcome joined(struct session *session,
				  const struct stop_how *how)
{
	session->has_thread = false;
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
	session->throttle_lost = !entered;
	if (entered)
		gate_leave(&session->gate);
	return entered;
}

static void record_left(struct session *session, const struct stop_how *how,
			const struct watch_request *request, bool fenced,
			enum ktvblk_outcome outcome, int error)
{
	const bool busy = request->busy;
	const uint64_t age_ms = (now_ns() - request->since_ns) / NSEC_PER_MSEC;

	log_event_by(log_left[how->destroying][outcome], &session->id,
		     session->watch, how->timeout_ms, fenced ? "yes" : "no",
		     only_if(busy, request->type),
		     only_if(busy, request->sector),
		     only_if(busy, request->length), only_if(busy, age_ms),
		     only_if(error != 0, (uint64_t)error));
}

/* Nobody will join the worker: it drops its own reference. */
static void detach(struct session *session)
{
	pthread_detach(session->thread);
	if (atomic_exchange(&session->fate, FATE_DETACHED) != FATE_ENDED)
		return;
	/* It ended in between and left that to us. */
	session_record_reclaimed(session);
	session_unref(session);
}

static enum ktvblk_outcome leave_behind(struct session *session,
					const struct stop_how *how, int error)
{
	struct watch_request request = { 0 };
	enum ktvblk_outcome outcome = KTVBLK_TIMED_OUT;
	bool fenced;

	if (session->watch)
		request = watch_snapshot(session->watch);
	session->stuck_since_ns = now_ns();
	fenced = shut_gate(session, how->deadline_ns + GATE_GRACE_NS);
	if (session->disk.zero_copy && request.busy &&
	    request.type != VIRTIO_BLK_T_FLUSH)
		fenced = false;
	/* Before fate, behind which the worker takes it back. */
	ports_orphan_comes(session->ports);
	if (atomic_exchange(&session->fate, FATE_ORPHANED) == FATE_ENDED) {
		/* It just made it: it has only to return. */
		atomic_fetch_sub(&session->ports->orphans, 1);
		pthread_join(session->thread, NULL);
		return joined(session, how);
	}
	session->has_thread = false;
	session->left_behind = true;
	gate_enter(&session->untold);
	if (error) {
		outcome = KTVBLK_HELPER_DISCONNECTED;
	} else {
		error = -start_reaper(session);
		if (error)
			outcome = KTVBLK_HELPER_SPAWN_FAILED;
	}
	record_left(session, how, &request, fenced, outcome, error);
	gate_leave(&session->untold);
	if (outcome != KTVBLK_TIMED_OUT)
		detach(session);
	return outcome;
}

static enum ktvblk_outcome join_or_leave(struct session *session,
					 const struct stop_how *how)
{
	const int error = join_until(session->thread, how->deadline_ns);

	if (!error)
		return joined(session, how);
	return leave_behind(session, how, error == ETIMEDOUT ? 0 : error);
}

enum ktvblk_outcome session_stop(struct session *session,
				 const struct stop_how *how)
{
	session_signal_stop(session);
	return session->has_thread ? join_or_leave(session, how)
				   : KTVBLK_JOINED;
}

/* Drop what is handed over and cannot block; true: that is all of it. */
static bool drop_at_once(struct session *session)
{
	struct ktvblk_mem *mem = atomic_load(&session->handover_mem);
	struct ktvblk_backend *backend =
		atomic_load(&session->handover_backend);

	if (backend && !backend->ops.release)
		atomic_store(&session->handover_backend,
			     ktvblk_backend_unref(backend));
	else if (backend && refs_put_not_last(&backend->refs))
		atomic_store(&session->handover_backend, NULL);
	if (mem && !mem->release)
		atomic_store(&session->handover_mem, ktvblk_mem_unref(mem));
	else if (mem && refs_put_not_last(&mem->refs))
		atomic_store(&session->handover_mem, NULL);
	return !atomic_load(&session->handover_backend) &&
	       !atomic_load(&session->handover_mem);
}

/* A thread in the worker's place whose only act is the last one. */
static void *release_main(void *arg)
{
	struct session *session = (struct session *)arg;

	pthread_setname_np(pthread_self(), "ktvblk-drop");
	if (session->watch)
		watch_enter(session->watch);
	worker_finish(session);
	return NULL;
}

static void release_later(struct log_job *job)
{
	struct session *session = container_of(job, struct session, job);

	session_release_handover(session);
	session_record_reclaimed(session);
	session_unref(session);
}

int session_start_release(struct session *session)
{
	int r;

	if (session->has_thread || drop_at_once(session))
		return 0;
	/* Its thread, fate and watch are still the one's on its way out. */
	if (session->left_behind)
		return -EBUSY;
	if (!session->watch)
		session->watch = watch_new(&session->id, UINT64_MAX);
	refs_get(&session->refs);
	atomic_store(&session->fate, FATE_RUNNING);
	ports_worker_comes(session->ports);
	r = thread_start(&session->thread, NULL, release_main, session);
	if (r == 0) {
		session->has_thread = true;
		return 0;
	}
	ports_worker_gone(session->ports);
	session_unref(session); /* never the last: the caller has one */
	return r;
}

enum ktvblk_outcome session_drop_handover(struct session *session,
					  const struct stop_how *how)
{
	const struct watch_request nothing = { 0 };
	const int r = session_start_release(session);
	struct stop_how this_how = *how;

	if (r < 0) {
		record_left(session, how, &nothing, true,
			    KTVBLK_HELPER_SPAWN_FAILED, -r);
		refs_get(&session->refs);
		session->stuck_since_ns = now_ns();
		session->job.run = release_later;
		log_run_later(&session->job);
		return KTVBLK_HELPER_SPAWN_FAILED;
	}
	if (!session->has_thread)
		return KTVBLK_JOINED;
	/* A thread made just now gets a moment, also of a spent budget. */
	this_how.deadline_ns =
		MAX(how->deadline_ns, now_ns() + RELEASE_GRACE_NS);
	return join_or_leave(session, &this_how);
}
