/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A request is a small machine that asks for one transfer after another. Fenced,
 * the storage works on the request's own buffer, and a large one goes through
 * it in chunks; with zero-copy it works on guest memory, in batches of iovecs.
 *
 *   io_start ─► prepare ─► begin ─┬─► ended ────────► absorb ─┬─► done, failed
 *                 ▲               └─► out ── io_step ─►┘      │
 *                 └──────────────────────────────────── more ─┘
 *
 *   prepare   what comes next, and of a write the bytes: guest ─copy─► buffer
 *   begin     leave the gate │ the engine has the word │ enter it again
 *   absorb    what came of it, and of a read the bytes: buffer ─copy─► guest
 *
 * Requests about ranges, to discard or to have zeros there, go the same way, a
 * range at a time; what is prepared and absorbed there is in ranges.c.
 *
 * The gate is open while the storage has the word, and what it answers reaches
 * the guest only if the session still stands. A stop is looked at before each
 * transfer begins, a revoked session before each effect.
 */

#include <linux/virtio_blk.h>
#include <string.h>

#include "io.h"
#include "ranges.h"
#include "util.h"

static bool is_read(const struct io *io)
{
	return io->request.type == VIRTIO_BLK_T_IN;
}

bool io_place(const struct session *session, uint64_t sector, uint64_t bytes,
	      uint64_t *ret_offset)
{
	uint64_t end;

	return !__builtin_mul_overflow(sector, (uint64_t)SECTOR_BYTES,
				       ret_offset) &&
	       !__builtin_add_overflow(*ret_offset, bytes, &end) &&
	       end <= session_capacity_bytes(session);
}

/*
 * The storage can do whole blocks only. A driver that took BLK_SIZE knows, and
 * one that did not gets an error.
 */
static bool blocks_ok(const struct session *session, const struct io *io)
{
	const struct request *request = &io->request;
	const uint32_t block_bytes = session->disk.block_bytes;

	/* A power of two. */
	if (!((io->offset | request->data_len) & (block_bytes - 1)))
		return true;
	log_event(&session->id, DATA_NOT_BLOCKS, request->sector,
		  request->data_len, block_bytes);
	return false;
}

/* Refuse what is to be durable, where a flush has failed. */
static bool flush_failed(const struct session *session, const struct io *io)
{
	const bool failed_before = atomic_load(&session->era->flush_failed);

	if (failed_before)
		log_event(&session->id, FLUSH_FAILED_BEFORE, io->request.type,
			  io->request.sector);
	return failed_before;
}

/*
 * Section 5.2.6.2: where the driver did not take FLUSH, a write is durable when
 * it completes. Where it was not offered it cannot know better either. And where
 * it says so, as it does when the write begins.
 */
static void set_through(const struct session *session, struct io *io)
{
	const struct era *era = session->era;

	io->through =
		!is_read(io) && io->request.data_len &&
		(session->write_through ||
		 (session->has_wce &&
		  atomic_load_explicit(&era->cache, memory_order_acquire) !=
			  CACHE_BACK));
}

/* A driver that flushes counts on having to: that was a guess to be safe. */
static void has_cache(const struct session *session)
{
	uint8_t guessed = CACHE_GUESSED_THROUGH;

	atomic_compare_exchange_strong(&session->era->cache, &guessed,
				       CACHE_BACK);
}

/* Can the storage work on these pieces of guest memory? */
static bool aligned(const struct disk_config *disk, const struct iovec *iov,
		    int n_iov)
{
	if (disk->mem_align == 1)
		return true;
	for (int i = 0; i < n_iov; i++)
		if ((uintptr_t)iov[i].iov_base % disk->mem_align ||
		    iov[i].iov_len % disk->block_bytes)
			return false;
	return true;
}

