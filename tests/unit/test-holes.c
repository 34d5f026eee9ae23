/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Files: what a guest discards or has zeros in is a hole of the file, or room
 * for zeros, whatever asks for it; and where the file system, or the device,
 * cannot, what is done in its place.
 * _i of these loops: which engine.
 */

/* wrap: fallocate ioctl fstat io_uring_submit io_uring_submit_and_wait_timeout */

#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "ranges.h"
#include "transfers.h"

#define BLOCK 4096u
#define SECTORS (BLOCK / 512)
#define MANY 32u /* requests at once */

static const uint32_t engines[] = { KTVBLK_ENGINE_AUTO, KTVBLK_ENGINE_SYNC,
				    KTVBLK_ENGINE_IO_URING };

/*
 * Calls that are counted and refused, by whoever makes them; and a block device
 * that is none.
 */

static int refuses; /* a mode of fallocate(); -1: all */
static int refusal; /* with this; 0: none */
static _Atomic unsigned int n_calls; /* of fallocate() */
static bool is_block;
static int discard_error; /* of BLKDISCARD; 0: it works */
static uint64_t discarded[2];
static _Atomic unsigned int n_discards;

static _Atomic unsigned int n_refused;

static bool refused(int mode)
{
	const bool is = refusal && (refuses < 0 || mode == refuses);

	n_refused += is;
	return is;
}

int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);

int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
	n_calls++;
	if (!refused(mode))
		return __real_fallocate(fd, mode, offset, len);
	errno = refusal;
	return -1;
}

int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);

int __wrap_fstat(int fd, struct stat *st)
{
	const int r = __real_fstat(fd, st);

	if (is_block)
		st->st_mode = S_IFBLK | 0600;
	return r;
}

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	struct stat st;
	va_list ap;

	va_start(ap, request);
	void *to = va_arg(ap, void *);
	va_end(ap);
	switch (request) {
	case BLKGETSIZE64:
		ck_assert_int_eq(__real_fstat(fd, &st), 0);
		*(uint64_t *)to = (uint64_t)st.st_size;
		return 0;
	case BLKROGET:
		*(int *)to = 0;
		return 0;
	case BLKDISCARD:
		memcpy(discarded, to, sizeof(discarded));
		/* As the kernel: first whether, then where. */
		errno = discard_error ? discard_error : EINVAL;
		if (discard_error || discarded[0] % 512)
			return -1;
		n_discards++;
		return 0;
	default:
		errno = ENOTTY;
		return -1;
	}
}

/* What goes by io_uring asks for what there is not: EOPNOTSUPP. */
#define NO_MODE 0x80u

static void refuse_pending(struct io_uring *ring)
{
	const struct io_uring_sq *sq = &ring->sq;

	for (unsigned int i = sq->sqe_head; i != sq->sqe_tail; i++) {
		struct io_uring_sqe *sqe = &sq->sqes[i & sq->ring_mask];

		if (sqe->opcode == IORING_OP_FALLOCATE &&
		    refused((int)sqe->len))
			sqe->len = NO_MODE;
	}
}

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);

int __wrap_io_uring_submit(struct io_uring *ring)
{
	refuse_pending(ring);
	return __real_io_uring_submit(ring);
}

int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals);

int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring,
					    struct io_uring_cqe **cqe,
					    unsigned int n,
					    struct __kernel_timespec *ts,
					    sigset_t *signals)
{
	refuse_pending(ring);
	return __real_io_uring_submit_and_wait_timeout(ring, cqe, n, ts,
						       signals);
}

/*
 * A file of a pattern
 */

struct fixture {
	struct rig rig;
	int fd;
	uint64_t blocks; /* st_blocks, at first */
};

