/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A file's bytes are moved as they are, by a descriptor of our own; what cannot
 * be a disk is refused, and nothing is left open.
 */

/* wrap: malloc calloc preadv pwritev fdatasync fstat ioctl */

#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "alloc-fails.h"
#include "backend.h"
#include "harness.h"

/*
 * System calls that fail, and a block device that is none.
 */

static int fails_with; /* errno; 0: they work */
static bool is_block;
static bool is_short; /* preadv: the first segment only */

ssize_t __real_preadv(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __wrap_ioctl(int fd, unsigned long request, ...);

static bool fails(void)
{
	errno = fails_with;
	return fails_with;
}

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t offset)
{
	return fails() ? -1 : __real_preadv(fd, iov, is_short ? 1 : n, offset);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	return fails() ? -1 : __real_pwritev(fd, iov, n, offset);
}

int __wrap_fdatasync(int fd)
{
	return fails() ? -1 : __real_fdatasync(fd);
}

int __wrap_fstat(int fd, struct stat *st)
{
	if (fails())
		return -1;
	if (__real_fstat(fd, st) < 0)
		return -1;
	if (is_block)
		st->st_mode = S_IFBLK | 0600;
	return 0;
}

/* A block device that can be written. */
int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list ap;

	va_start(ap, request);
	void *to = va_arg(ap, void *);
	va_end(ap);
	(void)fd;
	if (fails_with == ENOTTY) {
		errno = ENOTTY;
		return -1;
	}
	if (request == BLKGETSIZE64)
		*(uint64_t *)to = UINT64_C(5) << 40;
	else if (request == BLKROGET)
		*(int *)to = 0;
	else if (request == BLKDISCARD || request == BLKSSZGET ||
		 request == BLKPBSZGET || request == BLKIOMIN ||
		 request == BLKIOOPT || request == BLKALIGNOFF)
		return -1;
	else
		abort();
	return 0;
}

/*
 * Fixtures
 */

#define SIZE 10000 /* no whole sectors */

static int released;
static unsigned int fds_at_release;

static void release(void *userdata)
{
	if (userdata == &released)
		released++;
	fds_at_release = count_fds();
}

static unsigned char pattern(size_t i)
{
	return (unsigned char)(i * 31 + i / 256);
}

/* A file of SIZE bytes. */
static int test_file(void)
{
	unsigned char bytes[SIZE];
	int fd = memfd_create("disk", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = pattern(i);
	ck_assert_int_eq(pwrite(fd, bytes, SIZE, 0), SIZE);
	released = 0;
	fails_with = 0;
	is_block = false;
	return fd;
}

/* The same file, opened in another way. */
static int reopen(int fd, int flags)
{
	char path[64];
	int other;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, flags | O_CLOEXEC);
	ck_assert_int_ge(other, 0);
	return other;
}

static struct ktvblk_backend *backend_of(int fd)
{
	struct ktvblk_backend *backend = NULL;

	ck_assert_int_eq(
		ktvblk_backend_new_fd(fd, release, &released, &backend), 0);
	return backend;
}

static uint64_t capacity(const struct ktvblk_backend *backend)
{
	uint64_t bytes = 99;

	ck_assert_int_eq(backend->ops.capacity(backend->userdata, &bytes), 0);
	return bytes;
}

static ssize_t read_at(const struct ktvblk_backend *backend, void *buf,
		       size_t len, uint64_t offset)
{
	const struct iovec iov = { buf, len };

	return backend->ops.preadv(backend->userdata, &iov, 1, offset);
}

static ssize_t write_at(const struct ktvblk_backend *backend, const void *buf,
			size_t len, uint64_t offset)
{
	const struct iovec iov = { (void *)(uintptr_t)buf, len };

	return backend->ops.pwritev(backend->userdata, &iov, 1, offset);
}

static void drop(struct ktvblk_backend *backend)
{
	ck_assert_ptr_null(ktvblk_backend_unref(backend));
	ck_assert_int_eq(released, 1);
}

/* Refused, with no trace, when the nth allocation fails (0: none does). */
static void refused_without_memory(int fd, int error, unsigned int nth)
{
	struct ktvblk_backend *const untouched =
		(struct ktvblk_backend *)&released;
	struct ktvblk_backend *backend = untouched;
	const unsigned int fds = count_fds();
	int r;

	alloc_fails = nth;
	r = ktvblk_backend_new_fd(fd, release, &released, &backend);
	alloc_fails = 0;
	ck_assert_int_eq(r, error);
	ck_assert_ptr_eq(backend, untouched);
	ck_assert_int_eq(released, 0);
	ck_assert_uint_eq(count_fds(), fds);
}

