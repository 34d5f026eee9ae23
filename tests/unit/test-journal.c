/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Every record reaches its sink in order or is counted, and the count is told;
 * who makes one never waits, whatever the sink does.
 */

/* wrap: sd_journal_sendv */

#include <stdio.h>
#include <string.h>

#include "log-sinks.h"

static void log_wedge(uint64_t timeout_ms)
{
	log_event(&id, RESET_TIMED_OUT, timeout_ms, "yes", NOTHING, NOTHING,
		  NOTHING, NOTHING, 0);
}

/*
 * Delivery
 */

START_TEST(a_record_reaches_the_handler_as_it_was_made)
{
	const struct kept_record *r;
	unsigned int line;

	set_up();
	line = __LINE__ + 1;
	log_event(&id, WRITE_FAILED, 77, EIO);
	r = recorder_wait(&rec, KTVBLK_MESSAGE_WRITE_FAILED);
	ck_assert_int_eq(r->priority, LOG_WARNING);
	ck_assert_uint_eq(kept_number(r, "PRIORITY"), LOG_WARNING);
	ck_assert_str_eq(kept_field(r, "MESSAGE"), r->message);
	ck_assert_ptr_nonnull(strstr(r->message, "(vda)"));
	ck_assert_str_eq(kept_field(r, "CODE_FILE"), __FILE__);
	ck_assert_str_eq(kept_field(r, "CODE_FUNC"), __func__);
	ck_assert_uint_eq(kept_number(r, "CODE_LINE"), line);
	ck_assert_uint_eq(kept_number(r, "STOP_FD"), 23);
	ck_assert_uint_eq(kept_number(r, "CAPACITY_SECTORS"), 2048);
	ck_assert_uint_eq(kept_number(r, "INSTANCE_ID"), id.disk->instance_id);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 77);
	ck_assert_uint_eq(kept_number(r, "ERRNO"), EIO);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	ck_assert_ptr_null(journal.first);
	tear_down();
}
END_TEST

START_TEST(a_record_of_no_device_reaches_the_handler)
{
	set_up();
	log_event(NULL, MEMORY_UNSET);
	ck_assert_ptr_null(kept_field(
		recorder_wait(&rec, KTVBLK_MESSAGE_MEMORY_UNSET), "STOP_FD"));
	tear_down();
}
END_TEST

struct seen {
	struct ktvblk_record record;
	pid_t tid;
};

static void see(const struct ktvblk_record *record, void *userdata)
{
	struct seen *seen = (struct seen *)userdata;

	seen->record = *record;
	seen->tid = gettid();
}

START_TEST(the_handler_gets_a_whole_struct_on_the_log_thread)
{
	struct seen seen = { .tid = 0 };

	set_up();
	ck_assert_int_eq(ktvblk_set_log_handler(see, NULL, &seen), 0);
	recorder_wait_released(&rec);
	log_event(&id, RECLAIMED, 5);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	ck_assert_uint_eq(seen.record.size, sizeof(struct ktvblk_record));
	ck_assert_int_eq(seen.record.reserved, 0);
	ck_assert_int_eq(seen.record.priority, LOG_NOTICE);
	ck_assert_uint_gt(seen.record.n_fields, 0);
	ck_assert_int_eq(seen.tid, find_thread("ktvblk-log"));

	/* The recorder again, for tear_down(). */
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	recorder_destroy(&rec);
	recorder_start(&rec);
	tear_down();
}
END_TEST

START_TEST(without_a_handler_the_journal_gets_every_field)
{
	const struct kept_record *r;

	set_up();
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	log_event(&id, WRITE_FAILED, 77, EIO);
	r = recorder_wait(&journal, KTVBLK_MESSAGE_WRITE_FAILED);
	/* The standard six, the identity's four, its own two. */
	ck_assert_uint_eq(r->n_fields, 12);
	ck_assert_ptr_nonnull(strstr(r->message, "(vda)"));
	ck_assert_uint_eq(kept_number(r, "PRIORITY"), LOG_WARNING);
	ck_assert_str_eq(kept_field(r, "CODE_FILE"), __FILE__);
	ck_assert_uint_eq(kept_number(r, "STOP_FD"), 23);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SECTOR"), 77);
	ck_assert_uint_eq(kept_number(r, "ERRNO"), EIO);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	tear_down();
}
END_TEST

