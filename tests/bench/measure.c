/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See measure.h. */

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"

void die(const char *format, ...)
{
	va_list args;

	fputs("bench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

uint64_t thread_cpu_ns(pid_t tid)
{
	/* As pthread_getcpuclockid() makes it, for a thread known by its tid. */
	const clockid_t clock = (clockid_t)(~(unsigned int)tid << 3 | 6u);
	struct timespec used;

	if (clock_gettime(clock, &used) < 0)
		die("CPU time of thread %d: %s", tid, strerror(errno));
	return (uint64_t)used.tv_sec * NSEC_PER_SEC + (uint64_t)used.tv_nsec;
}

uint64_t process_cpu_ns(pid_t pid)
{
	struct timespec used;
	clockid_t clock;
	const int r = clock_getcpuclockid(pid, &clock);

	if (r || clock_gettime(clock, &used) < 0)
		die("CPU time of process %d: %s", pid, strerror(r ? r : errno));
	return (uint64_t)used.tv_sec * NSEC_PER_SEC + (uint64_t)used.tv_nsec;
}

struct cpus cpus_choose(void)
{
	struct cpus cpus = { 0 };
	uint32_t cpu = 0;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		die("sched_getaffinity: %s", strerror(errno));
	while (!CPU_ISSET(cpu, &set))
		cpu++;
	cpus.driver = cpu;
	if (CPU_COUNT(&set) > 1)
		CPU_CLR(cpu, &set);
	for (; cpu < CPU_SETSIZE && cpus.n_others < ARRAY_SIZE(cpus.others);
	     cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus.others[cpus.n_others++] = cpu;
	cpus.worker = cpus.others[0];
	return cpus;
}

void cpu_pin(uint32_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("CPU %u: %s", cpu, strerror(errno));
}

size_t threads_list(pid_t pid, pid_t *tids, size_t n)
{
	struct dirent *entry;
	size_t found = 0;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid ? pid : getpid());
	dir = opendir(path);
	if (!dir)
		die("%s: %s", path, strerror(errno));
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		if (found < n)
			tids[found] = (pid_t)atoi(entry->d_name);
		found++;
	}
	closedir(dir);
	return found;
}

uint64_t thread_number(pid_t tid, const char *key)
{
	const size_t n = strlen(key);
	unsigned long long value = 0;
	char line[256], path[64];
	bool found = false, gone;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	file = fopen(path, "re");
	if (!file && errno == ENOENT)
		return 0;
	if (!file)
		die("%s: %s", path, strerror(errno));
	while (!found && fgets(line, sizeof(line), file))
		found = strncmp(line, key, n) == 0 && line[n] == ':' &&
			sscanf(line + n + 1, "%llu", &value) == 1;
	gone = ferror(file); /* meanwhile */
	fclose(file);
	if (!found && !gone)
		die("%s: no %s", path, key);
	return value;
}

/* Also if it has gone. */
static bool sleeps(pid_t tid)
{
	char line[256] = "", path[64], state = 'S';
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	file = fopen(path, "re");
	if (!file)
		return true;
	if (fgets(line, sizeof(line), file))
		sscanf(line, "%*d (%*[^)]) %c", &state);
	fclose(file);
	return state == 'S';
}

/*
 * Of all threads but the calling one. One that waits for a processor has some
 * to come: *ret_all_sleep.
 */
static uint64_t switches(pid_t pid, bool *ret_all_sleep)
{
	pid_t tids[1024];
	const size_t n = threads_list(pid, tids, ARRAY_SIZE(tids));
	uint64_t all = 0;

	if (n > ARRAY_SIZE(tids))
		die("too many threads");
	*ret_all_sleep = true;
	for (size_t i = 0; i < n; i++) {
		if (tids[i] == gettid())
			continue;
		*ret_all_sleep &= sleeps(tids[i]);
		all += thread_number(tids[i], "voluntary_ctxt_switches") +
		       thread_number(tids[i], "nonvoluntary_ctxt_switches");
	}
	return all;
}

uint64_t idle_switches(pid_t pid, unsigned int quiet_ms, unsigned int for_ms)
{
	const uint64_t deadline = now_ns() + 30 * NSEC_PER_SEC;
	bool all_sleep;
	uint64_t before, now = switches(pid, &all_sleep);

	do {
		if (now_ns() > deadline)
			return now;
		before = now;
		poll(NULL, 0, (int)quiet_ms);
		now = switches(pid, &all_sleep);
	} while (now != before || !all_sleep);
	poll(NULL, 0, (int)for_ms);
	return switches(pid, &all_sleep) - before;
}

double histogram_at(const struct histogram *histogram, double part)
{
	const double wanted = part * (double)histogram->n;
	uint64_t seen = 0;

	if (!histogram->n)
		return 0;
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if ((double)seen >= wanted) {
			const unsigned int shift = i < 128 ? 0 : i / 64 - 1;

			return (double)((uint64_t)(i - shift * 64) << shift);
		}
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	const double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

double quantile(double *values, size_t n, double part)
{
	double at;
	size_t i;

	if (!n)
		return 0;
	qsort(values, n, sizeof(*values), compare);
	at = part * (double)(n - 1);
	i = (size_t)at;
	if (i + 1 < n)
		return values[i] +
		       (at - (double)i) * (values[i + 1] - values[i]);
	return values[i];
}

/* In clock ticks, of all CPUs together, since boot; and our own part. */
static struct {
	double all, idle, stolen, own;
} begun;

static void read_ticks(double *all, double *idle, double *stolen)
{
	unsigned long long v[8] = { 0 };
	FILE *file = fopen("/proc/stat", "re");

	*all = *idle = *stolen = 0;
	if (!file)
		return;
	if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0],
		   &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) == 8) {
		for (size_t i = 0; i < ARRAY_SIZE(v); i++)
			*all += (double)v[i];
		*idle = (double)(v[3] + v[4]);
		*stolen = (double)v[7];
	}
	fclose(file);
}

static double own_ticks(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return ((double)used.tv_sec + (double)used.tv_nsec / 1e9) *
	       (double)sysconf(_SC_CLK_TCK);
}

void noise_begin(struct noise *noise)
{
	*noise = (struct noise){ 0 };
	read_ticks(&begun.all, &begun.idle, &begun.stolen);
	begun.own = own_ticks();
}

void noise_end(struct noise *noise)
{
	double all, idle, stolen, busy;

	read_ticks(&all, &idle, &stolen);
	all -= begun.all;
	if (all <= 0)
		return;
	stolen -= begun.stolen;
	busy = all - (idle - begun.idle) - stolen;
	noise->stolen = stolen / all;
	noise->others = (busy - (own_ticks() - begun.own)) / all;
	if (noise->others < 0)
		noise->others = 0;
}
