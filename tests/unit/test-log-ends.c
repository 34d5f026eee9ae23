/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A log thread that cannot end, or is made to: what the VMM's handler, or a
 * library below it, keeps for each thread holds up nobody, and a handler, a
 * release or a job that ends the thread is survived. And it looks for stalled
 * requests, takes jobs and hands on records however much there is of the others.
 */

/* wrap: pthread_create watch_scan */

#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "harness.h"
#include "journal.h"
#include "recorder.h"
#include "rig.h"
#include "wedge.h"

static struct recorder rec;
static struct identity id;
static _Atomic bool create_fails;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*body)(void *), void *arg)
{
	return create_fails ? EAGAIN
			    : __real_pthread_create(thread, attr, body, arg);
}

static uint64_t in_ms(uint64_t ms)
{
	return now_ns() + ms * NSEC_PER_MSEC;
}

static bool log_threads_gone(void)
{
	return eventually(count_threads("ktvblk-log") == 0);
}

static void set_up(void (*handler)(const struct ktvblk_record *record,
				   void *userdata))
{
	id = (struct identity){ disk_id_new("vda", 2048), 23, 0 };
	recorder_init(&rec);
	ck_assert_int_eq(
		ktvblk_set_log_handler(handler, recorder_release, &rec), 0);
	ck_assert(log_threads_gone());
}

static void tear_down(void)
{
	ck_assert(log_threads_gone());
	recorder_stop(&rec);
	/* No record and no watch has kept it. */
	ck_assert_uint_eq(id.disk->refs, 1);
	disk_id_unref(id.disk);
}

/*
 * A thread-local destructor that hangs
 */

static pthread_key_t key;
/* A futex, as nobody joins a thread that was detached: it is never destroyed. */
static _Atomic uint32_t may_end;

static _Atomic unsigned int ends;

static void hang_at_end(void *arg)
{
	const uint64_t until = in_ms(WAIT_MS);

	ends++;
	while (!atomic_load((_Atomic uint32_t *)arg) && now_ns() < until)
		futex_wait((_Atomic uint32_t *)arg, 0, until);
}

/* As a library does that buffers for each thread. */
static void keep_for_thread(const struct ktvblk_record *record, void *userdata)
{
	pthread_setspecific(key, &may_end);
	recorder_handle(record, userdata);
}

static void set_up_hanging_end(void)
{
	ends = 0; /* also without a fork for each test */
	may_end = 0;
	ck_assert_int_eq(pthread_key_create(&key, hang_at_end), 0);
	set_up(keep_for_thread);
}

static void let_end(void)
{
	may_end = 1;
	futex_wake(&may_end, INT_MAX);
}

static void tear_down_hanging_end(void)
{
	let_end();
	tear_down();
	pthread_key_delete(key);
}

START_TEST(a_thread_local_destructor_does_not_hold_the_last_reference)
{
	uint64_t deadline;

	set_up_hanging_end();
	ck_assert_int_eq(log_ref(), 0);
	log_event(&id, RECLAIMED, 1);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	deadline = in_ms(30);
	log_unref(deadline);
	ck_assert_uint_lt(now_ns(), deadline + bound_ms(1000) * NSEC_PER_MSEC);
	ck_assert_uint_eq(count_threads("ktvblk-log"), 1);
	tear_down_hanging_end();
}
END_TEST

START_TEST(the_next_log_does_not_wait_for_the_end_of_the_last)
{
	set_up_hanging_end();
	for (unsigned int i = 1; i <= 3; i++) {
		ck_assert_int_eq(log_ref(), 0);
		log_event(&id, RECLAIMED, 1);
		recorder_wait_n(&rec, KTVBLK_MESSAGE_RECLAIMED, (int)i);
		log_unref(now_ns());
		/* All of them hang in their end. */
		ck_assert(eventually(ends == i));
		ck_assert_uint_eq(count_threads("ktvblk-log"), i);
	}
	tear_down_hanging_end();
}
END_TEST

struct taker {
	struct latch dropped, taken;
};

static void *drop_and_tell(void *arg)
{
	log_unref(in_ms(WAIT_MS));
	latch_set(&((struct taker *)arg)->dropped);
	return NULL;
}

static void *take_and_tell(void *arg)
{
	if (log_ref() < 0)
		abort();
	latch_set(&((struct taker *)arg)->taken);
	return NULL;
}

