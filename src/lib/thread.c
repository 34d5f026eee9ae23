/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See thread.h. */

#include "bounds.h"
#include "thread.h"
#include "util.h"

static void block_signals(sigset_t *before)
{
	static const int faults[] = { SIGSEGV, SIGBUS,	SIGILL,
				      SIGFPE,  SIGTRAP, SIGSYS };
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		sigdelset(&set, faults[i]);
	pthread_sigmask(SIG_SETMASK, &set, before);
}

int thread_start_on(pthread_t *thread, void *stack, size_t stack_bytes,
		    void *(*main)(void *), void *arg)
{
	pthread_attr_t attr;
	sigset_t before;
	int r;

	pthread_attr_init(&attr);
	r = stack ? pthread_attr_setstack(&attr, stack, stack_bytes)
		  : pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	block_signals(&before);
	if (r == 0)
		r = pthread_create(thread, &attr, main, arg);
	/* The program's thread-local data may leave no room on such a stack. */
	if (r == EINVAL)
		r = pthread_create(thread, NULL, main, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

int thread_start(pthread_t *thread, void *(*main)(void *), void *arg)
{
	return thread_start_on(thread, NULL, 0, main, arg);
}
