/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A lock of an open file has no process for the kernel. But procfs shows the locks
 * of each open file, to who may look; it asks no file system for that, so it is
 * safe where the storage hangs. Of a process that was killed and has a thread
 * that is stuck, only the threads have files.
 */

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "holder.h"

/* The bytes that QEMU's locks, and ours, are on. */
#define BYTES_FIRST 100
#define BYTES_LAST 299

#define PATH_BYTES 64

/* "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:1234 101 101" */
static bool is_the_lock(const char *line, const struct stat *image)
{
	unsigned int device_major, device_minor;
	unsigned long long inode, first;

	return sscanf(line, "lock:%*s OFDLCK %*s %*s %*d %x:%x:%llu %llu",
		      &device_major, &device_minor, &inode, &first) == 4 &&
	       device_major == major(image->st_dev) &&
	       device_minor == minor(image->st_dev) && inode == image->st_ino &&
	       first >= BYTES_FIRST && first <= BYTES_LAST;
}

static bool file_has_it(int dir_fd, const char *name, const struct stat *image)
{
	const int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	char line[256];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file))
		found = is_the_lock(line, image);
	if (file)
		fclose(file);
	else if (fd >= 0)
		close(fd);
	return found;
}

/* *n_seen: how many files there were. */
static bool files_have_it(const char *path, const struct stat *image,
			  unsigned int *n_seen)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	bool found = false;

	*n_seen = 0;
	while (dir && !found && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)*entry->d_name))
			continue;
		++*n_seen;
		found = file_has_it(dirfd(dir), entry->d_name, image);
	}
	if (dir)
		closedir(dir);
	return found;
}

static bool a_thread_has_it(const char *pid, const struct stat *image)
{
	char path[PATH_BYTES];
	const struct dirent *entry;
	unsigned int n;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.10s/task", pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)*entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%.10s/task/%.10s/fdinfo",
			 pid, entry->d_name);
		found = files_have_it(path, image, &n);
	}
	if (dir)
		closedir(dir);
	return found;
}

static bool process_has_it(const char *pid, const struct stat *image)
{
	char path[PATH_BYTES];
	unsigned int n;

	snprintf(path, sizeof(path), "/proc/%.10s/fdinfo", pid);
	return files_have_it(path, image, &n) ||
	       (n == 0 && a_thread_has_it(pid, image));
}

static pid_t look_for(int fd)
{
	const struct dirent *entry;
	struct stat image;
	pid_t found = 0;
	DIR *dir;

	if (fstat(fd, &image) < 0)
		return 0;
	dir = opendir("/proc");
	while (dir && !found && (entry = readdir(dir)))
		if (isdigit((unsigned char)*entry->d_name) &&
		    process_has_it(entry->d_name, &image))
			found = (pid_t)atoi(entry->d_name);
	if (dir)
		closedir(dir);
	return found;
}

void holder_describe(int fd, pid_t pid, char text[HOLDER_TEXT_MAX])
{
	char path[PATH_BYTES], name[32] = "";
	FILE *file;

	if (pid <= 0)
		pid = look_for(fd);
	if (pid <= 0) {
		snprintf(text, HOLDER_TEXT_MAX, "another process");
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	file = fopen(path, "re");
	if (file && fgets(name, sizeof(name), file))
		name[strcspn(name, "\n")] = '\0';
	if (file)
		fclose(file);
	snprintf(text, HOLDER_TEXT_MAX,
		 *name ? "process %d (%s)" : "process %d", (int)pid, name);
}
