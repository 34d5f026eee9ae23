/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who holds requests up where the worker waits for what it gave to io_uring: a
 * thread of the kernel's, or nobody. They are real ones: opening a FIFO waits
 * for the other end.
 */

#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "harness.h"
#include "watch.h"

/* wrap: open */

#define LIMIT (5 * NSEC_PER_SEC)
#define SLOTS 8u

static bool located(struct watch *watch, const char *syscall,
		    struct watch_stuck *stuck)
{
	watch_locate(watch, stuck);
	return stuck->tid && strcmp(stuck->syscall, syscall) == 0 &&
	       stuck->state[0] == 'S';
}

#define N_FIFOS 3

struct ring {
	int fd;
	unsigned char *rings;
	size_t rings_bytes;
	struct io_uring_sqe *sqes;
	struct io_uring_params params;
};

struct waiter {
	struct watch *watch;
	struct ring ring;
	pthread_t thread;
	bool refused; /* no io_uring here */
	pid_t tid;
	struct latch ready;
	int epoll_fd, other_epoll_fd;
	int go_fd; /* one more request, of the kind below */
	_Atomic bool stop;
	_Atomic bool waits_in_ring; /* not in epoll */
	_Atomic bool in_other; /* another epoll: it has nothing to do with us */
	_Atomic unsigned int n_begun, n_ended;
	char dir[32], fifos[N_FIFOS][48];
	_Atomic unsigned int n_fifos; /* asked for so far */
	_Atomic bool no_thread; /* a read of a pipe: that needs none */
	int pipe[2];
	char byte;
};

static bool ring_open(struct ring *ring)
{
	struct io_uring_params *p = &ring->params;

	memset(ring, 0, sizeof(*ring));
	ring->fd = (int)syscall(SYS_io_uring_setup, 8, p);
	if (ring->fd < 0)
		return false;
	ring->rings_bytes = MAX(
		p->sq_off.array + p->sq_entries * sizeof(uint32_t),
		p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe));
	ring->rings = (unsigned char *)mmap(NULL, ring->rings_bytes,
					    PROT_READ | PROT_WRITE, MAP_SHARED,
					    ring->fd, IORING_OFF_SQ_RING);
	ring->sqes = (struct io_uring_sqe *)mmap(
		NULL, p->sq_entries * sizeof(*ring->sqes),
		PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQES);
	ck_assert_ptr_ne(ring->rings, MAP_FAILED);
	ck_assert_ptr_ne(ring->sqes, MAP_FAILED);
	return true;
}

static void ring_close(struct ring *ring)
{
	munmap(ring->rings, ring->rings_bytes);
	munmap(ring->sqes, ring->params.sq_entries * sizeof(*ring->sqes));
	close(ring->fd);
}

static _Atomic uint32_t *ring_word(struct ring *ring, uint32_t offset)
{
	return (_Atomic uint32_t *)(void *)(ring->rings + offset);
}

static void ring_submit(struct ring *ring, const struct io_uring_sqe *sqe)
{
	const struct io_sqring_offsets *off = &ring->params.sq_off;
	const uint32_t tail = atomic_load(ring_word(ring, off->tail));
	const uint32_t i = tail % ring->params.sq_entries;

	ring->sqes[i] = *sqe;
	atomic_store(ring_word(ring, off->array) + i, i);
	atomic_store(ring_word(ring, off->tail), tail + 1);
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) != 1)
		abort();
}

static bool ring_reap(struct ring *ring)
{
	const struct io_cqring_offsets *off = &ring->params.cq_off;
	const uint32_t head = atomic_load(ring_word(ring, off->head));

	if (head == atomic_load(ring_word(ring, off->tail)))
		return false;
	atomic_store(ring_word(ring, off->head), head + 1);
	return true;
}

