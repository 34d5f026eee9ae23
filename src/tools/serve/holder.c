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
#include <unistd.h>

#include "holder.h"

/* The bytes that QEMU's locks, and ours, are on. */
#define BYTES_FIRST 100
#define BYTES_LAST 299

#define PATH_BYTES 64

/* The image as locks name it, which need not be what stat() says. */
struct image {
	unsigned int device_major, device_minor;
	unsigned long long inode;
};

/* "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:1234 101 101" */
static bool is_the_lock(const char *line, const struct image *image)
{
	struct image of;
	unsigned long long first;

	return sscanf(line, "lock: %*s OFDLCK %*s %*s %*d %x:%x:%llu %llu",
		      &of.device_major, &of.device_minor, &of.inode,
		      &first) == 4 &&
	       of.device_major == image->device_major &&
	       of.device_minor == image->device_minor &&
	       of.inode == image->inode && first >= BYTES_FIRST &&
	       first <= BYTES_LAST;
}

static bool file_has_it(int dir_fd, const char *name, const struct image *image)
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
static bool files_have_it(const char *path, const struct image *image,
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

static bool a_thread_has_it(const char *pid, const struct image *image)
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

static bool process_has_it(const char *pid, const struct image *image)
{
	char path[PATH_BYTES];
	unsigned int n;

	snprintf(path, sizeof(path), "/proc/%.10s/fdinfo", pid);
	return files_have_it(path, image, &n) ||
	       (n == 0 && a_thread_has_it(pid, image));
}

/* "mnt_id:\t26", "ino:\t1234"; and "26 1 254:0 / / rw ..." */
static bool find_image(int fd, struct image *image)
{
	char path[PATH_BYTES], line[4096];
	bool has_inode = false, found = false;
	int mount = -1, id;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "mnt_id: %d", &mount);
		has_inode |= sscanf(line, "ino: %llu", &image->inode) == 1;
	}
	if (file)
		fclose(file);
	file = fopen("/proc/self/mountinfo", "re");
	while (file && !found && fgets(line, sizeof(line), file))
		found = sscanf(line, "%d %*d %u:%u", &id, &image->device_major,
			       &image->device_minor) == 3 &&
			id == mount;
	if (file)
		fclose(file);
	return has_inode && found;
}

static pid_t look_for(int fd)
{
	const struct dirent *entry;
	struct image image;
	pid_t found = 0;
	DIR *dir;

	if (!find_image(fd, &image))
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
		snprintf(text, HOLDER_TEXT_MAX,
			 "another process, or what one has left "
			 "behind");
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
