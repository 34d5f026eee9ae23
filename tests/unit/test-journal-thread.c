/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The log thread: there from the first reference to the last, bounded at the
 * end.
 */

/* wrap: pthread_create */

#include <stdio.h>
#include <string.h>

#include "log-life.h"
#include "wedge.h"

/*
 * System calls that are counted or fail
 */

static _Atomic bool create_fails;
static _Atomic unsigned int created;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg)
{
	if (create_fails)
		return EAGAIN;
	created++;
	return __real_pthread_create(thread, attr, body, arg);
}

/*
 * Life
 */

START_TEST(the_thread_lives_from_the_first_reference_to_the_last)
{
	pid_t tid;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	tid = log_thread();
	ck_assert_int_eq(log_ref(), 0);
	ck_assert_int_eq(count_threads("ktvblk-log"), 1);
	log_unref(far_away());
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	ck_assert_int_eq(find_thread("ktvblk-log"), tid);
	log_unref(far_away());
	ck_assert(log_thread_gone());

	/* And once more. */
	ck_assert_int_eq(log_ref(), 0);
	log_event(&id, RECLAIMED, 2);
	ck_assert_int_eq(recorder_count(&rec, NULL), 2);
	log_unref(far_away());
	tear_down();
}
END_TEST

START_TEST(the_last_reference_ends_when_all_is_handed_on)
{
	set_up();
	ck_assert_int_eq(log_ref(), 0);
	for (uint64_t i = 0; i < 200; i++)
		log_event(&id, RECLAIMED, i);
	log_unref(far_away());
	ck_assert_uint_eq(kept_number(recorder_wait_n(&rec,
						      KTVBLK_MESSAGE_RECLAIMED,
						      200),
				      "KTVBLK_STUCK_MS"),
			  199);
	tear_down();
}
END_TEST

START_TEST(without_a_thread_there_is_no_log)
{
	set_up();
	create_fails = true;
	ck_assert_int_eq(log_ref(), -EAGAIN);
	ck_assert_int_eq(log_ref(), -EAGAIN);
	create_fails = false;
	ck_assert_int_eq(log_ref(), 0);
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	/* One was had, so one is to be given back. */
	log_unref(far_away());
	tear_down();
}
END_TEST

START_TEST(the_end_is_bounded_where_the_sink_hangs)
{
	uint64_t start;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	hang();
	start = clock_start();
	log_unref(start + 30 * NSEC_PER_MSEC);
	ck_assert_uint_ge(ms_since(start), 30);
	ck_assert_uint_lt(ms_since(start), bound_ms(1030));
	ck_assert_uint_eq(count_threads("ktvblk-log"), 1);
	/* It ends with the call of its sink. */
	recorder_go_on(&rec);
	tear_down();
}
END_TEST

START_TEST(a_new_reference_gets_the_thread_that_hangs)
{
	unsigned int before;
	pid_t tid;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	hang();
	tid = log_thread();
	log_unref(now_ns());
	before = created;
	ck_assert_int_eq(log_ref(), 0);
	ck_assert_uint_eq(created, before);
	log_event(&id, START_FAILED, "step", EIO);
	recorder_go_on(&rec);
	recorder_wait(&rec, KTVBLK_MESSAGE_START_FAILED);
	ck_assert_int_eq(log_thread(), tid);
	log_unref(far_away());
	tear_down();
}
END_TEST

static void *drop_last(void *arg)
{
	pthread_setname_np(pthread_self(), "dropper");
	log_unref(far_away());
	latch_set((struct latch *)arg);
	return NULL;
}

START_TEST(a_new_reference_frees_who_waits_for_the_end)
{
	struct latch done;
	pthread_t dropper;

	set_up();
	latch_init(&done);
	ck_assert_int_eq(log_ref(), 0);
	hang();
	ck_assert_int_eq(pthread_create(&dropper, NULL, drop_last, &done), 0);
	ck_assert(eventually(thread_state(find_thread("dropper")) == 'S'));
	ck_assert(!latch_is_set(&done));
	ck_assert_int_eq(log_ref(), 0);
	ck_assert(latch_wait(&done, WAIT_MS / 2));
	pthread_join(dropper, NULL);
	latch_destroy(&done);
	recorder_go_on(&rec);
	log_unref(far_away());
	tear_down();
}
END_TEST

START_TEST(a_thread_that_hung_and_ended_is_followed_by_another)
{
	set_up();
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(log_ref(), 0);
		hang();
		log_unref(now_ns());
		recorder_go_on(&rec);
		ck_assert(log_thread_gone());
	}
	tear_down();
}
END_TEST

