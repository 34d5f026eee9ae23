/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One image, one writer. What QEMU does is played here, byte by byte; its
 * programs themselves are in tests/system/image-lock.sh.
 */

/* wrap: fcntl */

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "ktvblk.h"

#define SIZE (1 << 20)
#define NOBODY ((pid_t)-7)

/* QEMU's permissions, and its bytes. */
enum { READ = 1, WRITE = 2, WRITE_SAME = 4, RESIZE = 8, ALL = 15 };
#define DOES 100
#define KEEPS 200

/* The n-th call that locks or looks fails; 0: none. */
static int fail_nth, fail_with;

int __real_fcntl(int fd, int op, ...);
int __wrap_fcntl(int fd, int op, ...);

int __wrap_fcntl(int fd, int op, ...)
{
	va_list ap;

	va_start(ap, op);
	void *arg = va_arg(ap, void *);
	va_end(ap);
	if (op != F_OFD_SETLK && op != F_OFD_GETLK)
		return __real_fcntl(fd, op, arg);
	if (fail_nth && --fail_nth == 0) {
		errno = fail_with;
		return -1;
	}
	return __real_fcntl(fd, op, arg);
}

static int image_new(void)
{
	const int fd = memfd_create("image", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, SIZE), 0);
	return fd;
}

/* Opened by somebody else. */
static int open_again(int fd, int flags)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	ck_assert_int_ge(again, 0);
	return again;
}

static void qemu_locks(int fd, unsigned int does, unsigned int shares)
{
	for (unsigned int i = 0; i < 4; i++) {
		struct flock lock = { .l_type = F_RDLCK,
				      .l_whence = SEEK_SET,
				      .l_len = 1 };

		lock.l_start = DOES + i;
		if (does & 1u << i)
			ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
		lock.l_start = KEEPS + i;
		if (!(shares & 1u << i))
			ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
	}
}

static bool is_locked(int fd, off_t at)
{
	struct flock lock = { .l_type = F_WRLCK,
			      .l_whence = SEEK_SET,
			      .l_start = at,
			      .l_len = 1 };

	ck_assert_int_eq(fcntl(fd, F_OFD_GETLK, &lock), 0);
	return lock.l_type != F_UNLCK;
}

/* Would QEMU go on, having locked its own? */
static bool qemu_may(int fd, unsigned int does, unsigned int shares)
{
	for (unsigned int i = 0; i < 4; i++) {
		if (does & 1u << i && is_locked(fd, KEEPS + i))
			return false;
		if (!(shares & 1u << i) && is_locked(fd, DOES + i))
			return false;
	}
	return true;
}

static bool has_no_lock(int image)
{
	const int fd = open_again(image, O_RDONLY);
	bool none = true;

	for (off_t at = 0; at < 2 * KEEPS; at++)
		none &= !is_locked(fd, at);
	close(fd);
	return none;
}

static int lock(int fd, uint64_t flags)
{
	return ktvblk_image_lock(fd, flags, NULL);
}

START_TEST(one_writes_alone)
{
	const int image = image_new(), a = open_again(image, O_RDWR),
		  b = open_again(image, O_RDWR),
		  reader = open_again(image, O_RDONLY);
	pid_t holder = NOBODY;

	ck_assert_int_eq(lock(a, 0), 0);
	ck_assert_int_eq(ktvblk_image_lock(b, 0, &holder), -EBUSY);
	ck_assert_int_eq(holder, 0);
	ck_assert_int_eq(lock(reader, KTVBLK_READ_ONLY), -EBUSY);
	close(a);
	ck_assert(has_no_lock(image));
	ck_assert_int_eq(lock(b, 0), 0);
	close(b);
	close(reader);
	close(image);
}
END_TEST