static uint64_t blocks_of(int fd)
{
	struct stat st;

	ck_assert_int_eq(fsync(fd), 0);
	ck_assert_int_eq(__real_fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks;
}

static void start_deep(struct fixture *f, int engine, int fd, uint64_t flags,
		       uint32_t depth)
{
	refusal = 0;
	n_calls = n_discards = n_refused = 0;
	f->fd = dup(fd);
	ck_assert_int_ge(f->fd, 0);
	f->blocks = blocks_of(f->fd);
	rig_open(&f->rig,
		 &(struct rig_options){ .config = { .engine = engines[engine],
						    .flags = flags,
						    .depth = depth },
					.features = RIG_RANGES,
					.queue_size = 4 * MANY,
					.disk_bytes = DISK_BYTES,
					.disk_fd = fd });
	rig_start(&f->rig);
}

static void start_on(struct fixture *f, int engine, int fd, uint64_t flags)
{
	start_deep(f, engine, fd, flags, 0);
}

static void start(struct fixture *f, int engine, enum disk_kind kind)
{
	is_block = false;
	start_on(f, engine, image_open(kind), 0);
}

static void finish(struct fixture *f)
{
	struct stat st;

	/* Nothing of all that changes how long it is. */
	ck_assert_int_eq(__real_fstat(f->fd, &st), 0);
	ck_assert_int_eq(st.st_size, DISK_BYTES);
	rig_close(&f->rig);
	close(f->fd);
}

/* The file has the pattern there, or zeros. */
static void expect(const struct fixture *f, uint64_t sector, uint64_t n,
		   bool zeros)
{
	static unsigned char bytes[DISK_BYTES];
	const uint64_t at = sector * 512, len = n * 512;
	char path[64];
	int fd;

	/* By the page cache, whatever the fixture's own is. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, bytes, (size_t)len, (off_t)at),
			 (ssize_t)len);
	close(fd);
	for (uint64_t i = 0; i < len; i++)
		if (bytes[i] != (zeros ? 0 : disk_byte(at + i)))
			ck_abort_msg("byte %llu", (unsigned long long)(at + i));
}

static bool wants_ring(int engine)
{
	return engines[engine] == KTVBLK_ENGINE_IO_URING && ring_is_refused();
}

static void check_discard(int engine, enum disk_kind kind)
{
	struct fixture f;

	if (wants_ring(engine))
		return;
	start(&f, engine, kind);
	/* Two thirds of the disk, a range that begins and ends in a block. */
	ck_assert_int_eq(request(&f.rig, T_DISCARD,
				 { 0, DISK_BYTES / 512 / 2, 0 },
				 { DISK_BYTES / 512 / 2 + 5, 40, 0 }),
			 OK);
	expect(&f, 0, DISK_BYTES / 512 / 2, true);
	expect(&f, DISK_BYTES / 512 / 2, 5, false);
	expect(&f, DISK_BYTES / 512 / 2 + 5, 40, true);
	expect(&f, DISK_BYTES / 512 / 2 + 45, DISK_BYTES / 512 / 2 - 45, false);
	ck_assert_uint_le(blocks_of(f.fd), f.blocks - DISK_BYTES / 512 / 2);
	/* Never on the worker where io_uring can take it. */
	if (engines[engine] != KTVBLK_ENGINE_SYNC && !ring_is_refused())
		ck_assert_uint_eq(n_calls, 0);
	finish(&f);
}

START_TEST(what_is_discarded_is_given_back)
{
	check_discard(_i, DISK_MEMORY);
	check_discard(_i, DISK_FILE);
}
END_TEST

/* Discards and zeros by turns, all made available together. */
static void check_many(int engine, uint32_t depth)
{
	const uint64_t apart = DISK_BYTES / 512 / MANY;
	uint16_t heads[MANY];
	struct fixture f;

	is_block = false;
	start_deep(&f, engine, image_open(DISK_MEMORY), 0, depth);
	for (uint16_t i = 0; i < MANY; i++) {
		const uint64_t at = RIG_DATA + i * 64u;
		const struct rig_part data = { at, RANGE_BYTES, READABLE };
		const struct test_range range = { i * apart + 1, 2, 0 };

		heads[i] = (uint16_t)(3 * i);
		ranges_put(&f.rig, at, &range, 1);
		rig_data(&f.rig, heads[i], i % 2 ? T_DISCARD : T_ZEROES, 0,
			 &data, 1);
	}
	rig_avail_all(&f.rig, heads, MANY);
	rig_kick(&f.rig);
	rig_wait_used(&f.rig, MANY);
	for (uint16_t i = 0; i < MANY; i++) {
		ck_assert_int_eq(*rig_chain_status(&f.rig, heads[i]), OK);
		expect(&f, i * apart, 1, false);
		expect(&f, i * apart + 1, 2, true);
		expect(&f, i * apart + 3, apart - 3, false);
	}
	ck_assert_uint_eq(rig_counters(&f.rig).discards_completed, MANY / 2);
	ck_assert_uint_eq(rig_counters(&f.rig).write_zeroes_completed,
			  MANY / 2);
	if (engines[engine] == KTVBLK_ENGINE_IO_URING)
		ck_assert_uint_eq(n_calls, 0);
	finish(&f);
}

START_TEST(many_at_once_or_one_by_one)
{
	if (wants_ring(_i))
		return;
	check_many(_i, 1);
	check_many(_i, MANY);
}
END_TEST

START_TEST(zeros_are_a_hole_with_unmap_and_room_without)
{
	struct fixture f;
	uint64_t with;

	if (wants_ring(_i))
		return;
	start(&f, _i, DISK_FILE);
	ck_assert_int_eq(request(&f.rig, T_ZEROES,
				 { SECTORS, 32 * SECTORS, UNMAP }),
			 OK);
	with = blocks_of(f.fd);
	ck_assert_uint_le(with, f.blocks - 32 * SECTORS);
	ck_assert_int_eq(request(&f.rig, T_ZEROES,
				 { 64 * SECTORS + 1, 32 * SECTORS, 0 }),
			 OK);
	ck_assert_uint_ge(blocks_of(f.fd), with);
	expect(&f, 0, SECTORS, false);
	expect(&f, SECTORS, 32 * SECTORS, true);
	expect(&f, 33 * SECTORS, 31 * SECTORS + 1, false);
	expect(&f, 64 * SECTORS + 1, 32 * SECTORS, true);
	expect(&f, 96 * SECTORS + 1, SECTORS, false);
	/* What is written there is there. */
	memset(rig_at(&f.rig, RIG_DATA), 0x5a, BLOCK);
	ck_assert_int_eq(rig_request(&f.rig, T_OUT, SECTORS, BLOCK), OK);
	memset(rig_at(&f.rig, RIG_DATA), 0, BLOCK);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, SECTORS, BLOCK), OK);
	ck_assert_int_eq(*(unsigned char *)rig_at(&f.rig, RIG_DATA), 0x5a);
	finish(&f);
}
END_TEST