/* Who joins the one that ends does so without the lock. */
START_TEST(the_next_log_is_had_while_another_waits_for_the_end)
{
	struct taker taker;
	pthread_t threads[2];

	set_up_hanging_end();
	latch_init(&taker.dropped);
	latch_init(&taker.taken);
	ck_assert_int_eq(log_ref(), 0);
	log_event(&id, RECLAIMED, 1);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	pthread_create(&threads[0], NULL, drop_and_tell, &taker);
	ck_assert(eventually(ends == 1));
	pthread_create(&threads[1], NULL, take_and_tell, &taker);
	ck_assert(latch_wait(&taker.taken, WAIT_MS / 2));
	log_event(&id, RECLAIMED, 2);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_RECLAIMED, 2);
	let_end();
	ck_assert(latch_wait(&taker.dropped, WAIT_MS));
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	log_unref(in_ms(WAIT_MS));
	latch_destroy(&taker.dropped);
	latch_destroy(&taker.taken);
	tear_down_hanging_end();
}
END_TEST

/* The VMM's lock may be what the destructor waits for. */
START_TEST(the_last_device_is_made_and_destroyed_all_the_same)
{
	const struct rig_options options = { .no_memory = true };
	static struct rig rig;
	uint64_t start;

	set_up_hanging_end();
	for (unsigned int i = 1; i <= 2; i++) {
		start = now_ns();
		rig_open(&rig, &options);
		rig_start(&rig);
		recorder_wait_n(&rec, KTVBLK_MESSAGE_MEMORY_UNSET, (int)i);
		rig_close(&rig);
		ck_assert_uint_lt(ms_since(start), bound_ms(2000));
		ck_assert(eventually(ends == i));
		ck_assert_uint_eq(count_threads("ktvblk-log"), i);
	}
	tear_down_hanging_end();
}
END_TEST

/*
 * A thread that is made to end
 */

static _Atomic(const char *) deadly; /* the MESSAGE_ID that does it */

static void end_thread(const struct ktvblk_record *record, void *userdata)
{
	recorder_handle(record, userdata);
	if (strcmp(record->message_id, deadly) == 0)
		pthread_exit(NULL);
}

START_TEST(a_handler_that_ends_its_thread_is_called_on_the_next)
{
	deadly = KTVBLK_MESSAGE_START_FAILED;
	set_up(end_thread);
	ck_assert_int_eq(log_ref(), 0);
	for (int i = 1; i <= 3; i++) {
		log_event(&id, START_FAILED, "step", EIO);
		log_event(&id, RECLAIMED, 1);
		ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
		ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RECLAIMED),
				 i);
		/* It did not come back, so nobody knows. */
		ck_assert_int_eq(
			recorder_count(&rec, KTVBLK_MESSAGE_LOG_OVERFLOW), i);
		ck_assert_uint_eq(
			kept_number(recorder_find(&rec,
						  KTVBLK_MESSAGE_LOG_OVERFLOW),
				    "KTVBLK_DROPPED"),
			1);
	}
	log_unref(in_ms(WAIT_MS));
	tear_down();
}
END_TEST

START_TEST(what_is_told_of_losses_is_not_lost_with_the_thread)
{
	deadly = KTVBLK_MESSAGE_LOG_OVERFLOW;
	set_up(end_thread);
	ck_assert_int_eq(log_ref(), 0);
	recorder_hold(&rec);
	log_event(&id, RECLAIMED, 0);
	recorder_wait_held(&rec);
	for (uint64_t i = 0; i <= LOG_QUEUE_ENTRIES; i++)
		log_event(&id, RECLAIMED, i);
	recorder_go_on(&rec);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_LOG_OVERFLOW, 2);
	deadly = ""; /* from now on it lives */
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	log_unref(in_ms(WAIT_MS));
	tear_down();
}
END_TEST

START_TEST(without_a_thread_to_follow_the_next_reference_brings_one)
{
	deadly = KTVBLK_MESSAGE_START_FAILED;
	set_up(end_thread);
	ck_assert_int_eq(log_ref(), 0);
	create_fails = true;
	log_event(&id, START_FAILED, "step", EIO);
	recorder_wait(&rec, KTVBLK_MESSAGE_START_FAILED);
	ck_assert(log_threads_gone());
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(ktvblk_log_flush(0), -ETIMEDOUT);
	ck_assert_int_eq(log_ref(), -EAGAIN);
	create_fails = false;
	ck_assert_int_eq(log_ref(), 0);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RECLAIMED), 1);
	log_unref(in_ms(WAIT_MS));
	log_unref(in_ms(WAIT_MS));
	tear_down();
}
END_TEST

