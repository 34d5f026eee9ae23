/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Many requests of one session: each has a slot, the oldest that is too old is
 * found, one at a time, and none is overlooked behind it.
 */

#include <linux/virtio_blk.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/time.h>

#include "harness.h"
#include "watch.h"

#define T0 (50 * NSEC_PER_SEC)
#define LIMIT (5 * NSEC_PER_SEC)
#define SLOTS 32u

static struct watch *enter_new(uint64_t limit_ns)
{
	const struct identity nobody = { NULL, -1, 0 };
	struct watch *watch = watch_new(&nobody, limit_ns, NULL, SLOTS);

	watch_enter(watch);
	return watch;
}

static void leave(struct watch *watch)
{
	watch_leave(watch);
	watch_unref(watch);
}

/* Sector and length tell the slot; true: somebody must look. */
static bool begin(struct watch *watch, uint32_t slot, uint32_t type,
		  uint64_t since_ns)
{
	const struct watch_request request = {
		.type = type,
		.sector = slot,
		.length = slot * 512u,
		.since_ns = since_ns,
	};

	return watch_begin(watch, slot, &request);
}

static bool begin_read(struct watch *watch, uint32_t slot, uint64_t since_ns)
{
	return begin(watch, slot, VIRTIO_BLK_T_IN, since_ns);
}

/* The slot of the request that a look finds; -1: none. */
static int scan_from(uint64_t now, uint64_t position, uint64_t *ret_again)
{
	struct watch_snapshot seen = { 0 };
	struct watch *watch = watch_scan(now, position, ret_again, &seen);

	watch_unref(watch);
	return watch ? (int)seen.oldest.sector : -1;
}

static int scan_at(uint64_t now, uint64_t *ret_again)
{
	return scan_from(now, 0, ret_again);
}

/* One that was found ends, and that is told. */
static void end_found(struct watch *watch, uint32_t slot)
{
	ck_assert_int_eq(watch_end(watch, slot), WATCH_MARKED);
	watch_close(watch, 0);
}

static void end_unfound(struct watch *watch, uint32_t slot)
{
	ck_assert_int_eq(watch_end(watch, slot), WATCH_UNFOUND);
}

START_TEST(each_slot_has_a_request_of_its_own)
{
	struct watch *watch = enter_new(LIMIT);

	ck_assert_uint_eq(watch_snapshot(watch).n_in_flight, 0);
	for (uint32_t i = 0; i < SLOTS; i++)
		begin_read(watch, i, T0 + i);
	for (uint32_t i = 0; i < SLOTS; i++) {
		const struct watch_request request = watch_request(watch, i);

		ck_assert(request.busy);
		ck_assert_uint_eq(request.sector, i);
		ck_assert_uint_eq(request.length, i * 512);
		ck_assert_uint_eq(request.since_ns, T0 + i);
	}
	ck_assert_uint_eq(watch_snapshot(watch).n_in_flight, SLOTS);
	end_unfound(watch, 7);
	/* What it was is still there. */
	ck_assert(!watch_request(watch, 7).busy);
	ck_assert_uint_eq(watch_request(watch, 7).sector, 7);
	ck_assert(watch_request(watch, 6).busy);
	ck_assert(watch_request(watch, 8).busy);
	ck_assert_uint_eq(watch_snapshot(watch).n_in_flight, SLOTS - 1);
	leave(watch);
}
END_TEST

START_TEST(the_oldest_is_told_in_whatever_order_they_end)
{
	/* Slots by age; the oldest ends last, first, and in between. */
	const uint32_t by_age[] = { 5, 31, 0, 17 };
	const uint32_t ends[] = { 31, 5, 17, 0 };
	const int oldest_then[] = { 5, 0, 0, -1 };
	struct watch *watch = enter_new(LIMIT);

	for (uint32_t i = 0; i < ARRAY_SIZE(by_age); i++)
		begin_read(watch, by_age[i], T0 + i);
	ck_assert_uint_eq(watch_snapshot(watch).oldest.sector, 5);
	for (uint32_t i = 0; i < ARRAY_SIZE(ends); i++) {
		struct watch_snapshot seen;

		end_unfound(watch, ends[i]);
		seen = watch_snapshot(watch);
		ck_assert_uint_eq(seen.n_in_flight, 3 - i);
		ck_assert_int_eq(seen.oldest.busy, oldest_then[i] >= 0);
		if (seen.oldest.busy)
			ck_assert_int_eq((int)seen.oldest.sector,
					 oldest_then[i]);
	}
	leave(watch);
}
END_TEST

