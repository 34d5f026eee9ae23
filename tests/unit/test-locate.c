/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who holds requests up: the worker. See test-locate-ring.c for others. */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>

#include "harness.h"
#include "watch.h"

#define T0 (50 * NSEC_PER_SEC)
#define LIMIT (5 * NSEC_PER_SEC)
#define SLOTS 8u

static struct watch *new_watch(void)
{
	const struct identity nobody = { NULL, -1, 0 };

	return watch_new(&nobody, LIMIT, NULL, SLOTS);
}

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
	struct sleeper sleeper = { .watch = new_watch(), .sleep = sleep };
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
	ck_assert(stuck.counted);
	ck_assert_uint_eq(stuck.n_threads, 1);
	ck_assert_ptr_null(strchr(stuck.wchan, '\n'));

	latch_set(&sleeper.latch);
	ck_assert_int_eq(write(sleeper.pipe[1], "x", 1), 1);
	pthread_join(thread, NULL);

	/* It is no more, and its number may be another's. */
	watch_gone(sleeper.watch);
	memset(&stuck, 0xff, sizeof(stuck));
	watch_locate(sleeper.watch, &stuck);
	ck_assert(!stuck.counted);
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
	struct watch *watch = new_watch();
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
	struct watch *watch = new_watch();
	struct watch_stuck stuck;
	char before[16];

	watch_enter(watch);
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
	struct watch *watch = new_watch();
	struct watch_stuck stuck = { .tid = 1 };

	watch_locate(watch, &stuck);
	ck_assert_int_eq(stuck.tid, 0);
	watch_unref(watch);
}
END_TEST

TEST_PROGRAM("locate", a_thread_in_read_is_located,
	     a_thread_that_waits_for_another_is_located,
	     a_rare_system_call_is_told_by_number,
	     a_thread_behind_its_last_act_is_located,
	     another_thread_of_that_number_is_not_taken_for_it,
	     who_never_entered_is_not_located)
