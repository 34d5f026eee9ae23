/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_FAULTY_H
#define TEST_FAULTY_H

/*
 * Each call of the library's that can fail, and can be made to: for
 * test-faults.c, whose "wrap:" comment has them all.
 */

#include <dirent.h>
#include <liburing.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include "clockjoin.h"
#include "faults.h"
#include "life.h"

WRAP_EVENTFD
WRAP_READ
WRAP_PTHREAD_CREATE
WRAP(int, epoll_create1, (int flags), (flags), 0, -1)
WRAP(int, epoll_ctl, (int epfd, int op, int fd, struct epoll_event *event),
     (epfd, op, fd, event), 0, -1)
WRAP(int, epoll_wait,
     (int fd, struct epoll_event *events, int max, int timeout),
     (fd, events, max, timeout), 0, -1)
WRAP(int, timerfd_create, (int clock, int flags), (clock, flags), 0, -1)
WRAP(int, timerfd_settime,
     (int fd, int flags, const struct itimerspec *value,
      struct itimerspec *old),
     (fd, flags, value, old), 0, -1)
WRAP(int, statx,
     (int fd, const char *path, int flags, unsigned int mask, struct statx *st),
     (fd, path, flags, mask, st), 0, -1)
WRAP(ssize_t, pwritev, (int fd, const struct iovec *iov, int n, off_t at),
     (fd, iov, n, at), 0, -1)
WRAP(int, fdatasync, (int fd), (fd), 0, -1)
WRAP(int, fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n),
     0, -1)
WRAP(ssize_t, preadv2,
     (int fd, const struct iovec *iov, int n, off_t at, int flags),
     (fd, iov, n, at, flags), 0, -1)
WRAP(ssize_t, pwritev2,
     (int fd, const struct iovec *iov, int n, off_t at, int flags),
     (fd, iov, n, at, flags), 0, -1)
WRAP(DIR *, opendir, (const char *path), (path), 0, NULL)
WRAP(struct dirent *, readdir, (DIR * dir), (dir), 0, NULL)

/* Those of liburing answer -errno. */
#define WRAP_URING(name, params, args)                                         \
	WRAP(int, name, params, args, 0, -name##_fault.when.error)
WRAP_URING(io_uring_queue_init_params,
	   (unsigned int n, struct io_uring *ring,
	    struct io_uring_params *params),
	   (n, ring, params))
WRAP_URING(io_uring_ring_dontfork, (struct io_uring * ring), (ring))
WRAP_URING(io_uring_register_files,
	   (struct io_uring * ring, const int *fds, unsigned int n),
	   (ring, fds, n))
WRAP_URING(io_uring_unregister_files, (struct io_uring * ring), (ring))
WRAP_URING(io_uring_register_iowq_max_workers,
	   (struct io_uring * ring, unsigned int *values), (ring, values))
WRAP_URING(io_uring_submit, (struct io_uring * ring), (ring))
WRAP_URING(io_uring_submit_and_wait_timeout,
	   (struct io_uring * ring, struct io_uring_cqe **ret_cqe,
	    unsigned int n, struct __kernel_timespec *ts, sigset_t *mask),
	   (ring, ret_cqe, n, ts, mask))
WRAP_URING(__io_uring_get_cqe,
	   (struct io_uring * ring, struct io_uring_cqe **ret_cqe,
	    unsigned int n_submit, unsigned int n_wait, sigset_t *mask),
	   (ring, ret_cqe, n_submit, n_wait, mask))

WRAP_URING(io_uring_register_buffers_update_tag,
	   (struct io_uring * ring, unsigned int at, const struct iovec *iovs,
	    const __u64 *tags, unsigned int n),
	   (ring, at, iovs, tags, n))

int __real_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);

static struct fault poll_fault;

/* The tests' own waiting has no descriptors. */
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	return n && fault_hits(&poll_fault, fds->fd)
		       ? -1
		       : __real_poll(fds, n, timeout);
}

WRAP(int, pthread_getaffinity_np,
     (pthread_t thread, size_t size, cpu_set_t *set), (thread, size, set), 0,
     pthread_getaffinity_np_fault.when.error)
WRAP(int, pthread_setaffinity_np,
     (pthread_t thread, size_t size, const cpu_set_t *set), (thread, size, set),
     0, pthread_setaffinity_np_fault.when.error)
