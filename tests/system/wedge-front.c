/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vhost-user over storage that blocks in the kernel: twenty times each, a front end
 * stops its queue, has the answer within the budget, and what it has is left alone
 * when the storage comes back; then the queue goes on where it was.
 */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "front-end.h"
#include "harness.h"
#include "way.h"
#include "wedge-cases.h"
#include "wedge.h"

#define TRIES 20u
/* Past all that the page cache reads ahead of the one before. */
#define SECTORS_APART 400u
#define LENGTH 8192u

struct subject {
	enum ktvblk_engine engine;
	const char *way;
	enum storage_op op;
};

static const uint32_t types[] = { [OP_READ] = VIRTIO_BLK_T_IN,
				  [OP_WRITE] = VIRTIO_BLK_T_OUT,
				  [OP_FLUSH] = VIRTIO_BLK_T_FLUSH };

static struct recorder rec;

static void open_front(const struct subject *subject, struct front_end *front)
{
	const struct way *way = way_named(subject->way);
	struct rig_options options = {
		.config = { .reset_timeout_ms = BUDGET_MS,
			    .destroy_timeout_ms = WAIT_MS,
			    .engine = subject->engine },
	};
	char path[WAY_PATH_MAX];

	way_path(way, path);
	options.disk_fd = open(path, O_RDWR | O_CLOEXEC | way->open_flags);
	ck_assert_msg(options.disk_fd > 0, "%s: %s", path, strerror(errno));
	front_open(front, &options);
	front_start(front);
}

/* Its request is with the kernel, and hangs there. */
static void hang(const struct subject *subject, struct disk *disk,
		 uint64_t sector)
{
	const struct way *way = way_named(subject->way);
	const uint32_t len = subject->op == OP_FLUSH ? 0 : LENGTH;
	struct rig *rig = &disk->rig;

	/* Else a flush has nothing to do. */
	if (subject->op == OP_FLUSH)
		ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_OUT, sector,
					     LENGTH),
				 VIRTIO_BLK_S_OK);
	way_hold(way, subject->op, disk);
	rig_chain(rig, 0, types[subject->op], sector, len);
	rig_avail(rig, 0);
	rig_kick(rig);
	way_wait_held(way, disk);
}

/* The answer has come: where the queue is. */
static uint16_t stop(struct front_end *front)
{
	const uint64_t start_ns = front_clock_start(front);
	const uint16_t base = front_stop(front, 0);

	ck_assert_uint_ge(ms_since(start_ns), BUDGET_MS);
	ck_assert_uint_lt(ms_since(start_ns),
			  front_bound_ms(front, BUDGET_MS + GRACE_MS));
	return base;
}

static void a_front_end_has_its_answer(const void *arg)
{
	const struct subject *subject = (const struct subject *)arg;
	struct front_end front;
	struct rig *rig = &front.rig;

	recorder_start(&rec);
	open_front(subject, &front);
	for (unsigned int i = 0; i < TRIES; i++) {
		struct disk disk = { .engine = subject->engine, .rig = *rig };
		uint16_t base;
		uint64_t sum;

		hang(subject, &disk, i * SECTORS_APART);
		*rig = disk.rig;
		base = stop(&front);
		check_field(recorder_wait_n(&rec,
					    KTVBLK_MESSAGE_RESET_TIMED_OUT,
					    (int)i + 1),
			    KTVBLK_FIELD_FENCED, "yes");
		sum = front_ram_sum(&front);
		front_take_calls(&front, 0);
		way_let_go(way_named(subject->way), &disk);
		recorder_wait_n(&rec, KTVBLK_MESSAGE_RECLAIMED, (int)i + 1);
		ck_assert_uint_eq(front_ram_sum(&front), sum);
		ck_assert_uint_eq(front_take_calls(&front, 0), 0);
		/* It was put back, and is done now. */
		ck_assert_uint_eq(base, rig_used_idx(rig));
		front_start_again(&front, base);
		rig_wait_used(rig, rig->avail_idx);
		ck_assert_int_eq(*rig_chain_status(rig, 0), VIRTIO_BLK_S_OK);
	}
	front_close(&front);
}

#define ROW(way, engine, op, what)                                             \
	{                                                                      \
		"vhost-user, " way ", " what, a_front_end_has_its_answer,      \
			&(const struct subject){ engine, way, op }, 60         \
	}

#define CASES(engine, suffix)                                                  \
	ROW("fuse", engine, OP_READ, "read" suffix),                           \
		ROW("fuse", engine, OP_WRITE, "write" suffix),                 \
		ROW("fuse", engine, OP_FLUSH, "flush" suffix),                 \
		ROW("fuse cached", engine, OP_READ, "read" suffix),            \
		ROW("fuse cached", engine, OP_WRITE, "write" suffix),          \
		ROW("fuse cached", engine, OP_FLUSH, "flush" suffix),          \
		ROW("frozen ext4", engine, OP_WRITE, "write" suffix)

const struct system_case front_cases[14] = {
	CASES(KTVBLK_ENGINE_SYNC, ""),
	CASES(KTVBLK_ENGINE_IO_URING, ", io_uring"),
};
