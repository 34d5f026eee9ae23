/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The loop: stop before pause before work, then sleep with the gate open.
 *
 * The first drain of a session is unconditional, and so is the one after a
 * park: a kick that an earlier worker ate, or that came before DRIVER_OK, costs
 * nothing. While a request waits for tokens, kicks are swallowed: the timer
 * brings the drain, or other limits do.
 *
 * A kick is read behind the drain it brought, not in the driver's way; and then
 * the ring is looked at again, for what came with a kick read by the same call.
 */

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

#include "drain.h"
#include "ending.h"
#include "io.h"
#include "session.h"
#include "util.h"
#include "worker.h"

#define PANIC_UNKNOWN "<no reason given>"

uint64_t retry_clamp_ns(uint64_t wait_ns)
{
	return MIN(MAX(wait_ns, RETRY_NS_MIN), RETRY_NS_MAX);
}

struct retry retry_decide(bool stalled, uint64_t wait_ns)
{
	if (!stalled)
		return (struct retry){ .action = RETRY_NOT };
	return (struct retry){ .action = wait_ns ? RETRY_LATER : RETRY_NOW,
			       .wait_ns = retry_clamp_ns(wait_ns) };
}

struct wake worker_dispatch(const struct epoll_event *events, int n,
			    const struct identity *id)
{
	struct wake wake = { 0 };

	for (int i = 0; i < n && !wake.stop; i++) {
		const uint32_t token = events[i].data.u32;

		if (events[i].events & EPOLLERR)
			log_event(id, EPOLL_ERROR, events[i].events, token);
		if (events[i].events & EPOLLHUP)
			log_event(id, EPOLL_HANGUP, events[i].events, token);
		switch (token) {
		case TOKEN_STOP:
			wake.stop = true;
			break;
		case TOKEN_KICK:
			wake.kick = true;
			break;
		case TOKEN_TIMER:
			wake.timer = true;
			break;
		case TOKEN_BELL:
			wake.bell = true;
			break;
		case TOKEN_ENDED:
			wake.ended = true;
			break;
		default:
			log_event(id, EPOLL_UNKNOWN_TOKEN, token);
		}
	}
	return wake;
}

/* The worker's own state, gone with its thread. */
struct worker {
	struct session *session;
	bool kicked; /* the kick that brought the drain is still to be read */
	bool rung; /* the driver's own, too */
	bool blocked; /* the timer will bring the next drain ... */
	uint32_t limits; /* ... unless the throttle's are not these any more */
	uint64_t retry_ns; /* in the timer's place, which cannot be set; or 0 */
};

/*
 * Polling on the one CPU that the driver needs would hold it back. We are still
 * where the thread that wrote DRIVER_OK put us, or a transport's.
 */
static bool can_poll(const struct session *session)
{
	cpu_set_t cpus;

	return !session->disk.poll_by_default || session->driver_elsewhere ||
	       pthread_getaffinity_np(pthread_self(), sizeof(cpus), &cpus) ||
	       CPU_COUNT(&cpus) > 1 ||
	       (session->has_cpus && !CPU_EQUAL(&cpus, &session->cpus));
}

/* There is room for 15 bytes. */
static void set_name(const struct session *session)
{
	const unsigned long long id = session->id.disk->instance_id;
	char name[16];

	if (session->id.of_queue)
		snprintf(name, sizeof(name), "ktvblk-%u.%u",
			 (unsigned int)(id % 100000),
			 (session->id.of_queue - 1) % KTVBLK_QUEUES_MAX);
	else
		snprintf(name, sizeof(name), "ktvblk-%llu", id % 100000000);
	pthread_setname_np(pthread_self(), name);
}

static void place(struct session *session)
{
	int r;

	set_name(session);
	if (session->disk.poll_us && can_poll(session))
		polling_init(&session->polling, session->disk.poll_us);
	if (!session->has_cpus)
		return;
	r = pthread_setaffinity_np(pthread_self(), sizeof(session->cpus),
				   &session->cpus);
	if (r)
		log_event(&session->id, PLACEMENT_FAILED, NOTHING, r);
}

