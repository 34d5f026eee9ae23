/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_WAY_H
#define TEST_WAY_H

/*
 * Ways to block a worker in the kernel for real. wedge.sh makes the file
 * systems and devices, and tells by the environment where they are.
 */

#include <stdbool.h>

#include "disk.h"
#include "slowfs.h"

enum way_kind {
	WAY_FUSE, /* the server holds the call */
	WAY_FROZEN, /* a frozen ext4 */
	WAY_FROZEN_LOOP, /* a loop device over a file in it */
	WAY_USERFAULT, /* guest memory that userfaultfd does not bring */
	WAY_FROZEN_RAM, /* guest memory that is a file in a frozen ext4 */
};

struct way {
	const char *name;
	enum way_kind kind;
	const char *env; /* has the path */
	const char *file; /* in it; NULL: the path is all */
	int open_flags;
	unsigned int slow_disk; /* WAY_FUSE: which of the server's */
	bool blocks[OP_COUNT];
	const char *states[OP_COUNT]; /* a worker in it may have */
	bool serves_others; /* reads beside what hangs, writes beside a read */
};

/* All ways, to the one without a name. */
extern const struct way ways[];
const struct way *way_named(const char *name);

#define WAY_PATH_MAX 256

/* Where its disk is; the case is skipped if this machine cannot have it. */
void way_path(const struct way *way, char path[WAY_PATH_MAX]);

/*
 * Where guest memory hangs: the page that does, touched by nobody from
 * way_hold() to way_let_go(). Empty: the storage is what hangs.
 */
struct span way_page(const struct way *way);

/* Calls of this kind hang from now on. After the disk was opened. */
void way_hold(const struct way *way, enum storage_op op, struct disk *disk);
pid_t way_worker(const struct disk *disk);
/* Wait until the worker of this device does, or what it gave to io_uring. */
void way_wait_held(const struct way *way, struct disk *disk);
void way_let_go(const struct way *way, struct disk *disk);

/* The bytes the disk has, past all that may hang; SLOW_BYTES of them. */
void way_read_disk(const struct way *way, unsigned char *bytes);

/* The shared file of slowfs; the case is skipped if there is none. */
struct slowfs *way_slowfs(void);

/* Let go all there is, in whatever state a case left it. Never waits. */
void way_let_all_go(void);

#endif