START_TEST(flushes_have_no_data)
{
	struct watch *watch = enter_new(LIMIT);

	ck_assert(!watch_snapshot(watch).any_data);
	begin(watch, 1, VIRTIO_BLK_T_FLUSH, T0);
	begin(watch, 2, VIRTIO_BLK_T_FLUSH, T0);
	ck_assert(!watch_snapshot(watch).any_data);
	/* Wherever it is, and whoever is the oldest. */
	begin(watch, 31, VIRTIO_BLK_T_OUT, T0 + 1);
	ck_assert(watch_snapshot(watch).any_data);
	end_unfound(watch, 31);
	ck_assert(!watch_snapshot(watch).any_data);
	begin(watch, 0, VIRTIO_BLK_T_IN, T0 + 1);
	ck_assert(watch_snapshot(watch).any_data);
	leave(watch);
}
END_TEST

START_TEST(slots_are_not_across_two_cache_lines)
{
	struct watch *watch = enter_new(LIMIT);

	for (uint32_t i = 0; i < SLOTS; i++) {
		const uintptr_t at = (uintptr_t)&watch->slots[i];

		ck_assert_uint_eq(at / 64,
				  (at + sizeof(watch->slots[i]) - 1) / 64);
	}
	leave(watch);
}
END_TEST

START_TEST(the_first_that_is_due_says_when_to_look)
{
	struct watch *watch = enter_new(LIMIT);
	uint64_t again;

	begin_read(watch, 9, T0 + 20);
	begin_read(watch, 3, T0 + 10);
	begin_read(watch, 4, T0 + 30);
	ck_assert_int_eq(scan_at(T0 + 30, &again), -1);
	ck_assert_uint_eq(again, T0 + 10 + LIMIT);
	end_unfound(watch, 3);
	ck_assert_int_eq(scan_at(T0 + 30, &again), -1);
	ck_assert_uint_eq(again, T0 + 20 + LIMIT);
	end_unfound(watch, 4);
	end_unfound(watch, 9);
	ck_assert_int_eq(scan_at(T0 + 30, &again), -1);
	ck_assert_uint_eq(again, 0);
	leave(watch);
}
END_TEST

START_TEST(one_stall_is_open_at_a_time_and_the_oldest_comes_first)
{
	struct watch *watch = enter_new(LIMIT);
	uint64_t again;

	begin_read(watch, 9, T0 + 2);
	begin_read(watch, 3, T0 + 1);
	begin_read(watch, 4, T0 + 3);
	ck_assert_int_eq(scan_at(T0 + 2 * LIMIT, &again), 3);
	/* The others are as old, but one is enough, however late it is. */
	ck_assert_int_eq(scan_at(T0 + 2 * LIMIT, &again), -1);
	ck_assert_uint_eq(again, 0);
	ck_assert_int_eq(scan_at(T0 + 9 * LIMIT, &again), -1);
	/* One that was not told of ends without a word. */
	end_unfound(watch, 9);
	ck_assert_int_eq(scan_at(T0 + 9 * LIMIT, &again), -1);
	/* Its end brings the next. */
	end_found(watch, 3);
	ck_assert_int_eq(scan_at(T0 + 9 * LIMIT, &again), 4);
	end_found(watch, 4);
	ck_assert_int_eq(scan_at(T0 + 9 * LIMIT, &again), -1);
	leave(watch);
}
END_TEST

START_TEST(those_that_are_young_when_a_stall_ends_are_watched_on)
{
	struct watch *watch = enter_new(LIMIT);
	uint64_t again;

	begin_read(watch, 0, T0);
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), 0);
	begin_read(watch, 1, T0 + LIMIT);
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), -1);
	end_found(watch, 0);
	ck_assert_int_eq(scan_at(T0 + LIMIT + 1, &again), -1);
	ck_assert_uint_eq(again, T0 + 2 * LIMIT);
	ck_assert_int_eq(scan_at(T0 + 2 * LIMIT, &again), 1);
	end_found(watch, 1);
	leave(watch);
}
END_TEST

