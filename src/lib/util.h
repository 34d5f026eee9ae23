/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_UTIL_H
#define KTVBLK_UTIL_H

/* Small tools: errno, time, futex, scopes. */

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NSEC_PER_SEC UINT64_C(1000000000)
#define NSEC_PER_MSEC UINT64_C(1000000)

/* A disk and a clock reach beyond 32 bits on a 32-bit machine too. */
_Static_assert(sizeof(off_t) == 8 && sizeof(time_t) == 8,
	       "-D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64");

/* The futex system call that takes this time_t. */
#ifdef SYS_futex_time64
#define FUTEX_NR SYS_futex_time64
#else
#define FUTEX_NR SYS_futex
#endif

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member)                                        \
	((type *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static inline uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* The same time at the last tick, so up to 10 ms ago; much cheaper. */
static inline uint64_t tick_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

static inline struct timespec ns_to_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NSEC_PER_SEC),
				  .tv_nsec = (long)(ns % NSEC_PER_SEC) };
}

/*
 * Wait while *word is expected, until deadline_ns (0: for ever). Comes back for
 * any reason: the caller looks again.
 */
static inline void futex_wait(_Atomic uint32_t *word, uint32_t expected,
			      uint64_t deadline_ns)
{
	struct timespec ts = ns_to_timespec(deadline_ns);

	syscall(FUTEX_NR, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
		deadline_ns ? &ts : NULL, NULL, FUTEX_BITSET_MATCH_ANY);
}

static inline void futex_wake(_Atomic uint32_t *word, int n)
{
	syscall(FUTEX_NR, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* In a loop that waits for another CPU. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static inline void mutex_unlockp(pthread_mutex_t **mutex)
{
	pthread_mutex_unlock(*mutex);
}

/* Hold a mutex to the end of the enclosing scope. */
#define SCOPED_LOCK(mutex)                                                     \
	__attribute__((cleanup(mutex_unlockp), unused))                        \
	pthread_mutex_t *scoped_lock_ = (pthread_mutex_lock(mutex), (mutex))

static inline void cancel_restorep(const int *state)
{
	pthread_setcancelstate(*state, NULL);
}

static inline int cancel_disable(void)
{
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	return state;
}

/*
 * No cancellation to the end of the enclosing scope: C without exceptions does
 * not unlock or free on the way out.
 */
#define SCOPED_NO_CANCEL()                                                     \
	__attribute__((cleanup(cancel_restorep), unused))                      \
	const int scoped_cancel_ = cancel_disable()

static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* Add 1 to an eventfd: 0 or -errno. -EAGAIN: it is full, thus readable. */
static inline int eventfd_signal(int fd)
{
	const uint64_t one = 1;

	return write(fd, &one, sizeof(one)) < 0 ? -errno : 0;
}

/* Take all of an eventfd or timerfd: 0, or -errno; empty is no error. */
static inline int eventfd_drain(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	return 0;
}

/*
 * With RWF_NOWAIT: by the kernel, the file or a seccomp filter (EPERM), whatever
 * the next one asks for.
 */
static inline bool nowait_is_refused(int error)
{
	return error == EOPNOTSUPP || error == ENOSYS || error == EPERM;
}

/* Take the reference counts the same way everywhere. */
static inline void refs_get(_Atomic unsigned int *refs)
{
	atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

/* True for the last one, which sees all that the others did. */
static inline bool refs_put(_Atomic unsigned int *refs)
{
	return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

/* Drop a reference unless it is the last one: true if it was dropped. */
static inline bool refs_put_not_last(_Atomic unsigned int *refs)
{
	unsigned int n = atomic_load_explicit(refs, memory_order_relaxed);

	while (n > 1)
		if (atomic_compare_exchange_weak_explicit(refs, &n, n - 1,
							  memory_order_release,
							  memory_order_relaxed))
			return true;
	return false;
}

#endif
