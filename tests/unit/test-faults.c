/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Every call of the library's that can fail, failing: a whole life of a device
 * and one of a device that wedges are gone through again and again, with the
 * first call of a function failing, then the second, and so on until there are
 * no more. Each time all must end well: errors are those of the header, what
 * failed works when tried again, and nothing is left. calls.sh sees that none
 * is forgotten here.
 */

/* wrap: malloc calloc free mmap munmap eventfd epoll_create1 epoll_ctl */
/* wrap: epoll_wait timerfd_create timerfd_settime open read write close */
/* wrap: fcntl fstat ioctl poll preadv statx pwritev fdatasync fallocate syscall */
/* wrap: pthread_create pthread_clockjoin_np pthread_getaffinity_np */
/* wrap: pthread_setaffinity_np pthread_setname_np pthread_attr_setstack */
/* wrap: pthread_cond_wait pthread_cond_timedwait sd_journal_sendv */
/* wrap: preadv2 pwritev2 opendir readdir */
/* wrap: io_uring_queue_init_params io_uring_ring_dontfork */
/* wrap: io_uring_register_files io_uring_unregister_files io_uring_submit */
/* wrap: io_uring_submit_and_wait_timeout __io_uring_get_cqe */
/* wrap: io_uring_register_iowq_max_workers io_uring_queue_exit */
/* wrap: io_uring_register_buffers_sparse io_uring_register_buffers_update_tag */
/* wrap: io_uring_unregister_buffers */
/* wrap: _mark_point */

#include <stdio.h>
#include <sys/eventfd.h>

#include "bounds.h"
#include "engine.h"
#include "faulty.h"
#include "wedge.h"

/*
 * The lives
 */

static int parked_fd;

/* Steps that failed; one fault can fail more than one only by a hair. */
static unsigned int failed;
#define FAILED_MOST 2

#define PAUSE_MS 50

/* A request of more than this goes through, and the next one waits. */
#define BYTES_PER_SEC (512u << 10)
#define BYTES_PER_SEC_SLOWLY (128u << 10)

static bool did_fail(bool it_did)
{
	failed += it_did;
	ck_assert_msg(failed <= FAILED_MOST, "%u steps failed", failed);
	return it_did;
}

static void create(struct life *life)
{
	while (did_fail(life_create(life) < 0))
		;
}

static void start(struct life *life)
{
	while (did_fail(!life_start(life)))
		while (did_fail(!life_reset(life)))
			;
}

static void restart(struct life *life)
{
	while (did_fail(!life_reset(life)))
		;
	start(life);
}

static void request(struct life *life, uint32_t type, uint64_t sector,
		    uint32_t len)
{
	int r;

	/* After a flush that failed only a reset helps, too. */
	while (did_fail((r = life_request(life, type, sector, len)) != 0))
		if (r == LIFE_NEEDS_RESET || type == VIRTIO_BLK_T_FLUSH)
			restart(life);
}

static bool soon_paused(struct life *life)
{
	const uint64_t until = now_ns() + PAUSE_MS * NSEC_PER_MSEC;

	while (!ktvblk_is_paused(life->rig.dev))
		if (now_ns() > until)
			return false;
		else
			poll(NULL, 0, 1);
	return true;
}

/* A kick may have been lost: then a pause is asked for again. */
static void pause_and_resume(struct life *life)
{
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	struct ktvblk_dev *dev = life->rig.dev;
	int r;

	while ((r = ktvblk_pause(dev, PAUSE_MS)) < 0) {
		ck_assert_int_eq(r, -ETIMEDOUT);
		ck_assert_uint_lt(now_ns(), until);
	}
	ck_assert_int_eq(ktvblk_resume(dev), 1);
	do {
		ck_assert_uint_lt(now_ns(), until);
		while (did_fail((r = ktvblk_pause_begin(dev, parked_fd)) < 0))
			ck_assert(r == -EMFILE || r == -EBADF);
	} while (!soon_paused(life));
	ck_assert_int_eq(ktvblk_resume(dev), 1);
}

/* A request waits for the timer. */
static void run_dry(struct life *life)
{
	const uint32_t len = (uint32_t)life->bytes_per_sec + 4096;
	int r;

	while (did_fail((r = life_write_and_read(life, 2, len)) != 0))
		if (r == LIFE_NEEDS_RESET)
			restart(life);
}

