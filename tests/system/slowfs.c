/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * slowfs CONTROL MOUNTPOINT [FUSE options]: the server. See slowfs.h.
 *
 * A held call ignores the kernel's FUSE_INTERRUPT, as a server that hangs does.
 */

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "slowfs.h"

static struct slowfs *slow;

/* The number of a disk: the cached ones come second. -1: there is none. */
static int find_disk(const char *path)
{
	static const char *const kinds[] = { "/direct", "/cached" };

	for (int i = 0; i < 2; i++) {
		const size_t len = strlen(kinds[i]);

		if (strncmp(path, kinds[i], len) == 0 && path[len] >= '0' &&
		    path[len] < '0' + (char)SLOW_DISKS && !path[len + 1])
			return i * (int)SLOW_DISKS + path[len] - '0';
	}
	return -1;
}

static int slow_getattr(const char *path, struct stat *st,
			struct fuse_file_info *file)
{
	(void)file;
	memset(st, 0, sizeof(*st));
	st->st_nlink = 1;
	if (strcmp(path, "/") == 0) {
		st->st_mode = S_IFDIR | 0700;
		return 0;
	}
	if (find_disk(path) < 0)
		return -ENOENT;
	st->st_mode = S_IFREG | 0600;
	st->st_size = SLOW_BYTES;
	return 0;
}

static int slow_open(const char *path, struct fuse_file_info *file)
{
	const int disk = find_disk(path);

	if (disk < 0)
		return -ENOENT;
	file->fh = (uint64_t)disk;
	file->direct_io = disk < (int)SLOW_DISKS;
	return 0;
}

static size_t clip(size_t size, off_t offset)
{
	if (offset < 0 || offset >= (off_t)SLOW_BYTES)
		return 0;
	if (size > SLOW_BYTES - (size_t)offset)
		size = SLOW_BYTES - (size_t)offset;
	return size;
}

static int slow_read(const char *path, char *buf, size_t size, off_t offset,
		     struct fuse_file_info *file)
{
	(void)path;
	size = clip(size, offset);
	slowfs_hang(slow, SLOW_READ);
	memcpy(buf, slow->bytes[file->fh] + offset, size);
	return (int)size;
}

static int slow_write(const char *path, const char *buf, size_t size,
		      off_t offset, struct fuse_file_info *file)
{
	(void)path;
	size = clip(size, offset);
	slowfs_hang(slow, SLOW_WRITE);
	memcpy(slow->bytes[file->fh] + offset, buf, size);
	return size ? (int)size : -ENOSPC;
}

static int slow_fsync(const char *path, int datasync,
		      struct fuse_file_info *file)
{
	(void)path;
	(void)datasync;
	(void)file;
	atomic_fetch_add(&slow->fsyncs, 1);
	slowfs_hang(slow, SLOW_FSYNC);
	return 0;
}

/* Of each mode that takes bytes away, zeros are left. */
static int slow_fallocate(const char *path, int mode, off_t offset,
			  off_t length, struct fuse_file_info *file)
{
	const size_t size = clip((size_t)length, offset);

	(void)path;
	slowfs_hang(slow, SLOW_FALLOCATE);
	if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
		return -EOPNOTSUPP;
	memset(slow->bytes[file->fh] + offset, 0, size);
	return 0;
}

static int slow_flush(const char *path, struct fuse_file_info *file)
{
	(void)path;
	(void)file;
	slowfs_hang(slow, SLOW_CLOSE);
	return 0;
}

/* As many as a test has out, not only twelve, leave the kernel at once. */
static void *slow_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	(void)config;
	conn->max_background = SLOW_CALLS_MAX;
	conn->congestion_threshold = SLOW_CALLS_MAX;
	return NULL;
}

static const struct fuse_operations operations = {
	.init = slow_init,
	.getattr = slow_getattr,
	.open = slow_open,
	.read = slow_read,
	.write = slow_write,
	.fsync = slow_fsync,
	.flush = slow_flush,
	.fallocate = slow_fallocate,
};

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: %s CONTROL MOUNTPOINT [options]\n",
			argv[0]);
		return 2;
	}
	slow = slowfs_map(argv[1]);
	if (!slow) {
		perror(argv[1]);
		return 1;
	}
	argv[1] = argv[0];
	return fuse_main(argc - 1, argv + 1, &operations, NULL);
}