static void refused(int fd, int error)
{
	refused_without_memory(fd, error, 0);
}

static void refused_and_closed(int fd, int error)
{
	ck_assert_int_ge(fd, 0);
	refused(fd, error);
	close(fd);
}

/*
 * Tests
 */

START_TEST(bytes_are_read_and_written_at_their_offset)
{
	int fd = test_file();
	struct ktvblk_backend *backend = backend_of(fd);
	unsigned char buf[1000];

	ck_assert_uint_eq(capacity(backend), SIZE);
	ck_assert_uint_eq(backend->told_bytes, SIZE);
	ck_assert(!backend_is_read_only(backend));
	ck_assert_int_eq(read_at(backend, buf, sizeof(buf), 512), sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		ck_assert_uint_eq(buf[i], pattern(512 + i));

	ck_assert_int_eq(write_at(backend, "sector", 6, 3 * 512), 6);
	ck_assert_int_eq(pread(fd, buf, 8, 3 * 512 - 1), 8);
	ck_assert_uint_eq(buf[0], pattern(3 * 512 - 1));
	ck_assert_mem_eq(buf + 1, "sector", 6);
	ck_assert_uint_eq(buf[7], pattern(3 * 512 + 6));
	ck_assert_int_eq(backend->ops.flush(backend->userdata), 0);
	drop(backend);
	close(fd);
}
END_TEST

START_TEST(segments_follow_each_other)
{
	int fd = test_file();
	struct ktvblk_backend *backend = backend_of(fd);
	unsigned char a[] = { 'a', 'b', 'c' }, c[8];
	unsigned char b[] = { 'd', 'e', 'f', 'g', 'h' };
	struct iovec iov[] = { { a, sizeof(a) },
			       { NULL, 0 },
			       { b, sizeof(b) } };

	ck_assert_int_eq(backend->ops.pwritev(backend->userdata, iov, 3, 100),
			 8);
	ck_assert_int_eq(pread(fd, c, 8, 100), 8);
	ck_assert_mem_eq(c, "abcdefgh", 8);
	memset(a, 0, sizeof(a));
	memset(b, 0, sizeof(b));
	ck_assert_int_eq(backend->ops.preadv(backend->userdata, iov, 3, 100),
			 8);
	ck_assert_mem_eq(a, "abc", 3);
	ck_assert_mem_eq(b, "defgh", 5);
	drop(backend);
	close(fd);
}
END_TEST

START_TEST(a_read_over_the_end_is_short)
{
	int fd = test_file();
	struct ktvblk_backend *backend = backend_of(fd);
	unsigned char buf[1000];

	ck_assert_int_eq(read_at(backend, buf, sizeof(buf), SIZE - 10), 10);
	ck_assert_int_eq(read_at(backend, buf, sizeof(buf), SIZE), 0);
	ck_assert_int_eq(read_at(backend, buf, sizeof(buf), INT64_MAX - 4096),
			 0);
	drop(backend);
	close(fd);
}
END_TEST

/*
 * The kernel answers with the bytes it has, and tells the error only next time:
 * the device asks again, and must then hear of it. A process's memory is such a
 * file: a page, and a hole behind it.
 */
START_TEST(an_error_behind_good_bytes_is_no_end_of_the_storage)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = test_file(), mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	struct ktvblk_backend *backend = backend_of(mem);
	unsigned char *at =
		(unsigned char *)mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char buf[1000];
	const uint64_t end = (uintptr_t)at + page;

	munmap(at + page, page);
	memset(at, 7, page);
	ck_assert_int_eq(read_at(backend, buf, 1000, end - 1000), 1000);
	ck_assert_int_eq(read_at(backend, buf, 1000, end - 999), 999);
	ck_assert_int_eq(read_at(backend, buf, 1, end), -EIO);
	ck_assert_int_eq(write_at(backend, buf, 1000, end - 600), 600);
	ck_assert_int_eq(write_at(backend, buf, 400, end), -EIO);
	munmap(at, page);
	drop(backend);
	close(mem);
	close(fd);
}
END_TEST

/* A signal, for one, ends a read early that has more to come. */
START_TEST(a_short_read_tells_how_far_it_came)
{
	unsigned char a[10], b[20], whole[30];
	struct iovec iov[] = { { a, 10 }, { b, 15 }, { b + 15, 5 } };
	int fd = test_file();
	struct ktvblk_backend *backend = backend_of(fd);

	ck_assert_int_eq(pread(fd, whole, 30, 100), 30);
	is_short = true;
	ck_assert_int_eq(backend->ops.preadv(backend->userdata, iov, 3, 100),
			 10);
	is_short = false;
	ck_assert_mem_eq(a, whole, 10);
	drop(backend);
	close(fd);
}
END_TEST

