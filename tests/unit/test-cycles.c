/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The numbers: a device that comes and goes leaves nothing, a wedge that ends
 * leaves nothing, a clean destroy takes no time, a request takes no memory.
 */

/* wrap: malloc calloc realloc */

#include <malloc.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "wedge.h"

static _Atomic unsigned int allocations;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
	allocations++;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	allocations++;
	return __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	allocations++;
	return __real_realloc(old, size);
}

static void run_once(void)
{
	struct rig rig;

	wedge_open(&rig, 1000, 0);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	rig_close(&rig);
}

/* Wedged and reset, or wedged and destroyed, then let go. */
static void wedge_once(bool destroying)
{
	struct rig rig;

	wedge_open(&rig, 1, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	if (destroying) {
		ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_TIMED_OUT);
		rig.dev = NULL;
	} else {
		rig_reset(&rig);
		rig_start(&rig);
	}
	wedge_close(&rig);
	ck_assert(eventually(count_threads("ktvblk") == 0));
}

/* glibc gives threads heaps of their own, and keeps them: not ours to count. */
__attribute__((constructor)) static void have_one_heap(void)
{
	mallopt(M_ARENA_MAX, 1);
}

static void expect_as_before(const char *what, unsigned int n,
			     const struct traces *before)
{
	struct traces now;

	traces_expect_gone(before);
	now = traces_now();
	fprintf(stderr,
		"%u %s: %u descriptors (%u), %u threads (%u), %u maps (%u)\n",
		n, what, now.fds, before->fds, now.threads, before->threads,
		now.maps, before->maps);
	ck_assert_uint_eq(now.fds, before->fds);
	ck_assert_uint_eq(now.threads, before->threads);
	/* A sanitizer maps for itself as it goes along. */
	if (!runs_slowly())
		ck_assert_uint_le(now.maps, before->maps);
}

START_TEST(a_device_that_comes_and_goes_leaves_nothing)
{
	const unsigned int n = rounds("CYCLES", 1000, 50);
	struct traces before;

	for (int i = 0; i < 20; i++) /* the C library's own caches */
		run_once();
	before = traces_now();
	for (unsigned int i = 0; i < n; i++)
		run_once();
	expect_as_before("devices", n, &before);
}
END_TEST

START_TEST(a_wedge_that_ends_leaves_nothing)
{
	const unsigned int n = rounds("CYCLES", 1000, 100) / 10;
	struct traces before;

	for (int i = 0; i < 20; i++)
		wedge_once(i % 2);
	before = traces_now();
	for (unsigned int i = 0; i < n; i++)
		wedge_once(i % 2);
	expect_as_before("wedges", n, &before);
}
END_TEST

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

#define LIMIT_NS 200000
#define CONTROL_TIMES_MAX 5

#define TRIES 51

struct sleeper {
	pthread_t thread;
	_Atomic pid_t tid;
	int fd;
	bool woken;
};

static void *sleeper_main(void *arg)
{
	struct sleeper *sleeper = (struct sleeper *)arg;
	uint64_t word;

	atomic_store(&sleeper->tid, gettid());
	sleeper->woken = read(sleeper->fd, &word, sizeof(word)) == sizeof(word);
	return NULL;
}

/*
 * The least that can be asked of this machine at this moment: to wake and join
 * that many threads, one after the other. That is how a worker ends, and with
 * the last device the thread of the records.
 */
static uint64_t time_threads(unsigned int n)
{
	struct sleeper sleepers[2] = { 0 };
	uint64_t start, took;

	for (unsigned int i = 0; i < n; i++) {
		struct sleeper *sleeper = &sleepers[i];

		sleeper->fd = eventfd(0, EFD_CLOEXEC);
		ck_assert_int_ge(sleeper->fd, 0);
		ck_assert_int_eq(thread_start(&sleeper->thread, NULL,
					      sleeper_main, sleeper),
				 0);
		ck_assert(eventually(thread_state(atomic_load(&sleeper->tid)) ==
				     'S'));
	}
	start = now_ns();
	for (unsigned int i = 0; i < n; i++) {
		ck_assert_int_eq(eventfd_signal(sleepers[i].fd), 0);
		ck_assert_int_eq(pthread_join(sleepers[i].thread, NULL), 0);
	}
	took = now_ns() - start;
	for (unsigned int i = 0; i < n; i++) {
		ck_assert(sleepers[i].woken);
		close(sleepers[i].fd);
	}
	return took;
}

