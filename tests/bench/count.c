/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See count.h. A thread writes its own entry only, and without atomic
 * read-modify-write; who reads another's entry gets each figure whole.
 */

#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "count.h"
#include "measure.h"

#define THREADS_MAX 16384

static struct entry {
	uint64_t syscalls;
	uint64_t allocations;
	uint64_t threads;
	uint32_t waits;
	_Atomic pid_t tid;
} entries[THREADS_MAX];
static unsigned int n_entries;
static _Thread_local struct entry *mine;

static struct entry *register_thread(void)
{
	const unsigned int i =
		__atomic_fetch_add(&n_entries, 1, __ATOMIC_RELAXED);

	mine = &entries[i < THREADS_MAX ? i : THREADS_MAX - 1];
	mine->tid = gettid();
	return mine;
}

static inline void bump(uint64_t *count)
{
	__atomic_store_n(count, __atomic_load_n(count, __ATOMIC_RELAXED) + 1,
			 __ATOMIC_RELAXED);
}

static inline struct entry *own(void)
{
	return mine ? mine : register_thread();
}

static inline void count_syscall(void)
{
	bump(&own()->syscalls);
}

static inline void count_allocation(void)
{
	bump(&own()->allocations);
}

struct counts counts_of(pid_t tid)
{
	/* The last one: the kernel gives a number to another thread later. */
	for (unsigned int i = __atomic_load_n(&n_entries, __ATOMIC_RELAXED); i;
	     i--) {
		const struct entry *e = &entries[i - 1];
		struct counts counts;

		if (i > THREADS_MAX || e->tid != tid)
			continue;
		/* Acquire: who waits has counted all that came before. */
		counts.waits = __atomic_load_n(&e->waits, __ATOMIC_ACQUIRE);
		counts.syscalls =
			__atomic_load_n(&e->syscalls, __ATOMIC_RELAXED);
		counts.allocations =
			__atomic_load_n(&e->allocations, __ATOMIC_RELAXED);
		counts.threads = __atomic_load_n(&e->threads, __ATOMIC_RELAXED);
		return counts;
	}
	return (struct counts){ 0 };
}

uint64_t threads_started(void)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < THREADS_MAX; i++)
		n += __atomic_load_n(&entries[i].threads, __ATOMIC_RELAXED);
	return n;
}

/*
 * System calls. RESULT name((parameters), (arguments))
 */
#define VISIBLE __attribute__((visibility("default")))
#define WRAP(result, name, parameters, arguments)                              \
	static __typeof__(&name) real_##name;                                  \
	VISIBLE result name parameters                                         \
	{                                                                      \
		count_syscall();                                               \
		return real_##name arguments;                                  \
	}

WRAP(ssize_t, read, (int fd, void *data, size_t n), (fd, data, n))
WRAP(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n))
WRAP(ssize_t, pread, (int fd, void *data, size_t n, off_t at),
     (fd, data, n, at))
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t n, off_t at),
     (fd, data, n, at))
WRAP(ssize_t, preadv, (int fd, const struct iovec *iov, int n, off_t at),
     (fd, iov, n, at))
WRAP(ssize_t, pwritev, (int fd, const struct iovec *iov, int n, off_t at),
     (fd, iov, n, at))
WRAP(ssize_t, preadv2,
     (int fd, const struct iovec *iov, int n, off_t at, int flags),
     (fd, iov, n, at, flags))
WRAP(ssize_t, pwritev2,
     (int fd, const struct iovec *iov, int n, off_t at, int flags),
     (fd, iov, n, at, flags))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, poll, (struct pollfd * fds, nfds_t n, int ms), (fds, n, ms))
WRAP(int, timerfd_settime,
     (int fd, int flags, const struct itimerspec *when, struct itimerspec *old),
     (fd, flags, when, old))
WRAP(int, madvise, (void *addr, size_t n, int advice), (addr, n, advice))
WRAP(int, sched_yield, (void), ())

static __typeof__(&epoll_wait) real_epoll_wait;

VISIBLE int epoll_wait(int fd, struct epoll_event *events, int n, int ms)
{
	struct entry *entry = own();
	int r;

	bump(&entry->syscalls);
	__atomic_store_n(&entry->waits, 1, __ATOMIC_RELEASE);
	r = real_epoll_wait(fd, events, n, ms);
	__atomic_store_n(&entry->waits, 0, __ATOMIC_RELAXED);
	return r;
}

static __typeof__(&pthread_create) real_pthread_create;

