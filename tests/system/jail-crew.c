/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See jail.h. The thread that is told of the calls has no filter, nor has the
 * main thread.
 */

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail.h"
#include "say.h"

#define CALLS_MAX 512 /* numbers of system calls */
#define THREADS_MAX 64

static const struct {
	const char *name;
	int number;
} calls[] = {
#include "calls.inc"
};

#define N_CALLS (sizeof(calls) / sizeof(*calls))

const char *const caller_names[N_CALLERS] = {
	[BACKEND] = "backend_new_fd",
	[LOCK] = "image_lock",
	[NEW] = "new",
	[MMIO] = "mmio_write",
	[VHOST] = "vhost_user_start",
	[END] = "destroy",
	[PAUSE] = "pause",
	[CHANGE] = "change",
	[SET] = "set",
};

/* The threads they make, which inherit the filter. */
static const char *const made[N_CALLERS][3] = {
	[NEW] = { "ktvblk-log", "ktvblk-probe" },
	[MMIO] = { "ktvblk-id", "ktvblk-drop" },
	[VHOST] = { "ktvblk-vu", "ktvblk-id", "ktvblk-drop" },
	[END] = { "ktvblk-drop" },
	[CHANGE] = { "ktvblk-drop", "ktvblk-size" },
};

static struct crew {
	pthread_t thread;
	pid_t tid;
	void (*job)(void);
	_Atomic int listener; /* tells of calls; -1: not yet */
} crew[N_CALLERS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* What may be done: lines of FILE. */
static struct {
	char thread[32];
	int number;
} allowed[1024];

static size_t n_allowed;
static bool jailed;

static int call_number(const char *name)
{
	for (size_t i = 0; i < N_CALLS; i++)
		if (!strcmp(calls[i].name, name))
			return calls[i].number;
	die("%s is no system call", name);
}

static void read_allowed(const char *path)
{
	char thread[32], call[64];
	FILE *file = fopen(path, "re");

	if (!file)
		die("%s: %s", path, strerror(errno));
	while (fscanf(file, "%31s %63s", thread, call) == 2) {
		strcpy(allowed[n_allowed].thread, thread);
		allowed[n_allowed++].number = call_number(call);
	}
	fclose(file);
	jailed = true;
}

static bool is_allowed(enum caller who, int number)
{
	for (size_t i = 0; i < n_allowed; i++) {
		const char *thread = allowed[i].thread;

		if (allowed[i].number != number)
			continue;
		if (!strcmp(thread, caller_names[who]) ||
		    !strcmp(thread, "caller"))
			return true;
		for (int m = 0; m < 3 && made[who][m]; m++)
			if (!strcmp(thread, made[who][m]) ||
			    !strcmp(thread, "library"))
				return true;
	}
	return false;
}

/* A filter for this thread and those it makes. */
static void put_on_filter(enum caller who)
{
	struct sock_filter code[2 * CALLS_MAX + 4] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog program = { .len = 1, .filter = code };

	for (size_t i = 0; jailed && i < N_CALLS; i++) {
		if (!is_allowed(who, calls[i].number))
			continue;
		code[program.len++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i].number, 0,
			1);
		code[program.len++] = (struct sock_filter)BPF_STMT(
			BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	/* As containers do. */
	code[program.len++] = (struct sock_filter)BPF_JUMP(
		BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1);
	code[program.len++] = (struct sock_filter)BPF_STMT(
		BPF_RET | BPF_K,
		jailed ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_USER_NOTIF);
	code[program.len++] = (struct sock_filter)BPF_STMT(
		BPF_RET | BPF_K,
		jailed ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_USER_NOTIF);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	/* From here on no call but those that are counted. */
	crew[who].listener = (int)syscall(
		SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		jailed ? 0 : SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void *crew_main(void *arg)
{
	struct crew *self = (struct crew *)arg;
	const enum caller who = (enum caller)(self - crew);

	prctl(PR_SET_NAME, caller_names[who]);
	self->tid = (pid_t)syscall(SYS_gettid);
	put_on_filter(who);
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!self->job)
			pthread_cond_wait(&changed, &lock);
		pthread_mutex_unlock(&lock);
		self->job();
		pthread_mutex_lock(&lock);
		self->job = NULL;
		pthread_cond_broadcast(&changed);
	}
	return NULL;
}

void crew_do(enum caller caller, void (*job)(void))
{
	pthread_mutex_lock(&lock);
	crew[caller].job = job;
	pthread_cond_broadcast(&changed);
	while (crew[caller].job)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

/* Who did what. A thread of the library has its maker's name at first. */
static struct seen {
	pid_t tid;
	char name[32];
	bool calls[CALLS_MAX];
} seen[THREADS_MAX];

static struct seen *seen_of(pid_t tid)
{
	for (size_t i = 0; i < THREADS_MAX; i++) {
		if (seen[i].tid == tid)
			return &seen[i];
		if (!seen[i].tid) {
			seen[i].tid = tid;
			return &seen[i];
		}
	}
	die("too many threads");
}

static void learn_name(struct seen *thread)
{
	char path[64], name[sizeof(thread->name)] = "";
	FILE *file;

	for (size_t i = 0; i < N_CALLERS; i++)
		if (crew[i].tid == thread->tid)
			strcpy(thread->name, caller_names[i]);
	snprintf(path, sizeof(path), "/proc/self/task/%d/comm",
		 (int)thread->tid);
	file = fopen(path, "re");
	if (!file)
		return;
	if (fscanf(file, "%31s", name) == 1 && !strncmp(name, "ktvblk-", 7))
		strcpy(thread->name,
		       name[7] >= '0' && name[7] <= '9'	  ? "ktvblk-id"
		       : !strncmp(name, "ktvblk-vu-", 10) ? "ktvblk-vu"
							  : name);
	fclose(file);
}

static void note_call(int listener)
{
	struct seccomp_notif call = { 0 };
	struct seccomp_notif_resp answer = { 0 };
	struct seen *thread;

	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
		return;
	thread = seen_of((pid_t)call.pid);
	learn_name(thread);
	if (call.data.nr >= 0 && call.data.nr < CALLS_MAX)
		thread->calls[call.data.nr] = true;
	answer.id = call.id;
	answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

static void *note_calls(void *arg)
{
	struct pollfd fds[N_CALLERS];

	for (;;) {
		for (size_t i = 0; i < N_CALLERS; i++)
			fds[i] = (struct pollfd){ .fd = crew[i].listener,
						  .events = POLLIN };
		if (poll(fds, N_CALLERS, 10) <= 0)
			continue;
		for (size_t i = 0; i < N_CALLERS; i++)
			if (fds[i].revents & POLLIN)
				note_call(fds[i].fd);
	}
	return arg;
}

void crew_print_calls(void)
{
	for (size_t t = 0; t < THREADS_MAX && seen[t].tid; t++)
		for (size_t c = 0; c < N_CALLS; c++)
			if (seen[t].calls[calls[c].number])
				printf("%s %s\n", seen[t].name, calls[c].name);
}

void crew_be(enum caller caller, const char *file)
{
	read_allowed(file);
	put_on_filter(caller);
}

void crew_start(const char *file)
{
	pthread_t noter;

	if (file)
		read_allowed(file);
	for (size_t i = 0; i < N_CALLERS; i++) {
		crew[i].listener = -1;
		pthread_create(&crew[i].thread, NULL, crew_main, &crew[i]);
	}
	if (!jailed)
		pthread_create(&noter, NULL, note_calls, NULL);
}