START_TEST(what_is_made_before_the_thread_waits_for_it)
{
	set_up();
	log_unref(far_away());
	log_event(&id, RECLAIMED, 5);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), -ETIMEDOUT);
	ck_assert_ptr_null(rec.first);
	ck_assert_int_eq(log_ref(), 0);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	tear_down();
}
END_TEST

START_TEST(a_record_in_the_queue_keeps_its_disk)
{
	struct identity gone = { disk_id_new("gone", 8), 5, 0 };
	const struct kept_record *r;

	set_up();
	hang();
	log_event(&gone, START_FAILED, "step", ENOMEM);
	disk_id_unref(gone.disk);
	recorder_go_on(&rec);
	r = recorder_wait(&rec, KTVBLK_MESSAGE_START_FAILED);
	ck_assert_str_eq(kept_field(r, "KTVBLK_DISK"), "gone");
	tear_down();
}
END_TEST

static void *make_records(void *arg)
{
	const struct identity mine = { disk_id_new(NULL, 8), *(const int *)arg,
				       0 };

	for (uint64_t i = 0; i < 100; i++)
		log_event(&mine, RECLAIMED, i);
	disk_id_unref(mine.disk);
	return NULL;
}

START_TEST(records_of_each_thread_stay_in_order)
{
	int numbers[] = { 0, 1, 2, 3 };
	uint64_t next[ARRAY_SIZE(numbers)] = { 0 };
	pthread_t threads[ARRAY_SIZE(numbers)];

	set_up();
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, make_records,
						&numbers[i]),
				 0);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		pthread_join(threads[i], NULL);
	/* All fit into the queue. */
	ck_assert_int_eq(recorder_count(&rec, NULL), 400);
	for (const struct kept_record *r = rec.first; r; r = r->next) {
		const uint64_t who = kept_number(r, "STOP_FD");

		ck_assert_uint_eq(kept_number(r, "KTVBLK_STUCK_MS"),
				  next[who]++);
	}
	tear_down();
}
END_TEST

/*
 * What is lost is counted
 */

START_TEST(an_overflow_is_told_before_the_next_record)
{
	const struct kept_record *r;

	set_up();
	hang();
	/* None of these waits for the sink. */
	for (uint64_t i = 1; i <= LOG_QUEUE_ENTRIES + 7; i++)
		log_event(&id, RECLAIMED, i);
	recorder_go_on(&rec);
	/* The one it hung in, those in the queue, and the telling. */
	ck_assert_int_eq(recorder_count(&rec, NULL), LOG_QUEUE_ENTRIES + 2);
	ck_assert_str_eq(id_at(&rec, 0), KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_str_eq(id_at(&rec, 1), KTVBLK_MESSAGE_LOG_OVERFLOW);
	r = recorder_find(&rec, KTVBLK_MESSAGE_LOG_OVERFLOW);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_DROPPED"), 7);
	ck_assert_ptr_null(kept_field(r, "STOP_FD"));
	r = recorder_wait_n(&rec, KTVBLK_MESSAGE_RECLAIMED,
			    LOG_QUEUE_ENTRIES + 1);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_STUCK_MS"), LOG_QUEUE_ENTRIES);

	/* Told once. */
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_LOG_OVERFLOW), 1);
	tear_down();
}
END_TEST

START_TEST(a_guest_cannot_crowd_out_what_it_cannot_provoke)
{
	set_up();
	hang();
	/* Of no device, so that no rate limit helps. */
	for (unsigned int i = 0; i < 2 * LOG_QUEUE_ENTRIES; i++)
		log_event(NULL, MEMORY_UNSET);
	for (uint64_t i = 0; i < LOG_QUEUE_RESERVED; i++)
		log_wedge(i);
	log_wedge(99999);
	recorder_go_on(&rec);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_MEMORY_UNSET),
			 LOG_QUEUE_ENTRIES - LOG_QUEUE_RESERVED);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
			 LOG_QUEUE_RESERVED);
	ck_assert_uint_eq(
		kept_number(recorder_find(&rec, KTVBLK_MESSAGE_LOG_OVERFLOW),
			    "KTVBLK_DROPPED"),
		LOG_QUEUE_ENTRIES + LOG_QUEUE_RESERVED + 1);
	tear_down();
}
END_TEST

