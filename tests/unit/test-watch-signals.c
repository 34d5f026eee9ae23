/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Looks at a watch, with signals at any instruction of who looks or is seen. */

#include <signal.h>
#include <sys/time.h>

#include "watched.h"

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
	end(signal_watch);
	watch_begin(signal_watch, 0, &request);
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
	end(signal_watch);
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
				watch_snapshot(signal_watch).oldest;

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
		end(signal_watch);
		signal_armed = 1;
		/* Nothing is busy, so it stops looking, or it began just now. */
		while (scan_at(T0, &again) || again)
			;
		signal_armed = 0;
		if (!signal_began)
			continue;
		overlooked += !was_found(signal_watch) && !signal_asks;
		end(signal_watch);
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
	end(signal_watch);
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
			end(signal_watch);
		if (!begin_at(signal_watch, T0 + 1))
			overlooked += again == 0;
		end(signal_watch);
		look_until_idle_at(again);
	}
	stop_signals(&before);
	ck_assert_int_gt(signal_count, 10);
	ck_assert_uint_eq(overlooked, 0);
}
END_TEST

TEST_PROGRAM("watch-signals", a_snapshot_is_of_one_request_at_every_instruction,
	     no_request_is_overlooked_at_every_instruction,
	     no_request_is_overlooked_behind_one_that_ends_at_any_instruction)