static void count_record(const struct ktvblk_record *record, void *userdata)
{
	ck_assert_uint_eq(strlen(record->message_id), 32);
	++*(_Atomic unsigned int *)userdata;
}

static void live(struct life *life)
{
	/* One that is on its way may still come when this has returned. */
	static _Atomic unsigned int records;
	enum ktvblk_outcome outcome;

	create(life);
	start(life);
	request(life, VIRTIO_BLK_T_OUT, 0, 1024);
	request(life, VIRTIO_BLK_T_IN, 1, 1024);
	request(life, VIRTIO_BLK_T_WRITE_ZEROES, 1, 512);
	request(life, VIRTIO_BLK_T_IN, 0, 2048);
	request(life, VIRTIO_BLK_T_FLUSH, 0, 0);
	pause_and_resume(life);
	while (did_fail(ktvblk_set_log_handler(count_record, NULL, &records)))
		;
	run_dry(life);
	restart(life);
	request(life, VIRTIO_BLK_T_IN, 0, 1024);
	outcome = life_destroy(life);
	if (outcome != KTVBLK_JOINED) {
		did_fail(true);
		ck_assert_int_eq(outcome, KTVBLK_HELPER_DISCONNECTED);
	}
	life_wait_released(life);
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
}

static void wedge_life(struct life *life)
{
	while (!life_wedge(life)) {
		did_fail(true);
		restart(life);
	}
}

/* Wedged and reset; wedged and destroyed; destroyed without a worker. */
static void live_badly(struct life *life)
{
	create(life);
	start(life);
	wedge_life(life);
	while (did_fail(!life_reset(life)))
		;
	start(life);
	ck_assert_int_eq(ktvblk_get_state(life->rig.dev), KTVBLK_STATE_WEDGED);
	/* The record tells where it is stuck; not once it has gone. */
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	life_let_go(life);
	/* Only once the one before has gone. */
	request(life, VIRTIO_BLK_T_FLUSH, 0, 0);
	request(life, VIRTIO_BLK_T_OUT, 3, 1024);
	wedge_life(life);
	ck_assert_int_ne(life_destroy(life), KTVBLK_JOINED);
	life_let_go(life);
	life_wait_released(life);
	create(life);
	life_destroy(life);
	life_wait_released(life);
}

#define DIRECT_BYTES 4096u

/*
 * Buffers are registered, let go of when the device is idle, and registered
 * again. A request that is large makes that it has something to give back.
 */
static void live_directly(struct life *life)
{
	create(life);
	start(life);
	for (int i = 0; i < 2; i++) {
		for (unsigned int n = 0; n < PIN_USES; n++)
			request(life,
				n % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
				n / 2 * DIRECT_BYTES / KTVBLK_SECTOR_SIZE,
				DIRECT_BYTES);
		request(life, VIRTIO_BLK_T_IN, 0, 2 * IDLE_KEEP_BYTES);
		ck_assert(eventually(!has_table));
	}
	request(life, VIRTIO_BLK_T_FLUSH, 0, 0);
	restart(life);
	request(life, VIRTIO_BLK_T_IN, 0, DIRECT_BYTES);
	ck_assert_int_eq(life_destroy(life), KTVBLK_JOINED);
	life_wait_released(life);
}

/*
 * The faults
 */

/*
 * With each error where the library tells them apart; else with one error at
 * the first call, with the next one at the second, and so on.
 */
