/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A request that is too old is found, once, and whoever looks never sees half
 * of one request and half of the next.
 */

/* wrap: malloc calloc */

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/time.h>

#include "alloc-fails.h"
#include "harness.h"
#include "watch.h"

#define T0 (50 * NSEC_PER_SEC)
#define LIMIT (5 * NSEC_PER_SEC)

/* A watch of this thread's, as a worker has it. */
static struct watch *enter_new(uint64_t limit_ns)
{
	struct disk_id *disk = disk_id_new("vda", 2048);
	const struct identity id = { disk, 7 };
	struct watch *watch = watch_new(&id, limit_ns, NULL);

	disk_id_unref(disk);
	watch_enter(watch);
	return watch;
}

static void leave(struct watch *watch)
{
	watch_leave(watch);
	watch_unref(watch);
}

static bool begin_at(struct watch *watch, uint64_t since_ns)
{
	const struct watch_request request = {
		.type = 1, .sector = 34, .length = 4096, .since_ns = since_ns
	};

	return watch_begin(watch, &request);
}

/* Nothing is busy and nobody looks, whatever happened before. */
static void look_until_idle(void)
{
	struct watch_request request;
	uint64_t again;

	ck_assert_ptr_null(watch_scan(T0, &again, &request));
	ck_assert_uint_eq(again, 0);
}

/* The same, where a look was due at that time. */
static void look_until_idle_at(uint64_t again)
{
	struct watch_request request;

	do
		ck_assert_ptr_null(watch_scan(again, &again, &request));
	while (again);
}

/* What a scan finds, without its reference. */
static struct watch *scan_at(uint64_t now, uint64_t *ret_again)
{
	struct watch_request request;
	struct watch *watch = watch_scan(now, ret_again, &request);

	watch_unref(watch);
	return watch;
}

/* By a scan, which is told at its end: a bit of the word. */
static bool was_found(const struct watch *watch)
{
	return atomic_load(&watch->word) & 2u;
}

START_TEST(a_request_is_seen_from_its_begin_to_its_end)
{
	struct watch *watch = enter_new(LIMIT);
	struct watch_request seen;

	ck_assert(!watch_snapshot(watch).busy);
	begin_at(watch, T0);
	seen = watch_snapshot(watch);
	ck_assert(seen.busy);
	ck_assert_uint_eq(seen.type, 1);
	ck_assert_uint_eq(seen.sector, 34);
	ck_assert_uint_eq(seen.length, 4096);
	ck_assert_uint_eq(seen.since_ns, T0);
	ck_assert(!watch_is_stalled(watch, T0 + LIMIT - 1));
	ck_assert(!watch_end(watch));
	ck_assert(!watch_snapshot(watch).busy);
	leave(watch);
}
END_TEST

/* The log thread may hang in its sink just then. */
START_TEST(an_old_request_is_stalled_whoever_has_looked)
{
	struct watch *watch = enter_new(LIMIT), *endless;

	ck_assert(!watch_is_stalled(watch, UINT64_MAX));
	begin_at(watch, T0);
	ck_assert(!watch_is_stalled(watch, T0));
	ck_assert(!watch_is_stalled(watch, T0 + LIMIT - 1));
	ck_assert(watch_is_stalled(watch, T0 + LIMIT));
	ck_assert(watch_is_stalled(watch, UINT64_MAX));
	/* Nobody was told of it, so nobody is of its end. */
	ck_assert(!watch_end(watch));
	ck_assert(!watch_is_stalled(watch, UINT64_MAX));
	leave(watch);

	endless = enter_new(UINT64_MAX);
	begin_at(endless, T0);
	ck_assert(!watch_is_stalled(endless, UINT64_MAX - 2));
	watch_end(endless);
	leave(endless);
}
END_TEST

START_TEST(an_old_request_is_found_once)
{
	struct watch *watch = enter_new(LIMIT), *found;
	struct watch_request request;
	uint64_t again;

	begin_at(watch, T0);
	found = watch_scan(T0 + LIMIT, &again, &request);
	ck_assert_ptr_eq(found, watch);
	ck_assert(request.busy);
	ck_assert_uint_eq(request.type, 1);
	ck_assert_uint_eq(request.sector, 34);
	ck_assert_uint_eq(request.length, 4096);
	ck_assert_uint_eq(request.since_ns, T0);
	ck_assert(was_found(watch));
	watch_unref(found);

	/* It is still to be seen, but not found again. */
	ck_assert(watch_snapshot(watch).busy);
	ck_assert_ptr_null(scan_at(T0 + 9 * LIMIT, &again));
	ck_assert(watch_end(watch));
	ck_assert(!was_found(watch));

	/* The next one is a request of its own. */
	begin_at(watch, T0 + 9 * LIMIT);
	ck_assert(!watch_end(watch));
	begin_at(watch, T0 + 9 * LIMIT);
	ck_assert_ptr_eq(scan_at(T0 + 10 * LIMIT, &again), watch);
	ck_assert(watch_end(watch));
	leave(watch);
}
END_TEST

