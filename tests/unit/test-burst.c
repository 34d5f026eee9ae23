/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How many requests go to the kernel at once, and come back: of storage that
 * works by itself in parts, so that it has something to do meanwhile, of other
 * storage all of them, unless they are large. And how many the driver is told of
 * at once, where none waits for storage.
 */

/* wrap: io_uring_submit preadv2 pwritev2 */

#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <sys/uio.h>

#include "bounds.h"
#include "rig.h"
#include "transfers.h"

#define BLOCK 4096u
#define DEPTH 32u
#define MANY (DEPTH + 2 * BURST_MAX)
#define CALLS_MAX 64u

/* The worker's, until it has gone. */
static unsigned int n_calls, n_pushed;
static unsigned int pushed[CALLS_MAX];

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);

/* An engine tries the call once before it is used. */
static bool is_trial(const struct io_uring *ring)
{
	const struct io_uring_sq *sq = &ring->sq;

	return sq->sqes[sq->sqe_head & *sq->kring_mask].opcode == IORING_OP_NOP;
}

/* The first call hangs, if there are such. */
static struct latch *in_call, *let_go;

static void hang(void)
{
	if (!in_call)
		return;
	latch_set(in_call);
	latch_wait(let_go, WAIT_MS);
}

/* When as many are out as may be, all of them have ended behind it. */
int __wrap_io_uring_submit(struct io_uring *ring)
{
	const unsigned int n = io_uring_sq_ready(ring);
	struct io_uring_cqe *cqe;
	int r;

	if (is_trial(ring))
		return __real_io_uring_submit(ring);
	if (n_calls == 0)
		hang();
	r = __real_io_uring_submit(ring);
	ck_assert_int_eq(r, (int)n);
	ck_assert_uint_lt(n_calls, CALLS_MAX);
	pushed[n_calls] = n;
	n_pushed += n;
	if (n_pushed == DEPTH)
		ck_assert_int_eq(io_uring_wait_cqe_nr(ring, &cqe, DEPTH), 0);
	n_calls++;
	return r;
}

/*
 * Calls that are known not to wait, on any file: which of them the driver had
 * been interrupted before.
 */
static struct rig *rig_of_calls; /* NULL: nobody counts them */
static unsigned int n_direct_calls;
static bool told[CALLS_MAX];

static void note_call(void)
{
	if (!rig_of_calls)
		return;
	ck_assert_uint_lt(n_direct_calls, CALLS_MAX - 1);
	told[n_direct_calls] |= rig_irqs(rig_of_calls) > 0;
	told[n_direct_calls + 1] = told[n_direct_calls];
	n_direct_calls++;
}

#define WRAP_VECTOR(name)                                                      \
	ssize_t __real_##name(int fd, const struct iovec *iov, int n,          \
			      off_t offset, int flags);                        \
	ssize_t __wrap_##name(int fd, const struct iovec *iov, int n,          \
			      off_t offset, int flags);                        \
                                                                               \
	ssize_t __wrap_##name(int fd, const struct iovec *iov, int n,          \
			      off_t offset, int flags)                         \
	{                                                                      \
		(void)flags;                                                   \
		note_call();                                                   \
		return __real_##name(fd, iov, n, offset, 0);                   \
	}

WRAP_VECTOR(preadv2)
WRAP_VECTOR(pwritev2)

static uint16_t head_of(unsigned int i)
{
	return (uint16_t)(3 * i);
}

static uint64_t data_of(unsigned int i)
{
	return RIG_DATA + (uint64_t)i * BLOCK;
}

static void open_rig(struct rig *rig, int fd, uint32_t timeout_ms)
{
	rig_open(rig, &(struct rig_options){
			      .config = { .engine = KTVBLK_ENGINE_IO_URING,
					  .depth = DEPTH,
					  .reset_timeout_ms = timeout_ms },
			      .queue_size = 256,
			      .disk_bytes = DISK_BYTES,
			      .disk_fd = fd });
	n_calls = n_pushed = 0;
}

/* All at once, to a device that is about to start. */
static void make_available(struct rig *rig)
{
	uint16_t heads[MANY];

	for (unsigned int i = 0; i < MANY; i++) {
		const struct rig_part data = { data_of(i), BLOCK, WRITABLE };

		heads[i] = head_of(i);
		rig_data(rig, heads[i], VIRTIO_BLK_T_IN, i * (BLOCK / 512),
			 &data, 1);
	}
	rig_prepare(rig);
	rig_avail_all(rig, heads, MANY);
}

static void serve(struct rig *rig)
{
	make_available(rig);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_wait_used(rig, MANY);
	for (unsigned int i = 0; i < MANY; i++) {
		const unsigned char *data =
			(const unsigned char *)rig_at(rig, data_of(i));

		ck_assert_int_eq(*rig_chain_status(rig, head_of(i)),
				 VIRTIO_BLK_S_OK);
		for (unsigned int at = 0; at < BLOCK; at++)
			ck_assert_uint_eq(data[at], disk_byte(i * BLOCK + at));
	}
}

