/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_RING_H
#define KTVBLK_RING_H

/*
 * An io_uring for one file, beside which a descriptor can be waited for. It has
 * a place for each of n transfers and one for the look at that descriptor, so
 * there is always one to be had. Its completion queue may overflow by wake-ups,
 * of which a guest can make any number: the kernel keeps what has no room, and
 * the next look fetches it.
 *
 * It is the thread's that made it.
 */

#include <liburing.h>
#include <stdbool.h>

#include "pins.h"

struct ring {
	struct io_uring uring;
	unsigned int n;
	int fd; /* the file: a number, or, if registered, an index */
	bool registered;
	struct pins pins; /* with O_DIRECT */
	/* The descriptor: looked at, was readable, or why it is not. */
	bool watching, woken;
	int watch_error;
	int refused; /* -errno: it is not entered any more; or 0 */
};

/*
 * 0 or -errno: -ENOSYS, -EPERM and the like where it is refused. fd stays the
 * caller's, and is not held behind ring_close().
 */
int ring_open(struct ring *ring, unsigned int n, int fd);
void ring_close(struct ring *ring);

/* What stands there is taken in: *io and its memory stay as they are. */
void ring_put(struct ring *ring, const struct ktvblk_io *io, bool by_thread,
	      void *data);

/*
 * What is put there goes out; what the kernel has no room for, next time. A
 * kernel, or a filter, that refuses in another way is not asked again: then
 * `refused` is set, what did not go out can be taken back, and what did is
 * waited for by other means.
 */
void ring_push(struct ring *ring);
bool ring_is_empty(const struct ring *ring);

/* Take back what went in last and did not go out. False: there is none. */
bool ring_take_back(struct ring *ring, void **ret_data);

/* One that has ended, once: false: none. */
bool ring_reap(struct ring *ring, void **ret_data, int *ret_result);

/* As an engine's. */
int ring_wait(struct ring *ring, int wake_fd, int timeout_ms);

/*
 * Would all of it work here? 0 or -errno. On a thread of its own, see
 * session.h.
 */
int ring_probe(void);

#endif