START_TEST(any_number_may_read)
{
	const int image = image_new(), a = open_again(image, O_RDONLY),
		  b = open_again(image, O_RDONLY),
		  writer = open_again(image, O_RDWR);

	ck_assert_int_eq(lock(a, KTVBLK_READ_ONLY), 0);
	ck_assert_int_eq(lock(b, KTVBLK_READ_ONLY), 0);
	ck_assert_int_eq(lock(writer, 0), -EBUSY);
	close(a);
	ck_assert_int_eq(lock(writer, 0), -EBUSY);
	close(b);
	ck_assert(has_no_lock(image));
	ck_assert_int_eq(lock(writer, 0), 0);
	close(writer);
	close(image);
}
END_TEST

/* Who comes second is refused, whoever that is. */
static const struct {
	const char *what;
	unsigned int does, shares;
	bool with_writer, with_reader;
} qemus[] = {
	{ "a guest's disk", READ | WRITE, READ | WRITE_SAME, false, false },
	{ "... of a format that grows", READ | WRITE | RESIZE,
	  READ | WRITE_SAME, false, false },
	{ "... that shares writes", READ | WRITE, READ | WRITE | WRITE_SAME,
	  false, false },
	{ "a guest's disk that is read", READ, READ | WRITE_SAME, false, true },
	{ "qemu-img info", READ, READ | WRITE_SAME | RESIZE, false, true },
	{ "qemu-img info --force-share", READ, ALL, true, true },
	{ "a resize", READ | WRITE | RESIZE, READ | WRITE_SAME, false, false },
	{ "one that does nothing", 0, ALL, true, true },
	{ "one that shares nothing", 0, 0, false, false },
};

static void meet(unsigned int does, unsigned int shares, uint64_t flags,
		 bool well)
{
	const int image = image_new(), qemu = open_again(image, O_RDWR),
		  ours = open_again(image, flags ? O_RDONLY : O_RDWR);

	qemu_locks(qemu, does, shares);
	ck_assert_int_eq(lock(ours, flags), well ? 0 : -EBUSY);
	close(qemu);
	ck_assert(well || has_no_lock(image));
	close(ours);

	const int second = open_again(image, O_RDWR),
		  first = open_again(image, flags ? O_RDONLY : O_RDWR);

	ck_assert_int_eq(lock(first, flags), 0);
	ck_assert_int_eq(qemu_may(second, does, shares), well);
	close(first);
	ck_assert(has_no_lock(image));
	close(second);
	close(image);
}

START_TEST(qemu_is_met_as_it_meets_its_own)
{
	for (size_t i = 0; i < ARRAY_SIZE(qemus); i++) {
		printf("%s\n", qemus[i].what);
		meet(qemus[i].does, qemus[i].shares, 0, qemus[i].with_writer);
		meet(qemus[i].does, qemus[i].shares, KTVBLK_READ_ONLY,
		     qemus[i].with_reader);
	}
}
END_TEST

