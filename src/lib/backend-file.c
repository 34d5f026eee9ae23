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
#include "bounds.h"
#include "util.h"

struct file {
	int fd;
	bool block_device;
	void (*release)(void *userdata);
	void *userdata;
};

static ssize_t file_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	const struct file *file = (const struct file *)userdata;
	ssize_t n = preadv(file->fd, iov, n_iov, (off_t)offset);

	return n < 0 ? -errno : n;
}

/*
 * A file that became shorter grows again by this, with a hole before it: what
 * is written is there, what was cut off is not. A block device has an error.
 */
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

static int punch(const struct file *file, int mode, uint64_t offset,
		 uint64_t length)
{
	return fallocate(file->fd, mode, (off_t)offset, (off_t)length) < 0
		       ? -errno
		       : 0;
}

/*
 * Of a block device a hole is one only if it promises zeros; many that can
 * discard do not.
 */
static int file_discard(void *userdata, uint64_t offset, uint64_t length)
{
	const struct file *file = (const struct file *)userdata;
	uint64_t range[] = { offset, length };
	int r = punch(file, fallocate_mode(KTVBLK_IO_DISCARD, 0), offset,
		      length);

	if (r != -EOPNOTSUPP || !file->block_device)
		return r;
	return ioctl(file->fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

static int file_write_zeroes(void *userdata, uint64_t offset, uint64_t length,
			     uint32_t flags)
{
	return punch((const struct file *)userdata,
		     fallocate_mode(KTVBLK_IO_WRITE_ZEROES, flags), offset,
		     length);
}

static int get_size(int fd, const struct stat *st, uint64_t *ret_bytes)
{
	if (S_ISBLK(st->st_mode))
		return ioctl(fd, BLKGETSIZE64, ret_bytes) < 0 ? -errno : 0;
	*ret_bytes = (uint64_t)st->st_size;
	return 0;
}

static int file_capacity(void *userdata, uint64_t *ret_bytes)
{
	const struct file *file = (const struct file *)userdata;
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	return get_size(file->fd, &st, ret_bytes);
}

static void file_release(void *userdata)
{
	struct file *file = (struct file *)userdata;
	const struct file had = *file;

	close(had.fd); /* may block: FUSE, NFS */
	/* Before: it may end the thread. */
	free(file);
	if (had.release)
		had.release(had.userdata);
}

/* What is found of a descriptor. */
struct found {
	bool read_only;
	bool block_device;
	bool discards;
	struct backend_shape shape;
	uint64_t bytes;
	uint32_t block_bytes;
	uint32_t mem_align;
};

/*
 * What was opened for writing and cannot be written can only be read: else it
 * would be an error at each of the guest's writes. Found here is what can be
 * asked without a write.
 */
static bool can_be_written(int fd, const struct stat *st,
			   const struct statx *more)
{
	const int write_seals = F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
	int seals, read_only = 0;

	if (S_ISBLK(st->st_mode))
		return ioctl(fd, BLKROGET, &read_only) < 0 || !read_only;
	seals = fcntl(fd, F_GET_SEALS); /* most files have none, and fail */
	return !(seals > 0 && (seals & write_seals)) &&
	       !(more->stx_attributes & STATX_ATTR_IMMUTABLE);
}

/*
 * What O_DIRECT asks of requests and memory. A file system that does not tell
 * takes sectors, or goes through the page cache for what it cannot.
 */
static int find_alignment(int fd, const struct stat *st,
			  const struct statx *more, struct found *found)
{
	int bytes = SECTOR_BYTES;

	if (more->stx_mask & STATX_DIOALIGN && more->stx_dio_offset_align) {
		found->block_bytes =
			MAX(more->stx_dio_offset_align, SECTOR_BYTES);
		/* 1 is for what goes through the page cache. */
		found->mem_align = MAX(more->stx_dio_mem_align, 2u);
	} else {
		if (S_ISBLK(st->st_mode) && ioctl(fd, BLKSSZGET, &bytes) < 0)
			return -errno;
		found->block_bytes = found->mem_align = (uint32_t)bytes;
	}
	/* Powers of two, both; and the buffer begins with a page. */
	if (found->block_bytes > BOUNCE_BYTES ||
	    found->mem_align > MEM_ALIGN_MAX)
		return -EINVAL;
	return 0;
}

/*
 * Would a block device discard? A place that is no sector is an error of its
 * own, and is looked at behind that. A file is not known to, and is asked when
 * the time comes: to ask now could change it, or wait for a server.
 */
static bool discards(int fd, const struct stat *st)
{
	uint64_t nowhere[] = { 1, 0 };

	return !S_ISBLK(st->st_mode) ||
	       (ioctl(fd, BLKDISCARD, nowhere) < 0 && errno == EINVAL);
}

static uint32_t ask(int fd, unsigned long request)
{
	int n = 0;

	/* All are of four bytes; below 0 it does not know. */
	return ioctl(fd, request, &n) < 0 || n < 0 ? 0 : (uint32_t)n;
}

/*
 * A file has the blocks of its file system, or pieces that are good to ask for
 * where that is of a network: these are no blocks to lay out a disk by.
 */
static struct backend_shape find_shape(int fd, const struct stat *st)
{
	const uint64_t bytes = (uint64_t)st->st_blksize;

	if (S_ISBLK(st->st_mode))
		return (struct backend_shape){
			.logical_bytes = ask(fd, BLKSSZGET),
			.physical_bytes = ask(fd, BLKPBSZGET),
			.min_io_bytes = ask(fd, BLKIOMIN),
			.opt_io_bytes = ask(fd, BLKIOOPT),
			.offset_bytes = ask(fd, BLKALIGNOFF),
		};
	if (bytes < SECTOR_BYTES || bytes > FILE_IO_BYTES_MAX ||
	    (bytes & (bytes - 1)))
		return (struct backend_shape){ 0 };
	return (struct backend_shape){
		.physical_bytes = (uint32_t)MIN(bytes, FILE_BLOCK_BYTES_MAX),
		.opt_io_bytes = bytes > FILE_BLOCK_BYTES_MAX ? (uint32_t)bytes
							     : 0,
	};
}

/* 0, or why this descriptor will not do. */
static int look_at(int fd, struct found *ret_found)
{
	const int flags = fcntl(fd, F_GETFL);
	struct statx more = { 0 };
	struct stat st;
	int r;

	if (flags < 0 || (flags & O_PATH))
		return -EBADF;
	if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_APPEND))
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return -EINVAL;
	*ret_found = (struct found){
		.read_only = (flags & O_ACCMODE) == O_RDONLY,
		.block_bytes = SECTOR_BYTES,
		.mem_align = 1,
	};
	/* It need not ask a server, and what it does not tell is not known. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_DIOALIGN,
		  &more) < 0)
		more = (struct statx){ 0 };
	ret_found->read_only |= !can_be_written(fd, &st, &more);
	ret_found->block_device = S_ISBLK(st.st_mode);
	ret_found->discards = discards(fd, &st);
	ret_found->shape = find_shape(fd, &st);
	r = get_size(fd, &st, &ret_found->bytes);
	if (r == 0 && (flags & O_DIRECT))
		r = find_alignment(fd, &st, &more, ret_found);
	return r;
}

/* What is discarded in pieces of less than a block is not given back. */
static uint32_t granularity(const struct backend_shape *shape)
{
	const uint32_t bytes = shape->physical_bytes;

	return bytes >= SECTOR_BYTES && !(bytes & (bytes - 1)) ? bytes : 0;
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
		.discard = file_discard,
		.write_zeroes = file_write_zeroes,
	};
	struct file *file;
	struct found found;
	int r;

	if (!ret_backend)
		return -EINVAL;
	r = look_at(fd, &found);
	if (r < 0)
		return r;
	if (found.read_only) {
		ops.pwritev = NULL;
		ops.write_zeroes = NULL;
	}
	if (found.read_only || !found.discards)
		ops.discard = NULL;
	ops.discard_granularity_bytes = granularity(&found.shape);
	file = malloc(sizeof(*file));
	if (!file)
		return -ENOMEM;
	file->release = release;
	file->userdata = userdata;
	file->block_device = found.block_device;
	file->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (file->fd < 0) {
		r = -errno;
		goto fail_file;
	}
	r = ktvblk_backend_new(&ops, file, ret_backend);
	if (r < 0)
		goto fail_fd;
	(*ret_backend)->fd = file->fd;
	(*ret_backend)->shape = found.shape;
	(*ret_backend)->block_device = found.block_device;
	(*ret_backend)->told_bytes = found.bytes;
	(*ret_backend)->block_bytes = found.block_bytes;
	(*ret_backend)->mem_align = found.mem_align;
	return 0;

fail_fd:
	close(file->fd);
fail_file:
	free(file);
	return r;
}
