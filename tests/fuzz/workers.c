/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See workers.h. */

#include <errno.h>
#include <stdlib.h>

#include "drain.h"
#include "ending.h"
#include "store.h"
#include "util.h"
#include "worker.h"
#include "workers.h"

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*start)(void *), void *arg);
int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until);
int __wrap_pthread_detach(pthread_t thread);

/* By queue; the thread's handle is the session. */
static struct session *running[KTVBLK_QUEUES_MAX];
static struct session *left[KTVBLK_QUEUES_MAX];
static unsigned int n_left;
static bool storage_hangs;

static unsigned int queue_of(const struct session *session)
{
	return session->id.of_queue ? session->id.of_queue - 1 : 0;
}

static bool is_running(const void *arg)
{
	for (unsigned int i = 0; i < KTVBLK_QUEUES_MAX; i++)
		if (arg && running[i] == arg)
			return true;
	return false;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*start)(void *), void *arg)
{
	struct session *session;
	int refused;

	/* A ktvblk-drop: who was left behind cleans up by itself then. */
	if (is_running(arg))
		return EAGAIN;
	if (start != worker_main)
		return __real_pthread_create(thread, attr, start, arg);
	session = (struct session *)arg;
	if (session_open_engine(session, &refused) < 0)
		abort();
	running[queue_of(session)] = session;
	*thread = (pthread_t)session;
	return 0;
}

int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until)
{
	struct session *session = (struct session *)thread;

	(void)ret;
	(void)clock;
	(void)until;
	if (storage_hangs && store_count(session->engine))
		return ETIMEDOUT;
	store_complete_all(session->engine);
	running[queue_of(session)] = NULL;
	session_enter(session);
	drain_out(session);
	ending_last_act(session);
	return 0;
}

int __wrap_pthread_detach(pthread_t thread)
{
	struct session *session = (struct session *)thread;

	/* No queue begins again while one is left, so there is one of each. */
	if (!is_running(session) || n_left == ARRAY_SIZE(left))
		abort();
	running[queue_of(session)] = NULL;
	left[n_left++] = session;
	return 0;
}

const struct session *workers_session(unsigned int queue)
{
	return running[queue];
}

void workers_kick(uint32_t queue)
{
	struct session *session;
	uint64_t wait_ns;

	if (queue >= KTVBLK_QUEUES_MAX)
		return;
	session = running[queue];
	if (!session || !session->mem)
		return;
	if (ports_disk_is_taken(session->ports) && !session->engine->n_out)
		return; /* it waits for who was left behind */
	if (!session_enter(session))
		abort();
	drain(session, &wait_ns);
	session_leave(session);
}

void workers_kick_all(void)
{
	for (uint32_t i = 0; i < KTVBLK_QUEUES_MAX; i++)
		workers_kick(i);
}

void workers_hang(bool hangs)
{
	storage_hangs = hangs;
}

unsigned int workers_n_left(void)
{
	return n_left;
}

bool workers_are_left(const struct engine *engine)
{
	for (unsigned int i = 0; i < n_left; i++)
		if (left[i]->engine == engine)
			return true;
	return false;
}

void workers_end_left(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < n_left; i++) {
		struct session *session = left[i];

		if (store_count(session->engine)) {
			left[n++] = session;
			continue;
		}
		if (session_enter(session))
			abort(); /* it was revoked */
		drain_out(session);
		ending_last_act(session);
	}
	n_left = n;
}
