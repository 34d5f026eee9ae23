/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * io_uring that is refused for good while it is in use, as by a filter of system
 * calls that is put on later: what it has not taken is done by calls, what it has
 * is waited for, and nobody goes round in circles.
 */

/* wrap: io_uring_submit io_uring_submit_and_wait_timeout poll */

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "faults.h"
#include "page.h"
#include "transfers.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define OK VIRTIO_BLK_S_OK
#define ALWAYS 1000000u
#define BUDGET_MS 60u

static struct fault io_uring_submit_fault,
	io_uring_submit_and_wait_timeout_fault;

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **ret_cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **ret_cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals);

/* As liburing does before its system call: what there is lies open. */
static void show_all(struct io_uring *ring)
{
	ring->sq.sqe_head = ring->sq.sqe_tail;
	io_uring_smp_store_release(ring->sq.ktail, ring->sq.sqe_tail);
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
	if (!fault_hits(&io_uring_submit_fault, 0))
		return __real_io_uring_submit(ring);
	show_all(ring);
	return -io_uring_submit_fault.when.error;
}

int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **ret_cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals)
{
	if (!fault_hits(&io_uring_submit_and_wait_timeout_fault, 0))
		return __real_io_uring_submit_and_wait_timeout(ring, ret_cqe, n,
							       ts, signals);
	show_all(ring);
	return -io_uring_submit_and_wait_timeout_fault.when.error;
}

/* What the last one that was given descriptors is to wait for. */
static _Atomic pid_t poll_tid;
static _Atomic int poll_timeout_ms;

int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	if (n) {
		poll_timeout_ms = timeout_ms;
		poll_tid = gettid();
	}
	return __real_poll(fds, n, timeout_ms);
}

/* What the C library makes of it. */
#ifdef SYS_poll
#define POLL_NR SYS_poll
#else
#define POLL_NR SYS_ppoll
#endif

/* It is asleep until something comes. */
static bool somebody_waits(void)
{
	return poll_tid && poll_timeout_ms == -1 &&
	       thread_in_call(poll_tid, POLL_NR) &&
	       thread_state(poll_tid) == 'S';
}

/* What filters and kernels answer. */
static const int errors[] = { EPERM, EINVAL, ENOSYS, EACCES };

static void shut(int error)
{
	const struct fault_when when = { .error = error, .times = ALWAYS };

	fault_set(&io_uring_submit_fault, &when);
	fault_set(&io_uring_submit_and_wait_timeout_fault, &when);
}

static void reopen(void)
{
	fault_clear(&io_uring_submit_fault);
	fault_clear(&io_uring_submit_and_wait_timeout_fault);
}

static unsigned int n_entered(void)
{
	return atomic_load(&io_uring_submit_fault.calls) +
	       atomic_load(&io_uring_submit_and_wait_timeout_fault.calls);
}

static void open_device(struct rig *rig, enum ktvblk_engine engine,
			uint64_t flags, uint32_t budget_ms)
{
	const int fd = memfd_create("disk", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, RIG_DISK_BYTES), 0);
	rig_open(rig, &(struct rig_options){
			      .disk_fd = fd,
			      .config = { .engine = engine,
					  .flags = flags,
					  .reset_timeout_ms = budget_ms },
		      });
	rig_start(rig);
}

static void check_served(struct rig *rig)
{
	ck_assert_int_eq(rig_request(rig, T_OUT, 3, 4096), OK);
	ck_assert_int_eq(rig_request(rig, T_FLUSH, 0, 0), OK);
	ck_assert_int_eq(rig_request(rig, T_IN, 3, 4096), OK);
}

static void check_told(struct recorder *rec, int error)
{
	ck_assert_uint_eq(
		kept_number(recorder_wait(rec, KTVBLK_MESSAGE_ENGINE_REFUSED),
			    "ERRNO"),
		(uint64_t)error);
	ck_assert_int_eq(recorder_count(rec, NULL), 1);
	recorder_clear(rec);
}

