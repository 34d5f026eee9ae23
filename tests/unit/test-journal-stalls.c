/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The log thread finds requests that are too old, and is awake only for that.
 */

#include "log-life.h"

static struct watch *enter_new(uint64_t limit_ms)
{
	struct watch *watch = watch_new(&id, limit_ms * NSEC_PER_MSEC, NULL, 1);

	watch_enter(watch);
	return watch;
}

static void leave(struct watch *watch)
{
	watch_leave(watch);
	watch_unref(watch);
}

/* A request begins; true: somebody must look. */
static bool begin_quietly(struct watch *watch)
{
	const struct watch_request request = {
		.type = 1, .sector = 34, .length = 4096, .since_ns = now_ns()
	};

	return watch_begin(watch, 0, &request);
}

/* It ends, and that was told; true: it had been found. */
static bool end(struct watch *watch)
{
	const bool found = watch_end(watch, 0) == WATCH_MARKED;

	if (found)
		watch_close(watch, 0);
	return found;
}

static void begin(struct watch *watch)
{
	if (begin_quietly(watch))
		log_watch_requests();
}

/*
 * Begin a request that is found soon and one that is not for long, and come
 * back when the first was told and the thread sleeps until the second is due.
 */
static void begin_both(struct watch *soon, struct watch *late)
{
	const bool look = begin_quietly(soon);

	if (begin_quietly(late) || look)
		log_watch_requests();
	recorder_wait(&rec, KTVBLK_MESSAGE_REQUEST_STALLED);
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
}

START_TEST(a_stalled_request_is_told_once_and_so_is_its_end)
{
	const struct kept_record *r;
	struct watch *watch, *other;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	watch = enter_new(5);
	begin(watch);
	r = recorder_wait(&rec, KTVBLK_MESSAGE_REQUEST_STALLED);
	ck_assert_uint_eq(kept_number(r, "STOP_FD"), 23);
	ck_assert_uint_eq(kept_number(r, "INSTANCE_ID"), id.disk->instance_id);
	ck_assert_str_eq(kept_field(r, "KTVBLK_DISK"), "vda");
	ck_assert_str_eq(kept_field(r, "KTVBLK_REQ_TYPE"), "out");
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 34);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_LENGTH"), 4096);
	ck_assert_uint_ge(kept_number(r, "KTVBLK_AGE_MS"), 5);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_IN_FLIGHT"), 1);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_STUCK_THREADS"), 1);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_STUCK_TID"),
			  (uint64_t)gettid());

	/* As long again, told by another one. */
	other = enter_new(5);
	begin(other);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_REQUEST_STALLED, 2);
	ck_assert_int_eq(recorder_count(&rec, NULL), 2);
	ck_assert(end(other));
	leave(other);

	ck_assert(end(watch));
	log_event(&id, REQUEST_RESUMED, 1, 34, 4096, 10);
	recorder_wait(&rec, KTVBLK_MESSAGE_REQUEST_RESUMED);
	leave(watch);
	log_unref(far_away());
	tear_down();
}
END_TEST

static void begin_in(struct watch *watch, uint32_t slot)
{
	const struct watch_request request = { .sector = slot,
					       .since_ns = now_ns() };

	if (watch_begin(watch, slot, &request))
		log_watch_requests();
}

/* As session_request_ended() does it. */
static void end_told(struct watch *watch, uint32_t slot)
{
	ck_assert_int_eq(watch_end(watch, slot), WATCH_MARKED);
	log_event(&id, REQUEST_RESUMED, 1, slot, 0, 10);
	watch_close(watch, log_position());
	log_watch_requests();
}

/* Who reads the journal pairs them. */
START_TEST(stalls_of_a_session_and_their_ends_alternate)
{
	const struct kept_record *r;
	struct watch *watch;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	watch = watch_new(&id, NSEC_PER_MSEC, NULL, 3);
	watch_enter(watch);
	/* Nobody looks at one before all have begun: who would is held. */
	recorder_hold(&rec);
	log_event(&id, RECLAIMED, 1);
	recorder_wait_held(&rec);
	for (uint32_t i = 0; i < 3; i++)
		begin_in(watch, i);
	recorder_go_on(&rec);
	recorder_wait(&rec, KTVBLK_MESSAGE_REQUEST_STALLED);
	/* While others are in the queue, and the sink hangs. */
	recorder_hold(&rec);
	log_event(&id, RECLAIMED, 1);
	recorder_wait_held(&rec);
	log_event(&id, RECLAIMED, 1);
	end_told(watch, 0);
	recorder_go_on(&rec);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_REQUEST_STALLED, 2);
	end_told(watch, 1);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_REQUEST_STALLED, 3);
	end_told(watch, 2);
	r = recorder_find(&rec, KTVBLK_MESSAGE_REQUEST_STALLED);
	for (uint32_t i = 0; i < 6; i++, r = r->next) {
		while (!strcmp(r->message_id, KTVBLK_MESSAGE_RECLAIMED))
			r = r->next;
		ck_assert_str_eq(r->message_id,
				 i % 2 ? KTVBLK_MESSAGE_REQUEST_RESUMED
				       : KTVBLK_MESSAGE_REQUEST_STALLED);
		ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), i / 2);
		if (i % 2 == 0)
			ck_assert_uint_eq(kept_number(r, "KTVBLK_IN_FLIGHT"),
					  3 - i / 2);
	}
	leave(watch);
	log_unref(far_away());
	tear_down();
}
END_TEST