/* A lock of the old kind has a process, which the kernel names. */
START_TEST(who_has_it_is_told_where_the_kernel_knows)
{
	const int image = image_new(), fd = open_again(image, O_RDWR);
	pid_t holder = NOBODY;
	int pipes[2];
	char byte;

	ck_assert_int_eq(pipe(pipes), 0);
	const pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		struct flock whole = { .l_type = F_RDLCK };

		if (__real_fcntl(image, F_SETLK, &whole) < 0)
			_exit(1);
		if (write(pipes[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	ck_assert_int_eq(read(pipes[0], &byte, 1), 1);
	ck_assert_int_eq(ktvblk_image_lock(fd, 0, &holder), -EBUSY);
	ck_assert_int_eq(holder, child);
	ck_assert_int_eq(lock(fd, 0), -EBUSY); /* nobody needs to know */
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	ck_assert_int_eq(lock(fd, 0), 0);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
	close(image);
}
END_TEST

START_TEST(a_lock_that_lets_nobody_read_is_busy_too)
{
	const int image = image_new(), fd = open_again(image, O_RDWR),
		  other = open_again(image, O_RDWR);
	struct flock whole = { .l_type = F_WRLCK };

	ck_assert_int_eq(__real_fcntl(other, F_OFD_SETLK, &whole), 0);
	ck_assert_int_eq(lock(fd, KTVBLK_READ_ONLY), -EBUSY);
	close(other);
	close(fd);
	close(image);
}
END_TEST

START_TEST(what_holds_the_file_holds_the_lock)
{
	struct ktvblk_backend *backend = NULL;
	const int image = image_new();

	for (int before = 0; before < 2; before++) {
		const int fd = open_again(image, O_RDWR),
			  other = open_again(image, O_RDWR);

		if (before)
			ck_assert_int_eq(lock(fd, 0), 0);
		ck_assert_int_eq(
			ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
		if (!before)
			ck_assert_int_eq(lock(fd, 0), 0);
		close(fd);
		ck_assert_int_eq(lock(other, 0), -EBUSY);
		ktvblk_backend_unref(backend);
		ck_assert_int_eq(lock(other, 0), 0);
		close(other);
	}
	close(image);
}
END_TEST

/* So that one who may only read after all can ask again. */
START_TEST(a_second_call_is_instead_of_the_first)
{
	const int image = image_new(), fd = open_again(image, O_RDWR),
		  other = open_again(image, O_RDONLY);

	ck_assert_int_eq(lock(other, KTVBLK_READ_ONLY), 0);
	ck_assert_int_eq(lock(fd, KTVBLK_READ_ONLY), 0);
	ck_assert_int_eq(lock(fd, 0), -EBUSY);
	close(other);
	ck_assert(has_no_lock(image)); /* nor those of before */
	ck_assert_int_eq(lock(fd, 0), 0);
	ck_assert_int_eq(lock(fd, KTVBLK_READ_ONLY), 0);

	const int reader = open_again(image, O_RDONLY);

	ck_assert_int_eq(lock(reader, KTVBLK_READ_ONLY), 0);
	close(reader);
	close(fd);
	close(image);
}
END_TEST

START_TEST(what_cannot_be_locked_is_refused)
{
	const int image = image_new(), writer = open_again(image, O_WRONLY),
		  path = open_again(image, O_PATH);
	pid_t holder = NOBODY;
	int pipes[2];

	ck_assert_int_eq(ktvblk_image_lock(-1, 0, &holder), -EBADF);
	ck_assert_int_eq(ktvblk_image_lock(path, 0, &holder), -EBADF);
	ck_assert_int_eq(ktvblk_image_lock(writer, 0, &holder), -EBADF);
	for (unsigned int i = 1; i < 64; i++)
		ck_assert_int_eq(ktvblk_image_lock(image, UINT64_C(1) << i,
						   &holder),
				 -EINVAL);
	ck_assert_int_eq(pipe(pipes), 0);
	ck_assert_int_lt(ktvblk_image_lock(pipes[1], 0, &holder), 0);
	ck_assert_int_eq(holder, NOBODY);
	ck_assert(has_no_lock(image));
	close(pipes[0]);
	close(pipes[1]);
	close(path);
	close(writer);
	close(image);
}
END_TEST

/* Each of its calls in turn, until there are no more. */
START_TEST(an_error_is_passed_on_and_leaves_no_lock)
{
	const int image = image_new(), fd = open_again(image, O_RDWR);
	pid_t holder = NOBODY;
	int n = 0, r;

	do {
		fail_nth = ++n;
		fail_with = ENOLCK;
		r = ktvblk_image_lock(fd, 0, &holder);
		ck_assert(r == 0 || r == -ENOLCK);
		ck_assert(r == 0 || has_no_lock(image));
		ck_assert_int_eq(holder, NOBODY);
	} while (r < 0);
	ck_assert_int_gt(n, 8);
	fail_nth = 0;
	close(fd);
	close(image);
}
END_TEST

TEST_PROGRAM("image-lock", one_writes_alone, any_number_may_read,
	     qemu_is_met_as_it_meets_its_own,
	     who_has_it_is_told_where_the_kernel_knows,
	     a_lock_that_lets_nobody_read_is_busy_too,
	     what_holds_the_file_holds_the_lock,
	     a_second_call_is_instead_of_the_first,
	     what_cannot_be_locked_is_refused,
	     an_error_is_passed_on_and_leaves_no_lock)
