/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See errand.h. */

#include "errand.h"
#include "thread.h"
#include "util.h"

int errand_prepare(struct errand *errand, struct ports *ports)
{
	const int r = log_ref();

	if (r < 0)
		return r;
	errand->ports = ports_ref(ports);
	return 0;
}

void errand_forget(struct errand *errand)
{
	ports_unref(errand->ports);
	log_unref(now_ns() + LOG_STOP_NS);
}

static void *run_it(void *arg)
{
	struct errand *errand = (struct errand *)arg;

	pthread_setname_np(pthread_self(), errand->name);
	errand->run(errand);
	return NULL;
}

/* On the log thread: who joined it has only to return. */
static void over(struct log_job *job)
{
	struct errand *errand = container_of(job, struct errand, job);
	struct ports *ports = errand->ports;

	if (errand->has_joiner)
		pthread_join(errand->joiner, NULL);
	errand->over(errand);
	ports_remains_gone(ports);
	ports_unref(ports);
	log_unref(now_ns() + LOG_STOP_NS);
}

/*
 * A thread that ran what is not ours has not ended before the kernel says so, and
 * the log thread is not to wait for that.
 */
static void *join_it(void *arg)
{
	struct errand *errand = (struct errand *)arg;

	pthread_setname_np(pthread_self(), "ktvblk-drop");
	errand->error = thread_start(&errand->thread, run_it, errand);
	if (errand->error == 0)
		pthread_join(errand->thread, NULL);
	log_run_later(&errand->job);
	return NULL;
}

void errand_start(struct errand *errand)
{
	int r;

	errand->job.run = over;
	errand->has_joiner = true;
	ports_remains_come(errand->ports);
	r = thread_start(&errand->joiner, join_it, errand);
	if (r == 0)
		return; /* it may be over and free by now */
	errand->has_joiner = false;
	errand->error = r;
	log_run_later(&errand->job);
}
