/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Waiting for transfers and for a descriptor at once; calls of io_uring's that
 * fail, one by one, and a completion queue that overflows: nothing is lost.
 */

/* wrap: io_uring_register_files io_uring_unregister_files */
/* wrap: io_uring_submit io_uring_submit_and_wait_timeout */
/* wrap: io_uring_register_iowq_max_workers */

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "faults.h"
#include "transfers.h"

#define BLOCK 4096u

#define FAILED(name) (-name##_fault.when.error)

WRAP(int, io_uring_register_files,
     (struct io_uring * ring, const int *files, unsigned int n),
     (ring, files, n), 0, FAILED(io_uring_register_files))
WRAP(int, io_uring_unregister_files, (struct io_uring * ring), (ring), 0,
     FAILED(io_uring_unregister_files))

WRAP(int, io_uring_register_iowq_max_workers,
     (struct io_uring * ring, unsigned int *most), (ring, most), 0,
     FAILED(io_uring_register_iowq_max_workers))

/* Of the engine that made the last one. */
static struct io_uring *last_ring;
static struct fault io_uring_submit_fault;

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);

int __wrap_io_uring_submit(struct io_uring *ring)
{
	last_ring = ring;
	return fault_hits(&io_uring_submit_fault, 0)
		       ? FAILED(io_uring_submit)
		       : __real_io_uring_submit(ring);
}

WRAP(int, io_uring_submit_and_wait_timeout,
     (struct io_uring * ring, struct io_uring_cqe **cqe, unsigned int n,
      struct __kernel_timespec *ts, sigset_t *signals),
     (ring, cqe, n, ts, signals), 0, FAILED(io_uring_submit_and_wait_timeout))

/*
 * An engine on a socket: reads hang until the test writes to the other end.
 */

struct line {
	struct rigged rigged;
	int end;
	int wake_fd;
	struct job *read;
};

static struct line line_new(unsigned int n)
{
	struct line line;
	int sockets[2];

	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	line.rigged = rigged_on_socket(sockets[0], n);
	line.end = sockets[1];
	line.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ck_assert_int_ge(line.wake_fd, 0);
	line.read = job_new(KTVBLK_IO_READ, 0, 1, 1);
	return line;
}

static void line_end(struct line *line)
{
	rigged_end(&line->rigged);
	close(line->end);
	close(line->wake_fd);
	job_free(line->read);
}

/* The read that hangs ends. */
static void line_answer(const struct line *line)
{
	const unsigned char byte = disk_byte(0);

	ck_assert_int_eq(write(line->end, &byte, 1), 1);
}

static int line_wait(struct line *line, int wake_fd, int timeout_ms)
{
	struct engine *engine = line->rigged.engine;

	return engine->ops->wait(engine, wake_fd, timeout_ms);
}

static struct transfer *line_reap(struct line *line)
{
	struct engine *engine = line->rigged.engine;

	return engine->ops->reap(engine);
}

static void line_kick(const struct line *line)
{
	ck_assert_int_eq(eventfd_signal(line->wake_fd), 0);
}

/* Was there anything before the time was up? */
static bool comes_back(struct line *line, int wake_fd)
{
	const uint64_t start_ns = now_ns();

	ck_assert_int_eq(line_wait(line, wake_fd, WAIT_MS), 0);
	return now_ns() - start_ns < WAIT_MS * NSEC_PER_MSEC;
}

static bool sleeps(struct line *line, int wake_fd)
{
	const uint64_t start_ns = now_ns();
	const int ms = 2;

	ck_assert_int_eq(line_wait(line, wake_fd, ms), 0);
	return now_ns() - start_ns >= (unsigned int)ms * NSEC_PER_MSEC;
}

/*
 * Waiting, on a thread of its own, to which the ring belongs
 */

struct waiter {
	struct line *line; /* made by it */
	bool with_descriptor, with_read; /* the latter is begun first */
	pthread_t thread;
	_Atomic pid_t tid;
	struct latch over;
	int result;
	struct transfer *transfer;
};

static void *waiter_main(void *arg)
{
	struct waiter *waiter = (struct waiter *)arg;
	struct line *line = waiter->line;

	*line = line_new(1);
	if (waiter->with_read)
		job_begin(&line->rigged, line->read);
	/* Armed, and nothing there; a call that submits hides a signal. */
	line_wait(line, line->wake_fd, 0);
	atomic_store(&waiter->tid, gettid());
	waiter->result = line_wait(
		line, waiter->with_descriptor ? line->wake_fd : -1, -1);
	waiter->transfer = line_reap(line);
	latch_set(&waiter->over);
	return NULL;
}

