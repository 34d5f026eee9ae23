/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Transfers of a file: their bytes, whatever way they go; which way that is, and
 * that it changes when the storage does; and storage that does not answer, which
 * holds up nothing but itself.
 */

/* wrap: preadv preadv2 pwritev pwritev2 clock_gettime fcntl */

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "bounds.h"
#include "faults.h"
#include "page.h"
#include "transfers.h"

#define DEPTH 32u
#define BLOCK 4096u

/*
 * Calls that are counted and may fail, and a clock that the storage moves
 */

static bool clock_stands;
static uint64_t clock_at_ns;
static uint64_t call_takes_ns; /* by that clock, any preadv() */
static unsigned int answer_bytes; /* of preadv2(), at most; 0: as usual */

int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	if (!clock_stands)
		return __real_clock_gettime(clock, ts);
	*ts = ns_to_timespec(clock_at_ns);
	return 0;
}

ssize_t __real_preadv(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t offset);

static unsigned int n_preadv;

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t offset)
{
	n_preadv++;
	clock_at_ns += call_takes_ns;
	return __real_preadv(fd, iov, n, offset);
}

ssize_t __real_preadv2(int fd, const struct iovec *iov, int n, off_t offset,
		       int flags);
ssize_t __wrap_preadv2(int fd, const struct iovec *iov, int n, off_t offset,
		       int flags);

static struct fault preadv2_fault;

ssize_t __wrap_preadv2(int fd, const struct iovec *iov, int n, off_t offset,
		       int flags)
{
	struct iovec first = { iov->iov_base, answer_bytes };

	ck_assert_int_eq(flags, RWF_NOWAIT);
	if (fault_hits(&preadv2_fault, fd))
		return -1;
	return answer_bytes ? __real_preadv(fd, &first, 1, offset)
			    : __real_preadv2(fd, iov, n, offset, flags);
}

WRAP(ssize_t, pwritev, (int fd, const struct iovec *iov, int n, off_t offset),
     (fd, iov, n, offset), fd, -1)
WRAP(ssize_t, pwritev2,
     (int fd, const struct iovec *iov, int n, off_t offset, int flags),
     (fd, iov, n, offset, flags), fd, -1)

/* As if O_DIRECT had been asked for, or as it is. */
static int more_flags;

int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);

int __wrap_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return cmd == F_GETFL ? __real_fcntl(fd, cmd) | more_flags
			      : __real_fcntl(fd, cmd, arg);
}

/* All as it is at first, and an engine on a disk in memory. */
static struct rigged fresh(unsigned int n, bool all)
{
	answer_bytes = 0;
	n_preadv = 0;
	fault_clear(&preadv2_fault);
	atomic_store(&preadv2_fault.calls, 0);
	fault_clear(&pwritev2_fault);
	atomic_store(&pwritev2_fault.calls, 0);
	return rigged_new(image_open(DISK_MEMORY), n, all);
}

/*
 * Bytes
 */

/* n of them, all that may be out at a time. */
static void run_many(struct rigged *rigged, enum ktvblk_io_op op, uint64_t from,
		     int n_iov)
{
	struct job *jobs[DEPTH];

	for (unsigned int i = 0; i < DEPTH; i++) {
		jobs[i] = job_new(op, from + i * 8192, 8192, n_iov);
		job_begin(rigged, jobs[i]);
	}
	jobs_wait(rigged);
	for (unsigned int i = 0; i < DEPTH; i++) {
		job_check(rigged, jobs[i]);
		job_free(jobs[i]);
	}
}

