/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_COUNT_H
#define BENCH_COUNT_H

/*
 * The system calls and heap allocations of each thread. The program stands in
 * front of libc for the functions that the library imports, which costs a call
 * an increment and a jump: little enough for timed runs. What a function of
 * libc does inside (a contended lock) is not seen: strace -f
 * shows it.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct counts {
	uint64_t syscalls;
	uint64_t allocations;
	uint64_t threads; /* that it started */
	bool waits; /* in epoll_wait(), or about to */
};

/* Of a thread that lives or lived; zeros for one that did nothing. */
struct counts counts_of(pid_t tid);

/* Threads started by all of them. */
uint64_t threads_started(void);

#endif