START_TEST(offsets_and_counts_the_kernel_cannot_take_are_errors)
{
	int fd = test_file();
	struct ktvblk_backend *backend = backend_of(fd);
	static const struct iovec too_many[1025]; /* UIO_MAXIOV is 1024 */
	char buf[8] = "";

	ck_assert_int_eq(read_at(backend, buf, 8, UINT64_MAX), -EINVAL);
	ck_assert_int_eq(read_at(backend, buf, 8, UINT64_C(1) << 63), -EINVAL);
	ck_assert_int_eq(write_at(backend, buf, 8, UINT64_C(1) << 63), -EINVAL);
	ck_assert_int_eq(backend->ops.preadv(backend->userdata, too_many, 1025,
					     0),
			 -EINVAL);
	ck_assert_int_eq(backend->ops.pwritev(backend->userdata, too_many, 1025,
					      0),
			 -EINVAL);
	ck_assert_uint_eq(capacity(backend), SIZE);
	drop(backend);
	close(fd);
}
END_TEST

START_TEST(what_the_system_call_says_is_the_answer)
{
	int fd = test_file();
	struct ktvblk_backend *backend = backend_of(fd);
	static const int errors[] = { EIO, EINTR, ENOSPC, EDQUOT };
	uint64_t bytes = 99;

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		fails_with = errors[i];
		ck_assert_int_eq(read_at(backend, NULL, 0, 0), -errors[i]);
		ck_assert_int_eq(write_at(backend, NULL, 0, 0), -errors[i]);
		ck_assert_int_eq(backend->ops.flush(backend->userdata),
				 -errors[i]);
		ck_assert_int_eq(backend->ops.capacity(backend->userdata,
						       &bytes),
				 -errors[i]);
	}
	ck_assert_uint_eq(bytes, 99);
	fails_with = 0;
	drop(backend);
	close(fd);
}
END_TEST

START_TEST(a_read_only_descriptor_makes_a_read_only_disk)
{
	int fd = test_file(), other = reopen(fd, O_RDONLY);
	struct ktvblk_backend *backend = backend_of(other);
	unsigned char byte;

	ck_assert(backend_is_read_only(backend));
	ck_assert_int_eq(read_at(backend, &byte, 1, 700), 1);
	ck_assert_uint_eq(byte, pattern(700));
	drop(backend);
	close(other);
	close(fd);
}
END_TEST

START_TEST(the_caller_keeps_its_descriptor_and_we_have_ours)
{
	int fd = test_file();
	const unsigned int fds = count_fds();
	struct ktvblk_backend *backend = backend_of(fd);
	unsigned char byte;

	ck_assert_uint_eq(count_fds(), fds + 1);
	close(fd);
	ck_assert_int_eq(read_at(backend, &byte, 1, 700), 1);
	ck_assert_uint_eq(byte, pattern(700));
	drop(backend);

	fd = test_file();
	drop(backend_of(fd));
	ck_assert_int_eq(pread(fd, &byte, 1, 700), 1);
	close(fd);
}
END_TEST

START_TEST(our_descriptor_does_not_survive_exec)
{
	int fd = test_file(), ours;
	struct ktvblk_backend *backend;

	/* The next free one is where ours will be. */
	ours = dup(fd);
	close(ours);
	backend = backend_of(fd);
	ck_assert_int_eq(fcntl(ours, F_GETFD), FD_CLOEXEC);
	drop(backend);
	ck_assert_int_eq(fcntl(ours, F_GETFD), -1);
	close(fd);
}
END_TEST

START_TEST(our_descriptor_is_closed_before_release)
{
	int fd = test_file();
	const unsigned int fds = count_fds();

	drop(backend_of(fd));
	ck_assert_uint_eq(fds_at_release, fds);
	close(fd);
}
END_TEST