START_TEST(a_young_request_says_when_to_look_again)
{
	struct watch *watch = enter_new(LIMIT);
	uint64_t again = 99;

	begin_at(watch, T0);
	ck_assert_ptr_null(scan_at(T0, &again));
	ck_assert_uint_eq(again, T0 + LIMIT);
	ck_assert_ptr_null(scan_at(T0 + LIMIT - 1, &again));
	ck_assert_uint_eq(again, T0 + LIMIT);
	watch_end(watch);
	leave(watch);
}
END_TEST

START_TEST(the_first_that_is_due_says_when_to_look_again)
{
	struct watch *a = enter_new(LIMIT), *b = enter_new(LIMIT / 2);
	struct watch *idle = enter_new(LIMIT);
	uint64_t again = 99;

	begin_at(a, T0);
	begin_at(b, T0 + LIMIT / 4);
	ck_assert_ptr_null(scan_at(T0 + LIMIT / 4, &again));
	ck_assert_uint_eq(again, T0 + LIMIT * 3 / 4);
	/* Found: the other one is next. */
	ck_assert_ptr_eq(scan_at(T0 + LIMIT * 3 / 4, &again), b);
	ck_assert_ptr_null(scan_at(T0 + LIMIT * 3 / 4, &again));
	ck_assert_uint_eq(again, T0 + LIMIT);
	ck_assert(!watch_end(a));
	ck_assert(watch_end(b));
	ck_assert_ptr_null(scan_at(T0 + LIMIT, &again));
	ck_assert_uint_eq(again, 0);
	leave(idle);
	leave(b);
	leave(a);
}
END_TEST

START_TEST(all_that_are_old_are_found)
{
	struct watch *watches[5];
	uint64_t again;

	for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
		watches[i] = enter_new(LIMIT);
		begin_at(watches[i], T0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(watches); i++)
		ck_assert_ptr_nonnull(scan_at(T0 + LIMIT, &again));
	ck_assert_ptr_null(scan_at(T0 + LIMIT, &again));
	ck_assert_uint_eq(again, 0);
	for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
		ck_assert(watch_end(watches[i]));
		leave(watches[i]);
	}
}
END_TEST

START_TEST(the_first_begin_after_idleness_asks_for_a_look)
{
	struct watch *watch = enter_new(LIMIT);
	uint64_t again;

	look_until_idle();
	ck_assert(begin_at(watch, T0));
	watch_end(watch);
	ck_assert(!begin_at(watch, T0));
	/* While somebody is busy, looking goes on. */
	ck_assert_ptr_null(scan_at(T0, &again));
	watch_end(watch);
	ck_assert(!begin_at(watch, T0));
	watch_end(watch);
	/* Nobody is: it ends. */
	look_until_idle();
	ck_assert(begin_at(watch, T0));
	watch_end(watch);
	look_until_idle();
	leave(watch);
}
END_TEST

START_TEST(a_stalled_request_alone_needs_no_more_looks)
{
	struct watch *watch = enter_new(LIMIT);
	uint64_t again;

	ck_assert(begin_at(watch, T0));
	ck_assert_ptr_eq(scan_at(T0 + LIMIT, &again), watch);
	ck_assert_ptr_null(scan_at(T0 + LIMIT, &again));
	ck_assert_uint_eq(again, 0);
	ck_assert(watch_end(watch));
	/* Thus the next one asks again. */
	ck_assert(begin_at(watch, T0 + LIMIT));
	watch_end(watch);
	leave(watch);
}
END_TEST

START_TEST(who_has_left_is_not_found)
{
	struct watch *a = enter_new(LIMIT), *b = enter_new(LIMIT);
	struct watch *c = enter_new(LIMIT);
	uint64_t again;

	begin_at(a, T0);
	begin_at(b, T0);
	begin_at(c, T0);
	watch_leave(b);
	watch_leave(a);
	/* Again; its neighbours are others by now. */
	watch_leave(b);
	ck_assert_ptr_eq(scan_at(T0 + LIMIT, &again), c);
	ck_assert_ptr_null(scan_at(T0 + LIMIT, &again));
	ck_assert_uint_eq(again, 0);
	watch_unref(a);
	watch_unref(b);
	leave(c);
}
END_TEST

