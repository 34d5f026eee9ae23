/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who holds requests up, from procfs. See watch.h.
 *
 * A worker that sleeps on its own epoll, or waits in io_uring_enter() with
 * requests in service, is not stuck itself: it waits for completions. A call
 * that io_uring cannot make without blocking is with a thread of the kernel's
 * in our process, which is named after the thread that made the ring, the
 * worker: "iou-wrk-<tid>". Those of them that wait for work sleep in
 * io_wq_worker(); the others are busy. What the kernel can leave to the device,
 * a direct read for one, is with no thread at all, and neither is what a VMM's
 * own storage answers later.
 *
 * In a PID namespace of our own those names have the number that the worker has
 * outside, which we cannot know. Then it is not said how many there are, rather
 * than that there are none; the same where the kernel does not tell us where a
 * thread of its own sleeps.
 */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "util.h"
#include "watch.h"

/* Read a file of the thread's; false and an empty string if that fails. */
static bool read_task_file(pid_t tid, const char *file, char *buf, size_t size)
{
	char path[64];
	ssize_t n = -1;

	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", (int)tid, file);
	__attribute__((cleanup(closep))) int fd =
		open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, buf, size - 1);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* The calls storage can hang in; others are told by number. */
static void name_syscall(const char *text, char *buf, size_t size)
{
	static const struct {
		long nr;
		const char *name;
	} known[] = {
		{ SYS_pread64, "pread64" },
		{ SYS_pwrite64, "pwrite64" },
		{ SYS_preadv, "preadv" },
		{ SYS_pwritev, "pwritev" },
		{ SYS_preadv2, "preadv2" },
		{ SYS_pwritev2, "pwritev2" },
		{ SYS_read, "read" },
		{ SYS_write, "write" },
		{ SYS_fdatasync, "fdatasync" },
		{ SYS_fsync, "fsync" },
		{ SYS_fallocate, "fallocate" },
		{ SYS_close, "close" },
		{ SYS_munmap, "munmap" },
		{ SYS_futex, "futex" },
		{ SYS_ppoll, "ppoll" },
		{ SYS_epoll_pwait, "epoll_pwait" },
		{ SYS_sendmsg, "sendmsg" },
		{ SYS_recvmsg, "recvmsg" },
		{ SYS_ioctl, "ioctl" },
		{ SYS_io_uring_enter, "io_uring_enter" },
#ifdef SYS_poll
		{ SYS_poll, "poll" },
#endif
#ifdef SYS_epoll_wait
		{ SYS_epoll_wait, "epoll_wait" },
#endif
	};
	char *end;
	long nr = strtol(text, &end, 10);

	if (end == text) { /* "running" */
		snprintf(buf, size, "%.*s", (int)strcspn(text, "\n"), text);
		return;
	}
	if (nr == -1) {
		snprintf(buf, size, "none"); /* a page fault, for one */
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].nr == nr) {
			snprintf(buf, size, "%s", known[i].name);
			return;
		}
	snprintf(buf, size, "%ld", nr);
}

/* Is this, of /proc/.../stat, a thread of that name? */
static bool has_name(const char *stat, const char *paren, const char *name)
{
	const char *begin = strchr(stat, '(');
	const size_t len = strlen(name);

	return begin && begin + 1 + len == paren &&
	       strncmp(begin + 1, name, len) == 0;
}

static void locate_wchan(pid_t tid, char *buf, size_t size)
{
	char text[128];

	*buf = '\0';
	if (read_task_file(tid, "wchan", text, sizeof(text)))
		snprintf(buf, size, "%.*s", (int)strcspn(text, "\n"), text);
}

/* Is it a wait for completions? By the call and its first argument. */
static bool is_wait(const struct watch *watch, const char *text)
{
	char *end;
	const long nr = strtol(text, &end, 10);
	const uint64_t fd = strtoull(end, NULL, 16);

	char wchan[64];

	switch (end == text ? -1 : nr) {
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
#endif
	case SYS_epoll_pwait:
		/* Any other may be of a backend's own, in a blocking call. */
		if (watch->epoll_fd < 0 || fd != (uint64_t)watch->epoll_fd)
			return false;
		break;
	case SYS_io_uring_enter:
		/* It may be at a page of guest memory, or in a lock. */
		locate_wchan(watch->tid, wchan, sizeof(wchan));
		if (*wchan && strcmp(wchan, "0") != 0 &&
		    !strstr(wchan, "io_cqring"))
			return false;
		break;
	default:
		return false;
	}
	return watch_snapshot(watch).n_in_flight > 0;
}

/* Between two looks; and of so many threads the second knows the first. */
#define STEADY_MS 20
#define N_NOTES 64

/* A look at all threads of the kernel's that work for one of ours. */
struct helpers {
	unsigned int n_busy;
	bool unsure; /* some may be busy, or ours */
	bool steady; /* the one told: it did not run since the look before */
	uint64_t idle_since; /* of the one told */
	struct watch_stuck *told;
	const struct helpers *before;
	struct note {
		pid_t tid;
		uint64_t ran_us;
	} notes[N_NOTES];
};

/*
 * When it last ran, as the scheduler tells in milliseconds of its clock; where
 * it does not, all are alike, and the first is taken. Each CPU has a clock of its
 * own, which stands still while a hypervisor takes the CPU away: those of two
 * may be minutes apart after a week. So where several are busy a second look
 * leaves out who ran meanwhile; only then who did not for the longest time, by
 * these clocks, is taken for the one that is stuck the longest.
 */