START_TEST(a_ring_that_is_shut_has_the_disk_served_by_calls)
{
	struct recorder rec;
	struct rig rig;
	unsigned int n;

	wedge_record(&rec);
	open_device(&rig, KTVBLK_ENGINE_AUTO, 0, WAIT_MS);
	check_served(&rig);
	shut(errors[_i]);
	n = n_entered();
	check_served(&rig);
	check_told(&rec, errors[_i]);
	/* Asked once, and then not again. */
	ck_assert_uint_eq(n_entered(), n + 1);
	/* The next life asks anew. */
	rig_reset(&rig);
	rig_start(&rig);
	check_served(&rig);
	check_told(&rec, errors[_i]);
	reopen();
	rig_reset(&rig);
	rig_start(&rig);
	n = n_entered();
	check_served(&rig);
	ck_assert_uint_ge(n_entered(), n + 3);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* One read of the page at data, at this head. */
static void send_read(struct rig *rig, uint16_t head, uint64_t data)
{
	rig_data(rig, head, T_IN, 0, &(struct rig_part){ data, 4096, WRITABLE },
		 1);
	rig_avail(rig, head);
	rig_kick(rig);
}

/*
 * The kernel has one already, and it hangs: others are served beside it, the
 * worker sleeps meanwhile, whatever was kicked, and it has its end when it comes.
 */
START_TEST(what_the_kernel_has_already_is_waited_for)
{
	struct recorder rec;
	struct page page;
	struct rig rig;

	wedge_record(&rec);
	open_device(&rig, KTVBLK_ENGINE_IO_URING, KTVBLK_ZERO_COPY, WAIT_MS);
	if (!page_block(&page, rig_at(&rig, RIG_DATA)))
		goto end;
	send_read(&rig, 0, RIG_DATA);
	page_wait(&page);
	shut(errors[_i]);
	send_read(&rig, 3, RIG_DATA + 4096);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(rig_used(&rig, 0).id, 3);
	check_told(&rec, errors[_i]);
	ck_assert(eventually(somebody_waits()));
	page_bring(&page, NULL);
	rig_wait_used(&rig, 2);
	ck_assert_int_eq(*rig_chain_status(&rig, 0), OK);
	check_served(&rig);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	reopen();
end:
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* And a stop does not wait for longer than it may. */
START_TEST(a_stop_is_bounded_where_the_ring_is_shut)
{
	const bool shut_before = _i % 2;
	uint64_t start_ns;
	struct recorder rec;
	struct page page;
	struct rig rig;

	wedge_record(&rec);
	open_device(&rig, KTVBLK_ENGINE_IO_URING, KTVBLK_ZERO_COPY, BUDGET_MS);
	if (!page_block(&page, rig_at(&rig, RIG_DATA)))
		goto end;
	send_read(&rig, 0, RIG_DATA);
	page_wait(&page);
	shut(errors[_i]);
	if (shut_before) {
		send_read(&rig, 3, RIG_DATA + 4096);
		rig_wait_used(&rig, 1);
	}
	start_ns = clock_start();
	rig_reset(&rig);
	ck_assert_uint_le(ms_since(start_ns), bound_ms(BUDGET_MS + 50));
	recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	/* The one left behind sleeps as well. */
	ck_assert(eventually(somebody_waits()));
	page_bring(&page, NULL);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	reopen();
	rig_start(&rig);
	check_served(&rig);
end:
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/*
 * The engine
 */

#define N_JOBS 4u

/* What job_wait() would begin once more. */
static struct job *reap(struct rigged *rigged)
{
	struct transfer *transfer = rigged->engine->ops->reap(rigged->engine);
	struct job *job;

	if (!transfer)
		return NULL;
	job = container_of(transfer, struct job, transfer);
	job->is_out = false;
	return job;
}

START_TEST(what_was_put_into_the_ring_comes_back_in_its_order)
{
	struct rigged rigged =
		rigged_new(image_open(DISK_MEMORY), N_JOBS, true);
	struct job *jobs[N_JOBS];

	for (unsigned int i = 0; i < N_JOBS; i++) {
		jobs[i] = job_new(KTVBLK_IO_READ, i * 4096, 4096, 1);
		ck_assert(!job_begin(&rigged, jobs[i]));
	}
	shut(errors[_i]);
	rigged.engine->ops->push(rigged.engine);
	ck_assert_int_eq(rigged.engine->refused, errors[_i]);
	/* There is something to reap: it does not wait. */
	ck_assert_int_eq(rigged.engine->ops->wait(rigged.engine, -1, -1), 0);
	for (unsigned int i = 0; i < N_JOBS; i++) {
		ck_assert_ptr_eq(reap(&rigged), jobs[i]);
		ck_assert(jobs[i]->transfer.again);
	}
	ck_assert_uint_eq(rigged.engine->n_out, 0);
	for (unsigned int i = 0; i < N_JOBS; i++) {
		ck_assert(job_begin(&rigged, jobs[i]));
		job_check(&rigged, jobs[i]);
		job_free(jobs[i]);
	}
	rigged_end(&rigged);
	reopen();
}
END_TEST

/* Neither this needs the kernel. */
START_TEST(what_was_put_into_the_ring_can_be_dropped)
{
	struct rigged rigged =
		rigged_new(image_open(DISK_MEMORY), N_JOBS, true);
	struct job *job = job_new(KTVBLK_IO_READ, 0, 4096, 1);
	const unsigned int n = n_entered();

	ck_assert(!job_begin(&rigged, job));
	rigged.engine->ops->drop(rigged.engine);
	ck_assert_ptr_eq(reap(&rigged), job);
	ck_assert_int_eq(job->transfer.result, -ECANCELED);
	ck_assert(!job->transfer.again);
	ck_assert_uint_eq(rigged.engine->n_out, 0);
	ck_assert_uint_eq(n_entered(), n);
	/* And the ring is as before. */
	job_is_the_last(&rigged, job);
}
END_TEST

/* A read from a socket hangs; a descriptor to be woken by stays readable. */
START_TEST(a_wait_beside_a_ring_that_is_shut_is_a_sleep)
{
	const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct job *job = job_new(KTVBLK_IO_READ, 0, 1, 1);
	const unsigned char byte = disk_byte(0);
	struct rigged rigged;
	struct engine *engine;
	uint64_t start_ns;
	int sockets[2];

	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	rigged = rigged_on_socket(sockets[0], 1);
	engine = rigged.engine;
	ck_assert(!job_begin(&rigged, job));
	engine->ops->push(engine);
	shut(errors[_i]);
	ck_assert_int_eq(engine->ops->wait(engine, wake_fd, 0), 0);
	ck_assert_int_eq(engine->refused, errors[_i]);
	start_ns = now_ns();
	ck_assert_int_eq(engine->ops->wait(engine, wake_fd, 2), 0);
	ck_assert_uint_ge(now_ns() - start_ns, 2 * NSEC_PER_MSEC);
	ck_assert_int_eq(eventfd_signal(wake_fd), 0);
	ck_assert_int_eq(engine->ops->wait(engine, wake_fd, -1), 0);
	start_ns = now_ns();
	for (unsigned int i = 0; i < 5; i++)
		ck_assert_int_eq(engine->ops->wait(engine, wake_fd, -1), 0);
	/* Every other one comes back at once, as it was a while ago. */
	ck_assert_uint_ge(now_ns() - start_ns, 2 * NSEC_PER_MSEC);
	ck_assert_ptr_null(reap(&rigged));
	ck_assert_int_eq(write(sockets[1], &byte, 1), 1);
	ck_assert_int_eq(engine->ops->wait(engine, -1, -1), 0);
	ck_assert_ptr_eq(reap(&rigged), job);
	job_free(job);
	rigged_end(&rigged);
	close(sockets[1]);
	close(wake_fd);
	reopen();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_ring_that_is_shut_has_the_disk_served_by_calls,
		what_the_kernel_has_already_is_waited_for,
		a_stop_is_bounded_where_the_ring_is_shut,
		what_was_put_into_the_ring_comes_back_in_its_order,
		what_was_put_into_the_ring_can_be_dropped,
		a_wait_beside_a_ring_that_is_shut_is_a_sleep,
	};

	return ring_is_refused() ? 77
				 : run_loops("engine-shut", ARRAY_SIZE(errors),
					     tests, ARRAY_SIZE(tests));
}
