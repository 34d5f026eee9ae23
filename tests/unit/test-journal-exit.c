/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What exit() and fork() make of the log, each in a process of its own: this
 * program again, with the name of a scene. What it prints and how it ends is
 * looked at; it is no test itself, so it asserts nothing.
 */

/* wrap: pthread_cond_timedwait */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "log-scene.h"

static struct latch sink_entered, sink_may_go;
static _Atomic bool exiting;
static bool is_forked_child;

/* Print what came, once told to go on, and else never. */
static void say_id(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	latch_set(&sink_entered);
	while (!latch_wait(&sink_may_go, WAIT_MS))
		;
	dprintf(STDOUT_FILENO, "%s\n", record->message_id);
}

int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until);

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *until)
{
	struct timespec later;

	/* It would wait for a thread that it has not. */
	if (is_forked_child)
		_exit(9);
	if (exiting && gettid() == getpid()) {
		latch_set(&sink_may_go);
		/* The sink may be slower than exit() is patient. */
		later = ns_to_timespec(far_away());
		until = &later;
	}
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
	/* Who does is killed then. */
	ck_assert_uint_lt(now_ns() - begin, 2 * WAIT_MS * NSEC_PER_MSEC);
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
		exit_waits_for_the_last_records,
		exit_does_not_wait_for_ever,
		a_forked_child_does_not_flush,
	};

	for (size_t i = 0; argc == 2 && i < ARRAY_SIZE(scenes); i++)
		if (strcmp(argv[1], scenes[i].name) == 0)
			return scenes[i].play();
	return run_tests("journal-exit", tests, ARRAY_SIZE(tests));
}
