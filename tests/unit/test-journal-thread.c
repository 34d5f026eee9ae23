/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The log thread: there from the first reference to the last, bounded at the
 * end, awake only for something to do; and what exit() and fork() make of it.
 */

/* wrap: pthread_create pthread_cond_timedwait */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "harness.h"
#include "journal.h"
#include "recorder.h"

static struct recorder rec;
static struct identity id;

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

static uint64_t far_away(void)
{
	return now_ns() + WAIT_MS * NSEC_PER_MSEC;
}

static bool log_thread_gone(void)
{
	return eventually(count_threads("ktvblk-log") == 0);
}

/* Without a reference to the log. */
static void set_up(void)
{
	id = (struct identity){ disk_id_new("vda", 2048), 23, 0 };
	recorder_start(&rec);
	ck_assert(log_thread_gone());
}

static void tear_down(void)
{
	ck_assert(log_thread_gone());
	recorder_stop(&rec);
	/* No record and no watch has kept it. */
	ck_assert_uint_eq(id.disk->refs, 1);
	disk_id_unref(id.disk);
}

/* Its thread's id, once it has its name. */
static pid_t log_thread(void)
{
	ck_assert(eventually(count_threads("ktvblk-log") == 1));
	return find_thread("ktvblk-log");
}

static void hang(void)
{
	recorder_hold(&rec);
	log_event(&id, RECLAIMED, 0);
	recorder_wait_held(&rec);
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
	uint64_t deadline;

	set_up();
	ck_assert_int_eq(log_ref(), 0);
	hang();
	deadline = now_ns() + 30 * NSEC_PER_MSEC;
	log_unref(deadline);
	ck_assert_uint_ge(now_ns(), deadline);
	ck_assert_uint_lt(now_ns(), deadline + NSEC_PER_SEC);
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

/*
 * Stalled requests
 */

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
	for (uint32_t i = 0; i < 3; i++)
		begin_in(watch, i);
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

/*
 * exit() and fork(), each in a process of its own: this program again, with the
 * name of a scene. What it prints and how it ends is looked at; it is no test
 * itself, so it asserts nothing.
 */

static struct latch sink_entered, sink_may_go;
static _Atomic bool exiting;
static bool is_forked_child;

/* Print what came, once told to go on. */
static void say_id(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	latch_set(&sink_entered);
	latch_wait(&sink_may_go, WAIT_MS);
	dprintf(STDOUT_FILENO, "%s\n", record->message_id);
}

int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until);

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until)
{
	/* It would wait for a thread that it has not. */
	if (is_forked_child)
		_exit(9);
	if (exiting && gettid() == getpid())
		latch_set(&sink_may_go);
	return __real_pthread_cond_timedwait(cond, mutex, until);
}

/* One record in a sink that hangs, and one more in the queue. */
static int start_scene(void)
{
	int r;

	latch_init(&sink_entered);
	latch_init(&sink_may_go);
	r = ktvblk_set_log_handler(say_id, NULL, NULL);
	if (r == 0)
		r = log_ref();
	if (r < 0)
		return r;
	log_event(NULL, RECLAIMED, 1);
	log_event(NULL, WORKER_PANICKED, "at exit");
	return latch_wait(&sink_entered, WAIT_MS) ? 0 : -ETIMEDOUT;
}

static void tell_exiting(void)
{
	exiting = true;
}

/* The sink goes on only when exit() waits for it. */
static int scene_exit(void)
{
	return start_scene() < 0 || atexit(tell_exiting) != 0;
}

static int scene_exit_while_the_sink_hangs(void)
{
	return start_scene() < 0;
}

static int scene_fork(void)
{
	int status = 1;
	pid_t child;

	if (start_scene() < 0)
		return 1;
	child = fork();
	if (child == 0) {
		is_forked_child = true;
		exit(0);
	}
	waitpid(child, &status, 0);
	latch_set(&sink_may_go);
	log_unref(far_away());
	return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

static const struct {
	const char *name;
	int (*play)(void);
} scenes[] = {
	{ "exit", scene_exit },
	{ "hang", scene_exit_while_the_sink_hangs },
	{ "fork", scene_fork },
};

/* The exit status of a scene, and what it printed. */
static int play(const char *scene, char *buf, size_t size)
{
	char self[4096];
	const ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	struct pollfd out = { .events = POLLIN };
	int pipe_fds[2], status;
	size_t used = 0;
	ssize_t n = 1;
	pid_t child;

	ck_assert_int_gt(len, 0);
	self[len] = '\0';
	ck_assert_int_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		execl(self, self, scene, NULL);
		_exit(127);
	}
	ck_assert_int_gt(child, 0);
	close(pipe_fds[1]);
	out.fd = pipe_fds[0];
	while (n > 0 && poll(&out, 1, 2 * WAIT_MS) == 1) {
		n = read(out.fd, buf + used, size - 1 - used);
		used += n > 0 ? (size_t)n : 0;
	}
	buf[used] = '\0';
	if (n > 0) /* not the end: it hangs */
		kill(child, SIGKILL);
	close(out.fd);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status), "the scene %s: status %#x", scene,
		      (unsigned int)status);
	return WEXITSTATUS(status);
}

#define BOTH KTVBLK_MESSAGE_RECLAIMED "\n" KTVBLK_MESSAGE_WORKER_PANICKED "\n"

START_TEST(exit_waits_for_the_last_records)
{
	char said[256];

	ck_assert_int_eq(play("exit", said, sizeof(said)), 0);
	ck_assert_str_eq(said, BOTH);
}
END_TEST

START_TEST(exit_does_not_wait_for_ever)
{
	const uint64_t begin = now_ns();
	char said[256];

	ck_assert_int_eq(play("hang", said, sizeof(said)), 0);
	ck_assert_str_eq(said, "");
	/* The sink itself would have waited that long. */
	ck_assert_uint_lt(now_ns() - begin, WAIT_MS * NSEC_PER_MSEC);
}
END_TEST

START_TEST(a_forked_child_does_not_flush)
{
	char said[256];

	ck_assert_int_eq(play("fork", said, sizeof(said)), 0);
	ck_assert_str_eq(said, BOTH);
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
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
		the_thread_takes_no_signals,
		a_job_may_drop_the_last_reference,
		a_stalled_request_is_told_once_and_so_is_its_end,
		stalls_of_a_session_and_their_ends_alternate,
		a_quick_request_is_not_told,
		a_short_limit_is_not_held_up_by_a_long_one,
		the_next_thread_finds_stalled_requests_too,
		looking_does_not_delay_the_end,
		the_thread_sleeps_when_nothing_is_busy,
		exit_waits_for_the_last_records,
		exit_does_not_wait_for_ever,
		a_forked_child_does_not_flush,
	};

	for (size_t i = 0; argc == 2 && i < ARRAY_SIZE(scenes); i++)
		if (strcmp(argv[1], scenes[i].name) == 0)
			return scenes[i].play();
	return run_tests("journal-thread", tests, ARRAY_SIZE(tests));
}