START_TEST(who_was_found_lives_as_long_as_a_reference)
{
	struct watch *watch = enter_new(LIMIT), *found;
	struct watch_request request;
	uint64_t again;

	ck_assert_ptr_eq(watch_ref(watch), watch);
	watch_unref(watch);
	begin_at(watch, T0);
	found = watch_scan(T0 + LIMIT, &again, &request);
	watch_end(watch);
	leave(watch);
	/* Its identity too. */
	ck_assert_str_eq(found->id.disk->name, "vda");
	ck_assert_int_eq(found->id.stop_fd, 7);
	watch_unref(found);
}
END_TEST

START_TEST(no_watch_is_taken_and_given)
{
	const struct identity nobody = { NULL, -1 };
	struct watch *watch;

	ck_assert_ptr_null(watch_ref(NULL));
	watch_unref(NULL);
	watch = watch_new(&nobody, LIMIT, NULL);
	ck_assert_ptr_nonnull(watch);
	watch_leave(watch); /* never entered */
	watch_unref(watch);
	alloc_fails = 1;
	ck_assert_ptr_null(watch_new(&nobody, LIMIT, NULL));
}
END_TEST

/*
 * Races
 */

struct racer {
	struct watch *watch;
	atomic_bool stop;
	bool lets_see; /* gives the processor away in the midst of some */
	int wake_fd;
	unsigned int stalled;
};

static void *begin_and_end(void *arg)
{
	struct racer *racer = (struct racer *)arg;

	for (uint32_t i = 1; !atomic_load(&racer->stop); i++) {
		const struct watch_request request = {
			.type = i,
			.sector = i * UINT64_C(3),
			.length = i * UINT64_C(5),
			.since_ns = i * UINT64_C(7),
		};

		watch_begin(racer->watch, &request);
		if (racer->lets_see && i % 16 == 0)
			sched_yield();
		racer->stalled += watch_end(racer->watch);
	}
	return NULL;
}

static void start_racer(pthread_t *thread, void *(*body)(void *),
			struct racer *racer)
{
	ck_assert_int_eq(pthread_create(thread, NULL, body, racer), 0);
}

static bool is_of_one_request(const struct watch_request *seen)
{
	return seen->sector == seen->type * UINT64_C(3) &&
	       seen->length == seen->type * UINT64_C(5) &&
	       seen->since_ns == seen->type * UINT64_C(7);
}

START_TEST(a_snapshot_is_of_one_request)
{
	struct racer racer = { .watch = enter_new(LIMIT), .lets_see = true };
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC / 2;
	unsigned int busy = 0, mixed = 0;
	pthread_t thread;

	start_racer(&thread, begin_and_end, &racer);
	while (busy < 10000 && now_ns() < until) {
		struct watch_request seen = watch_snapshot(racer.watch);

		busy += seen.busy;
		mixed += seen.busy && !is_of_one_request(&seen);
	}
	atomic_store(&racer.stop, true);
	pthread_join(thread, NULL);
	leave(racer.watch);
	ck_assert_uint_gt(busy, 0);
	ck_assert_uint_eq(mixed, 0);
}
END_TEST

START_TEST(each_that_is_found_is_told_at_its_end)
{
	/* All are old. */
	struct racer racer = { .watch = enter_new(0), .lets_see = true };
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	struct watch_request seen;
	unsigned int found = 0;
	struct watch *watch;
	pthread_t thread;
	uint64_t again;

	start_racer(&thread, begin_and_end, &racer);
	while (found < 50 && now_ns() < until) {
		watch = watch_scan(UINT64_MAX, &again, &seen);
		if (!watch)
			continue;
		found++;
		ck_assert(is_of_one_request(&seen));
		watch_unref(watch);
	}
	atomic_store(&racer.stop, true);
	pthread_join(thread, NULL);
	leave(racer.watch);
	ck_assert_uint_eq(found, 50);
	ck_assert_uint_eq(racer.stalled, found);
}
END_TEST