static void begin_one(struct waiter *waiter)
{
	struct watch_request request = { .type = 1 };
	struct io_uring_sqe sqe = { 0 };

	if (waiter->no_thread) {
		sqe.opcode = IORING_OP_READ;
		sqe.fd = waiter->pipe[0];
		sqe.addr = (uintptr_t)&waiter->byte;
		sqe.len = 1;
	} else {
		sqe.opcode = IORING_OP_OPENAT;
		sqe.flags = IOSQE_ASYNC;
		sqe.fd = AT_FDCWD;
		sqe.addr = (uintptr_t)waiter->fifos[waiter->n_fifos++];
		sqe.open_flags = O_RDONLY | O_CLOEXEC;
	}
	request.since_ns = now_ns();
	watch_begin(waiter->watch, waiter->n_begun, &request);
	ring_submit(&waiter->ring, &sqe);
	waiter->n_begun++;
}

static void wait_once(struct waiter *waiter)
{
	struct epoll_event event;

	if (waiter->waits_in_ring && waiter->n_begun > waiter->n_ended)
		syscall(SYS_io_uring_enter, waiter->ring.fd, 0, 1,
			IORING_ENTER_GETEVENTS, NULL, 0);
	else
		epoll_wait(waiter->in_other ? waiter->other_epoll_fd
					    : waiter->epoll_fd,
			   &event, 1, -1);
}

static void *wait_main(void *arg)
{
	struct waiter *waiter = (struct waiter *)arg;
	struct epoll_event event = { .events = EPOLLIN };
	uint64_t n;

	waiter->tid = gettid();
	waiter->refused = !ring_open(&waiter->ring);
	watch_enter(waiter->watch);
	if (!waiter->refused &&
	    epoll_ctl(waiter->epoll_fd, EPOLL_CTL_ADD, waiter->ring.fd, &event))
		abort();
	latch_set(&waiter->ready);
	while (!waiter->stop && !waiter->refused) {
		if (read(waiter->go_fd, &n, sizeof(n)) > 0 && !waiter->stop)
			begin_one(waiter);
		wait_once(waiter);
		while (ring_reap(&waiter->ring))
			watch_end(waiter->watch, waiter->n_ended++);
	}
	watch_leave(waiter->watch);
	if (!waiter->refused)
		ring_close(&waiter->ring);
	return NULL;
}

/*
 * The scheduler's clock as a thread's CPU has it, in ms; each CPU has its own,
 * without what the hypervisor has taken from it.
 */
