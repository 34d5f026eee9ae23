/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Answers of the kernel's that are none: what it had no memory or no thread for,
 * and what was interrupted. The transfer is done all the same.
 */

/* wrap: preadv io_uring_submit io_uring_submit_and_wait_timeout */

#include <liburing.h>
#include <string.h>

#include "transfers.h"

#define BLOCK 4096u

static unsigned int n_preadv;

ssize_t __real_preadv(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t offset);

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t offset)
{
	n_preadv++;
	return __real_preadv(fd, iov, n, offset);
}

/* What the kernel answers next to transfers, in place of the truth. */
static int answers[8];
static unsigned int n_answers, answers_at;

static void change_answer(struct io_uring *ring, int r)
{
	struct io_uring_cqe *cqe;

	if (r >= 0 && answers_at < n_answers &&
	    io_uring_peek_cqe(ring, &cqe) == 0)
		cqe->res = answers[answers_at++];
}

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);

int __wrap_io_uring_submit(struct io_uring *ring)
{
	const int r = __real_io_uring_submit(ring);

	change_answer(ring, r);
	return r;
}

int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals);

int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals)
{
	const int r = __real_io_uring_submit_and_wait_timeout(ring, cqe, n, ts,
							      signals);

	change_answer(ring, r);
	return r;
}

static void answer(const int *results, unsigned int n)
{
	memcpy(answers, results, n * sizeof(*results));
	n_answers = n;
	answers_at = 0;
}

static struct rigged fresh(void)
{
	n_preadv = 0;
	n_answers = 0;
	return rigged_new(image_open(DISK_MEMORY), 1, true);
}

/* As the caller of an engine: what is to begin again does so at once. */
static ssize_t job_run_on(struct rigged *rigged, struct job *job)
{
	ssize_t n;

	for (;;) {
		job->transfer.again = false;
		n = job_run(rigged, job);
		if (!job->transfer.again)
			return n;
		ck_assert_uint_lt(job->n_tries++, 10);
	}
}

static void check_refused(const int *results)
{
	struct rigged rigged = fresh();
	struct job *job = job_new(KTVBLK_IO_READ, BLOCK, BLOCK, 1);

	answer(results, 1);
	ck_assert_int_eq(job_run_on(&rigged, job), BLOCK);
	ck_assert_uint_eq(n_preadv, 0);
	ck_assert_uint_eq(job->n_tries, 1);
	answer(results, 2);
	ck_assert_int_eq(job_run_on(&rigged, job), BLOCK);
	ck_assert_uint_eq(n_preadv, 1);
	ck_assert_uint_eq(job->n_tries, 3);
	job_check(&rigged, job);
	job_free(job);
	rigged_end(&rigged);
}

START_TEST(no_memory_and_no_thread_is_tried_by_a_thread_and_then_called)
{
	check_refused((const int[]){ -EAGAIN, -EAGAIN });
	check_refused((const int[]){ -ENOMEM, -EAGAIN });
	check_refused((const int[]){ -EAGAIN, -ENOMEM });
	check_refused((const int[]){ -ECANCELED, -ECANCELED });
}
END_TEST

START_TEST(what_was_interrupted_is_told)
{
	static const int interrupted[] = { -EINTR };
	struct rigged rigged = fresh();
	struct job *job = job_new(KTVBLK_IO_READ, BLOCK, BLOCK, 1);

	answer(interrupted, 1);
	ck_assert_int_eq(job_run(&rigged, job), -EINTR);
	ck_assert_int_eq(job_run(&rigged, job), BLOCK);
	job_free(job);
	rigged_end(&rigged);
}
END_TEST

RING_PROGRAM("engine-answers",
	     no_memory_and_no_thread_is_tried_by_a_thread_and_then_called,
	     what_was_interrupted_is_told)