/* The log thread: it sleeps until woken, and looks while there is something. */
static void *scan_when_woken(void *arg)
{
	struct racer *racer = (struct racer *)arg;
	struct watch_request request;
	struct watch *watch;
	uint64_t again, n;

	while (read(racer->wake_fd, &n, sizeof(n)) > 0 &&
	       !atomic_load(&racer->stop))
		do {
			watch = watch_scan(T0, &again, &request);
			watch_unref(watch);
		} while (watch || again);
	return NULL;
}

START_TEST(no_request_is_overlooked_when_looking_ends)
{
	struct racer racer = { .watch = enter_new(0),
			       .wake_fd = eventfd(0, EFD_CLOEXEC) };
	pthread_t thread;

	look_until_idle();
	start_racer(&thread, scan_when_woken, &racer);
	/* The next one begins just when the scan for the last one ends. */
	for (int i = 0; i < 1000; i++) {
		if (begin_at(racer.watch, 1))
			eventfd_signal(racer.wake_fd);
		for (int j = 0; j < 1000 && !was_found(racer.watch); j++)
			sched_yield();
		ck_assert(eventually(was_found(racer.watch)));
		watch_end(racer.watch);
	}
	atomic_store(&racer.stop, true);
	eventfd_signal(racer.wake_fd);
	pthread_join(thread, NULL);
	close(racer.wake_fd);
	leave(racer.watch);
	look_until_idle();
}
END_TEST

/*
 * The same two on one processor: the worker is a signal handler, so that it
 * comes between any two instructions of who looks.
 */

static struct watch *signal_watch;
static volatile sig_atomic_t signal_count;
static volatile sig_atomic_t signal_armed, signal_began, signal_asks;

static void next_request(int signal)
{
	const uint32_t n = (uint32_t)signal_count + 1;
	const struct watch_request request = {
		.type = n,
		.sector = n * UINT64_C(3),
		.length = n * UINT64_C(5),
		.since_ns = n * UINT64_C(7),
	};

	(void)signal;
	watch_end(signal_watch);
	watch_begin(signal_watch, &request);
	signal_count++;
}

static void one_request(int signal)
{
	(void)signal;
	if (!signal_armed || signal_began)
		return;
	signal_asks = begin_at(signal_watch, 1);
	signal_began = 1;
	signal_count++;
}

