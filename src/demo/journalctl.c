/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See journalctl.h. */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "journalctl.h"
#include "say.h"

#define ARGS_MAX 16

static char directory[64], since[64], pid[64];

void journalctl_open(const char *dir)
{
	if (dir)
		snprintf(directory, sizeof(directory), "--directory=%s", dir);
	/* An old process may have had our number. */
	snprintf(since, sizeof(since), "--since=@%lld", (long long)time(NULL));
	snprintf(pid, sizeof(pid), "_PID=%d", (int)getpid());
}

/* Start journalctl; the descriptor to read what it prints, or -1. */
static int start(const char *const *matches, bool follow, pid_t *ret_child)
{
	const char *args[ARGS_MAX] = { "journalctl",
				       "-q",
				       "--no-pager",
				       "-a",
				       "-n1",
				       "-o",
				       follow ? "cat" : "verbose",
				       since };
	posix_spawn_file_actions_t actions;
	int n = 8, out[2], r;

	if (follow)
		args[n++] = "-f";
	if (*directory)
		args[n++] = directory;
	args[n++] = pid;
	while (*matches && n < ARGS_MAX - 1)
		args[n++] = *matches++;
	if (pipe2(out, O_CLOEXEC) < 0)
		return -1;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	r = posix_spawnp(ret_child, "journalctl", &actions, NULL,
			 (char *const *)(uintptr_t)args, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(out[1]);
	if (!r)
		return out[0];
	close(out[0]);
	return -1;
}

/* Read to the end, or until the deadline; once: only until there is a byte. */
static char *read_all(int fd, double until, bool once)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	char *text = NULL, buf[4096];
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);
	ssize_t n;

	if (!file)
		return NULL;
	do {
		const double left = until - now_s();

		n = 0;
		if (left > 0 && poll(&pollfd, 1, (int)(left * 1000) + 1) == 1)
			n = read(fd, buf, sizeof(buf));
		if (n > 0)
			fwrite(buf, 1, (size_t)n, file);
	} while (n > 0 && !once);
	if (fclose(file) == 0 && size)
		return text;
	free(text);
	return NULL;
}

static char *run(const char *const *matches, bool follow, double until)
{
	pid_t child;
	char *text;
	const int fd = start(matches, follow, &child);

	if (fd < 0)
		return NULL;
	text = read_all(fd, until, follow);
	close(fd);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return text;
}

char *journalctl_wait(const char *const *matches, int timeout_ms)
{
	const double until = now_s() + timeout_ms / 1000.0;
	char *text = run(matches, false, until);

	if (text)
		return text;
	/* Not there yet: be told, and read it from the start. */
	text = run(matches, true, until);
	if (!text)
		return NULL;
	free(text);
	return run(matches, false, until + 1);
}