static void check_bytes(enum disk_kind kind, bool all)
{
	const int fd = image_open(kind);
	struct rigged rigged;
	struct job *flush;

	if (fd < 0)
		return;
	rigged = rigged_new(fd, DEPTH, all);
	/* Until plain calls are trusted, and behind that. */
	for (unsigned int i = 0; i < 2 + PACE_TRUST / DEPTH; i++)
		for (int n_iov = 1; n_iov <= 2; n_iov++)
			run_many(&rigged, KTVBLK_IO_READ, 0, n_iov);
	for (int n_iov = 1; n_iov <= 2; n_iov++)
		run_many(&rigged, KTVBLK_IO_WRITE,
			 DISK_BYTES / 4 * (uint64_t)n_iov, n_iov);
	flush = job_new(KTVBLK_IO_FLUSH, 0, 0, 0);
	ck_assert_int_eq(job_run(&rigged, flush), 0);
	job_free(flush);
	rigged_end(&rigged);
}

START_TEST(bytes_are_moved_any_way_and_in_any_pieces)
{
	for (enum disk_kind kind = 0; kind < DISK_KINDS; kind++) {
		check_bytes(kind, false);
		check_bytes(kind, true);
	}
}
END_TEST

static void check_errors(bool all)
{
	struct rigged rigged = fresh(1, all);
	struct job *behind = job_new(KTVBLK_IO_READ, DISK_BYTES, BLOCK, 1);
	struct job *over = job_new(KTVBLK_IO_READ, DISK_BYTES - 512, BLOCK, 1);
	struct job *nowhere = job_new(KTVBLK_IO_WRITE, 0, BLOCK, 1);
	struct job *unknown = job_new(KTVBLK_IO_WRITE_ZEROES + 1, 0, BLOCK, 1);

	ck_assert_int_eq(job_run(&rigged, behind), 0);
	ck_assert_int_eq(job_run(&rigged, over), 512);
	ck_assert_int_eq(job_run(&rigged, unknown), -EOPNOTSUPP);
	nowhere->transfer.io.offset = (uint64_t)INT64_MAX + 1;
	ck_assert_int_eq(job_run(&rigged, nowhere), -EINVAL);
	job_free(behind);
	job_free(over);
	job_free(nowhere);
	job_free(unknown);
	rigged_end(&rigged);
}

START_TEST(errors_are_those_of_the_call)
{
	check_errors(false);
	check_errors(true);
}
END_TEST

/* More than it was made for: they are done all the same. */
START_TEST(what_has_no_place_in_the_ring_is_called)
{
	struct rigged rigged = fresh(2, true);
	struct job *jobs[4];

	n_preadv = 0;
	for (unsigned int i = 0; i < ARRAY_SIZE(jobs); i++) {
		jobs[i] = job_new(KTVBLK_IO_READ, i * BLOCK, BLOCK, 1);
		ck_assert(job_begin(&rigged, jobs[i]) == (i >= 2));
	}
	ck_assert_uint_eq(n_preadv, 2);
	jobs_wait(&rigged);
	for (unsigned int i = 0; i < ARRAY_SIZE(jobs); i++) {
		job_check(&rigged, jobs[i]);
		job_free(jobs[i]);
	}
	rigged_end(&rigged);
}
END_TEST

/*
 * Which way
 */

/* A job that is begun and ended; was that by a call? */
static bool run_by_call(struct rigged *rigged, enum ktvblk_io_op op)
{
	const bool has_data = op != KTVBLK_IO_FLUSH;
	const uint64_t at = op == KTVBLK_IO_WRITE ? DISK_BYTES / 2 : BLOCK;
	struct job *job = job_new(op, at, has_data ? BLOCK : 0, has_data);
	const bool ended = job_begin(rigged, job);

	jobs_wait(rigged);
	if (has_data)
		job_check(rigged, job);
	else
		ck_assert_int_eq(job->transfer.result, 0);
	job_free(job);
	return ended;
}

