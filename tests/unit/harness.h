/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

/*
 * What tests of every kind need: a list of tests as a program, waiting with a
 * deadline, and the threads and descriptors of this process.
 */

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util.h"

/* Longer than anything takes: what has not come by then has failed. */
#define WAIT_MS 10000u

/* Run the tests, in order; the exit status of the program. */
int run_tests(const char *name, const TTest *const *tests, size_t n_tests);

/* The whole of a program's main(): TEST_PROGRAM("name", test, test, ...) */
#define TEST_PROGRAM(name, ...)                                                \
	int main(void)                                                         \
	{                                                                      \
		const TTest *const tests_[] = { __VA_ARGS__ };                 \
                                                                               \
		return run_tests(name, tests_, ARRAY_SIZE(tests_));            \
	}

/* The same, each test so many times, with _i counting from 0. */
int run_loops(const char *name, int times, const TTest *const *tests,
	      size_t n_tests);

#define LOOP_PROGRAM(name, times, ...)                                         \
	int main(void)                                                         \
	{                                                                      \
		const TTest *const tests_[] = { __VA_ARGS__ };                 \
                                                                               \
		return run_loops(name, times, tests_, ARRAY_SIZE(tests_));     \
	}

/* Set once; any number of threads may wait for it. */
struct latch {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool set;
};

void latch_init(struct latch *latch);
void latch_set(struct latch *latch);
bool latch_is_set(struct latch *latch);
/* False: it was not set in time. */
bool latch_wait(struct latch *latch, unsigned int timeout_ms);
void latch_destroy(struct latch *latch);

/* A condition variable on CLOCK_MONOTONIC. */
void cond_init(pthread_cond_t *cond);

/*
 * Does the condition hold before WAIT_MS are over? For what nobody signals,
 * such as procfs; threads of ours tell each other with a latch.
 */
#define eventually(condition)                                                  \
	({                                                                     \
		const uint64_t until_ = now_ns() + WAIT_MS * NSEC_PER_MSEC;    \
		bool holds_;                                                   \
                                                                               \
		while (!(holds_ = (condition)) && now_ns() < until_)           \
			poll(NULL, 0, 1);                                      \
		holds_;                                                        \
	})

/* Threads of this process whose name begins so. */
unsigned int count_threads(const char *prefix);
/* One of them, or 0. */
pid_t find_thread(const char *prefix);
/* Its state as in ps, '?' where there is no such thread. */
char thread_state(pid_t tid);
/* Is it in this system call? */
bool thread_in_call(pid_t tid, long nr);
/* A number of its status file; 0 if there is none. */
uint64_t thread_status(pid_t tid, const char *key);

/*
 * Does a wait in io_uring_enter() hold up all our threads? Under valgrind, which
 * does not know that this call blocks, it does: what waits there for another of
 * our threads cannot be tested, which is said.
 */
bool ring_holds_threads(void);

/* Open descriptors of this process. */
unsigned int count_fds(void);

#endif