static void set_timer(suseconds_t us)
{
	const struct itimerval every = { { 0, us }, { 0, us } };

	ck_assert_int_eq(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void start_signals(void (*handler)(int signal), uint64_t limit_ns,
			  struct sigaction *before)
{
	const struct sigaction action = { .sa_handler = handler,
					  .sa_flags = SA_RESTART };

	signal_watch = enter_new(limit_ns);
	signal_count = signal_armed = signal_began = 0;
	ck_assert_int_eq(sigaction(SIGALRM, &action, before), 0);
	set_timer(50);
}

static void stop_signals(const struct sigaction *before)
{
	set_timer(0);
	ck_assert_int_eq(sigaction(SIGALRM, before, NULL), 0);
	watch_end(signal_watch);
	leave(signal_watch);
	look_until_idle();
}

START_TEST(a_snapshot_is_of_one_request_at_every_instruction)
{
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC / 2;
	unsigned int busy = 0, mixed = 0;
	struct sigaction before;

	start_signals(next_request, LIMIT, &before);
	while (signal_count < 3000 && now_ns() < until)
		for (int i = 0; i < 1000; i++) {
			struct watch_request seen =
				watch_snapshot(signal_watch);

			busy += seen.busy;
			mixed += seen.busy && !is_of_one_request(&seen);
		}
	stop_signals(&before);
	ck_assert_int_gt(signal_count, 10);
	ck_assert_uint_gt(busy, 0);
	ck_assert_uint_eq(mixed, 0);
}
END_TEST

START_TEST(no_request_is_overlooked_at_every_instruction)
{
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC / 2;
	unsigned int overlooked = 0;
	struct sigaction before;
	uint64_t again;

	start_signals(one_request, 0, &before);
	while (signal_count < 3000 && now_ns() < until) {
		signal_began = 0;
		/* Somebody asked for a look, and is done already. */
		begin_at(signal_watch, T0);
		watch_end(signal_watch);
		signal_armed = 1;
		/* Nothing is busy, so it stops looking, or it began just now. */
		while (scan_at(T0, &again) || again)
			;
		signal_armed = 0;
		if (!signal_began)
			continue;
		overlooked += !was_found(signal_watch) && !signal_asks;
		watch_end(signal_watch);
	}
	stop_signals(&before);
	ck_assert_int_gt(signal_count, 10);
	ck_assert_uint_eq(overlooked, 0);
}
END_TEST

static void end_request(int signal)
{
	(void)signal;
	if (!signal_armed || signal_began)
		return;
	watch_end(signal_watch);
	signal_began = 1;
	signal_count++;
}

/* A look at a request that ends meanwhile: the next one is looked at too. */
START_TEST(no_request_is_overlooked_behind_one_that_ends_at_any_instruction)
{
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC / 2;
	unsigned int overlooked = 0;
	struct sigaction before;
	uint64_t again;

	start_signals(end_request, LIMIT, &before);
	while (signal_count < 3000 && now_ns() < until) {
		signal_began = 0;
		begin_at(signal_watch, T0);
		signal_armed = 1;
		ck_assert_ptr_null(scan_at(T0, &again));
		signal_armed = 0;
		if (!signal_began)
			watch_end(signal_watch);
		if (!begin_at(signal_watch, T0 + 1))
			overlooked += again == 0;
		watch_end(signal_watch);
		look_until_idle_at(again);
	}
	stop_signals(&before);
	ck_assert_int_gt(signal_count, 10);
	ck_assert_uint_eq(overlooked, 0);
}
END_TEST

/*
 * Where a thread is
 */

struct sleeper {
	struct watch *watch;
	void (*sleep)(struct sleeper *sleeper);
	struct latch latch;
	int pipe[2];
};

static void *sleep_watched(void *arg)
{
	struct sleeper *sleeper = (struct sleeper *)arg;

	watch_enter(sleeper->watch);
	sleeper->sleep(sleeper);
	watch_leave(sleeper->watch);
	return NULL;
}

static void sleep_in_read(struct sleeper *sleeper)
{
	char byte;

	if (read(sleeper->pipe[0], &byte, 1) != 1)
		abort();
}

static void sleep_in_futex(struct sleeper *sleeper)
{
	latch_wait(&sleeper->latch, WAIT_MS);
}

static void sleep_in_pselect(struct sleeper *sleeper)
{
	fd_set fds;

	FD_ZERO(&fds);
	FD_SET(sleeper->pipe[0], &fds);
	pselect(sleeper->pipe[0] + 1, &fds, NULL, NULL, NULL, NULL);
}

static bool located(struct watch *watch, const char *syscall,
		    struct watch_stuck *stuck)
{
	watch_locate(watch, stuck);
	return stuck->tid && strcmp(stuck->syscall, syscall) == 0 &&
	       stuck->state[0] == 'S';
}

static void check_located(void (*sleep)(struct sleeper *sleeper),
			  const char *syscall)
{
	const struct identity nobody = { NULL, -1 };
	struct sleeper sleeper = { .watch = watch_new(&nobody, LIMIT, NULL),
				   .sleep = sleep };
	struct watch_stuck stuck;
	pthread_t thread;

	latch_init(&sleeper.latch);
	ck_assert_int_eq(pipe(sleeper.pipe), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, sleep_watched, &sleeper),
			 0);
	ck_assert_msg(eventually(located(sleeper.watch, syscall, &stuck)),
		      "state '%s' syscall '%s'", stuck.state, stuck.syscall);
	ck_assert_int_ne(stuck.tid, gettid());
	ck_assert_int_eq(thread_state(stuck.tid), 'S');
	ck_assert_ptr_null(strchr(stuck.wchan, '\n'));

	latch_set(&sleeper.latch);
	ck_assert_int_eq(write(sleeper.pipe[1], "x", 1), 1);
	pthread_join(thread, NULL);

	/* It is no more, and its number may be another's. */
	watch_gone(sleeper.watch);
	memset(&stuck, 0xff, sizeof(stuck));
	watch_locate(sleeper.watch, &stuck);
	ck_assert_int_eq(stuck.tid, 0);
	ck_assert_str_eq(stuck.state, "");
	ck_assert_str_eq(stuck.syscall, "");
	ck_assert_str_eq(stuck.wchan, "");
	close(sleeper.pipe[0]);
	close(sleeper.pipe[1]);
	latch_destroy(&sleeper.latch);
	watch_unref(sleeper.watch);
}

START_TEST(a_thread_in_read_is_located)
{
	check_located(sleep_in_read, "read");
}
END_TEST

START_TEST(a_thread_that_waits_for_another_is_located)
{
	check_located(sleep_in_futex, "futex");
}
END_TEST

START_TEST(a_rare_system_call_is_told_by_number)
{
	char number[32];

	snprintf(number, sizeof(number), "%d", (int)SYS_pselect6);
	check_located(sleep_in_pselect, number);
}
END_TEST

static struct latch at_end, may_end;

static void hang_at_end(void *arg)
{
	(void)arg;
	latch_set(&at_end);
	latch_wait(&may_end, WAIT_MS);
}

static void *leave_and_hang(void *arg)
{
	struct watch *watch = (struct watch *)arg;
	pthread_key_t key;

	pthread_setname_np(pthread_self(), "odd) (name");
	watch_enter(watch);
	if (pthread_key_create(&key, hang_at_end) ||
	    pthread_setspecific(key, watch))
		abort();
	watch_leave(watch);
	return NULL;
}

START_TEST(a_thread_behind_its_last_act_is_located)
{
	const struct identity nobody = { NULL, -1 };
	struct watch *watch = watch_new(&nobody, LIMIT, NULL);
	struct watch_stuck stuck;
	pthread_t thread;

	latch_init(&at_end);
	latch_init(&may_end);
	ck_assert_int_eq(pthread_create(&thread, NULL, leave_and_hang, watch),
			 0);
	ck_assert(latch_wait(&at_end, WAIT_MS));
	ck_assert_msg(eventually(located(watch, "futex", &stuck)),
		      "state '%s' syscall '%s'", stuck.state, stuck.syscall);
	ck_assert_int_eq(stuck.tid, find_thread("odd"));

	latch_set(&may_end);
	pthread_join(thread, NULL);
	ck_assert(eventually(find_thread("odd") == 0));
	/* Also where nobody has said so yet. */
	watch_locate(watch, &stuck);
	ck_assert_int_eq(stuck.tid, 0);
	watch_gone(watch);
	watch_locate(watch, &stuck);
	ck_assert_int_eq(stuck.tid, 0);
	watch_unref(watch);
	latch_destroy(&at_end);
	latch_destroy(&may_end);
}
END_TEST

/* As one that has its number by now would be. */
START_TEST(another_thread_of_that_number_is_not_taken_for_it)
{
	const char *const others[] = { "ktvblk-1", "ktvblk-123", "ktvblk-",
				       "" };
	struct watch *watch = enter_new(LIMIT);
	struct watch_stuck stuck;
	char before[16];

	pthread_getname_np(pthread_self(), before, sizeof(before));
	pthread_setname_np(pthread_self(), "ktvblk-12");
	watch_leave(watch);
	watch_locate(watch, &stuck);
	ck_assert_int_eq(stuck.tid, gettid());
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		pthread_setname_np(pthread_self(), others[i]);
		watch_locate(watch, &stuck);
		ck_assert_int_eq(stuck.tid, 0);
		ck_assert_str_eq(stuck.state, "");
	}
	pthread_setname_np(pthread_self(), before);
	watch_unref(watch);
}
END_TEST

