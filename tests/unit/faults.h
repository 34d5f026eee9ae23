/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_FAULTS_H
#define TEST_FAULTS_H

/*
 * Calls that fail. For a test program, once for each function that is in its
 * "wrap:" comment:
 *
 *	WRAP(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n),
 *	     fd, -1)
 *	...
 *	fault_set(&write_fault, &(struct fault_when){ .error = EIO });
 *
 * defines write_fault; the last two arguments are the descriptor it works on
 * (0: none) and what it answers when it fails.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct fault_when {
	int error;
	unsigned int skip; /* calls that succeed before */
	unsigned int times; /* calls that fail; 0: one */
	int fd; /* only on this one; 0: any */
	bool here; /* only on the thread that sets it */
	void (*before)(void *arg); /* it does not fail: this comes before it */
	void *arg;
};

struct fault {
	struct fault_when when;
	pthread_t setter;
	_Atomic unsigned int left; /* to fail or to skip */
	_Atomic unsigned int calls; /* ever */
};

__attribute__((unused)) static void fault_set(struct fault *fault,
					      const struct fault_when *when)
{
	atomic_store(&fault->left, 0);
	fault->when = *when;
	fault->setter = pthread_self();
	atomic_store(&fault->left,
		     when->skip + (when->times ? when->times : 1));
}

__attribute__((unused)) static void fault_clear(struct fault *fault)
{
	atomic_store(&fault->left, 0);
}

/* Has it come to pass? */
__attribute__((unused)) static bool fault_over(struct fault *fault)
{
	return atomic_load(&fault->left) == 0;
}

__attribute__((unused)) static bool fault_hits(struct fault *fault, int fd)
{
	const struct fault_when *when = &fault->when;
	unsigned int left;

	atomic_fetch_add(&fault->calls, 1);
	left = atomic_load(&fault->left);
	do {
		if (!left || (when->fd && when->fd != fd) ||
		    (when->here &&
		     !pthread_equal(fault->setter, pthread_self())))
			return false;
	} while (!atomic_compare_exchange_weak(&fault->left, &left, left - 1));
	if (left > (when->times ? when->times : 1))
		return false;
	if (when->before) {
		when->before(when->arg);
		return false;
	}
	errno = when->error;
	return true;
}

#define WRAP(type, name, params, args, fd, failed)                             \
	type __real_##name params;                                             \
	type __wrap_##name params;                                             \
	__attribute__((unused)) static struct fault name##_fault;              \
                                                                               \
	type __wrap_##name params                                              \
	{                                                                      \
		return fault_hits(&name##_fault, fd) ? failed                  \
						     : __real_##name args;     \
	}

/* The usual ones. */
#define WRAP_CALLOC                                                            \
	WRAP(void *, calloc, (size_t n, size_t size), (n, size), 0, NULL)
#define WRAP_EVENTFD                                                           \
	WRAP(int, eventfd, (unsigned int n, int flags), (n, flags), 0, -1)
#define WRAP_WRITE                                                             \
	WRAP(ssize_t, write, (int fd, const void *from, size_t n),             \
	     (fd, from, n), fd, -1)
#define WRAP_READ                                                              \
	WRAP(ssize_t, read, (int fd, void *to, size_t n), (fd, to, n), fd, -1)
#define WRAP_PTHREAD_CREATE                                                    \
	WRAP(int, pthread_create,                                              \
	     (pthread_t * thread, const pthread_attr_t *attr,                  \
	      void *(*main)(void *), void *arg),                               \
	     (thread, attr, main, arg), 0, pthread_create_fault.when.error)

#endif