static bool is_asleep(struct waiter *waiter)
{
	const pid_t tid = atomic_load(&waiter->tid);

	return tid && thread_in_call(tid, SYS_io_uring_enter) &&
	       thread_state(tid) == 'S';
}

static void waiter_start(struct waiter *waiter, struct line *line,
			 bool with_descriptor, bool with_read)
{
	*waiter = (struct waiter){
		.line = line,
		.with_descriptor = with_descriptor,
		.with_read = with_read,
	};
	latch_init(&waiter->over);
	ck_assert_int_eq(
		pthread_create(&waiter->thread, NULL, waiter_main, waiter), 0);
	ck_assert(eventually(is_asleep(waiter)));
}

static void waiter_join(struct waiter *waiter)
{
	ck_assert(latch_wait(&waiter->over, WAIT_MS));
	pthread_join(waiter->thread, NULL);
	latch_destroy(&waiter->over);
}

START_TEST(a_wait_ends_when_the_descriptor_becomes_readable)
{
	struct line line;
	struct waiter waiter;

	waiter_start(&waiter, &line, true, false);
	line_kick(&line);
	waiter_join(&waiter);
	ck_assert_int_eq(waiter.result, 0);
	ck_assert_ptr_null(waiter.transfer);
	line_end(&line);
}
END_TEST

START_TEST(a_wait_ends_when_a_transfer_does)
{
	struct line line;
	struct waiter waiter;

	waiter_start(&waiter, &line, true, true);
	line_answer(&line);
	waiter_join(&waiter);
	ck_assert_int_eq(waiter.result, 0);
	ck_assert_ptr_eq(waiter.transfer, &line.read->transfer);
	ck_assert_int_eq(waiter.transfer->result, 1);
	line.read->is_out = false;
	line_end(&line);
}
END_TEST

/* As one does who has no more to do with kicks. */
START_TEST(without_the_descriptor_only_a_transfer_ends_a_wait)
{
	struct line line;
	struct waiter waiter;

	waiter_start(&waiter, &line, false, true);
	for (int i = 0; i < 10; i++) {
		line_kick(&line);
		ck_assert(eventually(is_asleep(&waiter)));
	}
	ck_assert(!latch_is_set(&waiter.over));
	line_answer(&line);
	waiter_join(&waiter);
	ck_assert_ptr_eq(waiter.transfer, &line.read->transfer);
	line.read->is_out = false;
	line_end(&line);
}
END_TEST

static void on_signal(int signal)
{
	(void)signal;
}

START_TEST(a_signal_interrupts_a_wait)
{
	struct line line;
	struct sigaction action = { .sa_handler = on_signal };
	struct waiter waiter;

	ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
	waiter_start(&waiter, &line, true, false);
	ck_assert_int_eq(pthread_kill(waiter.thread, SIGUSR1), 0);
	waiter_join(&waiter);
	ck_assert_int_eq(waiter.result, -EINTR);
	line_end(&line);
}
END_TEST

/*
 * Wake-ups, on the test's own thread
 */

START_TEST(a_descriptor_that_is_readable_already_ends_the_first_wait)
{
	struct line line = line_new(1);

	line_kick(&line);
	ck_assert(comes_back(&line, line.wake_fd));
	/* It has not become so since. */
	ck_assert(sleeps(&line, line.wake_fd));
	line_kick(&line);
	ck_assert(comes_back(&line, line.wake_fd));
	line_end(&line);
}
END_TEST

START_TEST(a_wait_ends_when_its_time_is_up)
{
	struct line line = line_new(1);

	ck_assert(!job_begin(&line.rigged, line.read));
	ck_assert(sleeps(&line, line.wake_fd));
	ck_assert(sleeps(&line, -1));
	ck_assert_int_eq(line_wait(&line, line.wake_fd, 0), 0);
	ck_assert_int_eq(line_wait(&line, -1, 0), 0);
	line_answer(&line);
	jobs_wait(&line.rigged);
	line_end(&line);
}
END_TEST