/* All that guests can provoke or repeat, of many disks at once. */
START_TEST(no_crowd_of_guests_crowds_out_a_wedge)
{
	struct identity crowd[64];

	set_up();
	hang();
	for (size_t i = 0; i < ARRAY_SIZE(crowd); i++) {
		crowd[i] = (struct identity){ disk_id_new(NULL, 1), 7, 0 };
		for (unsigned int n = 0; n < 100; n++) {
			log_event(&crowd[i], PLACEMENT_FAILED, NOTHING, EINVAL);
			log_event(&crowd[i], START_FAILED, "step", EMFILE);
			log_event(&crowd[i], QUEUE_SIZE_INVALID, n);
			log_event(&crowd[i], CHAIN_NO_STATUS, n);
		}
		/* The windows of all are over: what was held back is told. */
		for (int event = 0; event < EVENT_COUNT; event++)
			crowd[i].disk->limits[event].window_start_ns -=
				LOG_LIMIT_NS;
		log_event(&crowd[i], PLACEMENT_FAILED, NOTHING, EINVAL);
		log_suppressed(&crowd[i]);
	}
	for (uint64_t i = 0; i < LOG_QUEUE_RESERVED; i++)
		log_wedge(i);
	recorder_go_on(&rec);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
			 LOG_QUEUE_RESERVED);
	ck_assert_int_gt(recorder_count(&rec, KTVBLK_MESSAGE_PLACEMENT_FAILED),
			 0);
	for (size_t i = 0; i < ARRAY_SIZE(crowd); i++)
		disk_id_unref(crowd[i].disk);
	tear_down();
}
END_TEST

START_TEST(debug_records_leave_the_reserve_as_well)
{
	set_up();
	hang();
	ck_assert_int_eq(ktvblk_set_log_level(LOG_DEBUG), 0);
	for (unsigned int i = 0; i < LOG_QUEUE_ENTRIES; i++)
		log_event(&id, THROTTLE_REDRAINED);
	recorder_go_on(&rec);
	ck_assert_int_eq(recorder_count(&rec,
					KTVBLK_MESSAGE_THROTTLE_REDRAINED),
			 LOG_QUEUE_ENTRIES - LOG_QUEUE_RESERVED);
	tear_down();
}
END_TEST

START_TEST(what_the_journal_refuses_is_told_when_it_is_back)
{
	const struct kept_record *r;

	set_up();
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	journal_answer = -ECONNREFUSED;
	for (uint64_t i = 0; i < 3; i++)
		log_event(&id, RECLAIMED, i);
	ck_assert_int_eq(recorder_count(&journal, NULL), 0);
	journal_answer = 0;
	log_event(&id, RECLAIMED, 3);
	ck_assert_int_eq(recorder_count(&journal, NULL), 2);
	r = recorder_find(&journal, KTVBLK_MESSAGE_LOG_OVERFLOW);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_DROPPED"), 3);
	ck_assert_str_eq(id_at(&journal, 0), KTVBLK_MESSAGE_LOG_OVERFLOW);
	r = recorder_find(&journal, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_STUCK_MS"), 3);
	tear_down();
}
END_TEST

START_TEST(a_count_nobody_wants_to_hear_is_kept)
{
	set_up();
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	journal_answer = -ECONNREFUSED;
	log_event(&id, RECLAIMED, 0);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	journal_answer = 0;
	ck_assert_int_eq(ktvblk_set_log_level(LOG_ERR), 0);
	log_event(&id, DESTROY_PANICKED, "step");
	ck_assert_int_eq(recorder_count(&journal, NULL), 1);
	ck_assert_int_eq(ktvblk_set_log_level(LOG_INFO), 0);
	log_event(&id, RECLAIMED, 1);
	ck_assert_uint_eq(
		kept_number(recorder_wait(&journal,
					  KTVBLK_MESSAGE_LOG_OVERFLOW),
			    "KTVBLK_DROPPED"),
		1);
	tear_down();
}
END_TEST

/*
 * What a guest can provoke is limited
 */

START_TEST(what_a_guest_provokes_is_limited_and_told)
{
	const struct kept_record *r;

	set_up();
	for (uint64_t i = 0; i < LOG_LIMIT_BURST + 15; i++)
		log_event(&id, READ_FAILED, i, EIO);
	/* Another kind, and another device. */
	log_event(&id, WRITE_FAILED, 1, EIO);
	log_event(NULL, READ_FAILED, 1, EIO);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_READ_FAILED),
			 LOG_LIMIT_BURST + 1);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_WRITE_FAILED), 1);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_LOG_SUPPRESSED),
			 0);

	log_suppressed(&id);
	log_suppressed(&id);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_LOG_SUPPRESSED),
			 1);
	r = recorder_find(&rec, KTVBLK_MESSAGE_LOG_SUPPRESSED);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SUPPRESSED"), 15);
	ck_assert_str_eq(kept_field(r, "KTVBLK_SUPPRESSED_ID"),
			 KTVBLK_MESSAGE_READ_FAILED);
	ck_assert_uint_eq(kept_number(r, "INSTANCE_ID"), id.disk->instance_id);
	tear_down();
}
END_TEST