static const struct call {
	const char *name;
	struct fault *fault;
	bool each;
	int errors[5];
} calls[] = {
#define CALL(name, each, ...)                                                  \
	{                                                                      \
#name, &name##_fault, each,                                    \
		{                                                              \
			__VA_ARGS__                                            \
		}                                                              \
	}
	CALL(malloc, false, ENOMEM),
	CALL(calloc, false, ENOMEM),
	CALL(mmap, false, ENOMEM),
	CALL(munmap, false, ENOMEM),
	CALL(eventfd, false, EMFILE, ENFILE, ENOMEM),
	CALL(epoll_create1, false, EMFILE, ENFILE, ENOMEM),
	CALL(epoll_ctl, false, ENOSPC, ENOMEM),
	CALL(epoll_wait, true, EINTR, EBADF),
	CALL(timerfd_create, false, EMFILE, ENFILE, ENOMEM),
	CALL(timerfd_settime, false, EINVAL),
	CALL(open, false, EMFILE, ENFILE, EACCES),
	CALL(read, false, EIO, EINTR),
	CALL(write, true, EAGAIN, EIO),
	CALL(close, false, EIO, EINTR),
	CALL(fcntl, true, EMFILE, EBADF),
	CALL(fstat, false, EIO, EOVERFLOW),
	CALL(poll, false, EINTR, ENOMEM),
	CALL(ioctl, false, EIO, ENOTTY),
	CALL(preadv, true, EINTR, EIO),
	CALL(statx, false, ENOSYS, EPERM),
	CALL(pwritev, true, EINTR, ENOSPC),
	CALL(fdatasync, true, EIO, ENOSPC),
	CALL(fallocate, true, EOPNOTSUPP, EINTR, EIO),
	CALL(syscall, false, EINTR, EAGAIN),
	CALL(pthread_create, false, EAGAIN),
	CALL(pthread_clockjoin_np, false, EINVAL),
	CALL(pthread_getaffinity_np, false, EINVAL),
	CALL(pthread_setaffinity_np, false, EINVAL, EPERM),
	CALL(pthread_setname_np, false, EPERM),
	CALL(pthread_attr_setstack, false, EINVAL),
	CALL(pthread_cond_wait, false, 0),
	CALL(pthread_cond_timedwait, false, 0),
	CALL(sd_journal_sendv, false, EAGAIN, ECONNREFUSED, EMFILE),
	CALL(opendir, false, EMFILE, ENOMEM),
	CALL(readdir, false, 0),
	/* From here on, only where there is io_uring. */
	CALL(preadv2, true, EAGAIN, EOPNOTSUPP, EINTR, EIO),
	CALL(pwritev2, true, EAGAIN, ENOSYS, EINTR, ENOSPC),
	CALL(io_uring_queue_init_params, true, EPERM, ENOMEM, EINVAL),
	CALL(io_uring_ring_dontfork, false, ENOMEM, EINVAL),
	CALL(io_uring_register_files, false, ENOMEM, EMFILE, EPERM),
	CALL(io_uring_register_iowq_max_workers, false, EINVAL, EPERM),
	CALL(io_uring_unregister_files, true, EINTR, ENXIO),
	CALL(io_uring_submit, true, EAGAIN, EBUSY, EINTR, ENOMEM, EPERM),
	CALL(io_uring_submit_and_wait_timeout, true, EAGAIN, EBUSY, EINTR,
	     ENOMEM, EPERM),
	CALL(__io_uring_get_cqe, false, EAGAIN, EINTR, EBUSY),
	/* And only where there is O_DIRECT: */
	CALL(io_uring_register_buffers_sparse, true, ENOMEM, EPERM, EINVAL),
	CALL(io_uring_register_buffers_update_tag, true, ENOMEM, EFAULT),
	CALL(io_uring_unregister_buffers, true, EINTR, ENXIO, ENOMEM),
};
#define N_CALLS_DIRECT 3

static const struct way {
	const char *name;
	enum life_disk disk;
	bool badly; /* it wedges */
} ways[] = {
	{ "calls", LIFE_CALLS, false }, { "calls, wedging", LIFE_CALLS, true },
	{ "later", LIFE_LATER, false }, { "later, wedging", LIFE_LATER, true },
	{ "a file", LIFE_FILE, false }, { "io_uring", LIFE_RING, false },
};

/* For what none of these does; it waits for an idle device each time. */
static const struct way direct_way = { "O_DIRECT", LIFE_DIRECT, false };

/* Where there is no io_uring, the last is not gone. */
static size_t n_ways;

struct left {
	unsigned int fds;
	int allocated, mapped;
};

static struct left left_now(void)
{
	return (struct left){ count_fds(), allocated, mapped };
}

/* With this fault, once; false: there was no such call any more. */
static bool live_once(const struct left *before, const struct call *call,
		      int error, unsigned int n, const struct way *way)
{
	const bool direct = way->disk == LIFE_DIRECT;
	/* Only buffers of the device's own are registered. */
	const uint64_t flags = n % 2 && !direct ? KTVBLK_ZERO_COPY : 0;
	struct life life;
	bool over;

	failed = 0;
	life_open(&life, flags, way->badly ? 5 : WAIT_MS);
	life.disk = way->disk;
	ck_assert(!direct || life_open_direct(&life));
	life.bytes_per_sec = runs_slowly() ? BYTES_PER_SEC_SLOWLY
					   : BYTES_PER_SEC;
	if (call)
		fault_set(call->fault,
			  &(struct fault_when){ .error = error, .skip = n });
	(direct ? live_directly : way->badly ? live_badly : live)(&life);
	over = !call || fault_over(call->fault);
	if (call)
		fault_clear(call->fault);
	else
		ck_assert_uint_eq(failed, 0);
	/* A thread that is not seen any more has given all back. */
	ck_assert_msg(eventually(count_threads("") <= OWN_THREADS),
		      "a thread is left");
	life_check_disk(&life);
	life_close(&life);
	if (before) {
		ck_assert_uint_eq(count_fds(), before->fds);
		ck_assert_int_eq(allocated, before->allocated);
		ck_assert_int_eq(mapped, before->mapped);
	}
	ck_assert_uint_lt(life.longest_ns / NSEC_PER_MSEC, WAIT_MS);
	return over;
}

