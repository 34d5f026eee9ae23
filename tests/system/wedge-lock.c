/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The lock on an image: a write that is stuck in it keeps the lock when the
 * device is gone, and it goes with the write.
 */

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "way.h"
#include "wedge-cases.h"

#define SECTOR 4096u
#define LENGTH 8192u

struct subject {
	enum ktvblk_engine engine;
	const char *way;
};

static struct recorder rec;

static int lock_by_another(const char *path)
{
	const int fd = open(path, O_RDWR | O_CLOEXEC);
	int r;

	ck_assert_int_ge(fd, 0);
	r = ktvblk_image_lock(fd, 0, NULL);
	close(fd);
	return r;
}

static void stuck_write_keeps_the_lock(const void *arg)
{
	const struct subject *subject = (const struct subject *)arg;
	const struct way *way = way_named(subject->way);
	char path[WAY_PATH_MAX];
	const struct disk_options options = {
		.path = path,
		.config = { .destroy_timeout_ms = BUDGET_MS,
			    .engine = subject->engine },
		.open_flags = way->open_flags,
		.lock = true,
	};
	struct disk disk;

	way_path(way, path);
	recorder_start(&rec);
	ck_assert_int_eq(lock_by_another(path), 0);
	disk_open(&disk, &options);
	rig_start(&disk.rig);
	ck_assert_int_eq(lock_by_another(path), -EBUSY);
	way_hold(way, OP_WRITE, &disk);
	disk_submit(&disk, 0, VIRTIO_BLK_T_OUT, SECTOR, RIG_DATA, LENGTH);
	rig_kick(&disk.rig);
	way_wait_held(way, &disk);
	case_call_begins();
	ck_assert_int_eq(disk_destroy(&disk), KTVBLK_TIMED_OUT);
	case_call_ended(BUDGET_MS);
	ck_assert_int_eq(lock_by_another(path), -EBUSY);
	way_let_go(way, &disk);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_int_eq(lock_by_another(path), 0);
	disk_free(&disk);
}

#define CASES(engine, suffix)                                                  \
	{ "locked, fuse, write" suffix, stuck_write_keeps_the_lock,            \
	  &(const struct subject){ engine, "fuse" }, 0 },                      \
		{ "locked, fuse cached, write" suffix,                         \
		  stuck_write_keeps_the_lock,                                  \
		  &(const struct subject){ engine, "fuse cached" }, 0 },       \
		{ "locked, frozen ext4, write" suffix,                         \
		  stuck_write_keeps_the_lock,                                  \
		  &(const struct subject){ engine, "frozen ext4" }, 0 },       \
	{                                                                      \
		"locked, loop on frozen, write" suffix,                        \
			stuck_write_keeps_the_lock,                            \
			&(const struct subject){ engine, "loop on frozen" }, 0 \
	}

const struct system_case lock_cases[8] = {
	CASES(KTVBLK_ENGINE_SYNC, ""),
	CASES(KTVBLK_ENGINE_IO_URING, ", io_uring"),
};