/* As where the file has what it takes, whatever it has here. */
START_TEST(what_does_not_wait_is_called_and_what_would_goes_to_the_ring)
{
	struct rigged rigged = fresh(4, false);

	answer_bytes = BLOCK;
	for (int i = 0; i < 3; i++)
		ck_assert(run_by_call(&rigged, KTVBLK_IO_READ));
	for (int i = 0; i < 3; i++) {
		fault_set(&preadv2_fault,
			  &(struct fault_when){ .error = EAGAIN });
		ck_assert(!run_by_call(&rigged, KTVBLK_IO_READ));
		ck_assert(run_by_call(&rigged, KTVBLK_IO_READ));
	}
	ck_assert_uint_eq(atomic_load(&preadv2_fault.calls), 9);
	rigged_end(&rigged);
}
END_TEST

/* One system call for all, once it is known that the file has what it takes. */
START_TEST(many_at_once_that_do_not_wait_go_to_the_ring)
{
	struct rigged rigged = fresh(4, false);
	struct job *jobs[4];

	answer_bytes = BLOCK;
	for (unsigned int i = 0; i < ARRAY_SIZE(jobs); i++) {
		jobs[i] = job_new(KTVBLK_IO_READ, i * BLOCK, BLOCK, 1);
		rigged.engine->more = i + 1 < ARRAY_SIZE(jobs);
		ck_assert(job_begin(&rigged, jobs[i]) == (i == 0));
	}
	jobs_wait(&rigged);
	for (unsigned int i = 0; i < ARRAY_SIZE(jobs); i++) {
		job_check(&rigged, jobs[i]);
		job_free(jobs[i]);
	}
	ck_assert(run_by_call(&rigged, KTVBLK_IO_READ));
	rigged_end(&rigged);
}
END_TEST

START_TEST(a_short_answer_is_handed_on_and_the_rest_finds_its_own_way)
{
	struct rigged rigged = fresh(4, false);
	struct job *job = job_new(KTVBLK_IO_READ, 0, 2 * BLOCK, 1);

	answer_bytes = BLOCK;
	ck_assert(job_begin(&rigged, job));
	ck_assert_int_eq(job->transfer.result, BLOCK);
	fault_set(&preadv2_fault, &(struct fault_when){ .error = EAGAIN });
	job->transfer.io.offset = BLOCK;
	job->transfer.io.length = job->iov[0].iov_len = BLOCK;
	job_is_the_last(&rigged, job);
}
END_TEST

START_TEST(other_errors_of_a_call_that_does_not_wait_are_the_answer)
{
	struct rigged rigged = fresh(4, false);
	struct job *job = job_new(KTVBLK_IO_READ, 0, BLOCK, 1);

	fault_set(&preadv2_fault, &(struct fault_when){ .error = EIO });
	ck_assert(job_begin(&rigged, job));
	ck_assert_int_eq(job->transfer.result, -EIO);
	job_free(job);
	rigged_end(&rigged);
}
END_TEST

START_TEST(a_call_that_is_refused_is_tried_once_for_reads_and_once_for_writes)
{
	static const int refusals[] = { EOPNOTSUPP, ENOSYS, EPERM };

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		const struct fault_when when = { .error = refusals[i] };
		struct rigged rigged = fresh(4, false);

		fault_set(&preadv2_fault, &when);
		fault_set(&pwritev2_fault, &when);
		for (int k = 0; k < 4; k++) {
			ck_assert(!run_by_call(&rigged, KTVBLK_IO_READ));
			ck_assert(!run_by_call(&rigged, KTVBLK_IO_WRITE));
		}
		ck_assert_uint_eq(atomic_load(&preadv2_fault.calls), 1);
		ck_assert_uint_eq(atomic_load(&pwritev2_fault.calls), 1);
		rigged_end(&rigged);
	}
}
END_TEST

