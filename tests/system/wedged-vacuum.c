/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * To preload: what journald's vacuuming does to the journal file $VACUUM, when
 * libsystemd has opened it and looks at its size: it is deleted, and its blocks
 * are given back. $VACUUM_KEEPS_NAME: they are given back only.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int fstat_fn(int fd, struct stat64 *st);

static void vacuum(const char *path, off_t size)
{
	const int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || (!getenv("VACUUM_KEEPS_NAME") && unlink(path) < 0) ||
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size))
		abort();
	close(fd);
}

int fstat64(int fd, struct stat64 *st)
{
	fstat_fn *const next = (fstat_fn *)dlsym(RTLD_NEXT, "fstat64");
	const char *path = getenv("VACUUM");
	const int r = next(fd, st);
	char link[64], target[4096] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (r == 0 && path && readlink(link, target, sizeof(target) - 1) > 0 &&
	    strcmp(target, path) == 0) {
		vacuum(path, st->st_size);
		unsetenv("VACUUM");
	}
	return r;
}