/* tmpfs makes holes and keeps no room: then zeros are written. */
START_TEST(zeros_are_zeros_in_memory_too)
{
	struct fixture f;

	if (wants_ring(_i))
		return;
	start(&f, _i, DISK_MEMORY);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { SECTORS, SECTORS, 0 },
				 { 4 * SECTORS + 3, 5, UNMAP }),
			 OK);
	expect(&f, 0, SECTORS, false);
	expect(&f, SECTORS, SECTORS, true);
	expect(&f, 2 * SECTORS, 2 * SECTORS + 3, false);
	expect(&f, 4 * SECTORS + 3, 5, true);
	expect(&f, 4 * SECTORS + 8, SECTORS, false);
	finish(&f);
}
END_TEST

START_TEST(direct_files_have_holes)
{
	struct fixture f;
	int fd;

	if (wants_ring(_i))
		return;
	is_block = false;
	fd = image_open(DISK_DIRECT);
	if (fd < 0)
		return;
	for (uint64_t flags = 0; flags <= KTVBLK_ZERO_COPY;
	     flags += KTVBLK_ZERO_COPY) {
		start_on(&f, _i, dup(fd), flags);
		ck_assert_int_eq(request(&f.rig, T_ZEROES,
					 { SECTORS, 4 * SECTORS, UNMAP }),
				 OK);
		expect(&f, SECTORS, 4 * SECTORS, true);
		expect(&f, 5 * SECTORS, SECTORS, false);
		/* Zeros that are written are so from memory it can take. */
		refusal = EOPNOTSUPP;
		refuses = -1;
		ck_assert_int_eq(request(&f.rig, T_ZEROES,
					 { 8 * SECTORS, 4 * SECTORS, 0 }),
				 OK);
		expect(&f, 8 * SECTORS, 4 * SECTORS, true);
		expect(&f, 12 * SECTORS, SECTORS, false);
		refusal = 0;
		finish(&f);
	}
	close(fd);
}
END_TEST

