/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_IO_H
#define KTVBLK_IO_H

/* The requests themselves: read, write, flush, get id; and see ranges.h. */

#include "session.h"

enum io_end {
	IO_DONE, /* status and used_len are there; its outcome is counted */
	IO_OUT, /* with the storage; see session->gate_held */
	/*
	 * It will not complete: the session is over, or about to be. The gate
	 * may be lost; see session->gate_held.
	 */
	IO_ABANDONED,
};

/* What is to be done with a request next. */
enum step {
	STEP_TRANSFER,
	STEP_DONE,
	STEP_FAILED,
	STEP_UNSUPP, /* it asks for what there is not */
};

/* Where on the disk a sector is; false: not wholly inside, all of the bytes. */
bool io_place(const struct session *session, uint64_t sector, uint64_t bytes,
	      uint64_t *ret_offset);

/* Serve io->request, which passed all gates. */
enum io_end io_start(struct session *session, struct io *io);

/* Its transfer has ended: go on. */
enum io_end io_step(struct session *session, struct io *io);

/* Its transfer has ended, and nobody waits for it any more. */
void io_ended(struct session *session, const struct io *io);

/*
 * With zero-copy the storage itself writes guest memory, at any time in its
 * transfer: to be told when that begins and when it has ended, however.
 */
void io_tell(const struct session *session, const struct io *io);

static inline void io_tell_dirty(const struct session *session,
				 const struct io *io)
{
	if (dirty_is_wanted(&session->vq.dirty))
		io_tell(session, io);
}

static inline struct io *io_of(struct transfer *transfer)
{
	return container_of(transfer, struct io, transfer);
}

#endif
