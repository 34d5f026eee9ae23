/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_SLOWFS_H
#define TEST_SLOWFS_H

/*
 * A FUSE file system whose calls hang when told to. Its server and the tests
 * share a file: in it the word to hang, the count of those that do and that of
 * fsync() and fdatasync(), and the disks' bytes, so that a test sees what the storage has while nobody could
 * read it through the file system.
 *
 * The disks are /direct0.. (each call goes to the server) and /cached0..
 * (through the kernel's page cache).
 */

#include <stdbool.h>
#include <stdint.h>

#define SLOW_DISKS 8u /* of either kind */
#define SLOW_BYTES (4u << 20) /* of each */
#define SLOW_CALLS_MAX 64u /* with the server; its threads too, by wedge.sh */

enum slow_call {
	SLOW_READ = 1,
	SLOW_WRITE = 2,
	SLOW_FSYNC = 4,
	SLOW_CLOSE = 8, /* the flush of each close() */
	SLOW_FALLOCATE = 16,
};

struct slowfs {
	_Atomic uint32_t hold; /* calls of these kinds hang ... */
	_Atomic uint32_t held; /* ... so many just now; both are futexes */
	_Atomic uint32_t fsyncs; /* since it was mounted */
	unsigned char bytes[2 * SLOW_DISKS][SLOW_BYTES];
};

/* Map the shared file, which is made if there is none. NULL: errno. */
struct slowfs *slowfs_map(const char *path);

/* Calls of these kinds hang from now on, and others go on. */
void slowfs_hold(struct slowfs *slow, uint32_t calls);
void slowfs_let_go(struct slowfs *slow);
/* False: so many did not hang before ten seconds had passed. */
bool slowfs_wait_held(struct slowfs *slow, uint32_t n);

/* In the server: hang if that is the word. */
void slowfs_hang(struct slowfs *slow, enum slow_call call);

#endif