/* Let the storage work on guest memory; false: it must be on our buffer. */
static bool prepare_guest(struct session *session, struct io *io)
{
	struct ktvblk_io *ask = &io->transfer.io;

	if (!io->iovs)
		return false;
	ask->iov = io->iovs;
	ask->length = request_map(&io->request, io->at, session->mem,
				  ZERO_COPY_BYTES_MAX, io->iovs, IOV_BATCH_MAX,
				  &ask->n_iov);
	return aligned(&session->disk, io->iovs, ask->n_iov);
}

static bool prepare_buffer(struct session *session, struct io *io)
{
	struct ktvblk_io *ask = &io->transfer.io;

	ask->length = MIN(io->request.data_len - io->moved,
			  session->pages.bounce_bytes);
	io->one = (struct iovec){ io->bounce, (size_t)ask->length };
	ask->iov = &io->one;
	ask->n_iov = 1;
	if (ask->length > IDLE_KEEP_BYTES)
		session->flight.grown = true;
	return is_read(io) ||
	       request_copy_in(&io->request, io->at, session->mem, io->bounce,
			       ask->length);
}

static enum step prepare_data(struct session *session, struct io *io)
{
	struct ktvblk_io *ask = &io->transfer.io;

	ask->op = is_read(io) ? KTVBLK_IO_READ : KTVBLK_IO_WRITE;
	ask->offset = io->offset + io->moved;
	if (!prepare_guest(session, io) && !prepare_buffer(session, io))
		return STEP_FAILED;
	return ask->length ? STEP_TRANSFER : STEP_FAILED;
}

/*
 * A flush makes durable what was written before it, and that is nothing where no
 * write has ended since the last good one began.
 */
static enum step prepare_flush(struct session *session, struct io *io)
{
	const struct ktvblk_backend *backend = session->backend;
	struct ktvblk_io *ask = &io->transfer.io;

	if (flush_failed(session, io))
		return STEP_FAILED;
	io->written = atomic_load(&backend->written);
	if (io->written == atomic_load(&backend->flushed))
		return STEP_DONE;
	*ask = (struct ktvblk_io){ .op = KTVBLK_IO_FLUSH };
	return STEP_TRANSFER;
}

static enum step data_done(struct session *session, struct io *io);

/* Out of the way of the others, as all that has to do with ranges is. */
__attribute__((noinline, cold)) static enum step
prepare_ranges(struct session *session, struct io *io)
{
	const enum step step = ranges_prepare(session, io);

	return step == STEP_DONE ? data_done(session, io) : step;
}

static enum step prepare(struct session *session, struct io *io)
{
	if (io->state == IO_DATA)
		return prepare_data(session, io);
	return io->state == IO_DURABLE ? prepare_flush(session, io)
				       : prepare_ranges(session, io);
}

static void refused(struct session *session, const struct io *io, ssize_t n)
{
	const struct request *request = &io->request;
	const uint64_t sector = request->sector;

	if (n == 0 && is_read(io))
		log_event(&session->id, READ_NO_PROGRESS, sector, io->moved,
			  request->data_len);
	else if (n == 0)
		log_event(&session->id, WRITE_NO_PROGRESS, sector, io->moved,
			  request->data_len);
	else if (n == -EINTR)
		log_event(&session->id, INTERRUPTED_TOO_OFTEN, sector);
	else if (is_read(io))
		log_event(&session->id, READ_FAILED, sector, (int)-n);
	else
		log_event(&session->id, WRITE_FAILED, sector, (int)-n);
}

/*
 * Is the end of the storage, met by a read, where it may be? Behind what the
 * storage told there may be a disk of a larger capacity, and it is zeros there.
 * Before that, zeros in the place of data would be a lie, and so they would where
 * the disk has been made smaller while the request was out.
 */
static bool may_end_here(const struct session *session, const struct io *io)
{
	return io->offset + io->moved >= disk_id_told_bytes(session->id.disk) &&
	       io->offset + io->request.data_len <=
		       session_capacity_bytes(session);
}

/* All data has moved, or there was none. */
static enum step data_done(struct session *session, struct io *io)
{
	if (!io->through)
		return STEP_DONE;
	io->state = IO_DURABLE;
	return prepare(session, io);
}

