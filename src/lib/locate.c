/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Where a thread is stuck, from procfs. See watch.h. */

#include <fcntl.h>
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

void watch_locate(struct watch *watch, struct watch_stuck *ret_stuck)
{
	char text[512], *paren = NULL;

	*ret_stuck = (struct watch_stuck){ 0 };
	/* While we hold this a thread that is at work cannot end. */
	SCOPED_LOCK(&watch->lock);
	if (!watch->tid)
		return;
	if (read_task_file(watch->tid, "stat", text, sizeof(text)))
		paren = strrchr(text, ')');
	if (*watch->left_name &&
	    !(paren && has_name(text, paren, watch->left_name)))
		return;
	ret_stuck->tid = watch->tid;
	if (paren && paren[1] == ' ')
		ret_stuck->state[0] = paren[2];
	if (read_task_file(watch->tid, "syscall", text, sizeof(text)))
		name_syscall(text, ret_stuck->syscall,
			     sizeof(ret_stuck->syscall));
	if (read_task_file(watch->tid, "wchan", text, sizeof(text)))
		snprintf(ret_stuck->wchan, sizeof(ret_stuck->wchan), "%.*s",
			 (int)strcspn(text, "\n"), text);
}