static size_t count_errors(const struct call *call)
{
	size_t n = 1;

	while (n < ARRAY_SIZE(call->errors) && call->errors[n])
		n++;
	return n;
}

/* The first call fails, the second, ...; `from`: with which error. */
static unsigned int walk(const struct left *before, const struct call *call,
			 size_t from, const struct way *way)
{
	const unsigned int step = runs_slowly() ? 3 : 1;
	const size_t n_errors = count_errors(call);
	unsigned int points = 0;

	for (unsigned int n = 0;; n += step, points++) {
		const size_t e = call->each ? from : n / step % n_errors;
		const int error = call->errors[e];

		fprintf(stderr, "%s %s %u, %s\n", call->name,
			error ? strerrorname_np(error) : "0", n, way->name);
		if (!live_once(before, call, error, n, way))
			return points;
	}
}

/* liburing may find by itself that nothing has ended, and not ask the kernel. */
static bool is_needless(const struct call *call)
{
	struct io_uring_cqe *cqe;
	struct io_uring uring;
	bool hit;

	if (call->fault != &__io_uring_get_cqe_fault)
		return false;
	ck_assert_int_eq(io_uring_queue_init(1, &uring, 0), 0);
	fault_set(call->fault, &(struct fault_when){ .error = EAGAIN });
	ck_assert_int_eq(io_uring_peek_cqe(&uring, &cqe), -EAGAIN);
	hit = fault_over(call->fault);
	io_uring_queue_exit(&uring);
	return !hit;
}

START_TEST(a_device_whose_calls_fail_lives_and_leaves_nothing)
{
	const struct call *call = &calls[_i];
	const size_t n_errors = call->each ? count_errors(call) : 1;
	const bool direct = (size_t)_i >= ARRAY_SIZE(calls) - N_CALLS_DIRECT;
	const struct way *those = direct ? &direct_way : ways;
	const size_t n = direct ? 1 : n_ways;
	struct left before;
	unsigned int points = 0;

	parked_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ck_assert_int_ge(parked_fd, 0);
	/* The C library's own caches; and without a fault nothing fails. */
	for (size_t w = 0; w < n; w++)
		live_once(NULL, NULL, 0, (unsigned int)w, &those[w]);
	before = left_now();
	for (int tries = 0; !points && tries < 20; tries++)
		for (size_t e = 0; e < n_errors; e++)
			for (size_t w = 0; w < n; w++)
				points += walk(&before, call, e, &those[w]);
	fprintf(stderr, "%s: failed at %u points\n", call->name, points);
	ck_assert_msg(points > 0 || is_needless(call), "%s was not called",
		      call->name);
	close(parked_fd);
}
END_TEST

static bool has_direct(void)
{
	struct life life;
	bool it_has;

	life_open(&life, 0, WAIT_MS);
	it_has = life_open_direct(&life);
	life_close(&life);
	return it_has;
}

int main(void)
{
	const TTest *const tests[] = {
		a_device_whose_calls_fail_lives_and_leaves_nothing,
	};
	int n_calls = ARRAY_SIZE(calls);

	/* Of some calls there are hundreds, and each waits for its device. */
	setenv("CK_DEFAULT_TIMEOUT", "120", 1);
	n_ways = ARRAY_SIZE(ways);
	if (engine_uring_probe() < 0) {
		fprintf(stderr, "no io_uring here\n");
		n_ways--;
		while (strcmp(calls[--n_calls].name, "preadv2") != 0)
			;
	} else if (!has_direct()) {
		fprintf(stderr, "no O_DIRECT in the file system here\n");
		n_calls -= N_CALLS_DIRECT;
	}
	return run_loops("faults", n_calls, tests, ARRAY_SIZE(tests));
}