/* Or each request beside a stuck one would wake the log thread. */
START_TEST(while_a_stall_is_open_no_request_asks_for_a_look)
{
	struct watch *watch = enter_new(LIMIT);
	uint64_t again;

	ck_assert(begin_read(watch, 0, T0));
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), 0);
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), -1);
	ck_assert_uint_eq(again, 0);
	for (uint32_t i = 1; i < SLOTS; i++) {
		ck_assert(!begin_read(watch, i, T0 + LIMIT));
		end_unfound(watch, i);
	}
	/* Another session's are another matter. */
	struct watch *other = enter_new(LIMIT);
	ck_assert(begin_read(other, 0, T0 + LIMIT));
	end_unfound(other, 0);
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), -1);
	/* And then as ever. */
	end_found(watch, 0);
	ck_assert(begin_read(watch, 0, T0 + LIMIT));
	end_unfound(watch, 0);
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), -1);
	leave(other);
	leave(watch);
}
END_TEST

/* In the journal a stall's end stands before the next stall. */
START_TEST(the_end_of_a_stall_is_told_before_the_next_is_found)
{
	struct watch *watch = enter_new(LIMIT);
	const uint64_t now = T0 + 2 * LIMIT;
	uint64_t again;

	begin_read(watch, 0, T0);
	begin_read(watch, 1, T0 + 1);
	ck_assert_int_eq(scan_from(now, 4, &again), 0);
	ck_assert_int_eq(watch_end(watch, 0), WATCH_MARKED);
	/* It ended, but nothing was said yet. */
	ck_assert_int_eq(scan_from(now, 4, &again), -1);
	ck_assert_uint_eq(again, 0);
	watch_close(watch, 7);
	/* What is said is still to be delivered. */
	ck_assert_int_eq(scan_from(now, 6, &again), -1);
	ck_assert_uint_eq(again, now);
	ck_assert_int_eq(scan_from(now, 7, &again), 1);
	ck_assert_int_eq(watch_end(watch, 1), WATCH_MARKED);
	watch_close(watch, 8);
	ck_assert_int_eq(scan_from(now, 8, &again), -1);
	ck_assert_uint_eq(again, 0);
	leave(watch);
}
END_TEST

START_TEST(sessions_have_a_stall_each)
{
	struct watch *a = enter_new(LIMIT), *b = enter_new(LIMIT);
	uint64_t again;

	begin_read(a, 1, T0);
	begin_read(a, 2, T0);
	begin_read(b, 11, T0 + 1);
	begin_read(b, 12, T0);
	/* The last to come is the first in the list. */
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), 12);
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), 1);
	ck_assert_int_eq(scan_at(T0 + 2 * LIMIT, &again), -1);
	end_found(b, 12);
	ck_assert_int_eq(scan_at(T0 + 2 * LIMIT, &again), 11);
	ck_assert_int_eq(scan_at(T0 + 2 * LIMIT, &again), -1);
	end_found(a, 1);
	ck_assert_int_eq(scan_at(T0 + 2 * LIMIT, &again), 2);
	end_found(a, 2);
	end_found(b, 11);
	leave(b);
	leave(a);
}
END_TEST

/*
 * Who asks for the state
 */

START_TEST(it_is_stalled_while_the_oldest_is_too_old)
{
	struct watch *watch = enter_new(LIMIT);

	ck_assert(!watch_is_stalled(watch, UINT64_MAX));
	begin_read(watch, 20, T0 + 5);
	begin_read(watch, 10, T0);
	ck_assert(!watch_is_stalled(watch, T0 + LIMIT - 1));
	ck_assert(watch_is_stalled(watch, T0 + LIMIT));
	watch_end(watch, 10);
	ck_assert(!watch_is_stalled(watch, T0 + LIMIT + 4));
	ck_assert(watch_is_stalled(watch, T0 + LIMIT + 5));
	watch_end(watch, 20);
	ck_assert(!watch_is_stalled(watch, UINT64_MAX));
	leave(watch);
}
END_TEST