static void *ref_log_unref(void *arg)
{
	(void)arg;
	for (uint64_t i = 0; i < 100; i++) {
		if (log_ref() < 0)
			abort();
		log_event(&id, RECLAIMED, i);
		log_unref(far_away());
	}
	return NULL;
}

START_TEST(threads_come_and_go_and_no_record_is_lost)
{
	pthread_t threads[4];

	set_up();
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
						ref_log_unref, NULL),
				 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RECLAIMED), 400);
	ck_assert_int_eq(recorder_count(&rec, NULL), 400);
	tear_down();
}
END_TEST

static void unref_and_keep(const struct ktvblk_record *record, void *userdata)
{
	log_unref(far_away());
	recorder_handle(record, userdata);
}

START_TEST(a_handler_may_drop_the_last_reference)
{
	set_up();
	ck_assert_int_eq(ktvblk_set_log_handler(unref_and_keep, NULL, &rec), 0);
	ck_assert_int_eq(log_ref(), 0);
	log_event(&id, RECLAIMED, 1);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert(log_thread_gone());
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	recorder_destroy(&rec);
	recorder_start(&rec);
	tear_down();
}
END_TEST

/*
 * Jobs
 */

struct test_job {
	struct log_job job;
	struct latch done;
	pid_t tid;
	sigset_t blocked;
	bool unref;
	struct kept_record *records_before; /* the first of them */
};

static void run_test_job(struct log_job *job)
{
	struct test_job *mine = (struct test_job *)job;

	mine->tid = gettid();
	pthread_sigmask(SIG_SETMASK, NULL, &mine->blocked);
	pthread_mutex_lock(&rec.lock);
	mine->records_before = rec.first;
	pthread_mutex_unlock(&rec.lock);
	if (mine->unref)
		log_unref(far_away());
	latch_set(&mine->done);
}

START_TEST(a_job_runs_on_the_log_thread_after_the_records)
{
	struct test_job job = { .job.run = run_test_job };

	set_up();
	latch_init(&job.done);
	ck_assert_int_eq(log_ref(), 0);
	log_event(&id, RECLAIMED, 1);
	log_run_later(&job.job);
	ck_assert(latch_wait(&job.done, WAIT_MS));
	ck_assert_int_eq(job.tid, log_thread());
	ck_assert_ptr_nonnull(job.records_before);
	log_unref(far_away());
	latch_destroy(&job.done);
	tear_down();
}
END_TEST

START_TEST(the_thread_takes_no_signals)
{
	const int signals[] = { SIGTERM, SIGINT,   SIGALRM, SIGUSR1,
				SIGCHLD, SIGRTMIN, SIGRTMAX };
	struct test_job job = { .job.run = run_test_job };
	sigset_t before, after;

	set_up();
	latch_init(&job.done);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	ck_assert_int_eq(log_ref(), 0);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	log_run_later(&job.job);
	ck_assert(latch_wait(&job.done, WAIT_MS));
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		ck_assert_int_eq(sigismember(&job.blocked, signals[i]), 1);
		/* The caller's mask is as it was. */
		ck_assert_int_eq(sigismember(&before, signals[i]), 0);
		ck_assert_int_eq(sigismember(&after, signals[i]), 0);
	}
	log_unref(far_away());
	latch_destroy(&job.done);
	tear_down();
}
END_TEST

START_TEST(a_job_may_drop_the_last_reference)
{
	struct test_job jobs[3];

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	hang();
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
		jobs[i] = (struct test_job){ .job.run = run_test_job,
					     .unref = true };
		latch_init(&jobs[i].done);
		/* A job's own, as who hands it over has one for it. */
		ck_assert_int_eq(log_ref(), 0);
		log_run_later(&jobs[i].job);
	}
	log_unref(now_ns());
	recorder_go_on(&rec);
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
		ck_assert(latch_wait(&jobs[i].done, WAIT_MS));
		latch_destroy(&jobs[i].done);
	}
	tear_down();
}
END_TEST

TEST_PROGRAM("journal-thread",
	     the_thread_lives_from_the_first_reference_to_the_last,
	     the_last_reference_ends_when_all_is_handed_on,
	     without_a_thread_there_is_no_log,
	     the_end_is_bounded_where_the_sink_hangs,
	     a_new_reference_gets_the_thread_that_hangs,
	     a_new_reference_frees_who_waits_for_the_end,
	     a_thread_that_hung_and_ended_is_followed_by_another,
	     threads_come_and_go_and_no_record_is_lost,
	     a_handler_may_drop_the_last_reference,
	     a_job_runs_on_the_log_thread_after_the_records,
	     the_thread_takes_no_signals, a_job_may_drop_the_last_reference)
