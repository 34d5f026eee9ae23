/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A process is known by its number and by when it started: one that started
 * after the record was made is another. The kernel counts the start from boot
 * with the time asleep, the journal without; the record may be as late as that.
 */

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/types.h>
#include <systemd/sd-id128.h>
#include <time.h>
#include <unistd.h>

#include "process.h"
#include "util.h"

static uint64_t clock_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

struct stat_line {
	char state;
	unsigned long long n_threads;
	unsigned long long start_ticks;
};

/* False: there is none, or it is not for us to read. */
static bool read_stat(uint64_t pid, struct stat_line *ret)
{
	char path[64], text[1024], *paren;
	size_t n;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%llu/stat",
		 (unsigned long long)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	/* The name, in parentheses, may hold anything. */
	paren = strrchr(text, ')');
	return paren &&
	       sscanf(paren + 1,
		      " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d "
		      "%*d %*d %*d %llu %*d %llu",
		      &ret->state, &ret->n_threads, &ret->start_ticks) == 3;
}

static bool started_after(const struct stat_line *stat,
			  const struct record *record)
{
	const long ticks_per_sec = sysconf(_SC_CLK_TCK);
	const uint64_t start_us =
		(uint64_t)stat->start_ticks *
		(USEC_PER_SEC /
		 (uint64_t)(ticks_per_sec > 0 ? ticks_per_sec : 100));
	const uint64_t boottime_us = clock_us(CLOCK_BOOTTIME);
	const uint64_t monotonic_us = clock_us(CLOCK_MONOTONIC);
	const uint64_t asleep_us =
		boottime_us > monotonic_us ? boottime_us - monotonic_us : 0;

	return start_us > record->monotonic_us + asleep_us;
}

enum presence process_look(const struct record *record)
{
	const struct key *key = &record->key;
	struct stat_line stat;
	sd_id128_t machine, boot;

	if (key->pid == UNKNOWN || sd_id128_get_machine(&machine) < 0 ||
	    sd_id128_get_boot(&boot) < 0 ||
	    !sd_id128_equal(machine, key->machine))
		return PROCESS_UNKNOWN;
	if (!sd_id128_equal(boot, key->boot))
		return PROCESS_GONE;
	if (key->pid == 0 || key->pid > INT32_MAX)
		return PROCESS_UNKNOWN;
	if (kill((pid_t)key->pid, 0) < 0 && errno == ESRCH)
		return PROCESS_GONE;
	/* There is one, but hidden: it may have been another's number. */
	if (!read_stat(key->pid, &stat))
		return PROCESS_UNKNOWN;
	if (started_after(&stat, record))
		return PROCESS_GONE;
	/*
	 * Killed and waiting for its parent; as long as a thread is stuck in
	 * the kernel it counts.
	 */
	if ((stat.state == 'Z' || stat.state == 'X') && stat.n_threads <= 1)
		return PROCESS_GONE;
	return PROCESS_RUNNING;
}

int process_open(const struct record *record)
{
	int fd;

	if (process_look(record) != PROCESS_RUNNING)
		return -1;
	fd = pidfd_open((pid_t)record->key.pid, 0);
	/* Still the same, so it was in between. */
	if (fd >= 0 && process_look(record) != PROCESS_RUNNING) {
		close(fd);
		fd = -1;
	}
	return fd;
}

const char *presence_name(enum presence presence)
{
	switch (presence) {
	case PROCESS_RUNNING:
		return "running";
	case PROCESS_GONE:
		return "gone";
	case PROCESS_UNKNOWN:
		break;
	}
	return "unknown";
}