START_TEST(direct_files_and_flushes_always_go_to_the_ring)
{
	struct rigged rigged;

	more_flags = O_DIRECT;
	rigged = fresh(4, false);
	for (unsigned int i = 0; i < 4 * PACE_TRUST; i++) {
		ck_assert(!run_by_call(&rigged, KTVBLK_IO_READ));
		ck_assert(!run_by_call(&rigged, KTVBLK_IO_FLUSH));
	}
	ck_assert_uint_eq(atomic_load(&preadv2_fault.calls), 0);
	rigged_end(&rigged);
	more_flags = 0;
	rigged = fresh(4, false);
	for (unsigned int i = 0; i < 4 * PACE_TRUST; i++)
		ck_assert(!run_by_call(&rigged, KTVBLK_IO_FLUSH));
	rigged_end(&rigged);
}
END_TEST

START_TEST(all_goes_to_the_ring_when_that_is_asked_for)
{
	struct rigged rigged = fresh(4, true);

	for (unsigned int i = 0; i < 4 * PACE_TRUST; i++)
		ck_assert(!run_by_call(&rigged, KTVBLK_IO_READ));
	ck_assert_uint_eq(atomic_load(&preadv2_fault.calls), 0);
	rigged_end(&rigged);
}
END_TEST

/* How many go through the ring before calls are trusted. */
static unsigned int ring_until_call(struct rigged *rigged)
{
	unsigned int n = 0;

	while (!run_by_call(rigged, KTVBLK_IO_READ))
		ck_assert_uint_le(++n, PACE_TRUST << PACE_BACKOFF_MAX);
	return n;
}

/* By a clock that only the storage moves. */
START_TEST(storage_that_becomes_slow_goes_to_the_ring_and_comes_back)
{
	struct rigged rigged = fresh(4, false);

	clock_at_ns = now_ns();
	clock_stands = true;
	ck_assert_uint_eq(ring_until_call(&rigged), PACE_TRUST);
	for (int i = 0; i < 1000; i++)
		ck_assert(run_by_call(&rigged, KTVBLK_IO_READ));
	for (unsigned int i = 1; i <= 3; i++) {
		call_takes_ns = NSEC_PER_SEC;
		ck_assert(run_by_call(&rigged, KTVBLK_IO_READ));
		ck_assert(!run_by_call(&rigged, KTVBLK_IO_READ));
		call_takes_ns = 0;
		ck_assert_uint_eq(ring_until_call(&rigged),
				  (PACE_TRUST << i) - 1);
	}
	clock_stands = false;
	rigged_end(&rigged);
}
END_TEST

/* What a file of this machine has: it is found out. */
START_TEST(what_is_cached_is_read_by_a_call)
{
	const int fd = image_open(DISK_FILE);
	struct iovec iov;
	struct rigged rigged;
	char byte;

	if (fd < 0)
		return;
	iov = (struct iovec){ &byte, 1 };
	if (__real_preadv2(fd, &iov, 1, 0, RWF_NOWAIT) != 1) {
		close(fd);
		return;
	}
	rigged = rigged_new(fd, 4, false);
	for (int i = 0; i < 100; i++)
		ck_assert(run_by_call(&rigged, KTVBLK_IO_READ));
	rigged_end(&rigged);
}
END_TEST

/*
 * Storage that does not answer
 */

/* A read of a socket hangs until the other end writes, a write does not. */
static void check_hanging(int n_iov)
{
	struct rigged rigged;
	struct job *hangs = job_new(KTVBLK_IO_READ, 0, BLOCK, n_iov);
	struct job *healthy = job_new(KTVBLK_IO_WRITE, 0, 512, n_iov);
	unsigned char bytes[BLOCK];
	int sockets[2];

	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	rigged = rigged_on_socket(sockets[0], 2);
	ck_assert(!job_begin(&rigged, hangs));
	rigged.engine->ops->push(rigged.engine);
	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(job_run(&rigged, healthy), 512);
		ck_assert_int_eq(read(sockets[1], bytes, 512), 512);
		ck_assert_mem_eq(bytes, healthy->buffer, 512);
		ck_assert(hangs->is_out);
	}
	ck_assert_int_eq(rigged.engine->ops->wait(rigged.engine, -1, 1), 0);
	ck_assert(hangs->is_out);
	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = disk_byte(i);
	ck_assert_int_eq(write(sockets[1], bytes, sizeof(bytes)),
			 sizeof(bytes));
	ck_assert_ptr_eq(job_wait(&rigged), hangs);
	job_check(&rigged, hangs);
	job_free(hangs);
	job_free(healthy);
	rigged_end(&rigged);
	close(sockets[1]);
}