static struct latch let_go, in_call;
static _Atomic unsigned int releases;

static void wait_in_handler(const struct ktvblk_record *record, void *userdata)
{
	(void)record;
	(void)userdata;
	latch_set(&in_call);
	latch_wait(&let_go, WAIT_MS);
}

static void release_and_end_thread(void *userdata)
{
	(void)userdata;
	releases++;
	pthread_exit(NULL);
}

START_TEST(a_release_that_ends_its_thread_runs_once)
{
	latch_init(&let_go);
	latch_init(&in_call);
	id = (struct identity){ disk_id_new("vda", 2048), 23, 0 };
	ck_assert_int_eq(ktvblk_set_log_handler(wait_in_handler,
						release_and_end_thread, NULL),
			 0);
	ck_assert_int_eq(log_ref(), 0);
	log_event(&id, RECLAIMED, 1);
	ck_assert(latch_wait(&in_call, WAIT_MS));
	recorder_start(&rec); /* in its place, once it is back */
	log_event(&id, RECLAIMED, 2);
	latch_set(&let_go);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(releases, 1);
	/* The handler came back: nothing is lost. */
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	log_unref(in_ms(WAIT_MS));
	tear_down();
	latch_destroy(&let_go);
	latch_destroy(&in_call);
}
END_TEST

static _Atomic pid_t log_tid;

static void wait_and_end_thread(const struct ktvblk_record *record,
				void *userdata)
{
	log_tid = gettid();
	wait_in_handler(record, userdata);
	pthread_exit(NULL);
}

START_TEST(a_handler_and_its_release_that_both_end_it_are_followed_by_one)
{
	latch_init(&let_go);
	latch_init(&in_call);
	releases = 0;
	id = (struct identity){ disk_id_new("vda", 2048), 23, 0 };
	ck_assert_int_eq(ktvblk_set_log_handler(wait_and_end_thread,
						release_and_end_thread, NULL),
			 0);
	ck_assert_int_eq(log_ref(), 0);
	log_event(&id, RECLAIMED, 1);
	ck_assert(latch_wait(&in_call, WAIT_MS));
	recorder_start(&rec);
	log_event(&id, RECLAIMED, 2);
	latch_set(&let_go);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert(eventually(thread_state(log_tid) == '?'));
	ck_assert_uint_eq(count_threads("ktvblk-log"), 1);
	ck_assert_uint_eq(releases, 1);
	log_unref(in_ms(WAIT_MS));
	tear_down();
	latch_destroy(&let_go);
	latch_destroy(&in_call);
}
END_TEST

static void end_thread_in_job(struct log_job *job)
{
	(void)job;
	pthread_exit(NULL);
}

START_TEST(a_job_that_ends_its_thread_is_followed_by_the_next)
{
	struct log_job jobs[3] = { { .run = end_thread_in_job },
				   { .run = end_thread_in_job },
				   { .run = end_thread_in_job } };

	set_up(recorder_handle);
	ck_assert_int_eq(log_ref(), 0);
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		log_run_later(&jobs[i]);
	log_event(&id, RECLAIMED, 1);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	log_unref(in_ms(WAIT_MS));
	tear_down();
}
END_TEST

/*
 * No end of one thing to do
 */

static _Atomic bool endless;

/* Each record is followed by another, so the queue is never empty. */
static void log_again(const struct ktvblk_record *record, void *userdata)
{
	if (endless &&
	    strcmp(record->message_id, KTVBLK_MESSAGE_RECLAIMED) == 0)
		log_event(&id, RECLAIMED, 1);
	else
		recorder_handle(record, userdata);
}

static void stop_endless(void)
{
	endless = false;
	log_unref(in_ms(WAIT_MS));
	tear_down();
}

static void start_endless(void)
{
	set_up(log_again);
	ck_assert_int_eq(log_ref(), 0);
	endless = true;
	/* One while one is dealt with: there is always one in the queue. */
	log_event(&id, RECLAIMED, 1);
	log_event(&id, RECLAIMED, 1);
}

