/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Print how many thousand ticks a second the time stamp counter makes. An
 * emulated guest that measures it itself on a busy machine sometimes cannot.
 */

#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

int main(void)
{
	const uint64_t begin_ns = now_ns(), begin = __rdtsc();
	const struct timespec wait = { .tv_nsec = 100000000 };

	nanosleep(&wait, NULL);
	printf("%.0f\n", (double)(__rdtsc() - begin) * 1e6 /
				 (double)(now_ns() - begin_ns));
	return 0;
}
