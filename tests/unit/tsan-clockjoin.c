/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ThreadSanitizer of gcc 12 and clang 14 does not know
 * pthread_clockjoin_np(): it would take what the joined thread did before its
 * end for a race. It knows pthread_timedjoin_np(), whose clock is another.
 * Linked, by --wrap, into the thread sanitizer's build only.
 */
#include <pthread.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000LL

int tsan_clockjoin(pthread_t thread, void **ret, clockid_t clock,
		   const struct timespec *abstime);

int tsan_clockjoin(pthread_t thread, void **ret, clockid_t clock,
		   const struct timespec *abstime)
{
	struct timespec now, real;
	long long ns;

	if (!abstime)
		return pthread_join(thread, ret);

	clock_gettime(clock, &now);
	clock_gettime(CLOCK_REALTIME, &real);
	ns = (abstime->tv_sec - now.tv_sec) * NSEC_PER_SEC +
	     (abstime->tv_nsec - now.tv_nsec) + real.tv_nsec;
	/* Rounded down also where the deadline has passed. */
	real.tv_sec += ns / NSEC_PER_SEC - (ns % NSEC_PER_SEC < 0);
	real.tv_nsec =
		(long)((ns % NSEC_PER_SEC + NSEC_PER_SEC) % NSEC_PER_SEC);
	return pthread_timedjoin_np(thread, ret, &real);
}

/* Weak: a test may have a __wrap_pthread_clockjoin_np() of its own. */
__attribute__((weak)) int
__wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
			    const struct timespec *abstime);

int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *abstime)
{
	return tsan_clockjoin(thread, ret, clock, abstime);
}

/*
 * Nor does it see liburing map and unmap a ring, by system calls of its own: one
 * that comes to lie where another thread's was would be a race with it. Weak, as
 * above.
 */
__attribute__((weak, visibility("default"))) const char *
__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
	return "race:io_uring_\n"
	       "race:^ring_reap$\n"
	       "race:^ring_take_back$\n"
	       "race:^next_cqe$\n";
}