WRAP(int, pthread_setname_np, (pthread_t thread, const char *name),
     (thread, name), 0, pthread_setname_np_fault.when.error)
WRAP(int, pthread_attr_setstack, (pthread_attr_t * attr, void *at, size_t size),
     (attr, at, size), 0, pthread_attr_setstack_fault.when.error)

/* These may come back for no reason, with 0. */
WRAP(int, pthread_cond_wait, (pthread_cond_t * cond, pthread_mutex_t *lock),
     (cond, lock), 0, 0)
WRAP(int, pthread_cond_timedwait,
     (pthread_cond_t * cond, pthread_mutex_t *lock, const struct timespec *ts),
     (cond, lock, ts), 0, 0)

/* What the test framework does at each assertion that holds: it allocates. */
void __wrap__mark_point(const char *file, int line);

void __wrap__mark_point(const char *file, int line)
{
	(void)file, (void)line;
}

/*
 * Those that are counted, or that fail in a way of their own.
 */

static struct fault malloc_fault, calloc_fault, mmap_fault, munmap_fault,
	open_fault, write_fault, close_fault, fcntl_fault, fstat_fault,
	ioctl_fault, preadv_fault, syscall_fault, sd_journal_sendv_fault,
	pthread_clockjoin_np_fault, io_uring_register_buffers_sparse_fault,
	io_uring_unregister_buffers_fault;

/* What is had just now. */
static _Atomic int allocated, mapped;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void __real_free(void *memory);
void __wrap_free(void *memory);

static void *count_allocated(void *memory)
{
	allocated += memory != NULL;
	return memory;
}

void *__wrap_malloc(size_t size)
{
	if (fault_hits(&malloc_fault, 0))
		return NULL;
	return count_allocated(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
	if (fault_hits(&calloc_fault, 0))
		return NULL;
	return count_allocated(__real_calloc(n, size));
}

void __wrap_free(void *memory)
{
	allocated -= memory != NULL;
	__real_free(memory);
}

void *__real_mmap(void *at, size_t size, int prot, int flags, int fd, off_t o);
void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t o);
int __real_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size);

void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t o)
{
	if (fault_hits(&mmap_fault, 0))
		return MAP_FAILED;
	mapped++;
	return __real_mmap(at, size, prot, flags, fd, o);
}

/* Nobody can do anything about it: the test gives it back. */
int __wrap_munmap(void *at, size_t size)
{
	mapped--;
	__real_munmap(at, size);
	return fault_hits(&munmap_fault, 0) ? -1 : 0;
}

/* Linux has closed it whatever it says. */
int __real_close(int fd);
int __wrap_close(int fd);

int __wrap_close(int fd)
{
	__real_close(fd);
	return fault_hits(&close_fault, fd) ? -1 : 0;
}

ssize_t __real_write(int fd, const void *from, size_t n);
ssize_t __wrap_write(int fd, const void *from, size_t n);

/* EAGAIN is never without reason: the counter is full, thus readable. */
ssize_t __wrap_write(int fd, const void *from, size_t n)
{
	const uint64_t most = UINT64_MAX - 1;
	uint64_t count;

	if (fault_hits(&write_fault, fd)) {
		if (errno != EAGAIN)
			return -1;
		__real_read(fd, &count, sizeof(count));
		__real_write(fd, &most, sizeof(most));
	}
	return __real_write(fd, from, n);
}

ssize_t __real_preadv(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t at);