START_TEST(stalled_requests_are_found_among_records_without_end)
{
	struct watch_request request = { .type = 1, .since_ns = now_ns() };
	struct watch *watch;

	start_endless();
	watch = watch_new(&id, NSEC_PER_MSEC, NULL, 1);
	watch_enter(watch);
	if (watch_begin(watch, 0, &request))
		log_watch_requests();
	recorder_wait(&rec, KTVBLK_MESSAGE_REQUEST_STALLED);
	ck_assert(watch_end(watch, 0) == WATCH_MARKED);
	watch_leave(watch);
	watch_unref(watch);
	stop_endless();
}
END_TEST

/* Where a VMM asked to be told, before the record, which may hang. */
START_TEST(a_stall_is_a_change_of_state)
{
	struct watch_request request = { .type = 1, .since_ns = now_ns() };
	struct watch *watch;
	struct ports *ports;

	set_up(recorder_handle);
	ck_assert_int_eq(log_ref(), 0);
	ck_assert_int_eq(ports_new(1, &ports), 0);
	ports_state_changed(ports); /* nobody asked */
	ports->state_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	watch = watch_new(&id, NSEC_PER_MSEC, ports, 1);
	ports_unref(ports); /* the watch has its own */
	watch_enter(watch);
	recorder_hold(&rec);
	if (watch_begin(watch, 0, &request))
		log_watch_requests();
	recorder_wait_held(&rec);
	ck_assert_int_eq(poll(&(struct pollfd){ .fd = ports->state_fd,
						.events = POLLIN },
			      1, 0),
			 1);
	recorder_go_on(&rec);
	ck_assert(watch_end(watch, 0) == WATCH_MARKED);
	watch_leave(watch);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	watch_unref(watch);
	log_unref(in_ms(WAIT_MS));
	tear_down();
}
END_TEST

struct told_job {
	struct log_job job;
	struct latch done;
};

static void tell_done(struct log_job *job)
{
	latch_set(&((struct told_job *)job)->done);
}

START_TEST(jobs_are_run_among_records_without_end)
{
	struct told_job job = { .job.run = tell_done };

	start_endless();
	latch_init(&job.done);
	log_run_later(&job.job);
	ck_assert(latch_wait(&job.done, WAIT_MS));
	latch_destroy(&job.done);
	stop_endless();
}
END_TEST

static _Atomic bool scan_again;

struct watch *__real_watch_scan(uint64_t now, uint64_t position,
				uint64_t *ret_again_ns,
				struct watch_snapshot *ret_seen);
struct watch *__wrap_watch_scan(uint64_t now, uint64_t position,
				uint64_t *ret_again_ns,
				struct watch_snapshot *ret_seen);

struct watch *__wrap_watch_scan(uint64_t now, uint64_t position,
				uint64_t *ret_again_ns,
				struct watch_snapshot *ret_seen)
{
	if (scan_again)
		log_watch_requests();
	return __real_watch_scan(now, position, ret_again_ns, ret_seen);
}

START_TEST(records_and_jobs_come_through_looks_without_end)
{
	struct told_job job = { .job.run = tell_done };

	set_up(recorder_handle);
	latch_init(&job.done);
	ck_assert_int_eq(log_ref(), 0);
	scan_again = true;
	log_watch_requests();
	log_event(&id, RECLAIMED, 1);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	log_run_later(&job.job);
	ck_assert(latch_wait(&job.done, WAIT_MS));
	scan_again = false;
	latch_destroy(&job.done);
	log_unref(in_ms(WAIT_MS));
	tear_down();
}
END_TEST

TEST_PROGRAM("log-ends",
	     a_thread_local_destructor_does_not_hold_the_last_reference,
	     the_next_log_does_not_wait_for_the_end_of_the_last,
	     the_next_log_is_had_while_another_waits_for_the_end,
	     the_last_device_is_made_and_destroyed_all_the_same,
	     a_handler_that_ends_its_thread_is_called_on_the_next,
	     what_is_told_of_losses_is_not_lost_with_the_thread,
	     without_a_thread_to_follow_the_next_reference_brings_one,
	     a_release_that_ends_its_thread_runs_once,
	     a_handler_and_its_release_that_both_end_it_are_followed_by_one,
	     a_job_that_ends_its_thread_is_followed_by_the_next,
	     stalled_requests_are_found_among_records_without_end,
	     a_stall_is_a_change_of_state,
	     jobs_are_run_among_records_without_end,
	     records_and_jobs_come_through_looks_without_end)
