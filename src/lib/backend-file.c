/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Storage in a regular file or a block device. It is not told apart what is in
 * it: a format guessed from bytes the guest wrote would be the guest's choice.
 */

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "backend.h"
#include "util.h"

struct file {
	int fd;
	void (*release)(void *userdata);
	void *userdata;
};

static ssize_t file_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	const struct file *file = (const struct file *)userdata;
	ssize_t n = preadv(file->fd, iov, n_iov, (off_t)offset);
	ssize_t end = 0;

	if (n <= 0)
		return n < 0 ? -errno : 0;
	/*
	 * A short answer is the end of the file, or what was had before an
	 * error: only the next call tells, and the guest must not take the one
	 * for the other.
	 */
	for (int i = 0; i < n_iov; i++) {
		end += (ssize_t)iov[i].iov_len;
		while (n < end) {
			const size_t left = (size_t)(end - n);
			ssize_t more = pread(file->fd,
					     (char *)iov[i].iov_base +
						     iov[i].iov_len - left,
					     left, (off_t)offset + n);

			if (more <= 0)
				return more < 0 ? -errno : n;
			n += more;
		}
	}
	return n;
}

static ssize_t file_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	const struct file *file = (const struct file *)userdata;
	ssize_t n = pwritev(file->fd, iov, n_iov, (off_t)offset);

	return n < 0 ? -errno : n;
}

static int file_flush(void *userdata)
{
	const struct file *file = (const struct file *)userdata;

	return fdatasync(file->fd) < 0 ? -errno : 0;
}

static int file_capacity(void *userdata, uint64_t *ret_bytes)
{
	const struct file *file = (const struct file *)userdata;
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(file->fd, BLKGETSIZE64, ret_bytes) < 0 ? -errno
								    : 0;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

static void file_release(void *userdata)
{
	struct file *file = (struct file *)userdata;

	close(file->fd); /* may block: FUSE, NFS */
	pthread_cleanup_push(free, file);
	if (file->release)
		file->release(file->userdata);
	pthread_cleanup_pop(1);
}

/* 0 with *ret_read_only, or why this descriptor will not do. */
static int check_fd(int fd, bool *ret_read_only)
{
	const int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags < 0 || (flags & O_PATH))
		return -EBADF;
	if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_APPEND))
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return -EINVAL;
	*ret_read_only = (flags & O_ACCMODE) == O_RDONLY;
	return 0;
}

int ktvblk_backend_new_fd(int fd, void (*release)(void *userdata),
			  void *userdata, struct ktvblk_backend **ret_backend)
{
	struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = file_preadv,
		.pwritev = file_pwritev,
		.flush = file_flush,
		.capacity = file_capacity,
		.release = file_release,
	};
	struct file *file;
	bool read_only = false;
	int r;

	if (!ret_backend)
		return -EINVAL;
	r = check_fd(fd, &read_only);
	if (r < 0)
		return r;
	if (read_only)
		ops.pwritev = NULL;
	file = malloc(sizeof(*file));
	if (!file)
		return -ENOMEM;
	file->release = release;
	file->userdata = userdata;
	file->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (file->fd < 0) {
		r = -errno;
		goto fail_file;
	}
	r = ktvblk_backend_new(&ops, file, ret_backend);
	if (r < 0)
		goto fail_fd;
	return 0;

fail_fd:
	close(file->fd);
fail_file:
	free(file);
	return r;
}