/* Short where it can be, so that it is asked to go on. */
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t at)
{
	const struct iovec half = { .iov_base = iov->iov_base,
				    .iov_len = iov->iov_len / 2 };

	if (fault_hits(&preadv_fault, fd))
		return -1;
	return half.iov_len >= 512 ? __real_preadv(fd, &half, 1, at)
				   : __real_preadv(fd, iov, n, at);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode = 0;

	va_start(args, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(args, mode_t);
	va_end(args);
	return fault_hits(&open_fault, 0) ? -1 : __real_open(path, flags, mode);
}

int __real_fcntl(int fd, int op, ...);
int __wrap_fcntl(int fd, int op, ...);

int __wrap_fcntl(int fd, int op, ...)
{
	va_list args;
	int arg;

	va_start(args, op);
	arg = op == F_GETFL ? 0 : va_arg(args, int);
	va_end(args);
	return fault_hits(&fcntl_fault, fd) ? -1 : __real_fcntl(fd, op, arg);
}

/* The file passes for a block device, so that its size is asked for too. */
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_fstat(int fd, struct stat *st)
{
	const int r = fault_hits(&fstat_fault, fd) ? -1 : __real_fstat(fd, st);

	if (r == 0)
		st->st_mode = S_IFBLK | 0600;
	return r;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list args;

	if (fault_hits(&ioctl_fault, fd))
		return -1;
	va_start(args, request);
	if (request == BLKGETSIZE64)
		*va_arg(args, uint64_t *) = LIFE_DISK_BYTES;
	else if (request == BLKROGET)
		*va_arg(args, int *) = 0;
	else if (request == BLKDISCARD)
		errno = EINVAL; /* it could, in another place */
	else if (request == BLKSSZGET)
		*va_arg(args, int *) =
			__real_fcntl(fd, F_GETFL) & O_DIRECT ? 4096 : 512;
	else if (request == BLKPBSZGET || request == BLKIOMIN ||
		 request == BLKIOOPT || request == BLKALIGNOFF)
		*va_arg(args, int *) = 512;
	else
		ck_abort_msg("ioctl %#lx", request);
	va_end(args);
	return request == BLKDISCARD ? -1 : 0;
}

long __real_syscall(long nr, ...);
long __wrap_syscall(long nr, ...);

/* A wait on a futex may end for any reason; a wake cannot fail. */
long __wrap_syscall(long nr, ...)
{
	va_list args;
	long arg[6];

	va_start(args, nr);
	for (size_t i = 0; i < ARRAY_SIZE(arg); i++)
		arg[i] = va_arg(args, long);
	va_end(args);
	ck_assert_int_eq(nr, FUTEX_NR);
	if ((int)arg[1] == FUTEX_WAIT_BITSET_PRIVATE &&
	    fault_hits(&syscall_fault, 0))
		return -1;
	return __real_syscall(nr, arg[0], arg[1], arg[2], arg[3], arg[4],
			      arg[5]);
}

int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *ts)
{
	if (fault_hits(&pthread_clockjoin_np_fault, 0))
		return pthread_clockjoin_np_fault.when.error;
	return real_clockjoin(thread, ret, clock, ts);
}

/* Is there a table of registered buffers? There is one ring of a device. */
static _Atomic bool has_table;

int __real_io_uring_register_buffers_sparse(struct io_uring *ring,
					    unsigned int n);
int __wrap_io_uring_register_buffers_sparse(struct io_uring *ring,
					    unsigned int n);
int __real_io_uring_unregister_buffers(struct io_uring *ring);
int __wrap_io_uring_unregister_buffers(struct io_uring *ring);
void __real_io_uring_queue_exit(struct io_uring *ring);
void __wrap_io_uring_queue_exit(struct io_uring *ring);

int __wrap_io_uring_register_buffers_sparse(struct io_uring *ring,
					    unsigned int n)
{
	int r;

	if (fault_hits(&io_uring_register_buffers_sparse_fault, 0))
		return -io_uring_register_buffers_sparse_fault.when.error;
	r = __real_io_uring_register_buffers_sparse(ring, n);
	has_table |= r == 0;
	return r;
}

int __wrap_io_uring_unregister_buffers(struct io_uring *ring)
{
	int r;

	if (fault_hits(&io_uring_unregister_buffers_fault, 0))
		return -io_uring_unregister_buffers_fault.when.error;
	r = __real_io_uring_unregister_buffers(ring);
	has_table &= r != 0;
	return r;
}

void __wrap_io_uring_queue_exit(struct io_uring *ring)
{
	has_table = false;
	__real_io_uring_queue_exit(ring);
}

int __wrap_sd_journal_sendv(const struct iovec *iov, int n);

int __wrap_sd_journal_sendv(const struct iovec *iov, int n)
{
	(void)iov, (void)n;
	return fault_hits(&sd_journal_sendv_fault, 0)
		       ? -sd_journal_sendv_fault.when.error
		       : 0;
}

#endif