VISIBLE int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			   void *(*start)(void *), void *arg)
{
	bump(&own()->threads);
	return real_pthread_create(thread, attr, start, arg);
}

static long (*real_syscall)(long number, ...);

/* Six words are passed whatever the call takes: it looks at its own. */
VISIBLE long syscall(long number, ...)
{
	long words[6];
	va_list args;

	count_syscall();
	va_start(args, number);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = va_arg(args, long);
	va_end(args);
	return real_syscall(number, words[0], words[1], words[2], words[3],
			    words[4], words[5]);
}

/*
 * liburing enters the kernel by instructions of its own, and only if it must:
 * something is to go out, something is kept back by the kernel, or it is to wait
 * and has nothing.
 */
static bool is_kept_back(const struct io_uring *ring)
{
	return __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED) &
	       (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
}

static bool goes_out(const struct io_uring *ring)
{
	return io_uring_sq_ready(ring) || is_kept_back(ring);
}

static bool must_wait(const struct io_uring *ring, unsigned int n)
{
	return io_uring_cq_ready(ring) < n;
}

/* Its functions call each other by way of us. */
static _Thread_local bool in_liburing;

#define WRAP_RING(enters, name, parameters, arguments)                         \
	static __typeof__(&name) real_##name;                                  \
	VISIBLE int name parameters                                            \
	{                                                                      \
		const bool outermost = !in_liburing;                           \
		int r;                                                         \
                                                                               \
		if (outermost && (enters))                                     \
			count_syscall();                                       \
		in_liburing = true;                                            \
		r = real_##name arguments;                                     \
		in_liburing = !outermost;                                      \
		return r;                                                      \
	}

WRAP_RING(goes_out(ring), io_uring_submit, (struct io_uring * ring), (ring))
WRAP_RING(n || goes_out(ring), io_uring_submit_and_wait,
	  (struct io_uring * ring, unsigned int n), (ring, n))
WRAP_RING(goes_out(ring) || must_wait(ring, n),
	  io_uring_submit_and_wait_timeout,
	  (struct io_uring * ring, struct io_uring_cqe **cqe, unsigned int n,
	   struct __kernel_timespec *time, sigset_t *mask),
	  (ring, cqe, n, time, mask))
WRAP_RING(to_submit || is_kept_back(ring) || must_wait(ring, n),
	  __io_uring_get_cqe,
	  (struct io_uring * ring, struct io_uring_cqe **cqe,
	   unsigned int to_submit, unsigned int n, sigset_t *mask),
	  (ring, cqe, to_submit, n, mask))

#define RESOLVE(name)                                                          \
	do {                                                                   \
		void *symbol = dlsym(RTLD_NEXT, #name);                        \
		__builtin_memcpy(&real_##name, &symbol, sizeof(symbol));       \
	} while (0)

__attribute__((constructor)) static void resolve(void)
{
	RESOLVE(read);
	RESOLVE(write);
	RESOLVE(pread);
	RESOLVE(pwrite);
	RESOLVE(preadv);
	RESOLVE(pwritev);
	RESOLVE(preadv2);
	RESOLVE(pwritev2);
	RESOLVE(fdatasync);
	RESOLVE(epoll_wait);
	RESOLVE(pthread_create);
	RESOLVE(poll);
	RESOLVE(timerfd_settime);
	RESOLVE(madvise);
	RESOLVE(sched_yield);
	RESOLVE(syscall);
	RESOLVE(io_uring_submit);
	RESOLVE(io_uring_submit_and_wait);
	RESOLVE(io_uring_submit_and_wait_timeout);
	RESOLVE(__io_uring_get_cqe);
}

/* The heap: glibc's own names for what is behind these. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

VISIBLE void *malloc(size_t size)
{
	count_allocation();
	return __libc_malloc(size);
}

VISIBLE void *calloc(size_t n, size_t size)
{
	count_allocation();
	return __libc_calloc(n, size);
}

VISIBLE void *realloc(void *old, size_t size)
{
	count_allocation();
	return __libc_realloc(old, size);
}

VISIBLE void *aligned_alloc(size_t alignment, size_t size)
{
	count_allocation();
	return __libc_memalign(alignment, size);
}

VISIBLE int posix_memalign(void **ret, size_t alignment, size_t size)
{
	void *block;

	count_allocation();
	block = __libc_memalign(alignment, size);
	if (!block)
		return ENOMEM;
	*ret = block;
	return 0;
}