START_TEST(who_was_told_of_a_stall_hears_of_its_end)
{
	struct watch *watch = enter_new(LIMIT);
	uint64_t again;

	/* Nobody asked. */
	begin_read(watch, 0, T0);
	ck_assert(!watch_is_stalled(watch, T0 + LIMIT - 1));
	end_unfound(watch, 0);
	/* Somebody did, twice; of another one nobody was told. */
	begin_read(watch, 0, T0);
	begin_read(watch, 1, T0 + 1);
	ck_assert(watch_is_stalled(watch, T0 + LIMIT));
	ck_assert(watch_is_stalled(watch, T0 + LIMIT));
	end_unfound(watch, 1);
	ck_assert_int_eq(watch_end(watch, 0), WATCH_SEEN);
	/* The next in that slot has nothing of it. */
	begin_read(watch, 0, T0);
	end_unfound(watch, 0);
	/* Both: the log thread found it too, before and behind. */
	begin_read(watch, 0, T0);
	ck_assert(watch_is_stalled(watch, T0 + LIMIT));
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), 0);
	ck_assert(watch_is_stalled(watch, T0 + LIMIT));
	end_found(watch, 0);
	ck_assert_int_eq(scan_at(T0 + LIMIT, &again), -1);
	leave(watch);
}
END_TEST

/*
 * Races
 */

struct race {
	struct watch *watch;
	int wake_fd;
	_Atomic bool stop;
	_Atomic unsigned int found;
	_Atomic unsigned int wrong;
	_Atomic unsigned int asked;
};

/* The log thread: it sleeps until woken, and looks while there is something. */
static void *scan_when_woken(void *arg)
{
	struct race *race = (struct race *)arg;
	struct watch_snapshot seen;
	struct watch *watch;
	uint64_t again, n;

	while (read(race->wake_fd, &n, sizeof(n)) > 0 &&
	       !atomic_load(&race->stop))
		do {
			watch = watch_scan(T0, 0, &again, &seen);
			if (!watch)
				continue;
			atomic_fetch_add(&race->found, 1);
			race->wrong += seen.oldest.length !=
				       seen.oldest.sector * 512;
			race->wrong += seen.n_in_flight == 0 ||
				       seen.n_in_flight > SLOTS;
			watch_unref(watch);
		} while (watch || again);
	return NULL;
}

/* A VMM's thread: it asks for the state, and somebody for all there is. */
static void *ask_on(void *arg)
{
	struct race *race = (struct race *)arg;
	struct watch_snapshot seen;

	while (!atomic_load(&race->stop)) {
		watch_is_stalled(race->watch, T0);
		seen = watch_snapshot(race->watch);
		race->wrong += seen.n_in_flight > SLOTS;
		race->wrong += seen.oldest.busy &&
			       seen.oldest.length != seen.oldest.sector * 512;
		race->asked++;
		sched_yield();
	}
	return NULL;
}

static bool is_marked(const struct watch *watch, uint32_t slot)
{
	return atomic_load(&watch->slots[slot].word) & 2u;
}

static bool any_marked(const struct watch *watch)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (is_marked(watch, i))
			return true;
	return false;
}

static bool await_mark(const struct watch *watch)
{
	for (int i = 0; i < 1000 && !any_marked(watch); i++)
		sched_yield();
	return eventually(any_marked(watch));
}

static void begin_old(struct race *race, uint32_t slot, uint64_t since_ns)
{
	if (begin_read(race->watch, slot, since_ns))
		eventfd_signal(race->wake_fd);
}

/* As session_request_ended() does it; how many were found. */
static unsigned int end_told(struct race *race, uint32_t slot)
{
	if (watch_end(race->watch, slot) != WATCH_MARKED)
		return 0;
	watch_close(race->watch, 0);
	eventfd_signal(race->wake_fd);
	return 1;
}

/*
 * All that are in service are too old, always: so one is marked as long as any
 * is there, whichever ends and begins meanwhile.
 */