/* It went by while transfers were looked for, or not asked for. */
START_TEST(a_wake_up_is_kept_for_who_asks_for_it)
{
	struct line line = line_new(1);

	ck_assert(sleeps(&line, line.wake_fd));
	line_kick(&line);
	ck_assert_ptr_null(line_reap(&line));
	ck_assert(comes_back(&line, line.wake_fd));
	line_kick(&line);
	ck_assert(sleeps(&line, -1));
	ck_assert(comes_back(&line, line.wake_fd));
	ck_assert(sleeps(&line, line.wake_fd));
	line_end(&line);
}
END_TEST

/*
 * Each kick is a completion, of which this ring holds four: the kernel keeps
 * what has no room, and ends the look.
 */
START_TEST(a_flood_of_kicks_loses_neither_transfers_nor_kicks)
{
	struct line line = line_new(1);

	ck_assert(sleeps(&line, line.wake_fd));
	for (int round = 0; round < 3; round++) {
		ck_assert(!job_begin(&line.rigged, line.read));
		line.rigged.engine->ops->push(line.rigged.engine);
		for (int i = 0; i < 1000; i++)
			line_kick(&line);
		ck_assert_uint_ne(*last_ring->sq.kflags & IORING_SQ_CQ_OVERFLOW,
				  0);
		line_answer(&line);
		for (int i = 0; i < 1000; i++)
			line_kick(&line);
		ck_assert_ptr_eq(job_wait(&line.rigged), line.read);
		job_check(&line.rigged, line.read);
		ck_assert(comes_back(&line, line.wake_fd));
		ck_assert(eventually(sleeps(&line, line.wake_fd)));
		line_kick(&line);
		ck_assert(comes_back(&line, line.wake_fd));
	}
	line_end(&line);
}
END_TEST

START_TEST(a_descriptor_that_cannot_be_looked_at_is_an_error)
{
	struct line line = line_new(1);
	const int fd = eventfd(0, EFD_CLOEXEC);

	close(fd);
	ck_assert_int_eq(line_wait(&line, fd, WAIT_MS), -EBADF);
	ck_assert(sleeps(&line, line.wake_fd));
	line_end(&line);
}
END_TEST

/*
 * Calls that fail
 */

#define N_JOBS 4u

/* Reads of the disk, with what comes between begin and the end. */
static void check_reads(struct fault *fault, const struct fault_when *when)
{
	struct rigged rigged =
		rigged_new(image_open(DISK_MEMORY), N_JOBS, true);
	struct job *jobs[N_JOBS];

	fault_set(fault, when);
	for (unsigned int i = 0; i < N_JOBS; i++) {
		jobs[i] = job_new(KTVBLK_IO_READ, i * BLOCK, BLOCK, 1);
		job_begin(&rigged, jobs[i]);
		rigged.engine->ops->push(rigged.engine);
	}
	jobs_wait(&rigged);
	ck_assert(fault_over(fault));
	for (unsigned int i = 0; i < N_JOBS; i++) {
		job_check(&rigged, jobs[i]);
		job_free(jobs[i]);
	}
	rigged_end(&rigged);
}

static const int enter_errors[] = { EAGAIN, EBUSY, EINTR, ENOMEM };

START_TEST(what_could_not_be_pushed_goes_out_with_the_next)
{
	for (size_t i = 0; i < ARRAY_SIZE(enter_errors); i++)
		for (unsigned int n = 1; n <= N_JOBS; n++)
			check_reads(
				&io_uring_submit_fault,
				&(struct fault_when){ .error = enter_errors[i],
						      .times = n });
}
END_TEST

START_TEST(a_wait_that_fails_loses_nothing)
{
	for (size_t i = 0; i < ARRAY_SIZE(enter_errors); i++) {
		fault_set(&io_uring_submit_fault,
			  &(struct fault_when){ .error = EAGAIN,
						.skip = 1, /* the opening */
						.times = N_JOBS });
		check_reads(&io_uring_submit_and_wait_timeout_fault,
			    &(struct fault_when){ .error = enter_errors[i],
						  .times = 10 });
		fault_clear(&io_uring_submit_fault);
	}
}
END_TEST