static enum step absorb_data(struct session *session, struct io *io)
{
	const struct request *request = &io->request;
	const struct ktvblk_io *ask = &io->transfer.io;
	ssize_t n = io->transfer.result;

	if (n == -EINTR && io->interrupted++ < EINTR_RETRY_MAX)
		return prepare(session, io);
	if (n > 0 && (uint64_t)n > ask->length)
		n = -EIO; /* no storage moves more than it was given */
	if (is_read(io) && n == 0 && may_end_here(session, io))
		return request_zero(request, io->at, session->mem,
				    request->data_len - io->moved)
			       ? STEP_DONE
			       : STEP_FAILED;
	if (n <= 0) {
		refused(session, io, n);
		return STEP_FAILED;
	}
	if (is_read(io) && ask->iov == &io->one &&
	    !request_copy_out(request, io->at, session->mem, io->bounce,
			      (uint64_t)n))
		return STEP_FAILED;
	cursor_advance(request, &io->at, (uint64_t)n);
	io->moved += (uint64_t)n;
	return io->moved < request->data_len ? prepare(session, io)
					     : data_done(session, io);
}

/*
 * A failure stays until reset, whatever it was: the kernel drops the pages it
 * could not write and tells it once, so that the next flush would succeed, and
 * not for what was written before. O_DIRECT too: of a disk's own cache that did
 * not get through it is known no better.
 */
static enum step absorb_flush(struct session *session, struct io *io)
{
	const ssize_t r = io->transfer.result;
	struct ktvblk_backend *backend = session->holdings->backend;
	uint64_t flushed = atomic_load(&backend->flushed);

	if (r < 0) {
		atomic_store(&session->era->flush_failed, true);
		log_event(&session->id, FLUSH_FAILED, (int)-r);
		return STEP_FAILED;
	}
	while (flushed < io->written &&
	       !atomic_compare_exchange_weak(&backend->flushed, &flushed,
					     io->written))
		;
	return STEP_DONE;
}

void io_ended(struct session *session, const struct io *io)
{
	const uint32_t op = io->transfer.io.op;

	/* What is discarded is to be as durable as what is written. */
	if (op == KTVBLK_IO_WRITE || op > KTVBLK_IO_FLUSH)
		atomic_fetch_add(&session->holdings->backend->written, 1);
}

void io_tell(const struct session *session, const struct io *io)
{
	const struct ktvblk_io *ask = &io->transfer.io;

	if (io->state == IO_DATA && is_read(io) && ask->iov != &io->one &&
	    !session_revoked(session))
		request_tell_dirty(&io->request, io->at, ask->length);
}

__attribute__((noinline, cold)) static enum step
absorb_ranges(struct session *session, struct io *io)
{
	const enum step step = ranges_absorb(session, io);

	return step == STEP_DONE ? data_done(session, io) : step;
}

static enum step absorb(struct session *session, struct io *io)
{
	io_tell_dirty(session, io);
	if (io->transfer.again)
		return prepare(session, io);
	io_ended(session, io);
	if (io->state == IO_DATA)
		return absorb_data(session, io);
	return io->state == IO_DURABLE ? absorb_flush(session, io)
				       : absorb_ranges(session, io);
}

/* With the gate open. True: it has ended. */
static bool begin(struct session *session, struct io *io)
{
	struct engine *engine = session->engine;
	bool ended;

	io->transfer.again = false;
	session->flight.beginning = io;
	ended = engine->ops->begin(engine, &io->transfer);
	session->flight.beginning = NULL;
	return ended;
}

__attribute__((noinline, cold)) static void
count_other(struct ktvblk_stats *stats, struct io *io)
{
	switch (io->request.type) {
	case VIRTIO_BLK_T_FLUSH:
		count_flush(stats);
		break;
	case VIRTIO_BLK_T_GET_ID:
		io->used_len += VIRTIO_BLK_ID_BYTES;
		break;
	case VIRTIO_BLK_T_DISCARD:
		count_add(&stats->discards_completed, 1);
		break;
	default:
		count_add(&stats->write_zeroes_completed, 1);
	}
}

