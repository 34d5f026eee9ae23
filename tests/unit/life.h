/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_LIFE_H
#define TEST_LIFE_H

/*
 * A device over a file, each step of whose life may fail: a step says whether
 * it did, with an error that the header names, and can be tried again. What
 * the guest reads is compared with what it wrote.
 */

/* What the device has for its disk, and so which engine. */
enum life_disk {
	LIFE_CALLS, /* callbacks, behind a gate */
	LIFE_LATER, /* ... that answer later */
	LIFE_FILE, /* the file itself */
	LIFE_RING, /* ... by io_uring only */
	LIFE_DIRECT, /* ... and O_DIRECT */
};

#include "harness.h"
#include "rig.h"

#define LIFE_DISK_BYTES (640u << 10)

struct life {
	struct rig rig; /* only what it needs to move bytes through a ring */
	uint64_t flags; /* as in the config */
	enum life_disk disk; /* LIFE_CALLS unless set before the creation */
	uint32_t budget_ms;
	uint64_t bytes_per_sec; /* throttle; 0 unless set before the creation */
	int fd; /* the disk */
	unsigned char *model; /* what must be in it */
	unsigned int seed; /* of what is written next */
	struct ktvblk_backend *file;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool hold; /* reads and writes hang ... */
	unsigned int held; /* ... this many just now */
	struct ktvblk_io *kept; /* ... or are answered later: it is one */
	_Atomic unsigned int released; /* storages */

	uint64_t longest_ns; /* of a reset or a destroy */
};

/* The disk, guest memory, no device yet. */
void life_open(struct life *life, uint64_t flags, uint32_t budget_ms);

/* Have a disk that is in a file, by O_DIRECT. False: there can be none here. */
bool life_open_direct(struct life *life);

/* Storage, memory and the device; 0, or -errno and nothing is left of it. */
int life_create(struct life *life);

/* From reset to DRIVER_OK. False: NEEDS_RESET. */
bool life_start(struct life *life);

/* Reset. False: NEEDS_RESET stands. */
bool life_reset(struct life *life);

/*
 * One request. Its status byte, or LIFE_NEEDS_RESET: there will be none. A
 * driver that waits for long kicks again.
 */
#define LIFE_NEEDS_RESET (-1)
int life_request(struct life *life, uint32_t type, uint64_t sector,
		 uint32_t len);

/*
 * A write and, in the same drain, a read: it waits for tokens if the write
 * takes more than there are. As life_request(), of the first that failed.
 */
int life_write_and_read(struct life *life, uint64_t sector, uint32_t len);

/* Not of a file: hang a read; false: NEEDS_RESET came instead. Then let it go. */
bool life_wedge(struct life *life);
void life_let_go(struct life *life);

/* Of a device that was let go all is released some time. */
enum ktvblk_outcome life_destroy(struct life *life);
void life_wait_released(struct life *life);

/* Compare the disk with the model. */
void life_check_disk(struct life *life);

/* Without a device: give all back. */
void life_close(struct life *life);

#endif
