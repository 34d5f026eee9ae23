/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_CLOCKJOIN_H
#define TEST_CLOCKJOIN_H

/*
 * For a program that wraps pthread_clockjoin_np: the call behind the wrapper,
 * also in the thread sanitizer's build, which has another in its place: see
 * tsan-clockjoin.c.
 */

#include <pthread.h>
#include <time.h>

int __real_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until);
int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until);
__attribute__((weak)) int tsan_clockjoin(pthread_t thread, void **ret,
					 clockid_t clock,
					 const struct timespec *until);

static inline int real_clockjoin(pthread_t thread, void **ret, clockid_t clock,
				 const struct timespec *until)
{
	return (tsan_clockjoin ? tsan_clockjoin : __real_pthread_clockjoin_np)(
		thread, ret, clock, until);
}

#endif