static void serve_many(int fd)
{
	struct rig rig;

	open_rig(&rig, fd, 0);
	serve(&rig);
	rig_close(&rig);
}

/* -1: there is none, which is said. */
static int open_direct(void)
{
	const int fd = image_open(DISK_DIRECT);

	if (fd < 0)
		fprintf(stderr, "no O_DIRECT in the file system here\n");
	return fd;
}

START_TEST(storage_that_works_by_itself_waits_for_no_other_request)
{
	const int fd = open_direct();

	if (fd < 0)
		return;
	serve_many(fd);
	/* One part while it is idle, the rest; and what became free, in parts. */
	ck_assert_uint_eq(n_calls, 4);
	ck_assert_uint_eq(pushed[0], BURST_MAX);
	ck_assert_uint_eq(pushed[1], DEPTH - BURST_MAX);
	ck_assert_uint_eq(pushed[2], BURST_MAX);
	ck_assert_uint_eq(pushed[3], BURST_MAX);
}
END_TEST

/* As a file system may be where a read is begun. */
START_TEST(a_first_part_that_hangs_on_its_way_is_left_behind)
{
	const int fd = open_direct();
	struct latch called, released;
	struct rig rig;

	if (fd < 0)
		return;
	latch_init(&called);
	latch_init(&released);
	open_rig(&rig, fd, 50);
	in_call = &called;
	let_go = &released;
	make_available(&rig);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert(latch_wait(&called, WAIT_MS));
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	in_call = NULL;
	latch_set(&released);
	ck_assert(eventually(ktvblk_get_state(rig.dev) != KTVBLK_STATE_WEDGED));
	/* It went out, all the same, and came back to nobody. */
	ck_assert_uint_eq(n_calls, 1);
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	for (unsigned int i = 0; i < MANY; i++)
		ck_assert_int_eq(*rig_chain_status(&rig, head_of(i)), SENTINEL);
	n_calls = n_pushed = 0;
	serve(&rig);
	rig_close(&rig);
	latch_destroy(&called);
	latch_destroy(&released);
}
END_TEST

START_TEST(what_is_done_within_the_call_is_done_by_one)
{
	serve_many(image_open(DISK_FILE));
	ck_assert_uint_eq(n_calls, 2);
	ck_assert_uint_eq(pushed[0], DEPTH);
	ck_assert_uint_eq(pushed[1], MANY - DEPTH);
}
END_TEST

#define LARGE (128u << 10)
#define N_LARGE 12u

/* So many large ones at once, which go by calls. */
static void serve_large(uint32_t type)
{
	const struct rig_part data = { RIG_DATA, LARGE,
				       type == VIRTIO_BLK_T_IN ? WRITABLE
							       : READABLE };
	uint16_t heads[N_LARGE];
	struct rig rig;

	rig_open(&rig,
		 &(struct rig_options){ .features = RIG_EVENT_IDX,
					.queue_size = 256,
					.disk_bytes = DISK_BYTES,
					.disk_fd = image_open(DISK_FILE) });
	for (unsigned int i = 0; i < N_LARGE; i++) {
		heads[i] = head_of(i);
		rig_data(&rig, heads[i], type, i % 4 * (LARGE / 512), &data, 1);
	}
	rig_prepare(&rig);
	rig_set_used_event(&rig, 0);
	rig_avail_all(&rig, heads, N_LARGE);
	n_calls = n_pushed = n_direct_calls = 0;
	told[0] = false;
	rig_of_calls = &rig;
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_wait_used(&rig, N_LARGE);
	for (unsigned int i = 0; i < N_LARGE; i++)
		ck_assert_int_eq(*rig_chain_status(&rig, heads[i]),
				 VIRTIO_BLK_S_OK);
	rig_reset(&rig);
	rig_of_calls = NULL;
	rig_close(&rig);
	ck_assert_uint_eq(n_calls, 0);
	ck_assert_uint_eq(n_direct_calls, N_LARGE);
}

START_TEST(large_reads_that_do_not_wait_are_told_of_a_few_at_a_time)
{
	serve_large(VIRTIO_BLK_T_IN);
	for (unsigned int i = 0; i < N_LARGE; i++)
		ck_assert_int_eq(told[i], i >= IRQ_BATCH);
}
END_TEST

START_TEST(before_a_write_the_driver_is_told_what_there_is)
{
	serve_large(VIRTIO_BLK_T_OUT);
	for (unsigned int i = 0; i < N_LARGE; i++)
		ck_assert_int_eq(told[i], i >= 1);
}
END_TEST

RING_PROGRAM("burst", storage_that_works_by_itself_waits_for_no_other_request,
	     a_first_part_that_hangs_on_its_way_is_left_behind,
	     large_reads_that_do_not_wait_are_told_of_a_few_at_a_time,
	     before_a_write_the_driver_is_told_what_there_is,
	     what_is_done_within_the_call_is_done_by_one)