static bool need_not_wait(const void *arg)
{
	const struct session *session = (const struct session *)arg;

	return session_stopping(session) ||
	       !ports_disk_is_taken(session->ports);
}

/* Sleep, without the gate, until there is no worker left behind, or a stop. */
static void await_predecessor(struct session *session)
{
	ports_await(session->ports, need_not_wait, session, 0);
}

/*
 * Another queue was stopped, and its worker left behind: what the driver asks for
 * from then on must not be done before what that one is stuck in. False: the
 * session is revoked.
 */
static bool yield_disk(struct session *session)
{
	log_event(&session->id, WAITING_FOR_ORPHAN);
	session_leave(session);
	await_predecessor(session);
	return session_enter(session);
}

/* Sleep while a pause is wanted. False: the session is revoked. */
static bool park(struct session *session)
{
	struct ports *ports = session->ports;

	while (!session_stopping(session)) {
		const uint32_t seen = atomic_load(&ports->changes);
		const uint32_t pause = ports_pause_number(ports);
		int r;

		if (!(pause & 1))
			break;
		/*
		 * All done to guest memory is seen by who sees this store; with
		 * the gate, as a revoked worker must not speak for its heir.
		 */
		if (ports_obey(ports, &session->seat, pause)) {
			ports_changed(ports);
			ports_state_changed(ports);
		}
		/* Without it: what is told may be in the VMM's way. */
		session_leave(session);
		r = ports_tell_parked(ports);
		if (r < 0)
			log_event(&session->id, PARKED_FD_FAILED, -r);
		ports_wait(ports, seen, 0);
		if (!session_enter(session))
			return false;
	}
	return true;
}

/* Does a request wait for tokens, by the limits of now? */
static bool is_blocked(const struct worker *worker)
{
	return worker->blocked &&
	       worker->limits ==
		       disk_throttle_number(worker->session->throttle);
}

static void sleep_until(struct worker *worker, uint64_t wait_ns)
{
	struct session *session = worker->session;
	const struct itimerspec when = { .it_value = ns_to_timespec(wait_ns) };

	worker->blocked = true;
	if (timerfd_settime(session->timer_fd, 0, &when, NULL) == 0)
		return;
	log_event(&session->id, TIMER_SET_FAILED, errno);
	worker->retry_ns = now_ns() + wait_ns;
}

/* Has it, with nothing to do, more memory than it should? */
static bool gives_back(const struct worker *worker)
{
	const struct flight *flight = &worker->session->flight;

	return flight->grown && !flight->n_busy;
}

static void give_back(const struct worker *worker)
{
	struct session *session = worker->session;
	struct engine *engine = session->engine;

	if (!engine->ops->idle || engine->ops->idle(engine))
		flight_idle(&session->flight);
}

static int timeout_ms(const struct worker *worker)
{
	uint64_t now;

	if (!worker->retry_ns)
		return gives_back(worker) ? IDLE_MS : -1;
	now = now_ns();
	return worker->retry_ns <= now
		       ? 0
		       : (int)((worker->retry_ns - now) / NSEC_PER_MSEC) + 1;
}

/* Who put another descriptor in the place of the last no longer reads that one. */
static void tell_again(struct session *session)
{
	if (atomic_load_explicit(&session->irq_renewed, memory_order_relaxed) &&
	    atomic_exchange(&session->irq_renewed, false))
		session_raise(session, VIRTIO_MMIO_INT_VRING);
}