static uint64_t median(uint64_t *took)
{
	qsort(took, TRIES, sizeof(*took), compare);
	return took[TRIES / 2];
}

struct times {
	uint64_t destroy_ns;
	uint64_t threads_ns;
};

/*
 * The medians, each destroy beside a control: with another device there, or as
 * the last, which ends the log thread too.
 */
static struct times time_destroys(bool last)
{
	uint64_t took[TRIES], control[TRIES], start;
	struct times times;
	struct rig rig, other;

	if (!last)
		wedge_open_idle(&other, 1000, 0);
	for (size_t i = 0; i < TRIES; i++) {
		control[i] = time_threads(last ? 2 : 1);
		wedge_open(&rig, 1000, 0);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
		ck_assert(eventually(worker_sleeps(&rig)));
		start = now_ns();
		ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_JOINED);
		took[i] = now_ns() - start;
		rig.dev = NULL;
		rig_free(&rig);
	}
	if (!last)
		rig_close(&other);
	times = (struct times){ median(took), median(control) };
	fprintf(stderr,
		"clean destroy, %s: median %.1f us, longest %.1f us; "
		"to wake and join as many threads: median %.1f us\n",
		last ? "the last device" : "one of several",
		(double)times.destroy_ns / 1000, (double)took[TRIES - 1] / 1000,
		(double)times.threads_ns / 1000);
	return times;
}

/*
 * On a busy machine others take their time too: there it has some tries, and is
 * measured against the control.
 */
static void check_destroys(bool last)
{
	struct times times = { .destroy_ns = UINT64_MAX };

	for (int i = 0; i < 10 && times.destroy_ns >= LIMIT_NS; i++) {
		times = time_destroys(last);
		if (times.destroy_ns < CONTROL_TIMES_MAX * times.threads_ns)
			return;
	}
	if (!runs_slowly())
		ck_assert_uint_lt(times.destroy_ns, LIMIT_NS);
}

START_TEST(a_clean_destroy_takes_less_than_200_us)
{
	check_destroys(false);
	check_destroys(true);
}
END_TEST

/* Without a word to the test framework, which allocates for each. */
static bool serve(struct rig *rig, uint32_t type)
{
	const uint16_t used = rig_used_idx(rig);
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC;

	rig_chain(rig, 0, type, 0, type == VIRTIO_BLK_T_FLUSH ? 0 : 4096);
	rig_avail(rig, 0);
	rig_kick(rig);
	while (rig_used_idx(rig) == used && now_ns() < until)
		sched_yield();
	return *rig_chain_status(rig, 0) == VIRTIO_BLK_S_OK;
}

static void check_allocations(uint64_t flags)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
					  VIRTIO_BLK_T_FLUSH,
					  VIRTIO_BLK_T_GET_ID };
	unsigned int before = 0, after, served = 0;
	struct rig rig;

	wedge_open(&rig, 1000, flags);
	for (unsigned int i = 0; i < 1100; i++) {
		if (i == 100)
			before = allocations;
		served += serve(&rig, types[i % ARRAY_SIZE(types)]);
	}
	after = allocations;
	ck_assert_uint_eq(served, 1100);
	ck_assert_uint_eq(after - before, 0);
	rig_close(&rig);
}

START_TEST(a_request_takes_no_memory)
{
	check_allocations(0);
	check_allocations(KTVBLK_ZERO_COPY);
}
END_TEST

TEST_PROGRAM("cycles", a_device_that_comes_and_goes_leaves_nothing,
	     a_wedge_that_ends_leaves_nothing,
	     a_clean_destroy_takes_less_than_200_us, a_request_takes_no_memory)
