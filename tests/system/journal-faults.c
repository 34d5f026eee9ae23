/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* System calls of the library, and two functions, that fail when told to. */

#include <errno.h>
#include <liburing.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "journal-events.h"
#include "throttle.h"
#include "util.h"
#include "watch.h"

struct faults faults;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg);
int __real_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until);
int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until);
int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
ssize_t __real_read(int fd, void *buf, size_t n);
ssize_t __wrap_read(int fd, void *buf, size_t n);
int __real_timerfd_settime(int fd, int flags, const struct itimerspec *when,
			   struct itimerspec *old);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *when,
			   struct itimerspec *old);
int __real_io_uring_queue_init_params(unsigned int n, struct io_uring *ring,
				      struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned int n, struct io_uring *ring,
				      struct io_uring_params *params);
struct throttle_verdict __real_throttle_take(struct throttle *throttle,
					     uint64_t bytes, uint64_t now);
struct throttle_verdict __wrap_throttle_take(struct throttle *throttle,
					     uint64_t bytes, uint64_t now);

static int fails_with(int error)
{
	errno = error;
	return -1;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg)
{
	return faults.no_threads
		       ? EAGAIN
		       : __real_pthread_create(thread, attr, body, arg);
}

int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until)
{
	return faults.no_join
		       ? EINVAL
		       : __real_pthread_clockjoin_np(thread, ret, clock, until);
}

int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
	const int n = faults.epoll_fails
			      ? fails_with(EIO)
			      : __real_epoll_wait(fd, events, max, timeout);
	uint32_t token;

	if (n < 1)
		return n;
	events[0].events |= atomic_exchange(&faults.epoll_adds, 0);
	token = atomic_exchange(&faults.epoll_token, 0);
	if (token)
		events[0].data.u32 = token;
	return n;
}

ssize_t __wrap_read(int fd, void *buf, size_t n)
{
	if (n == sizeof(uint64_t) && faults.read_fails)
		return fails_with(EIO);
	return __real_read(fd, buf, n);
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *when,
			   struct itimerspec *old)
{
	return faults.timer_fails
		       ? fails_with(EINVAL)
		       : __real_timerfd_settime(fd, flags, when, old);
}

int __wrap_io_uring_queue_init_params(unsigned int n, struct io_uring *ring,
				      struct io_uring_params *params)
{
	return faults.no_ring
		       ? -EPERM
		       : __real_io_uring_queue_init_params(n, ring, params);
}

struct throttle_verdict __wrap_throttle_take(struct throttle *throttle,
					     uint64_t bytes, uint64_t now)
{
	if (atomic_exchange(&faults.no_tokens, false))
		return (struct throttle_verdict){ .ops_ok = true };
	return __real_throttle_take(throttle, bytes, now);
}