/* False: the session is over. *ret_again: there is more to drain at once. */
static bool drain_and_retry(struct worker *worker, bool *ret_again)
{
	struct session *session = worker->session;
	struct retry retry = { .action = RETRY_NOW };

	worker->blocked = false;
	worker->limits = disk_throttle_number(session->throttle);
	worker->retry_ns = 0;
	*ret_again = false;
	tell_again(session);
	if (!session->mem) {
		if (!session->mem_unset_told)
			log_event(&session->id, MEMORY_UNSET);
		session->mem_unset_told = true;
		return true;
	}
	/* Tokens may have come meanwhile, but look only once. */
	for (int i = 0; i < 2 && retry.action == RETRY_NOW; i++) {
		uint64_t wait_ns = 0;
		enum drain_end end;

		if (i)
			log_event(&session->id, THROTTLE_REDRAINED);
		end = drain(session, &wait_ns);
		if (end == DRAIN_ABANDONED)
			return false;
		/* Behind a pause, what is in flight brings the next. */
		*ret_again = end == DRAIN_INTERRUPTED &&
			     !session->engine->n_out;
		retry = retry_decide(end == DRAIN_STALLED, wait_ns);
	}
	if (retry.action != RETRY_NOT)
		sleep_until(worker, retry.wait_ns);
	return true;
}

/* Another process may have made it one that blocks, and read it just now. */
static int bell_drain(int fd)
{
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };

	if (preadv2(fd, &iov, 1, -1, RWF_NOWAIT) < 0 && errno != EAGAIN)
		return nowait_is_refused(errno) ? eventfd_drain(fd) : -errno;
	return 0;
}

static void read_kick(struct worker *worker)
{
	const struct session *session = worker->session;
	int r = 0;

	if (worker->kicked)
		r = eventfd_drain(session->kick_fd);
	if (worker->rung && r == 0)
		r = bell_drain(session->bell_fd);
	worker->kicked = worker->rung = false;
	if (r < 0)
		log_event(&session->id, KICK_READ_FAILED, -r);
}

static void read_timer(const struct session *session)
{
	const int r = eventfd_drain(session->timer_fd);

	if (r < 0)
		log_event(&session->id, TIMER_READ_FAILED, -r);
}

/*
 * Sleep in the engine, which the epoll wakes as well. Why it woke up need not be
 * known: all there is to do can be seen without.
 */
static int sleep_in_engine(struct worker *worker)
{
	struct session *session = worker->session;
	const int r = session->engine->ops->wait(
		session->engine, session->epoll_fd, timeout_ms(worker));

	return r == -EINTR || r == -ETIME ? 0 : r;
}

/* False: the session is over. */
static bool await_engine(struct worker *worker, bool *ret_drain)
{
	struct session *session = worker->session;
	int r;

	session_leave(session);
	r = sleep_in_engine(worker);
	if (!session_enter(session))
		return false;
	if (r < 0) {
		log_event(&session->id, EPOLL_WAIT_FAILED, -r);
		session_needs_reset(session);
		return false;
	}
	/* Else a kick that stays would bring it back again and again. */
	worker->kicked = session->engine->refused != 0;
	worker->rung = worker->kicked && session->bell_fd >= 0;
	*ret_drain = true;
	return true;
}

/* Sleep for events. False: the session is over. *ret_drain: there is work. */
static bool await_epoll(struct worker *worker, bool *ret_drain)
{
	struct session *session = worker->session;
	struct epoll_event events[TOKEN_COUNT];
	struct wake wake;
	uint64_t since_ns;
	int n, saved;

	session_leave(session);
	since_ns = polling_now(&session->polling);
	n = epoll_wait(session->epoll_fd, events, TOKEN_COUNT,
		       timeout_ms(worker));
	saved = errno;
	if (n == 0 && gives_back(worker))
		give_back(worker);
	if (!session_enter(session))
		return false;
	if (n < 0 && saved != EINTR) {
		log_event(&session->id, EPOLL_WAIT_FAILED, saved);
		session_needs_reset(session);
		return false;
	}
	wake = worker_dispatch(events, n, &session->id);
	if (wake.stop)
		return false;
	if (wake.timer)
		read_timer(session);
	/* By the clock: kicks would put a timeout off for ever. */
	if (worker->retry_ns && now_ns() >= worker->retry_ns)
		wake.timer = true;
	if (wake.timer)
		worker->blocked = false;
	*ret_drain = wake.timer || wake.ended ||
		     ((wake.kick || wake.bell) && !is_blocked(worker));
	worker->kicked = wake.kick;
	worker->rung = wake.bell;
	if ((wake.kick || wake.bell) && !*ret_drain) {
		read_kick(worker);
		/* It may have been, or brought along, one for other limits. */
		*ret_drain = !is_blocked(worker);
	}
	if (*ret_drain && !wake.timer)
		polling_adapt(&session->polling,
			      polling_now(&session->polling) - since_ns);
	return true;
}

