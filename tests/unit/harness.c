/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Waiting with a deadline; /proc/self. */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

int run_tests(const char *name, const TTest *const *tests, size_t n_tests)
{
	return run_loops(name, 1, tests, n_tests);
}

int run_loops(const char *name, int times, const TTest *const *tests,
	      size_t n_tests)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	SRunner *runner;
	int failed;

	for (size_t i = 0; i < n_tests; i++)
		tcase_add_loop_test(tcase, tests[i], 0, times);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

void latch_init(struct latch *latch)
{
	pthread_mutex_init(&latch->lock, NULL);
	cond_init(&latch->changed);
	latch->set = false;
}

void latch_set(struct latch *latch)
{
	SCOPED_LOCK(&latch->lock);
	latch->set = true;
	pthread_cond_broadcast(&latch->changed);
}

bool latch_is_set(struct latch *latch)
{
	SCOPED_LOCK(&latch->lock);
	return latch->set;
}

bool latch_wait(struct latch *latch, unsigned int timeout_ms)
{
	struct timespec ts =
		ns_to_timespec(now_ns() + timeout_ms * NSEC_PER_MSEC);

	SCOPED_LOCK(&latch->lock);
	while (!latch->set)
		if (pthread_cond_timedwait(&latch->changed, &latch->lock,
					   &ts) == ETIMEDOUT)
			return latch->set;
	return true;
}

void latch_destroy(struct latch *latch)
{
	pthread_cond_destroy(&latch->changed);
	pthread_mutex_destroy(&latch->lock);
}

/* A file of a thread's, as a string; empty if it cannot be read. */
static void read_thread_file(pid_t tid, const char *file, char *buf,
			     size_t size)
{
	char path[64];
	ssize_t n;

	buf[0] = '\0';
	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", (int)tid, file);
	__attribute__((cleanup(closep))) int fd =
		open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, buf, size - 1);
	buf[n > 0 ? n : 0] = '\0';
}

static unsigned int look_for_threads(const char *prefix, pid_t *tid)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned int n = 0;
	struct dirent *entry;
	char name[64];

	ck_assert_ptr_nonnull(dir);
	*tid = 0;
	while ((entry = readdir(dir))) {
		const pid_t found = (pid_t)strtol(entry->d_name, NULL, 10);

		if (!found)
			continue;
		read_thread_file(found, "comm", name, sizeof(name));
		if (*name && strncmp(name, prefix, strlen(prefix)) == 0) {
			*tid = found;
			n++;
		}
	}
	closedir(dir);
	return n;
}

unsigned int count_threads(const char *prefix)
{
	pid_t tid;

	return look_for_threads(prefix, &tid);
}

pid_t find_thread(const char *prefix)
{
	pid_t tid;

	look_for_threads(prefix, &tid);
	return tid;
}

char thread_state(pid_t tid)
{
	char text[512];
	const char *paren;

	read_thread_file(tid, "stat", text, sizeof(text));
	paren = strrchr(text, ')');
	return paren && paren[1] == ' ' ? paren[2] : '?';
}

bool thread_in_call(pid_t tid, long nr)
{
	char text[256], *end;

	read_thread_file(tid, "syscall", text, sizeof(text));
	return strtol(text, &end, 10) == nr && end != text;
}

uint64_t thread_status(pid_t tid, const char *key)
{
	const size_t len = strlen(key);
	char text[4096];

	read_thread_file(tid, "status", text, sizeof(text));
	for (char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, len) == 0 && line[len] == ':')
			return strtoull(line + len + 1, NULL, 10);
	}
	return 0;
}

unsigned int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;
	struct dirent *entry;

	ck_assert_ptr_nonnull(dir);
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n - 1; /* the directory's own */
}

bool ring_holds_threads(void)
{
	const bool it_does = getenv("TESTS_ONE_THREAD") != NULL;

	if (it_does)
		printf("a wait in io_uring_enter(): not tested here\n");
	return it_does;
}
