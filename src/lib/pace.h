/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_PACE_H
#define KTVBLK_PACE_H

/*
 * Calls that may wait, where the file has none that do not: done on the worker
 * they cost least, and hold up all else for as long as they take; by io_uring
 * each is a kernel thread's. So trust is earned, for reads and writes apart:
 *
 *   ring   until enough in a row were quick, and none that was begun before
 *          the last of these is still out
 *   plain  until one takes long, or what is left in the ring does; then the
 *          ring again, and twice as many must be quick, up to a bound, before
 *          the next try. Each long run of quick ones halves that again
 *
 * Storage that is known to hang is thus never waited for. Time is a parameter.
 */

#include <stdbool.h>
#include <stdint.h>

struct pace {
	bool plain;
	unsigned int backoff; /* so often has what it takes been doubled */
	unsigned int n_quick; /* in a row */
	unsigned int n_out; /* in the ring */
	/* Those that stand between the ring and plain calls: not yet, if 0. */
	uint64_t mark_ns; /* they were begun up to here */
	unsigned int n_before;
	uint64_t begun_ns; /* when the last one went into the ring */
};

void pace_init(struct pace *pace);

/* May the next one be a plain call? */
bool pace_is_plain(struct pace *pace, uint64_t now_ns);

/* A plain call of so many bytes took so long. */
void pace_called(struct pace *pace, uint64_t took_ns, uint64_t n_bytes);

/* One goes into the ring: *ret_begun_ns of it is for when it comes back. */
void pace_begun(struct pace *pace, uint64_t now_ns, uint64_t *ret_begun_ns);
void pace_ended(struct pace *pace, uint64_t begun_ns, uint64_t now_ns,
		uint64_t n_bytes);

#endif
