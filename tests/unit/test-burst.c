/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How many requests go to the kernel at once, and come back: of storage that
 * works by itself in parts, so that it has something to do meanwhile, of other
 * storage all of them.
 */

/* wrap: io_uring_submit */

#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>

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

/* When as many are out as may be, all of them have ended behind it. */
int __wrap_io_uring_submit(struct io_uring *ring)
{
	const unsigned int n = io_uring_sq_ready(ring);
	const bool trial = is_trial(ring);
	const int r = __real_io_uring_submit(ring);
	struct io_uring_cqe *cqe;

	if (trial)
		return r;
	ck_assert_int_eq(r, (int)n);
	ck_assert_uint_lt(n_calls, CALLS_MAX);
	pushed[n_calls] = n;
	n_pushed += n;
	if (n_pushed == DEPTH)
		ck_assert_int_eq(io_uring_wait_cqe_nr(ring, &cqe, DEPTH), 0);
	n_calls++;
	return r;
}

static uint16_t head_of(unsigned int i)
{
	return (uint16_t)(3 * i);
}

static uint64_t data_of(unsigned int i)
{
	return RIG_DATA + (uint64_t)i * BLOCK;
}

static void serve_many(int fd)
{
	uint16_t heads[MANY];
	struct rig rig;

	rig_open(&rig, &(struct rig_options){
			       .config = { .engine = KTVBLK_ENGINE_IO_URING,
					   .depth = DEPTH },
			       .queue_size = 256,
			       .disk_bytes = DISK_BYTES,
			       .disk_fd = fd });
	for (unsigned int i = 0; i < MANY; i++) {
		const struct rig_part data = { data_of(i), BLOCK, WRITABLE };

		heads[i] = head_of(i);
		rig_data(&rig, heads[i], VIRTIO_BLK_T_IN, i * (BLOCK / 512),
			 &data, 1);
	}
	rig_prepare(&rig);
	rig_avail_all(&rig, heads, MANY);
	n_calls = n_pushed = 0;
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_wait_used(&rig, MANY);
	for (unsigned int i = 0; i < MANY; i++) {
		const unsigned char *data =
			(const unsigned char *)rig_at(&rig, data_of(i));

		ck_assert_int_eq(*rig_chain_status(&rig, heads[i]),
				 VIRTIO_BLK_S_OK);
		for (unsigned int at = 0; at < BLOCK; at++)
			ck_assert_uint_eq(data[at], disk_byte(i * BLOCK + at));
	}
	rig_close(&rig);
}

START_TEST(storage_that_works_by_itself_waits_for_no_other_request)
{
	const int fd = image_open(DISK_DIRECT);

	if (fd < 0) {
		fprintf(stderr, "no O_DIRECT in the file system here\n");
		return;
	}
	serve_many(fd);
	/* One part while it is idle, the rest; and what became free, in parts. */
	ck_assert_uint_eq(n_calls, 4);
	ck_assert_uint_eq(pushed[0], BURST_MAX);
	ck_assert_uint_eq(pushed[1], DEPTH - BURST_MAX);
	ck_assert_uint_eq(pushed[2], BURST_MAX);
	ck_assert_uint_eq(pushed[3], BURST_MAX);
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

RING_PROGRAM("burst", storage_that_works_by_itself_waits_for_no_other_request,
	     what_is_done_within_the_call_is_done_by_one)