static uint64_t last_ran_us(pid_t tid)
{
	static const char key[] = "se.exec_start";
	char text[512], *at;
	char *end;
	uint64_t ms;

	if (!read_task_file(tid, "sched", text, sizeof(text)))
		return 0;
	at = strstr(text, key);
	at = at ? strchr(at, ':') : NULL;
	if (!at)
		return 0;
	ms = strtoull(at + 1, &end, 10);
	/* Six digits of which three do. */
	return ms * 1000 +
	       (*end == '.' ? strtoull(end + 1, NULL, 10) / 1000 : 0);
}

static bool is_steady(const struct helpers *before, const struct note *note)
{
	const unsigned int n = before ? MIN(before->n_busy, N_NOTES) : 0;

	for (unsigned int i = 0; i < n; i++)
		if (before->notes[i].tid == note->tid)
			return before->notes[i].ran_us == note->ran_us;
	return false;
}

static bool is_better(const struct helpers *helpers, bool steady,
		      const struct note *note)
{
	if (steady != helpers->steady)
		return steady;
	return note->ran_us < helpers->idle_since;
}

static void count_helper(struct helpers *helpers, pid_t tid, char state)
{
	char wchan[sizeof(helpers->told->wchan)];
	struct note note = { .tid = tid };
	bool steady;

	locate_wchan(tid, wchan, sizeof(wchan));
	/* It waits for work; the second is what kernels before 6.4 call it. */
	if (strcmp(wchan, "io_wq_worker") == 0 ||
	    strcmp(wchan, "io_wqe_worker") == 0)
		return;
	if (state == 'S' && (!*wchan || strcmp(wchan, "0") == 0)) {
		helpers->unsure = true;
		return;
	}
	note.ran_us = last_ran_us(tid);
	if (helpers->n_busy < N_NOTES)
		helpers->notes[helpers->n_busy] = note;
	steady = is_steady(helpers->before, &note);
	if (helpers->n_busy++ && !is_better(helpers, steady, &note))
		return;
	helpers->steady = steady;
	helpers->idle_since = note.ran_us;
	helpers->told->tid = tid;
	helpers->told->state[0] = state;
	snprintf(helpers->told->wchan, sizeof(wchan), "%s", wchan);
}

static bool is_thread_of_ours(const char *number)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%d", atoi(number));
	return access(path, F_OK) == 0;
}

static void look_at_thread(struct helpers *helpers, pid_t worker, pid_t tid)
{
	static const char prefix[] = "iou-wrk-";
	char text[512], *name, *paren;

	if (!read_task_file(tid, "stat", text, sizeof(text)))
		return;
	name = strchr(text, '(');
	paren = strrchr(text, ')');
	if (!name++ || !paren || paren[1] != ' ' ||
	    strncmp(name, prefix, sizeof(prefix) - 1) != 0)
		return;
	name += sizeof(prefix) - 1;
	if (atoi(name) == (int)worker)
		count_helper(helpers, tid, paren[2]);
	else if (!is_thread_of_ours(name))
		helpers->unsure = true;
}

/* While the worker is held back none of them can be another's. */
static void locate_helpers(pid_t worker, struct helpers *helpers)
{
	struct watch_stuck *stuck = helpers->told;
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (atoi(entry->d_name) > 0)
			look_at_thread(helpers, worker, atoi(entry->d_name));
	closedir(dir);
	/* What it says of a call is the worker's at the time it was made. */
	if (helpers->n_busy)
		snprintf(stuck->syscall, sizeof(stuck->syscall), "none");
	stuck->n_threads = helpers->n_busy;
	stuck->counted = !helpers->unsure;
}

static void look(struct watch *watch, struct helpers *helpers)
{
	struct watch_stuck *stuck = helpers->told;
	char text[512], *paren = NULL;

	*stuck = (struct watch_stuck){ 0 };
	/* While we hold this a thread that is at work cannot end. */
	SCOPED_LOCK(&watch->lock);
	if (!watch->tid)
		return;
	if (read_task_file(watch->tid, "stat", text, sizeof(text)))
		paren = strrchr(text, ')');
	if (*watch->left_name &&
	    !(paren && has_name(text, paren, watch->left_name)))
		return;
	if (paren && paren[1] == ' ')
		stuck->state[0] = paren[2];
	if (read_task_file(watch->tid, "syscall", text, sizeof(text))) {
		if (is_wait(watch, text)) {
			stuck->state[0] = '\0';
			locate_helpers(watch->tid, helpers);
			return;
		}
		name_syscall(text, stuck->syscall, sizeof(stuck->syscall));
		stuck->counted = true;
		stuck->n_threads = 1;
	}
	locate_wchan(watch->tid, stuck->wchan, sizeof(stuck->wchan));
	stuck->tid = watch->tid;
}

void watch_locate(struct watch *watch, struct watch_stuck *ret_stuck)
{
	struct helpers first = { .told = ret_stuck };
	struct helpers second = { .told = ret_stuck, .before = &first };

	look(watch, &first);
	if (first.n_busy < 2)
		return;
	poll(NULL, 0, STEADY_MS);
	look(watch, &second);
}