START_TEST(one_that_hangs_holds_up_no_other_and_ends_when_it_is_let_go)
{
	check_hanging(1);
	check_hanging(2);
}
END_TEST

/* The thread of the kernel's that carries it is stuck, and not we. */
START_TEST(a_kernel_thread_that_is_stuck_is_not_waited_for)
{
	struct rigged rigged = fresh(2, false);
	struct job *hangs = job_new(KTVBLK_IO_READ, 0, BLOCK, 1);
	struct job *healthy = job_new(KTVBLK_IO_READ, BLOCK, BLOCK, 1);
	const unsigned char bytes[BLOCK] = { 0 };
	struct page page;

	if (page_block(&page, hangs->buffer)) {
		ck_assert(!job_begin(&rigged, hangs));
		rigged.engine->ops->push(rigged.engine);
		page_wait(&page);
		for (unsigned int i = 0; i < 4 * PACE_TRUST; i++) {
			ck_assert_int_eq(job_run(&rigged, healthy), BLOCK);
			job_check(&rigged, healthy);
			ck_assert(hangs->is_out);
		}
		/* Known to hang: none was done by a call. */
		ck_assert_uint_eq(n_preadv, 0);
		page_bring(&page, bytes);
		ck_assert_ptr_eq(job_wait(&rigged), hangs);
		job_check(&rigged, hangs);
	}
	job_free(hangs);
	job_free(healthy);
	rigged_end(&rigged);
}
END_TEST

/*
 * Nothing is left
 */

START_TEST(behind_close_nobody_has_the_file_open)
{
	const int fd = image_open(DISK_FILE);
	unsigned int n_fds;
	struct rigged rigged;
	char path[64];
	int other;

	if (fd < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_RDWR | O_CLOEXEC);
	n_fds = count_fds();
	rigged = rigged_new(fd, DEPTH, true);
	run_many(&rigged, KTVBLK_IO_READ, 0, 1);
	run_many(&rigged, KTVBLK_IO_WRITE, 0, 1);
	/* A lease is for who alone has it open. */
	ck_assert_int_lt(fcntl(other, F_SETLEASE, F_WRLCK), 0);
	rigged_end(&rigged);
	ck_assert(eventually(fcntl(other, F_SETLEASE, F_WRLCK) == 0));
	ck_assert_uint_eq(count_fds(), n_fds - 1);
	close(other);
}
END_TEST

RING_PROGRAM("engine-uring", bytes_are_moved_any_way_and_in_any_pieces,
	     errors_are_those_of_the_call,
	     what_has_no_place_in_the_ring_is_called,
	     what_does_not_wait_is_called_and_what_would_goes_to_the_ring,
	     many_at_once_that_do_not_wait_go_to_the_ring,
	     a_short_answer_is_handed_on_and_the_rest_finds_its_own_way,
	     other_errors_of_a_call_that_does_not_wait_are_the_answer,
	     a_call_that_is_refused_is_tried_once_for_reads_and_once_for_writes,
	     direct_files_and_flushes_always_go_to_the_ring,
	     all_goes_to_the_ring_when_that_is_asked_for,
	     storage_that_becomes_slow_goes_to_the_ring_and_comes_back,
	     what_is_cached_is_read_by_a_call,
	     one_that_hangs_holds_up_no_other_and_ends_when_it_is_let_go,
	     a_kernel_thread_that_is_stuck_is_not_waited_for,
	     behind_close_nobody_has_the_file_open)