static struct {
	pid_t tid; /* 0: all as the kernel tells */
	_Atomic uint64_t its_ms, others_ms;
	bool runs; /* between any two looks */
} clocks;

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...)
{
	char file[16];
	int fd, tid;

	if (!clocks.tid ||
	    sscanf(path, "/proc/self/task/%d/%15s", &tid, file) != 2 ||
	    strcmp(file, "sched") != 0)
		return __real_open(path, flags, 0);
	fd = memfd_create("sched", MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	dprintf(fd, "se.exec_start : %llu.000000\n",
		(unsigned long long)(tid == clocks.tid ? clocks.its_ms
						       : clocks.others_ms));
	if (tid == clocks.tid && clocks.runs)
		clocks.its_ms++;
	lseek(fd, 0, SEEK_SET);
	return fd;
}

/* False: there is no io_uring here. */
static bool waiter_start(struct waiter *waiter)
{
	const struct identity nobody = { NULL, -1, 0 };
	struct epoll_event event = { .events = EPOLLIN };

	memset(&clocks, 0, sizeof(clocks));
	memset(waiter, 0, sizeof(*waiter));
	waiter->watch = watch_new(&nobody, LIMIT, NULL, SLOTS);
	latch_init(&waiter->ready);
	waiter->go_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	waiter->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	waiter->other_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	waiter->watch->epoll_fd = waiter->epoll_fd;
	epoll_ctl(waiter->epoll_fd, EPOLL_CTL_ADD, waiter->go_fd, &event);
	epoll_ctl(waiter->other_epoll_fd, EPOLL_CTL_ADD, waiter->go_fd, &event);
	ck_assert_int_eq(pipe(waiter->pipe), 0);
	snprintf(waiter->dir, sizeof(waiter->dir), "/tmp/ktvblk-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(waiter->dir));
	for (int i = 0; i < N_FIFOS; i++) {
		snprintf(waiter->fifos[i], sizeof(waiter->fifos[i]), "%s/%d",
			 waiter->dir, i);
		ck_assert_int_eq(mkfifo(waiter->fifos[i], 0600), 0);
	}
	ck_assert_int_eq(
		pthread_create(&waiter->thread, NULL, wait_main, waiter), 0);
	ck_assert(latch_wait(&waiter->ready, WAIT_MS));
	return !waiter->refused;
}

/* One more, and it has been given to the kernel. */
static void waiter_go(struct waiter *waiter)
{
	const unsigned int n = waiter->n_begun;

	eventfd_signal(waiter->go_fd);
	ck_assert(eventually(waiter->n_begun == n + 1));
}

/* The other end of a FIFO: its request ends. */
static void waiter_open(struct waiter *waiter, unsigned int i)
{
	const unsigned int n = waiter->n_ended;
	const int fd = open(waiter->fifos[i], O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	/* Open until it has been through. */
	ck_assert(eventually(waiter->n_ended > n));
	close(fd);
}

static void waiter_stop(struct waiter *waiter)
{
	waiter->stop = true;
	eventfd_signal(waiter->go_fd);
	ck_assert_int_eq(write(waiter->pipe[1], "x", 1), 1);
	pthread_join(waiter->thread, NULL);
	watch_gone(waiter->watch);
	for (int i = 0; i < N_FIFOS; i++)
		unlink(waiter->fifos[i]);
	rmdir(waiter->dir);
	for (int i = 0; i < 2; i++)
		close(waiter->pipe[i]);
	close(waiter->go_fd);
	close(waiter->epoll_fd);
	close(waiter->other_epoll_fd);
	latch_destroy(&waiter->ready);
	watch_unref(waiter->watch);
}

/*
 * Has our main thread another number outside? The kernel names its threads by
 * those, and then nobody here knows whose they are.
 */
static bool numbers_are_others(void)
{
	char path[64];
	const ssize_t n = readlink("/proc/self/ns/pid", path, sizeof(path) - 1);

	ck_assert_int_gt(n, 0);
	path[n] = '\0';
	/* That of the initial namespace has this number, in every kernel. */
	return strcmp(path, "pid:[4026531836]") != 0;
}

/*
 * It sleeps again, and so many of the kernel's threads are busy; or, where they
 * cannot be known, none is told, once there is one.
 */
static bool busy_are(struct waiter *waiter, unsigned int n,
		     struct watch_stuck *stuck)
{
	watch_locate(waiter->watch, stuck);
	if (thread_state(waiter->tid) != 'S' || stuck->tid == waiter->tid)
		return false;
	if (numbers_are_others() && count_threads("iou-wrk-"))
		return !stuck->counted && !stuck->n_threads && !stuck->tid;
	/* And the one that is told has got to where it waits. */
	return stuck->counted && stuck->n_threads == n &&
	       (!n || stuck->state[0] != 'R');
}

static void expect_busy(struct waiter *waiter, unsigned int n,
			struct watch_stuck *stuck)
{
	ck_assert_msg(eventually(busy_are(waiter, n, stuck)),
		      "%u of %u busy, counted %d, tid %d, wchan '%s'",
		      stuck->n_threads, n, stuck->counted, (int)stuck->tid,
		      stuck->wchan);
}

static void expect_no_thread(const struct watch_stuck *stuck)
{
	ck_assert_int_eq(stuck->tid, 0);
	ck_assert_str_eq(stuck->state, "");
	ck_assert_str_eq(stuck->syscall, "");
	ck_assert_str_eq(stuck->wchan, "");
}

static void expect_one_of_the_kernels(struct waiter *waiter,
				      const struct watch_stuck *stuck)
{
	char prefix[32], name[32] = "";
	FILE *file;

	if (numbers_are_others()) {
		expect_no_thread(stuck);
		return;
	}
	snprintf(prefix, sizeof(prefix), "/proc/self/task/%d/comm",
		 (int)stuck->tid);
	file = fopen(prefix, "re");
	ck_assert_ptr_nonnull(file);
	ck_assert_ptr_nonnull(fgets(name, sizeof(name), file));
	fclose(file);
	snprintf(prefix, sizeof(prefix), "iou-wrk-%d\n", (int)waiter->tid);
	ck_assert_str_eq(name, prefix);
	ck_assert_str_eq(stuck->syscall, "none");
	ck_assert(strchr("SD", stuck->state[0]));
	ck_assert_str_ne(stuck->wchan, "io_wq_worker");
	ck_assert_str_ne(stuck->wchan, "");
}

/* However it waits. */
static void check_the_kernels_thread_is_located(bool in_ring)
{
	struct watch_stuck stuck;
	struct waiter waiter;

	if (in_ring && ring_holds_threads())
		return;
	if (waiter_start(&waiter)) {
		waiter.waits_in_ring = in_ring;
		waiter_go(&waiter);
		expect_busy(&waiter, 1, &stuck);
		expect_one_of_the_kernels(&waiter, &stuck);
		waiter_open(&waiter, 0);
	}
	waiter_stop(&waiter);
}

START_TEST(where_the_worker_sleeps_the_kernels_thread_is_located)
{
	check_the_kernels_thread_is_located(false);
}
END_TEST

START_TEST(where_the_worker_waits_in_the_ring_the_kernels_thread_is_located)
{
	check_the_kernels_thread_is_located(true);
}
END_TEST

START_TEST(of_many_the_one_that_is_stuck_the_longest_is_told)
{
	struct watch_stuck first, stuck;
	struct waiter waiter;

	if (waiter_start(&waiter)) {
		waiter_go(&waiter);
		expect_busy(&waiter, 1, &first);
		clocks.others_ms = 1;
		clocks.tid = first.tid;
		for (unsigned int n = 2; n <= N_FIFOS; n++) {
			waiter_go(&waiter);
			expect_busy(&waiter, n, &stuck);
			ck_assert_int_eq(stuck.tid, first.tid);
		}
		/* When that has ended the next is, and it is idle. */
		waiter_open(&waiter, 0);
		expect_busy(&waiter, N_FIFOS - 1, &stuck);
		ck_assert(numbers_are_others() || stuck.tid != first.tid);
		expect_one_of_the_kernels(&waiter, &stuck);
		for (unsigned int i = 1; i < N_FIFOS; i++)
			waiter_open(&waiter, i);
	}
	waiter_stop(&waiter);
}
END_TEST

START_TEST(who_is_at_work_is_not_told_whatever_its_clock)
{
	struct watch_stuck first, stuck;
	struct waiter waiter;

	if (waiter_start(&waiter)) {
		waiter_go(&waiter);
		expect_busy(&waiter, 1, &first);
		clocks.runs = true;
		clocks.others_ms = UINT32_MAX;
		clocks.tid = first.tid;
		waiter_go(&waiter);
		expect_busy(&waiter, 2, &stuck);
		ck_assert(numbers_are_others() || stuck.tid != first.tid);
		expect_one_of_the_kernels(&waiter, &stuck);
		for (unsigned int i = 0; i < 2; i++)
			waiter_open(&waiter, i);
	}
	waiter_stop(&waiter);
}
END_TEST

START_TEST(what_is_with_no_thread_is_told_so)
{
	struct watch_stuck stuck;
	struct waiter waiter;

	if (waiter_start(&waiter)) {
		waiter.no_thread = true;
		waiter_go(&waiter);
		expect_busy(&waiter, 0, &stuck);
		expect_no_thread(&stuck);
	}
	waiter_stop(&waiter);
}
END_TEST

START_TEST(a_thread_that_has_nothing_to_do_holds_nothing_up)
{
	struct watch_stuck stuck;
	struct waiter waiter;

	if (waiter_start(&waiter)) {
		waiter_go(&waiter);
		expect_busy(&waiter, 1, &stuck);
		waiter.no_thread = true;
		waiter_go(&waiter);
		waiter_open(&waiter, 0);
		/* It is there still, and idle. */
		expect_busy(&waiter, 0, &stuck);
		expect_no_thread(&stuck);
	}
	waiter_stop(&waiter);
}
END_TEST

/* A blocking op of a backend may have an epoll of its own. */
START_TEST(who_sleeps_on_another_epoll_is_stuck_itself)
{
	struct watch_stuck stuck;
	struct waiter waiter;

	if (waiter_start(&waiter)) {
		waiter.in_other = true;
		waiter.no_thread = true;
		waiter_go(&waiter);
		ck_assert(eventually(
			located(waiter.watch, "epoll_wait", &stuck) ||
			located(waiter.watch, "epoll_pwait", &stuck)));
		ck_assert_int_eq(stuck.tid, waiter.tid);
		ck_assert_uint_eq(stuck.n_threads, 1);
	}
	waiter_stop(&waiter);
}
END_TEST

START_TEST(who_waits_with_nothing_in_service_is_told_as_ever)
{
	struct watch_stuck stuck;
	struct waiter waiter;

	if (waiter_start(&waiter)) {
		ck_assert(eventually(
			located(waiter.watch, "epoll_wait", &stuck) ||
			located(waiter.watch, "epoll_pwait", &stuck)));
		ck_assert_int_eq(stuck.tid, waiter.tid);
		ck_assert_uint_eq(stuck.n_threads, 1);
	}
	waiter_stop(&waiter);
}
END_TEST

static void *be_called_so(void *arg)
{
	/* As in a PID namespace: no thread of ours has that number. */
	pthread_setname_np(pthread_self(), "iou-wrk-4194304");
	latch_wait((struct latch *)arg, WAIT_MS);
	return NULL;
}

/* One of the kernel's, where it can be; else there is one, and none is told. */
static bool is_told(struct waiter *waiter, struct watch_stuck *stuck)
{
	watch_locate(waiter->watch, stuck);
	if (numbers_are_others())
		return count_threads("iou-wrk-") > 1 && !stuck->counted &&
		       !stuck->tid;
	/* And has got to where it waits. */
	return stuck->tid && stuck->tid != waiter->tid &&
	       stuck->state[0] != 'R';
}

START_TEST(where_it_cannot_be_known_whose_they_are_none_is_counted)
{
	struct watch_stuck stuck;
	struct waiter waiter;
	struct latch latch;
	pthread_t thread;

	if (waiter_start(&waiter)) {
		latch_init(&latch);
		ck_assert_int_eq(
			pthread_create(&thread, NULL, be_called_so, &latch), 0);
		ck_assert(eventually(find_thread("iou-wrk-4194304")));
		waiter.no_thread = true;
		waiter_go(&waiter);
		ck_assert(eventually(
			(watch_locate(waiter.watch, &stuck), !stuck.counted)));
		expect_no_thread(&stuck);
		/* What is ours is told all the same. */
		waiter.no_thread = false;
		waiter_go(&waiter);
		ck_assert(eventually(is_told(&waiter, &stuck)));
		expect_one_of_the_kernels(&waiter, &stuck);
		ck_assert(!stuck.counted);
		waiter_open(&waiter, 0);
		latch_set(&latch);
		pthread_join(thread, NULL);
		latch_destroy(&latch);
	}
	waiter_stop(&waiter);
}
END_TEST

TEST_PROGRAM("locate-ring",
	     where_the_worker_sleeps_the_kernels_thread_is_located,
	     where_the_worker_waits_in_the_ring_the_kernels_thread_is_located,
	     of_many_the_one_that_is_stuck_the_longest_is_told,
	     who_is_at_work_is_not_told_whatever_its_clock,
	     what_is_with_no_thread_is_told_so,
	     a_thread_that_has_nothing_to_do_holds_nothing_up,
	     who_sleeps_on_another_epoll_is_stuck_itself,
	     who_waits_with_nothing_in_service_is_told_as_ever,
	     where_it_cannot_be_known_whose_they_are_none_is_counted)
