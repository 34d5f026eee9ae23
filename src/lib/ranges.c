/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See ranges.h. What is tried for a range, each where the one before it cannot:
 *
 *	DISCARD                 discard          nothing: it is but a hint
 *	WRITE_ZEROES, UNMAP     zeros or a hole  zeros  written zeros
 *	WRITE_ZEROES                             zeros  written zeros
 */

#include <linux/virtio_blk.h>
#include <string.h>

#include "ranges.h"
#include "util.h"

#define UNMAP VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP

static bool is_discard(const struct io *io)
{
	return io->request.type == VIRTIO_BLK_T_DISCARD;
}

/* In records it is told by its sectors. */
static enum step refuse(const struct session *session, const struct io *io,
			const struct range *range, const char *reason,
			enum step step)
{
	log_event(&session->id, RANGE_REFUSED, io->request.type, range->sector,
		  range->n_sectors, reason);
	return step;
}

/* Section 5.2.6.2: whatever else is wrong with the request. */
static const char *flags_flaw(const struct io *io, const struct range *range)
{
	if (range->flags & ~(uint32_t)UNMAP)
		return "unknown flag";
	return is_discard(io) && range->flags ? "unmap flag of a discard"
					      : NULL;
}

static const char *place_flaw(const struct session *session,
			      const struct io *io, const struct range *range)
{
	const uint32_t block_sectors = session->disk.block_bytes >>
				       SECTOR_SHIFT;
	uint64_t offset;

	if (!range->n_sectors)
		return "no sectors";
	if (range->n_sectors >
	    (is_discard(io) ? DISCARD_SECTORS_MAX : ZERO_SECTORS_MAX))
		return "too many sectors";
	if (!io_place(session, range->sector,
		      (uint64_t)range->n_sectors << SECTOR_SHIFT, &offset))
		return "not inside the disk";
	if ((range->sector | range->n_sectors) & (block_sectors - 1))
		return "not whole blocks";
	return NULL;
}

enum step ranges_start(struct session *session, struct io *io)
{
	const struct range *ranges = io->ranges, *end;
	const char *flaw;

	end = ranges + io->request.n_ranges;
	for (const struct range *range = ranges; range < end; range++)
		if ((flaw = flags_flaw(io, range)))
			return refuse(session, io, range, flaw, STEP_UNSUPP);
	for (const struct range *range = ranges; range < end; range++)
		if ((flaw = place_flaw(session, io, range)))
			return refuse(session, io, range, flaw, STEP_FAILED);
	io->state = IO_RANGES;
	io->range = 0;
	io->cannot = atomic_load(&session->holdings->backend->cannot);
	return ranges_prepare(session, io);
}

static uint64_t range_bytes(const struct io *io)
{
	return (uint64_t)io->ranges[io->range].n_sectors << SECTOR_SHIFT;
}

static enum step prepare_zeros(struct session *session, struct io *io)
{
	struct ktvblk_io *ask = &io->transfer.io;

	ask->op = KTVBLK_IO_WRITE;
	ask->offset += io->moved;
	ask->length = MIN(ask->length - io->moved, session->pages.bounce_bytes);
	io->one = (struct iovec){ io->bounce, (size_t)ask->length };
	ask->iov = &io->one;
	ask->n_iov = 1;
	if (ask->length > IDLE_KEEP_BYTES)
		session->flight.grown = true;
	/* Each time: it is not ours alone to write. */
	memset(io->bounce, 0, (size_t)ask->length);
	return STEP_TRANSFER;
}

enum step ranges_prepare(struct session *session, struct io *io)
{
	const struct range *range = &io->ranges[io->range];
	struct ktvblk_io *ask = &io->transfer.io;

	*ask = (struct ktvblk_io){
		.op = is_discard(io) ? KTVBLK_IO_DISCARD
				     : KTVBLK_IO_WRITE_ZEROES,
		.offset = range->sector << SECTOR_SHIFT,
		.length = range_bytes(io),
	};
	if (is_discard(io))
		return io->cannot & CANNOT_DISCARD ? STEP_DONE : STEP_TRANSFER;
	if (range->flags & UNMAP && session->disk.unmap &&
	    !(io->cannot & CANNOT_UNMAP)) {
		ask->flags = KTVBLK_IO_MAY_UNMAP;
		return STEP_TRANSFER;
	}
	if (!(io->cannot & CANNOT_ZERO))
		return STEP_TRANSFER;
	io->state = IO_ZEROS;
	return prepare_zeros(session, io);
}

static enum step next_range(struct session *session, struct io *io)
{
	io->state = IO_RANGES;
	io->moved = 0;
	io->cannot = atomic_load(&session->holdings->backend->cannot);
	if (++io->range == io->request.n_ranges)
		return STEP_DONE;
	return ranges_prepare(session, io);
}

static enum step fail(const struct session *session, const struct io *io,
		      ssize_t n)
{
	const uint64_t sector = io->ranges[io->range].sector;

	if (n == 0)
		log_event(&session->id, WRITE_NO_PROGRESS, sector, io->moved,
			  range_bytes(io));
	else if (n == -EINTR)
		log_event(&session->id, INTERRUPTED_TOO_OFTEN, sector);
	else if (is_discard(io))
		log_event(&session->id, DISCARD_FAILED, sector, (int)-n);
	else
		log_event(&session->id, WRITE_ZEROES_FAILED, sector, (int)-n);
	return STEP_FAILED;
}

static enum step absorb_zeros(struct session *session, struct io *io)
{
	ssize_t n = io->transfer.result;

	if (n > 0 && (uint64_t)n > io->transfer.io.length)
		n = -EIO; /* no storage moves more than it was given */
	if (n <= 0)
		return fail(session, io, n);
	io->moved += (uint64_t)n;
	return io->moved < range_bytes(io) ? ranges_prepare(session, io)
					   : next_range(session, io);
}

/* Not now and not ever, as far as an error can tell. */
static bool is_refusal(ssize_t error)
{
	return error == -EOPNOTSUPP || error == -ENOSYS || error == -ENOTTY ||
	       error == -EPERM;
}

enum step ranges_absorb(struct session *session, struct io *io)
{
	const struct ktvblk_io *ask = &io->transfer.io;
	const ssize_t r = io->transfer.result;
	unsigned int cannot = CANNOT_ZERO;

	if (r == -EINTR && io->interrupted++ < EINTR_RETRY_MAX)
		return ranges_prepare(session, io);
	if (io->state == IO_ZEROS)
		return absorb_zeros(session, io);
	if (r >= 0)
		return next_range(session, io);
	if (!is_refusal(r) && r != -EINVAL)
		return fail(session, io, r);
	if (is_discard(io))
		cannot = CANNOT_DISCARD;
	else if (ask->flags)
		cannot = CANNOT_UNMAP;
	io->cannot |= cannot;
	if (is_refusal(r))
		atomic_fetch_or(&session->holdings->backend->cannot, cannot);
	else if (is_discard(io))
		return next_range(session, io); /* that one only */
	return ranges_prepare(session, io);
}
