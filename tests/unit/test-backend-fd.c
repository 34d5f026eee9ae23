/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a descriptor says of its file: whether it can be written at all, and
 * what O_DIRECT asks of requests. See test-backend-file.c for the rest.
 */

/* wrap: fcntl fstat statx ioctl */

#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "backend.h"
#include "harness.h"

#define SIZE 10000

/* What a block device, or a file system, says of itself. */
static bool is_block, is_direct;
static int physical_bytes, min_io_bytes, opt_io_bytes, offset_bytes;
static int block_bytes, block_read_only, ioctl_fails_with, statx_fails_with;
static struct statx says;

int __real_fcntl(int fd, int op, ...);
int __wrap_fcntl(int fd, int op, ...);
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __wrap_statx(int fd, const char *path, int flags, unsigned int mask,
		 struct statx *st);
int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_fcntl(int fd, int op, ...)
{
	va_list ap;
	int arg = 0;

	va_start(ap, op);
	if (op == F_DUPFD_CLOEXEC || op == F_ADD_SEALS)
		arg = va_arg(ap, int);
	va_end(ap);
	return __real_fcntl(fd, op, arg) |
	       (op == F_GETFL && is_direct ? O_DIRECT : 0);
}

int __wrap_fstat(int fd, struct stat *st)
{
	const int r = __real_fstat(fd, st);

	if (r == 0 && is_block)
		st->st_mode = S_IFBLK | 0600;
	return r;
}

int __wrap_statx(int fd, const char *path, int flags, unsigned int mask,
		 struct statx *st)
{
	(void)fd;
	ck_assert_str_eq(path, "");
	/* It must not wait for the server of a network's file system. */
	ck_assert_int_eq(flags, AT_EMPTY_PATH | AT_STATX_DONT_SYNC);
	ck_assert_uint_eq(mask, STATX_DIOALIGN);
	memset(st, 0xff, sizeof(*st));
	errno = statx_fails_with;
	if (statx_fails_with)
		return -1;
	*st = says;
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list ap;

	va_start(ap, request);
	void *to = va_arg(ap, void *);
	va_end(ap);
	(void)fd;
	errno = ioctl_fails_with;
	if (ioctl_fails_with)
		return -1;
	if (request == BLKGETSIZE64)
		*(uint64_t *)to = UINT64_C(5) << 40;
	else if (request == BLKROGET)
		*(int *)to = block_read_only;
	else if (request == BLKSSZGET)
		*(int *)to = block_bytes;
	else if (request == BLKPBSZGET)
		*(int *)to = physical_bytes;
	else if (request == BLKIOMIN)
		*(int *)to = min_io_bytes;
	else if (request == BLKIOOPT)
		*(int *)to = opt_io_bytes;
	else if (request == BLKALIGNOFF)
		*(int *)to = offset_bytes;
	else if (request == BLKDISCARD)
		return -1;
	else
		abort();
	return 0;
}

static void say_nothing(void)
{
	is_block = is_direct = false;
	block_read_only = 0;
	block_bytes = physical_bytes = 512;
	min_io_bytes = opt_io_bytes = offset_bytes = 0;
	statx_fails_with = ioctl_fails_with = 0;
	memset(&says, 0, sizeof(says));
}

/*
 * Fixtures
 */

static int released;

static void release(void *userdata)
{
	(void)userdata;
	released++;
}

static int plain_file(void)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
	say_nothing();
	return fd;
}

static struct ktvblk_backend *backend_of(int fd)
{
	struct ktvblk_backend *backend = NULL;

	released = 0;
	ck_assert_int_eq(ktvblk_backend_new_fd(fd, release, NULL, &backend), 0);
	return backend;
}

static void drop(struct ktvblk_backend *backend)
{
	ktvblk_backend_unref(backend);
	ck_assert_int_eq(released, 1);
}

static void refused(int fd, int error)
{
	const unsigned int fds = count_fds();
	struct ktvblk_backend *backend = NULL;

	released = 0;
	ck_assert_int_eq(ktvblk_backend_new_fd(fd, release, NULL, &backend),
			 error);
	ck_assert_ptr_null(backend);
	ck_assert_int_eq(released, 0);
	ck_assert_uint_eq(count_fds(), fds);
}

