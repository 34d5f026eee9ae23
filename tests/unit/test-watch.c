/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A request that is too old is found, once, and whoever looks never sees half
 * of one request and half of the next.
 */

/* wrap: malloc calloc */

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/select.h>

#include "alloc-fails.h"
#include "watched.h"

START_TEST(a_request_is_seen_from_its_begin_to_its_end)
{
	struct watch *watch = enter_new(LIMIT);
	struct watch_request seen;

	ck_assert(!watch_snapshot(watch).oldest.busy);
	begin_at(watch, T0);
	seen = watch_snapshot(watch).oldest;
	ck_assert(seen.busy);
	ck_assert_uint_eq(seen.type, 1);
	ck_assert_uint_eq(seen.sector, 34);
	ck_assert_uint_eq(seen.length, 4096);
	ck_assert_uint_eq(seen.since_ns, T0);
	ck_assert(!watch_is_stalled(watch, T0 + LIMIT - 1));
	ck_assert(!end(watch));
	ck_assert(!watch_snapshot(watch).oldest.busy);
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
	ck_assert(!end(watch));
	ck_assert(!watch_is_stalled(watch, UINT64_MAX));
	leave(watch);

	endless = enter_new(UINT64_MAX);
	begin_at(endless, T0);
	ck_assert(!watch_is_stalled(endless, UINT64_MAX - 2));
	end(endless);
	leave(endless);
}
END_TEST

START_TEST(an_old_request_is_found_once)
{
	struct watch *watch = enter_new(LIMIT), *found;
	struct watch_snapshot seen;
	struct watch_request request;
	uint64_t again;

	begin_at(watch, T0);
	found = watch_scan(T0 + LIMIT, 0, &again, &seen);
	ck_assert_ptr_eq(found, watch);
	ck_assert_uint_eq(seen.n_in_flight, 1);
	request = seen.oldest;
	ck_assert(request.busy);
	ck_assert_uint_eq(request.type, 1);
	ck_assert_uint_eq(request.sector, 34);
	ck_assert_uint_eq(request.length, 4096);
	ck_assert_uint_eq(request.since_ns, T0);
	ck_assert(was_found(watch));
	watch_unref(found);

	/* It is still to be seen, but not found again. */
	ck_assert(watch_snapshot(watch).oldest.busy);
	ck_assert_ptr_null(scan_at(T0 + 9 * LIMIT, &again));
	ck_assert(end(watch));
	ck_assert(!was_found(watch));

	/* The next one is a request of its own. */
	begin_at(watch, T0 + 9 * LIMIT);
	ck_assert(!end(watch));
	begin_at(watch, T0 + 9 * LIMIT);
	ck_assert_ptr_eq(scan_at(T0 + 10 * LIMIT, &again), watch);
	ck_assert(end(watch));
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
	end(watch);
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
	ck_assert(!end(a));
	ck_assert(end(b));
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
		ck_assert(end(watches[i]));
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
	end(watch);
	ck_assert(!begin_at(watch, T0));
	/* While somebody is busy, looking goes on. */
	ck_assert_ptr_null(scan_at(T0, &again));
	end(watch);
	ck_assert(!begin_at(watch, T0));
	end(watch);
	/* Nobody is: it ends. */
	look_until_idle();
	ck_assert(begin_at(watch, T0));
	end(watch);
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
	ck_assert(end(watch));
	/* Thus the next one asks again. */
	ck_assert(begin_at(watch, T0 + LIMIT));
	end(watch);
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
	struct watch_snapshot seen;
	uint64_t again;

	ck_assert_ptr_eq(watch_ref(watch), watch);
	watch_unref(watch);
	begin_at(watch, T0);
	found = watch_scan(T0 + LIMIT, 0, &again, &seen);
	end(watch);
	leave(watch);
	/* Its identity too. */
	ck_assert_str_eq(found->id.disk->name, "vda");
	ck_assert_int_eq(found->id.stop_fd, 7);
	watch_unref(found);
}
END_TEST

START_TEST(no_watch_is_taken_and_given)
{
	const struct identity nobody = { NULL, -1, 0 };
	struct watch *watch;

	ck_assert_ptr_null(watch_ref(NULL));
	watch_unref(NULL);
	watch = watch_new(&nobody, LIMIT, NULL, SLOTS);
	ck_assert_ptr_nonnull(watch);
	watch_leave(watch); /* never entered */
	watch_unref(watch);
	alloc_fails = 1;
	ck_assert_ptr_null(watch_new(&nobody, LIMIT, NULL, SLOTS));
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

		watch_begin(racer->watch, 0, &request);
		if (racer->lets_see && i % 16 == 0)
			sched_yield();
		racer->stalled += end(racer->watch);
	}
	return NULL;
}

static void start_racer(pthread_t *thread, void *(*body)(void *),
			struct racer *racer)
{
	ck_assert_int_eq(pthread_create(thread, NULL, body, racer), 0);
}

START_TEST(a_snapshot_is_of_one_request)
{
	struct racer racer = { .watch = enter_new(LIMIT), .lets_see = true };
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC / 2;
	unsigned int busy = 0, mixed = 0;
	pthread_t thread;

	start_racer(&thread, begin_and_end, &racer);
	while (busy < 10000 && now_ns() < until) {
		struct watch_request seen = watch_snapshot(racer.watch).oldest;

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
	struct watch_snapshot seen;
	unsigned int found = 0;
	struct watch *watch;
	pthread_t thread;
	uint64_t again;

	start_racer(&thread, begin_and_end, &racer);
	while (found < 50 && now_ns() < until) {
		watch = watch_scan(UINT64_MAX, 0, &again, &seen);
		if (!watch)
			continue;
		found++;
		ck_assert(is_of_one_request(&seen.oldest));
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
	struct watch_snapshot seen;
	struct watch *watch;
	uint64_t again, n;

	while (read(racer->wake_fd, &n, sizeof(n)) > 0 &&
	       !atomic_load(&racer->stop))
		do {
			watch = watch_scan(T0, 0, &again, &seen);
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
		end(racer.watch);
	}
	atomic_store(&racer.stop, true);
	eventfd_signal(racer.wake_fd);
	pthread_join(thread, NULL);
	close(racer.wake_fd);
	leave(racer.watch);
	look_until_idle();
}
END_TEST

TEST_PROGRAM("watch", a_request_is_seen_from_its_begin_to_its_end,
	     an_old_request_is_stalled_whoever_has_looked,
	     an_old_request_is_found_once,
	     a_young_request_says_when_to_look_again,
	     the_first_that_is_due_says_when_to_look_again,
	     all_that_are_old_are_found,
	     the_first_begin_after_idleness_asks_for_a_look,
	     a_stalled_request_alone_needs_no_more_looks,
	     who_has_left_is_not_found,
	     who_was_found_lives_as_long_as_a_reference,
	     no_watch_is_taken_and_given, a_snapshot_is_of_one_request,
	     each_that_is_found_is_told_at_its_end,
	     no_request_is_overlooked_when_looking_ends)
