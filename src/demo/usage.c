/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See usage.h. */

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "say.h"
#include "usage.h"

#define SETTLE_S 20

static unsigned int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned int n = 0;

	if (!dir)
		die("cannot read %s", path);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2; /* "." and ".." */
}

static unsigned long resident_kib(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long kib = 0;
	char line[128];

	if (!file)
		die("cannot read /proc/self/status");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "VmRSS: %lu", &kib) == 1)
			break;
	fclose(file);
	return kib;
}

struct usage usage_now(void)
{
	return (struct usage){
		/* The directory being read is open itself. */
		.fds = count_entries("/proc/self/fd") - 1,
		.threads = count_entries("/proc/self/task"),
		.resident_kib = resident_kib(),
	};
}

/* Nothing tells when a thread that was not ours has left the process. */
void usage_await_threads(unsigned int threads)
{
	const double until = now_s() + SETTLE_S;

	while (usage_now().threads > threads && now_s() < until)
		poll(NULL, 0, 1);
}

struct usage usage_settled(const struct usage *before)
{
	const double until = now_s() + SETTLE_S;
	struct usage usage = usage_now();

	while ((usage.fds > before->fds || usage.threads > before->threads) &&
	       now_s() < until) {
		poll(NULL, 0, 1);
		usage = usage_now();
	}
	return usage;
}

bool usage_is_back(const struct usage *before, const struct usage *peak,
		   const struct usage *after)
{
	return after->fds == before->fds && after->threads == before->threads &&
	       2 * after->resident_kib <
		       before->resident_kib + peak->resident_kib;
}

static void *tell_id(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)gettid();
}

int next_thread_id(void)
{
	pthread_t thread;
	void *id;

	if (pthread_create(&thread, NULL, tell_id, NULL))
		die("no thread");
	pthread_join(thread, &id);
	return (int)(intptr_t)id;
}
