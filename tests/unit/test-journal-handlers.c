/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Handlers come and go while records are made, and may call back; and flushes.
 */

/* wrap: malloc calloc sd_journal_sendv */

#include <stdio.h>
#include <string.h>

#include "alloc-fails.h"
#include "log-sinks.h"

/*
 * Handlers come and go
 */

START_TEST(an_idle_handler_is_released_by_who_replaces_it)
{
	struct recorder other;

	set_up();
	recorder_init(&other);
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	ck_assert_int_eq(ktvblk_set_log_handler(recorder_handle,
						recorder_release, &other),
			 0);
	ck_assert_uint_eq(rec.released, 1);
	log_event(&id, RECLAIMED, 2);
	ck_assert_int_eq(recorder_count(&other, NULL), 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	ck_assert_uint_eq(other.released, 0);
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	ck_assert_uint_eq(other.released, 1);
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	ck_assert_uint_eq(rec.released + other.released, 2);
	recorder_destroy(&other);
	tear_down();
}
END_TEST

START_TEST(a_busy_handler_is_released_when_its_call_ends)
{
	struct recorder other;

	set_up();
	recorder_init(&other);
	hang();
	ck_assert_int_eq(ktvblk_set_log_handler(recorder_handle,
						recorder_release, &other),
			 0);
	log_event(&id, RECLAIMED, 2);
	ck_assert_int_eq(ktvblk_log_flush(0), -ETIMEDOUT);
	ck_assert_uint_eq(rec.released, 0);
	/* Its successor has never been called: released at once. */
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	ck_assert_uint_eq(other.released, 1);
	ck_assert_uint_eq(rec.released, 0);

	recorder_go_on(&rec);
	recorder_wait_released(&rec);
	recorder_wait(&journal, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_ptr_null(other.first);
	ck_assert_ptr_null(rec.first->next);
	ck_assert_uint_eq(rec.released, 1);
	recorder_destroy(&other);
	tear_down();
}
END_TEST

static void replace_itself(const struct ktvblk_record *record, void *userdata)
{
	const struct recorder *old = (const struct recorder *)userdata;

	(void)record;
	ktvblk_set_log_handler(recorder_handle, recorder_release, &rec);
	/* This call is still in progress. */
	if (old->released)
		abort();
}

START_TEST(a_handler_may_replace_itself)
{
	struct recorder old;

	set_up();
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	recorder_destroy(&rec);
	recorder_init(&rec);
	recorder_init(&old);
	ck_assert_int_eq(ktvblk_set_log_handler(replace_itself,
						recorder_release, &old),
			 0);
	log_event(&id, RECLAIMED, 1);
	recorder_wait_released(&old);
	log_event(&id, RECLAIMED, 2);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	recorder_destroy(&old);
	tear_down();
}
END_TEST

static _Atomic int flush_answer;

static void log_and_flush(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	if (strcmp(record->message_id, KTVBLK_MESSAGE_RECLAIMED) == 0) {
		log_event(&id, PLACEMENT_FAILED, NOTHING, EINVAL);
		flush_answer = ktvblk_log_flush(WAIT_MS);
	}
	recorder_handle(record, userdata);
}

START_TEST(a_handler_may_log_but_not_flush)
{
	set_up();
	ck_assert_int_eq(ktvblk_set_log_handler(log_and_flush, NULL, &rec), 0);
	flush_answer = 0;
	log_event(&id, RECLAIMED, 1);
	recorder_wait(&rec, KTVBLK_MESSAGE_PLACEMENT_FAILED);
	ck_assert_int_eq(flush_answer, -EDEADLK);
	ck_assert_str_eq(id_at(&rec, 0), KTVBLK_MESSAGE_RECLAIMED);

	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	recorder_destroy(&rec);
	recorder_start(&rec);
	tear_down();
}
END_TEST

START_TEST(bad_handlers_are_refused)
{
	set_up();
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, recorder_release, &rec),
			 -EINVAL);
	alloc_fails = 1;
	int r = ktvblk_set_log_handler(recorder_handle, recorder_release, &rec);
	alloc_fails = 0;
	ck_assert_int_eq(r, -ENOMEM);
	/* The one before stays. */
	ck_assert_uint_eq(rec.released, 0);
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	tear_down();
}
END_TEST

/*
 * Flush
 */

START_TEST(flush_waits_for_what_was_made_so_far)
{
	set_up();
	ck_assert_int_eq(ktvblk_log_flush(0), 0);
	for (uint64_t i = 0; i < 100; i++)
		log_event(&id, RECLAIMED, i);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	ck_assert_ptr_nonnull(rec.first);
	ck_assert_int_eq(ktvblk_log_flush(0), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 100);
	tear_down();
}
END_TEST

START_TEST(flush_gives_up_on_a_sink_that_hangs)
{
	uint64_t begin;

	set_up();
	hang();
	ck_assert_int_eq(ktvblk_log_flush(0), -ETIMEDOUT);
	begin = now_ns();
	ck_assert_int_eq(ktvblk_log_flush(30), -ETIMEDOUT);
	ck_assert_uint_ge(now_ns() - begin, 30 * NSEC_PER_MSEC);
	recorder_go_on(&rec);
	ck_assert_int_eq(ktvblk_log_flush(UINT32_MAX), 0);
	tear_down();
}
END_TEST

TEST_PROGRAM("journal-handlers", an_idle_handler_is_released_by_who_replaces_it,
	     a_busy_handler_is_released_when_its_call_ends,
	     a_handler_may_replace_itself, a_handler_may_log_but_not_flush,
	     bad_handlers_are_refused, flush_waits_for_what_was_made_so_far,
	     flush_gives_up_on_a_sink_that_hangs)