START_TEST(release_may_be_none)
{
	int fd = test_file();
	const unsigned int fds = count_fds();
	struct ktvblk_backend *backend = NULL;

	ck_assert_int_eq(ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
	ktvblk_backend_unref(backend);
	ck_assert_uint_eq(count_fds(), fds);
	close(fd);
}
END_TEST

START_TEST(what_cannot_be_a_disk_is_refused)
{
	int fd = test_file(), pair[2];

	refused(-1, -EBADF);
	refused(1 << 30, -EBADF);
	refused_and_closed(reopen(fd, O_PATH), -EBADF);
	refused_and_closed(reopen(fd, O_WRONLY), -EINVAL);
	refused_and_closed(reopen(fd, O_RDWR | O_APPEND), -EINVAL);
	refused_and_closed(reopen(fd, O_RDONLY | O_APPEND), -EINVAL);
	refused_and_closed(open("/", O_RDONLY | O_DIRECTORY), -EINVAL);
	refused_and_closed(open("/dev/null", O_RDWR), -EINVAL);
	ck_assert_int_eq(pipe(pair), 0);
	refused_and_closed(pair[0], -EINVAL);
	refused_and_closed(pair[1], -EINVAL);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	refused_and_closed(pair[0], -EINVAL);
	close(pair[1]);
	ck_assert_int_eq(ktvblk_backend_new_fd(fd, release, &released, NULL),
			 -EINVAL);
	ck_assert_int_eq(released, 0);
	close(fd);
}
END_TEST

START_TEST(a_failing_fstat_is_told)
{
	int fd = test_file();

	fails_with = EOVERFLOW;
	refused(fd, -EOVERFLOW);
	fails_with = 0;
	close(fd);
}
END_TEST

START_TEST(without_memory_nothing_is_left_open)
{
	int fd = test_file();

	/* The file's part, then the backend's. */
	refused_without_memory(fd, -ENOMEM, 1);
	refused_without_memory(fd, -ENOMEM, 2);
	close(fd);
}
END_TEST

START_TEST(without_descriptors_there_is_no_backend)
{
	int fd = test_file(), next = dup(fd), r;
	struct ktvblk_backend *backend = NULL;
	struct rlimit limit, full;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	full = limit;
	full.rlim_cur = (rlim_t)next;
	close(next);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &full), 0);
	r = ktvblk_backend_new_fd(fd, release, &released, &backend);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(r, -EMFILE);
	ck_assert_ptr_null(backend);
	ck_assert_int_eq(released, 0);
	close(fd);
}
END_TEST

START_TEST(a_block_device_is_as_large_as_it_says)
{
	int fd = test_file();
	struct ktvblk_backend *backend;
	uint64_t bytes = 99;

	is_block = true;
	backend = backend_of(fd);
	ck_assert_uint_eq(capacity(backend), UINT64_C(5) << 40);
	is_block = false;
	drop(backend);

	/* fstat() works, the ioctl does not. */
	is_block = true;
	released = 0;
	backend = backend_of(fd);
	fails_with = ENOTTY;
	ck_assert_int_eq(backend->ops.capacity(backend->userdata, &bytes),
			 -ENOTTY);
	ck_assert_uint_eq(bytes, 99);
	fails_with = 0;
	is_block = false;
	drop(backend);
	close(fd);
}
END_TEST

START_TEST(a_format_is_never_guessed)
{
	static const char *const magics[] = { "QFI\xfb\0\0\0\3", "KDMV",
					      "conectix", "vhdxfile" };
	int fd = test_file();
	struct ktvblk_backend *backend;
	char buf[8];

	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		memset(buf, 0, sizeof(buf));
		ck_assert_int_eq(pwrite(fd, magics[i], 4, 0), 4);
		released = 0;
		backend = backend_of(fd);
		ck_assert_uint_eq(capacity(backend), SIZE);
		ck_assert_int_eq(read_at(backend, buf, 4, 0), 4);
		ck_assert_mem_eq(buf, magics[i], 4);
		drop(backend);
	}
	close(fd);
}
END_TEST

TEST_PROGRAM("backend-file", bytes_are_read_and_written_at_their_offset,
	     segments_follow_each_other, a_read_over_the_end_is_short,
	     an_error_behind_good_bytes_is_no_end_of_the_storage,
	     a_short_read_tells_how_far_it_came,
	     offsets_and_counts_the_kernel_cannot_take_are_errors,
	     what_the_system_call_says_is_the_answer,
	     a_read_only_descriptor_makes_a_read_only_disk,
	     the_caller_keeps_its_descriptor_and_we_have_ours,
	     our_descriptor_does_not_survive_exec,
	     our_descriptor_is_closed_before_release, release_may_be_none,
	     what_cannot_be_a_disk_is_refused, a_failing_fstat_is_told,
	     without_memory_nothing_is_left_open,
	     without_descriptors_there_is_no_backend,
	     a_block_device_is_as_large_as_it_says, a_format_is_never_guessed)