START_TEST(who_never_entered_is_not_located)
{
	const struct identity nobody = { NULL, -1 };
	struct watch *watch = watch_new(&nobody, LIMIT, NULL);
	struct watch_stuck stuck = { .tid = 1 };

	watch_locate(watch, &stuck);
	ck_assert_int_eq(stuck.tid, 0);
	watch_unref(watch);
}
END_TEST

TEST_PROGRAM(
	"watch", a_request_is_seen_from_its_begin_to_its_end,
	an_old_request_is_stalled_whoever_has_looked,
	an_old_request_is_found_once, a_young_request_says_when_to_look_again,
	the_first_that_is_due_says_when_to_look_again,
	all_that_are_old_are_found,
	the_first_begin_after_idleness_asks_for_a_look,
	a_stalled_request_alone_needs_no_more_looks, who_has_left_is_not_found,
	who_was_found_lives_as_long_as_a_reference, no_watch_is_taken_and_given,
	a_snapshot_is_of_one_request, each_that_is_found_is_told_at_its_end,
	no_request_is_overlooked_when_looking_ends,
	a_snapshot_is_of_one_request_at_every_instruction,
	no_request_is_overlooked_at_every_instruction,
	no_request_is_overlooked_behind_one_that_ends_at_any_instruction,
	a_thread_in_read_is_located, a_thread_that_waits_for_another_is_located,
	a_thread_behind_its_last_act_is_located,
	another_thread_of_that_number_is_not_taken_for_it,
	a_rare_system_call_is_told_by_number, who_never_entered_is_not_located)
