/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_RANGES_H
#define KTVBLK_RANGES_H

/*
 * Requests to discard ranges of the disk, or to have zeros there: states of the
 * machine in io.c. One range is one call of the storage; where that cannot,
 * zeros are written, in chunks of the request's buffer.
 */

#include "io.h"

/* What a storage has refused, for good: bits of holdings->cannot. */
enum cannot {
	CANNOT_DISCARD = 1,
	CANNOT_UNMAP = 2, /* zeros that may be a hole */
	CANNOT_ZERO = 4,
};

/*
 * Judge all ranges before any is touched, then prepare the first. As the others
 * of io.c: STEP_DONE is that none is left.
 */
enum step ranges_start(struct session *session, struct io *io);
enum step ranges_prepare(struct session *session, struct io *io);
enum step ranges_absorb(struct session *session, struct io *io);

#endif