static int sealed_file(int seals)
{
	int fd = memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void taken(int fd, bool read_only)
{
	struct ktvblk_backend *backend = backend_of(fd);

	ck_assert_int_eq(backend_is_read_only(backend), read_only);
	drop(backend);
}

static void taken_and_closed(int fd, bool read_only)
{
	taken(fd, read_only);
	close(fd);
}

/* Else each write of the guest would be an error. */
START_TEST(what_is_open_for_writing_and_cannot_be_written_can_only_be_read)
{
	int fd = plain_file();

	taken_and_closed(sealed_file(F_SEAL_WRITE), true);
	taken_and_closed(sealed_file(F_SEAL_FUTURE_WRITE | F_SEAL_SEAL), true);
	taken_and_closed(sealed_file(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
			 false);
	taken(fd, false);
	says.stx_attributes = STATX_ATTR_IMMUTABLE;
	taken(fd, true);
	says.stx_attributes = ~(uint64_t)STATX_ATTR_IMMUTABLE;
	taken(fd, false);
	is_block = true;
	taken(fd, false);
	block_read_only = 1;
	taken(fd, true);
	close(fd);
}
END_TEST

/* A device on it must be one that cannot be written either. */
START_TEST(a_sealed_memfd_is_refused_for_a_disk_that_can_be_written)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev = NULL;
	int fd = sealed_file(F_SEAL_WRITE);

	config.backend = backend_of(fd);
	ck_assert_int_eq(ktvblk_new(&config, &dev), -EROFS);
	config.flags = KTVBLK_READ_ONLY;
	ck_assert_int_eq(ktvblk_new(&config, &dev), 0);
	ktvblk_destroy(dev);
	drop(config.backend);
	close(fd);
}
END_TEST

static void check_alignment(int fd, uint32_t bytes, uint32_t mem_align)
{
	struct ktvblk_backend *backend = backend_of(fd);

	ck_assert_uint_eq(backend->block_bytes, bytes);
	ck_assert_uint_eq(backend->mem_align, mem_align);
	drop(backend);
}

START_TEST(what_o_direct_asks_for_is_found_out)
{
	int fd = plain_file();

	is_direct = true;
	/* Nobody tells. */
	check_alignment(fd, 512, 512);
	statx_fails_with = ENOSYS;
	check_alignment(fd, 512, 512);
	statx_fails_with = 0;
	says.stx_mask = STATX_DIOALIGN;
	check_alignment(fd, 512, 512); /* no direct I/O, the kernel copies */
	says.stx_dio_offset_align = 4096;
	says.stx_dio_mem_align = 4;
	check_alignment(fd, 4096, 4);
	says.stx_dio_offset_align = says.stx_dio_mem_align = 1;
	check_alignment(fd, 512, 2);
	is_block = true;
	check_alignment(fd, 512, 2);
	says.stx_mask = 0;
	block_bytes = 4096;
	check_alignment(fd, 4096, 4096);
	/* Through the page cache all is well. */
	is_direct = false;
	check_alignment(fd, 512, 1);
	is_block = false;
	says.stx_mask = STATX_DIOALIGN;
	says.stx_dio_offset_align = 4096;
	check_alignment(fd, 512, 1);
	close(fd);
}
END_TEST

/* The buffer is a page's start, and a mebibyte. */
START_TEST(blocks_that_do_not_fit_the_buffer_are_refused)
{
	int fd = plain_file();

	is_direct = true;
	says.stx_mask = STATX_DIOALIGN;
	says.stx_dio_mem_align = 4096;
	says.stx_dio_offset_align = 1 << 20;
	check_alignment(fd, 1 << 20, 4096);
	says.stx_dio_offset_align = 2 << 20;
	refused(fd, -EINVAL);
	says.stx_dio_offset_align = 4096;
	says.stx_dio_mem_align = 8192;
	refused(fd, -EINVAL);
	close(fd);
}
END_TEST

TEST_PROGRAM("backend-fd",
	     what_is_open_for_writing_and_cannot_be_written_can_only_be_read,
	     a_sealed_memfd_is_refused_for_a_disk_that_can_be_written,
	     what_o_direct_asks_for_is_found_out,
	     blocks_that_do_not_fit_the_buffer_are_refused)