START_TEST(no_request_is_overlooked_behind_a_stall)
{
	struct race race = { .watch = enter_new(0),
			     .wake_fd = eventfd(0, EFD_CLOEXEC) };
	unsigned int told = 0, seed = 1;
	uint64_t since = 1;
	pthread_t looks, asks;

	ck_assert_int_eq(pthread_create(&looks, NULL, scan_when_woken, &race),
			 0);
	ck_assert_int_eq(pthread_create(&asks, NULL, ask_on, &race), 0);
	for (uint32_t i = 0; i < SLOTS / 2; i++)
		begin_old(&race, i, since++);
	for (int i = 0; i < 500; i++) {
		/* Some of those there end, in any order, and others come. */
		for (int j = 0; j < 8; j++) {
			const uint32_t slot = (uint32_t)rand_r(&seed) % SLOTS;

			if (watch_request(race.watch, slot).busy)
				told += end_told(&race, slot);
			else
				begin_old(&race, slot, since++);
		}
		if (watch_snapshot(race.watch).n_in_flight)
			ck_assert(await_mark(race.watch));
	}
	for (uint32_t i = 0; i < SLOTS; i++)
		if (watch_request(race.watch, i).busy)
			told += end_told(&race, i);
	ck_assert(eventually(race.asked > 0));
	atomic_store(&race.stop, true);
	eventfd_signal(race.wake_fd);
	pthread_join(looks, NULL);
	pthread_join(asks, NULL);
	close(race.wake_fd);
	leave(race.watch);
	ck_assert_uint_gt(told, 100);
	ck_assert_uint_eq(told, race.found);
	ck_assert_uint_eq(race.wrong, 0);
}
END_TEST

/*
 * On one processor: the worker is a signal handler, so that it comes between any
 * two instructions of who looks.
 */

static struct watch *signal_watch;
static volatile sig_atomic_t signal_count, signal_armed, signal_came,
	signal_asks;

/* The one that is looked at ends, and another begins. */
static void end_and_begin(int signal)
{
	(void)signal;
	if (!signal_armed || signal_came)
		return;
	if (watch_end(signal_watch, 0) == WATCH_MARKED) {
		watch_close(signal_watch, 0);
		signal_asks = 1;
	}
	if (begin_read(signal_watch, 1, 1))
		signal_asks = 1;
	signal_came = 1;
	signal_count++;
}

static void set_timer(suseconds_t us)
{
	const struct itimerval every = { { 0, us }, { 0, us } };

	ck_assert_int_eq(setitimer(ITIMER_REAL, &every, NULL), 0);
}

/* One round; false: the second one is neither found nor asked for. */
static bool look_at_both(void)
{
	uint64_t again;
	bool found;

	signal_came = signal_asks = 0;
	begin_read(signal_watch, 0, 1);
	signal_armed = 1;
	while (scan_at(T0, &again) >= 0 || again)
		;
	signal_armed = 0;
	if (!signal_came) {
		end_found(signal_watch, 0);
		return true;
	}
	found = is_marked(signal_watch, 1);
	if (watch_end(signal_watch, 1) == WATCH_MARKED)
		watch_close(signal_watch, 0);
	return found || signal_asks;
}

START_TEST(no_request_is_overlooked_behind_one_that_ends_at_any_instruction)
{
	const struct sigaction action = { .sa_handler = end_and_begin,
					  .sa_flags = SA_RESTART };
	const uint64_t start = now_ns();
	unsigned int overlooked = 0;
	struct sigaction before;
	uint64_t again;

	signal_watch = enter_new(0);
	ck_assert_int_eq(sigaction(SIGALRM, &action, &before), 0);
	set_timer(50);
	/* Under valgrind few come in between. */
	while (signal_count < 3000 &&
	       now_ns() - start <
		       WAIT_MS * NSEC_PER_MSEC / (signal_count > 10 ? 5 : 1))
		overlooked += !look_at_both();
	set_timer(0);
	ck_assert_int_eq(sigaction(SIGALRM, &before, NULL), 0);
	while (scan_at(T0, &again) >= 0 || again)
		;
	leave(signal_watch);
	ck_assert_int_gt(signal_count, 10);
	ck_assert_uint_eq(overlooked, 0);
}
END_TEST

TEST_PROGRAM("watch-slots", each_slot_has_a_request_of_its_own,
	     the_oldest_is_told_in_whatever_order_they_end,
	     flushes_have_no_data, slots_are_not_across_two_cache_lines,
	     the_first_that_is_due_says_when_to_look,
	     one_stall_is_open_at_a_time_and_the_oldest_comes_first,
	     those_that_are_young_when_a_stall_ends_are_watched_on,
	     while_a_stall_is_open_no_request_asks_for_a_look,
	     the_end_of_a_stall_is_told_before_the_next_is_found,
	     sessions_have_a_stall_each,
	     it_is_stalled_while_the_oldest_is_too_old,
	     who_was_told_of_a_stall_hears_of_its_end,
	     no_request_is_overlooked_behind_a_stall,
	     no_request_is_overlooked_behind_one_that_ends_at_any_instruction)
