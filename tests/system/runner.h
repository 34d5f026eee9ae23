/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_RUNNER_H
#define TEST_RUNNER_H

/*
 * Cases whose process may not be able to end: a thread in a system call that
 * nothing interrupts keeps it. So each runs in a process of its own, which says
 * how it went before it ends, and whoever runs it lets the storage go before
 * it waits. ck_assert() works in a case, on any thread.
 *
 * A program that uses this has "wrap: _ck_assert_failed _mark_point" in a
 * comment.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What "within its budget" means beyond it; 20 ms of it are the gate's. */
#define GRACE_MS 50

struct system_case {
	const char *name;
	void (*run)(const void *arg);
	const void *arg;
	unsigned int timeout_s; /* 0: 60 */
};

/*
 * Run them; with arguments, only those whose name has one of them in it. After
 * each, and on the way out, let_go() frees whatever still holds its process:
 * it must not wait. Prints a line for each, those that failed once more, and the
 * sums; the exit status, 77 where all were skipped.
 */
int run_cases(const struct system_case *cases, size_t n, void (*let_go)(void),
	      int argc, char **argv);

/*
 * In a case: a call of this thread's begins, and has ended, that had a budget.
 * Fails if it took too long, less the time the thread could have run but had
 * no processor; the longest excess of all cases is printed at the end.
 */
void case_call_begins(void);
void case_call_ended(uint32_t budget_ms);

/* The log thread sees no stall, and looks again at once: watch_scan is wrapped. */
extern _Atomic bool case_hides_stalls;

/* For its line. */
__attribute__((format(printf, 1, 2))) void case_note(const char *format, ...);

/* It cannot be run here. */
_Noreturn void case_skip(const char *why);

#endif
