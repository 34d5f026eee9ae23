/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

/* Clocks, threads, processors, and what is made of many figures. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "util.h"

#define ROUNDS_MAX 64

/* Exits 2. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format,
							 ...);

/* CPU time a thread of this process has used, to the nanosecond. */
uint64_t thread_cpu_ns(pid_t tid);

/*
 * By all threads of a process that there were, those of the kernel's that serve
 * it too. Here and below, 0 stands for this process.
 */
uint64_t process_cpu_ns(pid_t pid);

/*
 * The CPUs of a run: the same one everywhere where there is only one. Where
 * there are many workers they are spread over the others.
 */
struct cpus {
	uint32_t driver;
	uint32_t worker;
	uint32_t others[64];
	uint32_t n_others;
};
struct cpus cpus_choose(void);
void cpu_pin(uint32_t cpu); /* the calling thread */

/* How many threads of a process there are; and which, up to n. */
size_t threads_list(pid_t pid, pid_t *tids, size_t n);

/* A number in /proc/TID/status; 0 of a thread that has gone. */
uint64_t thread_number(pid_t tid, const char *key);

/*
 * How often a thread of a process, but the calling one, gets a CPU or loses
 * it in for_ms, once that has not been for quiet_ms. If it never is so quiet,
 * how often it was altogether.
 */
uint64_t idle_switches(pid_t pid, unsigned int quiet_ms, unsigned int for_ms);

/*
 * Latencies, to 1.6 %: 64 buckets for each power of two.
 */
#define HISTOGRAM_BUCKETS 2560
struct histogram {
	uint64_t n;
	uint32_t buckets[HISTOGRAM_BUCKETS];
};

static inline void histogram_add(struct histogram *histogram, uint64_t ns)
{
	unsigned int shift = 0, i;

	if (ns >= 128)
		shift = 57u - (unsigned int)__builtin_clzll(ns);
	i = shift * 64 + (unsigned int)(ns >> shift);
	if (i >= HISTOGRAM_BUCKETS)
		i = HISTOGRAM_BUCKETS - 1;
	histogram->buckets[i]++;
	histogram->n++;
}

/* part: 0.5 is the median. 0 if there is nothing. */
double histogram_at(const struct histogram *histogram, double part);

/*
 * Of n values, which are left in order; between two of them where part falls
 * there. 0 for none.
 */
double quantile(double *values, size_t n, double part);

/* What else happened on the machine since the first call, in parts of 1. */
struct noise {
	double stolen; /* by the hypervisor */
	double others; /* used by other processes */
};
void noise_begin(struct noise *noise);
void noise_end(struct noise *noise);

#endif
