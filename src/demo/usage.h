/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_USAGE_H
#define DEMO_USAGE_H

/* What this process holds of the system, as the system sees it. */

#include <stdbool.h>

struct usage {
	unsigned int fds;
	unsigned int threads;
	unsigned long resident_kib;
};

struct usage usage_now(void);

/* Wait a little until there are no more threads than this. */
void usage_await_threads(unsigned int threads);

/* As now, but wait a little until fds and threads are as they were before. */
struct usage usage_settled(const struct usage *before);

/* Both are as before, and memory is nearer to before than to peak. */
bool usage_is_back(const struct usage *before, const struct usage *peak,
		   const struct usage *after);

/* The id of a thread created now: they are given out in ascending order. */
int next_thread_id(void);

#endif