/* Whoever has heard of it by the state, and is about to exit. */
START_TEST(a_flush_is_for_what_counts_as_stalled_too)
{
	struct watch *told, *over;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	told = enter_new(1);
	over = enter_new(1);
	recorder_hold(&rec);
	begin(told);
	recorder_wait_held(&rec);
	ck_assert_int_eq(ktvblk_log_flush(0), -ETIMEDOUT);
	/* And one that nobody has looked at. */
	begin_quietly(over);
	ck_assert(eventually(watch_is_stalled(over, now_ns())));
	recorder_go_on(&rec);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_REQUEST_STALLED),
			 2);
	ck_assert(end(told));
	ck_assert(end(over));
	leave(told);
	leave(over);
	log_unref(far_away());
	tear_down();
}
END_TEST

START_TEST(a_quick_request_is_not_told)
{
	struct watch *quick, *stalled;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	quick = enter_new(10 * WAIT_MS);
	stalled = enter_new(1);
	begin_both(stalled, quick);
	ck_assert(!end(quick));
	ck_assert(end(stalled));
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_REQUEST_STALLED),
			 1);
	leave(quick);
	leave(stalled);
	log_unref(far_away());
	tear_down();
}
END_TEST

/* Each device has a limit of its own. */
START_TEST(a_short_limit_is_not_held_up_by_a_long_one)
{
	struct watch *slow, *idle, *stalled, *later;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	slow = enter_new(10 * WAIT_MS);
	idle = enter_new(5);
	stalled = enter_new(1);
	begin_both(stalled, slow);
	/* One that was there before, and one that comes only now. */
	begin(idle);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_REQUEST_STALLED, 2);
	later = enter_new(5);
	begin(later);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_REQUEST_STALLED, 3);
	/* And one that had been stalled. */
	ck_assert(end(idle));
	begin(idle);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_REQUEST_STALLED, 4);
	ck_assert(!end(slow));
	ck_assert(end(idle));
	ck_assert(end(stalled));
	ck_assert(end(later));
	leave(slow);
	leave(idle);
	leave(stalled);
	leave(later);
	log_unref(far_away());
	tear_down();
}
END_TEST

/* Looking must not end with the thread that looked. */
START_TEST(the_next_thread_finds_stalled_requests_too)
{
	struct watch *slow, *stalled;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	slow = enter_new(10 * WAIT_MS);
	stalled = enter_new(1);
	begin_both(stalled, slow);
	end(slow);
	end(stalled);
	leave(slow);
	leave(stalled);
	log_unref(far_away());
	ck_assert(log_thread_gone());

	ck_assert_int_eq(log_ref(), 0);
	stalled = enter_new(1);
	begin(stalled);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_REQUEST_STALLED, 2);
	end(stalled);
	leave(stalled);
	log_unref(far_away());
	tear_down();
}
END_TEST

START_TEST(looking_does_not_delay_the_end)
{
	const uint64_t deadline = far_away();
	struct watch *watch;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	watch = enter_new(10 * WAIT_MS);
	begin(watch);
	log_unref(deadline);
	ck_assert_uint_lt(now_ns(), deadline);
	end(watch);
	leave(watch);
	tear_down();
}
END_TEST

/* How often a thread went to sleep. */
#define SLEPT "voluntary_ctxt_switches"

/* Does it sleep through a while? */
static bool sleeps(pid_t tid)
{
	const uint64_t before = thread_status(tid, SLEPT);

	poll(NULL, 0, 200);
	return thread_state(tid) == 'S' && thread_status(tid, SLEPT) == before;
}

START_TEST(the_thread_sleeps_when_nothing_is_busy)
{
	struct watch *watch;
	pid_t tid;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	tid = log_thread();
	ck_assert(eventually(thread_status(tid, SLEPT) > 0));
	/* After a request, too, however short its limit. */
	watch = enter_new(1);
	begin(watch);
	recorder_wait(&rec, KTVBLK_MESSAGE_REQUEST_STALLED);
	end(watch);
	begin(watch);
	end(watch);
	ck_assert(eventually(sleeps(tid)));
	leave(watch);
	log_unref(far_away());
	tear_down();
}
END_TEST

TEST_PROGRAM("journal-stalls", a_stalled_request_is_told_once_and_so_is_its_end,
	     stalls_of_a_session_and_their_ends_alternate,
	     a_flush_is_for_what_counts_as_stalled_too,
	     a_quick_request_is_not_told,
	     a_short_limit_is_not_held_up_by_a_long_one,
	     the_next_thread_finds_stalled_requests_too,
	     looking_does_not_delay_the_end,
	     the_thread_sleeps_when_nothing_is_busy)
