/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_HANG_H
#define DEMO_HANG_H

/*
 * Storage of our own, through the public table of operations: a file that can
 * be told to hang, as a disk behind a dead network does.
 */

#include <stdatomic.h>
#include <stdbool.h>

#include <ktvblk.h>

struct hang {
	int fd; /* the file; the caller's */
	_Atomic bool hanging; /* the next call will not return */
	int stuck; /* event: one does not */
	int let_go; /* event: it may */
	int released; /* event: the device has no use for us any more */
};

void hang_open(struct hang *hang, int fd);

/* Storage for a device; read_only: without a way to write. */
struct ktvblk_backend *hang_backend(struct hang *hang, bool read_only);

/* Let the next call hang. */
void hang_arm(struct hang *hang);

/* Wait until a call hangs. */
void hang_await_stuck(struct hang *hang);

/* Let it return, and hang no more. */
void hang_let_go(struct hang *hang);

/* Wait until no device uses the storage; false: one does. */
bool hang_close(struct hang *hang);

#endif