static bool await_events(struct worker *worker, bool *ret_drain)
{
	const struct engine *engine = worker->session->engine;

	return engine->n_out && engine->fd < 0 ? await_engine(worker, ret_drain)
					       : await_epoll(worker, ret_drain);
}

static void run(struct session *session)
{
	struct worker worker = { .session = session };
	bool want_drain = true;

	while (!session_stopping(session)) {
		if (ports_pause_wanted(session->ports) &&
		    !session->engine->n_out) {
			if (!park(session))
				return;
			want_drain = true;
		} else if (ports_disk_is_taken(session->ports) &&
			   !session->engine->n_out) {
			if (!yield_disk(session))
				return;
			want_drain = true;
		} else if (want_drain) {
			if (!drain_and_retry(&worker, &want_drain))
				return;
			/* What was kicked for since the last look is there. */
			if ((worker.kicked || worker.rung) && !want_drain &&
			    !session_stopping(session)) {
				read_kick(&worker);
				want_drain = !is_blocked(&worker) &&
					     drain_wanted(session);
			}
		} else if (!await_events(&worker, &want_drain)) {
			return;
		}
	}
}

/*
 * Outlives the session, on the stack of its thread. Volatile: the C library comes
 * back by a longjmp to where the handler was pushed.
 */
struct ending {
	struct session *session;
	volatile bool begun;
};

/* The thread ends by pthread_exit(), out of a backend's op or of ours. */
static void ended_abnormally(void *arg)
{
	struct ending *ending = (struct ending *)arg;
	struct session *session = ending->session;
	struct io *io = session->flight.beginning;

	/* Out of a release callback, further below. */
	if (ending->begun)
		return;
	ending->begun = true;
	if (io) {
		io_ended(session, io);
		session_request_ended(session, io->slot);
	}
	if (session->gate_held || session_enter(session)) {
		if (io)
			io_tell_dirty(session, io);
		session->panic = PANIC_UNKNOWN;
		session_unthrottle(session);
		session_needs_reset(session);
		log_event(&session->id, WORKER_PANICKED, session->panic);
	}
	drain_out(session);
	ending_last_act(session);
}

/* What came of it; false: there is nothing to serve with. */
static bool has_engine(struct session *session, int r, int refused)
{
	if (r < 0) {
		log_event(&session->id, START_FAILED, "engine", -r);
		session_needs_reset(session);
	} else if (refused) {
		log_event(&session->id, ENGINE_REFUSED, -refused);
	}
	return r == 0;
}

static void serve_life(struct session *session)
{
	int r = 0, refused = 0;

	place(session);
	if (session->init && !session_stopping(session))
		session->init(session->init_data);
	if (!session_stopping(session))
		r = session_open_engine(session, &refused);
	await_predecessor(session);
	if (session_enter(session) && has_engine(session, r, refused)) {
		if (!session_stopping(session))
			drain_resume(session);
		run(session);
	}
	drain_out(session);
}

void *worker_main(void *arg)
{
	struct ending ending = { .session = (struct session *)arg };

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	watch_enter(ending.session->watch);
	pthread_cleanup_push(ended_abnormally, &ending);
	serve_life(ending.session);
	ending.begun = true;
	ending_last_act(ending.session);
	pthread_cleanup_pop(0);
	return NULL;
}
