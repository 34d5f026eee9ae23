/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The control disk is a small device of its own whose storage is callbacks: a
 * write to its first sector is a command, a read gives the state as text.
 *
 *   boot             there is a new boot of the guest
 *   block, release   shut or open the gate before the gated disks' storage
 *   destroy NAME     the host destroys that disk under the running guest
 *   resize NAME MIB  its image gets that size, and the disk what the image has
 *   limit NAME IOPS  so many requests a second from now on; 0: any number
 *
 * A thread that only sleeps measures how late this machine wakes one: what the
 * bounds of reset and destroy are compared with.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "gate.h"

#define CONTROL_BYTES 4096
#define TICK_NS 20000000

struct state {
	unsigned int boots, destroys;
	uint64_t reset_ms; /* the longest since the gate was shut */
	uint64_t destroy_ms; /* the last */
	char to_do[64]; /* to a disk */
	char disks[1024]; /* the state of each */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct state state;
static int tick_fd = -1;
static _Atomic uint64_t late_ms; /* the most since the gate was shut */

uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static size_t print_state(char *text, size_t size)
{
	const struct gate gate = gate_look();
	int n;

	pthread_mutex_lock(&lock);
	n = snprintf(text, size,
		     "boots=%u waiting=%u reset_ms=%llu "
		     "destroys=%u destroy_ms=%llu late_ms=%llu %s\n",
		     state.boots, gate.shut ? gate.waiting : 0,
		     (unsigned long long)state.reset_ms, state.destroys,
		     (unsigned long long)state.destroy_ms,
		     (unsigned long long)atomic_load(&late_ms), state.disks);
	pthread_mutex_unlock(&lock);
	return (size_t)n;
}

static ssize_t control_preadv(void *userdata, const struct iovec *iov,
			      int n_iov, uint64_t offset)
{
	char text[CONTROL_BYTES];
	ssize_t done = 0;

	(void)userdata;
	memset(text, '\n', sizeof(text));
	text[print_state(text, sizeof(text))] = '\n';
	for (int i = 0; i < n_iov; i++) {
		size_t len = iov[i].iov_len;

		if (len > sizeof(text) - offset)
			len = sizeof(text) - offset;
		memcpy(iov[i].iov_base, text + offset, len);
		offset += len;
		done += (ssize_t)len;
	}
	return done;
}

static void control_command(const char *line)
{
	const bool block = !strncmp(line, "block ", 6);

	if (block)
		atomic_store(&late_ms, 0);
	if (block || !strcmp(line, "release"))
		gate_shut(block);
	pthread_mutex_lock(&lock);
	if (block)
		state.reset_ms = 0;
	if (!strcmp(line, "boot"))
		state.boots++;
	/* Later: [device] calls are for who has the devices. */
	if (!strncmp(line, "destroy ", 8) || !strncmp(line, "resize ", 7) ||
	    !strncmp(line, "limit ", 6))
		snprintf(state.to_do, sizeof(state.to_do), "%s", line);
	pthread_mutex_unlock(&lock);
}

static ssize_t control_pwritev(void *userdata, const struct iovec *iov,
			       int n_iov, uint64_t offset)
{
	ssize_t done = 0;
	char line[64];

	(void)userdata;
	for (int i = 0; i < n_iov; i++)
		done += (ssize_t)iov[i].iov_len;
	if (offset == 0 && iov[0].iov_len >= sizeof(line)) {
		memcpy(line, iov[0].iov_base, sizeof(line));
		line[sizeof(line) - 1] = '\0';
		line[strcspn(line, "\n")] = '\0';
		control_command(line);
	}
	return done;
}

static int control_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = CONTROL_BYTES;
	return 0;
}

int control_storage(struct ktvblk_backend **ret_storage)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = control_preadv,
		.pwritev = control_pwritev,
		.capacity = control_capacity,
	};

	return ktvblk_backend_new(&ops, NULL, ret_storage);
}

int control_fd(void)
{
	return tick_fd;
}

static void do_to_disk(const char *line)
{
	char name[sizeof(state.to_do)];
	unsigned long long number;

	if (sscanf(line, "destroy %63s", name) == 1)
		host_destroy(name);
	else if (sscanf(line, "resize %63s %llu", name, &number) == 2)
		host_resize(name, number << 20);
	else if (sscanf(line, "limit %63s %llu", name, &number) == 2)
		host_limit(name, number);
}

void control_run(void *unused)
{
	char line[sizeof(state.to_do)], disks[sizeof(state.disks)];
	uint64_t count;

	(void)unused;
	(void)!read(tick_fd, &count, sizeof(count));
	pthread_mutex_lock(&lock);
	memcpy(line, state.to_do, sizeof(line));
	state.to_do[0] = '\0';
	pthread_mutex_unlock(&lock);
	do_to_disk(line);
	host_states(disks, sizeof(disks));
	pthread_mutex_lock(&lock);
	memcpy(state.disks, disks, sizeof(disks));
	pthread_mutex_unlock(&lock);
}

void control_note_reset(const char *name, uint64_t took_ms)
{
	fprintf(stderr, "reset of %s: %llu ms\n", name,
		(unsigned long long)took_ms);
	pthread_mutex_lock(&lock);
	if (took_ms > state.reset_ms)
		state.reset_ms = took_ms;
	pthread_mutex_unlock(&lock);
}

void control_note_destroy(const char *name, enum ktvblk_outcome outcome,
			  uint64_t took_ms)
{
	fprintf(stderr, "destroy of %s: %s, %llu ms\n", name,
		ktvblk_outcome_name(outcome), (unsigned long long)took_ms);
	pthread_mutex_lock(&lock);
	state.destroys++;
	state.destroy_ms = took_ms;
	pthread_mutex_unlock(&lock);
}

static void *sleeper_main(void *unused)
{
	const struct timespec nap = { .tv_nsec = TICK_NS };
	uint64_t start, took;

	(void)unused;
	for (;;) {
		start = clock_ms();
		nanosleep(&nap, NULL);
		took = clock_ms() - start - TICK_NS / 1000000;
		if (took > atomic_load(&late_ms))
			atomic_store(&late_ms, took);
	}
	return NULL;
}

void control_start(void)
{
	const struct itimerspec tick = { .it_interval.tv_nsec = TICK_NS,
					 .it_value.tv_nsec = TICK_NS };
	pthread_t sleeper;

	if (pthread_create(&sleeper, NULL, sleeper_main, NULL) == 0)
		pthread_detach(sleeper);

	tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	timerfd_settime(tick_fd, 0, &tick, NULL);
}