/* What passes is for the caller to come back from. */
START_TEST(a_wait_comes_back_from_what_passes)
{
	static const int rows[][2] = { { EAGAIN, 0 },
				       { EBUSY, 0 },
				       { ENOMEM, 0 },
				       { EINTR, -EINTR },
				       { ETIME, 0 } };
	struct line line = line_new(1);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		fault_set(&io_uring_submit_and_wait_timeout_fault,
			  &(struct fault_when){ .error = rows[i][0] });
		ck_assert_int_eq(line_wait(&line, line.wake_fd, WAIT_MS),
				 rows[i][1]);
	}
	ck_assert(sleeps(&line, line.wake_fd));
	line_end(&line);
}
END_TEST

START_TEST(without_a_registered_file_it_works_too)
{
	struct rigged rigged;
	struct job *job = job_new(KTVBLK_IO_READ, BLOCK, BLOCK, 2);

	fault_set(&io_uring_register_files_fault,
		  &(struct fault_when){ .error = ENOMEM });
	rigged = rigged_new(image_open(DISK_MEMORY), 1, true);
	job_is_the_last(&rigged, job);
}
END_TEST

/* However few processors there are. */
START_TEST(as_many_may_hang_in_threads_of_the_kernels_as_may_be_out)
{
	const unsigned int n =
		8 * (unsigned int)sysconf(_SC_NPROCESSORS_CONF) + 1;
	struct rigged rigged = rigged_new(image_open(DISK_MEMORY), n, true);
	struct job *job = job_new(KTVBLK_IO_READ, BLOCK, BLOCK, 2);
	unsigned int most[2] = { 0 }; /* tell, and change nothing */

	ck_assert(!job_begin(&rigged, job));
	rigged.engine->ops->push(rigged.engine);
	jobs_wait(&rigged);
	ck_assert_int_eq(io_uring_register_iowq_max_workers(last_ring, most),
			 0);
	ck_assert_uint_eq(most[0], n);
	job_free(job);
	rigged_end(&rigged);
}
END_TEST

START_TEST(where_there_can_be_no_more_threads_it_works_too)
{
	struct job *job = job_new(KTVBLK_IO_READ, BLOCK, BLOCK, 2);
	struct rigged rigged;
	unsigned int n_calls;

	fault_set(&io_uring_register_iowq_max_workers_fault,
		  &(struct fault_when){ .error = EINVAL });
	n_calls = atomic_load(&io_uring_register_iowq_max_workers_fault.calls);
	rigged = rigged_new(image_open(DISK_MEMORY), 1, true);
	ck_assert_uint_eq(
		atomic_load(&io_uring_register_iowq_max_workers_fault.calls),
		n_calls + 1);
	job_is_the_last(&rigged, job);
}
END_TEST

START_TEST(a_close_that_is_interrupted_goes_on)
{
	struct rigged rigged = rigged_new(image_open(DISK_MEMORY), 1, true);
	unsigned int n_calls;

	n_calls = atomic_load(&io_uring_unregister_files_fault.calls);
	fault_set(&io_uring_unregister_files_fault,
		  &(struct fault_when){ .error = EINTR, .times = 3 });
	rigged_end(&rigged);
	ck_assert_uint_eq(atomic_load(&io_uring_unregister_files_fault.calls),
			  n_calls + 4);
}
END_TEST

int main(void)
{
	/* On threads of their own. */
	const TTest *const waits[] = {
		a_wait_ends_when_the_descriptor_becomes_readable,
		a_wait_ends_when_a_transfer_does,
		without_the_descriptor_only_a_transfer_ends_a_wait,
		a_signal_interrupts_a_wait,
	};
	const TTest *const tests[] = {
		a_descriptor_that_is_readable_already_ends_the_first_wait,
		a_wait_ends_when_its_time_is_up,
		a_wake_up_is_kept_for_who_asks_for_it,
		a_flood_of_kicks_loses_neither_transfers_nor_kicks,
		a_descriptor_that_cannot_be_looked_at_is_an_error,
		what_could_not_be_pushed_goes_out_with_the_next,
		a_wait_that_fails_loses_nothing,
		a_wait_comes_back_from_what_passes,
		without_a_registered_file_it_works_too,
		as_many_may_hang_in_threads_of_the_kernels_as_may_be_out,
		where_there_can_be_no_more_threads_it_works_too,
		a_close_that_is_interrupted_goes_on,
	};
	int r;

	if (ring_is_refused())
		return 77;
	r = run_tests("ring", tests, ARRAY_SIZE(tests));
	if (!ring_holds_threads())
		r |= run_tests("waits", waits, ARRAY_SIZE(waits));
	return r;
}