START_TEST(the_next_window_begins_with_what_was_held_back)
{
	set_up();
	for (uint64_t i = 0; i < LOG_LIMIT_BURST + 4; i++)
		log_event(&id, READ_FAILED, i, EIO);
	recorder_clear(&rec);
	/* As if it had begun that much earlier. */
	id.disk->limits[EVENT_READ_FAILED].window_start_ns -= LOG_LIMIT_NS;
	log_event(&id, READ_FAILED, 1, EIO);
	ck_assert_int_eq(recorder_count(&rec, NULL), 2);
	ck_assert_str_eq(id_at(&rec, 0), KTVBLK_MESSAGE_LOG_SUPPRESSED);
	ck_assert_uint_eq(kept_number(rec.first, "KTVBLK_SUPPRESSED"), 4);
	ck_assert_str_eq(id_at(&rec, 1), KTVBLK_MESSAGE_READ_FAILED);
	tear_down();
}
END_TEST

START_TEST(what_no_guest_provokes_is_not_limited)
{
	set_up();
	for (uint64_t i = 0; i < 10 * LOG_LIMIT_BURST; i++)
		log_wedge(i);
	ck_assert_int_eq(recorder_count(&rec, NULL), 10 * LOG_LIMIT_BURST);
	tear_down();
}
END_TEST

/*
 * The level
 */

START_TEST(only_records_of_the_level_are_made)
{
	set_up();
	/* LOG_INFO at first. */
	log_event(&id, THROTTLE_REDRAINED);
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	ck_assert_int_eq(ktvblk_set_log_level(LOG_DEBUG), 0);
	log_event(&id, THROTTLE_REDRAINED);
	ck_assert_int_eq(recorder_count(&rec, NULL), 2);
	ck_assert_int_eq(ktvblk_set_log_level(LOG_ERR), 0);
	log_event(&id, RECLAIMED, 1);
	log_event(&id, CAPACITY_BELOW_SECTOR, 1, 512);
	log_event(&id, DESTROY_PANICKED, "step");
	ck_assert_int_eq(recorder_count(&rec, NULL), 3);
	ck_assert_int_eq(ktvblk_set_log_level(LOG_EMERG), 0);
	log_event(&id, DESTROY_PANICKED, "step");
	ck_assert_int_eq(recorder_count(&rec, NULL), 3);
	tear_down();
}
END_TEST

START_TEST(a_bad_level_is_refused)
{
	set_up();
	ck_assert_int_eq(ktvblk_set_log_level(-1), -EINVAL);
	ck_assert_int_eq(ktvblk_set_log_level(LOG_DEBUG + 1), -EINVAL);
	ck_assert_int_eq(ktvblk_set_log_level(INT32_MIN), -EINVAL);
	/* It is as before. */
	log_event(&id, THROTTLE_REDRAINED);
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	tear_down();
}
END_TEST

TEST_PROGRAM("journal", a_record_reaches_the_handler_as_it_was_made,
	     a_record_of_no_device_reaches_the_handler,
	     the_handler_gets_a_whole_struct_on_the_log_thread,
	     without_a_handler_the_journal_gets_every_field,
	     what_is_made_before_the_thread_waits_for_it,
	     a_record_in_the_queue_keeps_its_disk,
	     records_of_each_thread_stay_in_order,
	     an_overflow_is_told_before_the_next_record,
	     a_guest_cannot_crowd_out_what_it_cannot_provoke,
	     no_crowd_of_guests_crowds_out_a_wedge,
	     debug_records_leave_the_reserve_as_well,
	     what_the_journal_refuses_is_told_when_it_is_back,
	     a_count_nobody_wants_to_hear_is_kept,
	     what_a_guest_provokes_is_limited_and_told,
	     the_next_window_begins_with_what_was_held_back,
	     what_no_guest_provokes_is_not_limited,
	     only_records_of_the_level_are_made, a_bad_level_is_refused)