START_TEST(a_file_that_cannot_has_zeros_and_keeps_the_rest)
{
	struct fixture f;

	if (wants_ring(_i))
		return;
	start(&f, _i, DISK_FILE);
	refusal = EOPNOTSUPP;
	refuses = -1;
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { 0, SECTORS, 0 }), OK);
	expect(&f, 0, 2 * SECTORS, false);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 0, SECTORS, UNMAP }), OK);
	expect(&f, 0, SECTORS, true);
	expect(&f, SECTORS, SECTORS, false);
	ck_assert_uint_eq(n_refused, 3);
	ck_assert_int_eq(request(&f.rig, T_ZEROES, { 0, SECTORS, UNMAP }), OK);
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { 0, SECTORS, 0 }), OK);
	ck_assert_uint_eq(n_refused, 3);
	finish(&f);
}
END_TEST

/* A file that became shorter is as long as the zeros behind its end. */
START_TEST(zeros_behind_the_end_are_there_to_be_read)
{
	struct fixture f;

	if (wants_ring(_i))
		return;
	start(&f, _i, DISK_FILE);
	ck_assert_int_eq(ftruncate(f.fd, BLOCK), 0);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 100 * SECTORS, BLOCK),
			 IOERR);
	ck_assert_int_eq(
		request(&f.rig, T_ZEROES,
			{ 100 * SECTORS, DISK_BYTES / 512 - 100 * SECTORS, 0 }),
		OK);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 100 * SECTORS, BLOCK), OK);
	finish(&f);
}
END_TEST

/*
 * Block devices
 */

START_TEST(a_device_that_cannot_discard_is_not_asked_to)
{
	static const int errors[] = { EOPNOTSUPP, ENOTTY, EPERM };
	struct ktvblk_backend *backend = NULL;
	int fd = image_open(DISK_MEMORY);

	is_block = true;
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		discard_error = errors[i];
		ck_assert_int_eq(
			ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
		ck_assert(!backend_can_discard(backend));
		ck_assert(backend_can_write_zeroes(backend));
		ktvblk_backend_unref(backend);
	}
	discard_error = 0;
	n_discards = 0;
	ck_assert_int_eq(ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
	ck_assert(backend_can_discard(backend));
	/* To ask is to touch nothing. */
	ck_assert_uint_eq(n_discards, 0);
	ktvblk_backend_unref(backend);
	close(fd);
}
END_TEST

/* One that promises no zeros, as many disks do not. */
START_TEST(a_device_without_holes_discards_in_its_own_way)
{
	struct fixture f;

	if (wants_ring(_i))
		return;
	is_block = true;
	discard_error = 0;
	start_on(&f, _i, image_open(DISK_MEMORY), 0);
	refusal = EOPNOTSUPP;
	refuses = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { SECTORS, 2 * SECTORS, 0 },
				 { 8, 1, 0 }),
			 OK);
	ck_assert_uint_eq(n_discards, 2);
	ck_assert_uint_eq(discarded[0], 8 * 512);
	ck_assert_uint_eq(discarded[1], 512);
	discard_error = EIO;
	ck_assert_int_eq(request(&f.rig, T_DISCARD, { SECTORS, SECTORS, 0 }),
			 IOERR);
	refusal = 0;
	discard_error = 0;
	finish(&f);
	is_block = false;
}
END_TEST

LOOP_PROGRAM("holes", ARRAY_SIZE(engines), what_is_discarded_is_given_back,
	     many_at_once_or_one_by_one,
	     zeros_are_a_hole_with_unmap_and_room_without,
	     zeros_are_zeros_in_memory_too, direct_files_have_holes,
	     a_file_that_cannot_has_zeros_and_keeps_the_rest,
	     zeros_behind_the_end_are_there_to_be_read,
	     a_device_that_cannot_discard_is_not_asked_to,
	     a_device_without_holes_discards_in_its_own_way)