static void count(struct session *session, struct io *io)
{
	struct ktvblk_stats *stats = session->stats;

	io->status = VIRTIO_BLK_S_OK;
	io->used_len = 1;
	if (is_read(io)) {
		count_read(stats, io->moved);
		io->used_len += io->request.data_len;
	} else if (io->request.type == VIRTIO_BLK_T_OUT) {
		count_write(stats, io->moved);
	} else {
		count_other(stats, io);
	}
}

static enum io_end finish(struct session *session, struct io *io,
			  enum step step)
{
	/* It may have waited for guest memory for too long. */
	if (session_revoked(session))
		return IO_ABANDONED;
	if (step == STEP_DONE) {
		count(session, io);
		return IO_DONE;
	}
	io->used_len = 1;
	if (step == STEP_UNSUPP) {
		io->status = VIRTIO_BLK_S_UNSUPP;
		return IO_DONE;
	}
	count_io_error(session->stats);
	io->status = VIRTIO_BLK_S_IOERR;
	return IO_DONE;
}

/* Transfers, until one is out or there are no more. */
static enum io_end go_on(struct session *session, struct io *io, enum step step)
{
	while (step == STEP_TRANSFER) {
		bool ended;

		/* Behind what may have waited for guest memory. */
		if ((session_stopping(session) || session->flight.closed) &&
		    !session_finishes(session))
			return IO_ABANDONED;
		/* It may never be heard of again. */
		io_tell_dirty(session, io);
		session_leave(session);
		ended = begin(session, io);
		if (!session_enter(session))
			return ended ? IO_ABANDONED : IO_OUT;
		if (!ended)
			return IO_OUT;
		step = absorb(session, io);
	}
	return finish(session, io, step);
}

static enum step get_id(struct session *session, struct io *io)
{
	const struct request *request = &io->request;

	if (request->data_len < VIRTIO_BLK_ID_BYTES ||
	    !request_copy_out(request, (struct cursor){ 0 }, session->mem,
			      session->disk.serial, VIRTIO_BLK_ID_BYTES))
		return STEP_FAILED;
	return STEP_DONE;
}

static enum step start_data(struct session *session, struct io *io)
{
	const struct request *request = &io->request;

	set_through(session, io);
	if (!io_place(session, request->sector, request->data_len,
		      &io->offset) ||
	    !request_data_ok(request, session->mem, is_read(io)) ||
	    !blocks_ok(session, io) ||
	    (io->through && flush_failed(session, io)))
		return STEP_FAILED;
	return request->data_len ? prepare(session, io) : STEP_DONE;
}

static enum step start_ranges(struct session *session, struct io *io)
{
	enum step step;

	set_through(session, io);
	step = ranges_start(session, io);
	if (step == STEP_TRANSFER && io->through && flush_failed(session, io))
		return STEP_FAILED;
	return step == STEP_DONE ? data_done(session, io) : step;
}

/* Of what moves no data of the disk's. */
__attribute__((noinline, cold)) static enum step
start_other(struct session *session, struct io *io)
{
	switch (io->request.type) {
	case VIRTIO_BLK_T_FLUSH:
		has_cache(session);
		io->state = IO_DURABLE;
		return prepare(session, io);
	case VIRTIO_BLK_T_GET_ID:
		return get_id(session, io);
	default:
		return start_ranges(session, io);
	}
}

enum io_end io_start(struct session *session, struct io *io)
{
	io->state = IO_DATA;
	io->interrupted = 0;
	io->at = (struct cursor){ 0 };
	io->moved = 0;
	io->transfer.io.flags = 0;
	return go_on(session, io,
		     io->request.type <= VIRTIO_BLK_T_OUT
			     ? start_data(session, io)
			     : start_other(session, io));
}

enum io_end io_step(struct session *session, struct io *io)
{
	return go_on(session, io, absorb(session, io));
}
