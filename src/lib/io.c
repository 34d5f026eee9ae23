/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Fenced, the storage works on the session's own buffer, and large requests go
 * through it in chunks; with zero-copy it works on guest memory, in batches of
 * iovecs. Either way the gate is open while the storage has the word, and what
 * it answers reaches the guest only if the session still stands.
 *
 *   write: guest ─copy─► buffer ─ leave │ pwritev │ enter ─► next chunk
 *   read:                         leave │ preadv  │ enter ─ buffer ─copy─► guest
 */

#include <linux/virtio_blk.h>
#include <string.h>

#include "io.h"
#include "util.h"

static const struct io_result ABANDONED = { .abandoned = true };

static struct io_result done(uint8_t status, uint32_t used_len)
{
	return (struct io_result){ .status = status, .used_len = used_len };
}

static struct io_result failed(struct session *session)
{
	count_io_error(session->stats);
	return done(VIRTIO_BLK_S_IOERR, 1);
}

/* Where the request lies on the disk; false: not wholly inside. */
static bool range_ok(const struct session *session, uint64_t *ret_offset)
{
	const struct request *request = &session->request;
	uint64_t end;

	return !__builtin_mul_overflow(request->sector, (uint64_t)SECTOR_BYTES,
				       ret_offset) &&
	       !__builtin_add_overflow(*ret_offset, request->data_len, &end) &&
	       end <= session->disk.capacity_bytes;
}

/*
 * The storage can do whole blocks only. A driver that took BLK_SIZE knows, and
 * one that did not gets an error.
 */
static bool blocks_ok(const struct session *session, uint64_t offset)
{
	const struct request *request = &session->request;
	const uint32_t block_bytes = session->disk.block_bytes;

	/* A power of two. */
	if (!((offset | request->data_len) & (block_bytes - 1)))
		return true;
	log_event(&session->id, DATA_NOT_BLOCKS, request->sector,
		  request->data_len, block_bytes);
	return false;
}

/* One call into storage, with the gate open. False: the session is revoked. */
static bool call_storage(struct session *session, const struct iovec *iov,
			 int n_iov, uint64_t offset, ssize_t *ret_n)
{
	const struct ktvblk_backend *backend = session->backend;
	const bool in = session->request.type == VIRTIO_BLK_T_IN;

	session_leave(session);
	*ret_n = in ? backend->ops.preadv(backend->userdata, iov, n_iov, offset)
		    : backend->ops.pwritev(backend->userdata, iov, n_iov,
					   offset);
	return session_enter(session);
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

/* Point iov at what the storage works on next; how many bytes, 0: cannot. */
static uint64_t prepare(struct session *session, struct cursor at,
			uint64_t left, struct iovec *iov, int *ret_n_iov)
{
	const struct request *request = &session->request;

	if (session->disk.zero_copy) {
		const uint64_t len = request_map(request, at, session->mem,
						 ZERO_COPY_BYTES_MAX, iov,
						 IOV_BATCH_MAX, ret_n_iov);

		if (aligned(&session->disk, iov, *ret_n_iov))
			return len;
	}
	*ret_n_iov = 1;
	iov[0].iov_base = session->pages.bounce;
	iov[0].iov_len = (size_t)MIN(left, BOUNCE_BYTES);
	if (request->type == VIRTIO_BLK_T_OUT &&
	    !request_copy_in(request, at, session->mem, session->pages.bounce,
			     iov[0].iov_len))
		return 0;
	return iov[0].iov_len;
}

/* How a step of a request ended. */
enum io_end {
	IO_DONE,
	IO_FAILED,
	IO_ABANDONED,
};

static enum io_end refuse(struct session *session, ssize_t n, uint64_t moved)
{
	const struct request *request = &session->request;
	const uint64_t sector = request->sector;

	if (n == 0 && request->type == VIRTIO_BLK_T_IN)
		log_event(&session->id, READ_NO_PROGRESS, sector, moved,
			  request->data_len);
	else if (n == 0)
		log_event(&session->id, WRITE_NO_PROGRESS, sector, moved,
			  request->data_len);
	else if (n == -EINTR)
		log_event(&session->id, INTERRUPTED_TOO_OFTEN, sector);
	else if (request->type == VIRTIO_BLK_T_IN)
		log_event(&session->id, READ_FAILED, sector, (int)-n);
	else
		log_event(&session->id, WRITE_FAILED, sector, (int)-n);
	return IO_FAILED;
}

/*
 * Is the end of the storage, met by a read at offset, where it may be? Behind
 * what the storage told there may be a disk of a larger capacity, and it is
 * zeros there. Before that, zeros in the place of data would be a lie.
 */
static bool may_end_at(const struct session *session, uint64_t offset)
{
	return offset >= session->disk.told_bytes;
}

/* Move the request's data; *ret_moved: up to where. */
static enum io_end transfer(struct session *session, uint64_t offset,
			    uint64_t *ret_moved)
{
	const struct request *request = &session->request;
	const bool in = request->type == VIRTIO_BLK_T_IN;
	struct iovec iov[IOV_BATCH_MAX];
	struct cursor at = { 0 };
	unsigned int interrupted = 0;
	uint64_t moved = 0;

	for (*ret_moved = 0; moved < request->data_len; *ret_moved = moved) {
		uint64_t want;
		ssize_t n;
		int n_iov;

		want = prepare(session, at, request->data_len - moved, iov,
			       &n_iov);
		if (!want)
			return IO_FAILED;
		/* Behind what may have waited for guest memory. */
		if (session_stopping(session))
			return IO_ABANDONED;
		if (!call_storage(session, iov, n_iov, offset + moved, &n))
			return IO_ABANDONED;
		if (n == -EINTR && interrupted++ < EINTR_RETRY_MAX)
			continue;
		if (n > 0 && (uint64_t)n > want)
			n = -EIO; /* no storage moves more than it was given */
		if (in && n == 0 && may_end_at(session, offset + moved))
			return request_zero(request, at, session->mem,
					    request->data_len - moved)
				       ? IO_DONE
				       : IO_FAILED;
		if (n <= 0)
			return refuse(session, n, moved);
		if (in && iov[0].iov_base == session->pages.bounce &&
		    !request_copy_out(request, at, session->mem,
				      session->pages.bounce, (uint64_t)n))
			return IO_FAILED;
		cursor_advance(request, &at, (uint64_t)n);
		moved += (uint64_t)n;
	}
	return IO_DONE;
}

/* Refuse what is to be durable, where a flush has failed. */
static bool flush_failed(const struct session *session)
{
	const struct request *request = &session->request;

	if (session->flush_failed)
		log_event(&session->id, FLUSH_FAILED_BEFORE, request->type,
			  request->sector);
	return session->flush_failed;
}

/*
 * Make what was written durable. A failure stays until reset, whatever it was:
 * the kernel drops the pages it could not write and tells it once, so that the
 * next flush would succeed, and not for what was written before. O_DIRECT too:
 * of a disk's own cache that did not get through it is known no better.
 */
static enum io_end flush(struct session *session)
{
	const struct ktvblk_backend *backend = session->backend;
	int r;

	if (flush_failed(session))
		return IO_FAILED;
	if (!backend->ops.flush)
		return IO_DONE;
	if (session_stopping(session))
		return IO_ABANDONED;
	session_leave(session);
	r = backend->ops.flush(backend->userdata);
	if (!session_enter(session))
		return IO_ABANDONED;
	if (r >= 0)
		return IO_DONE;
	session->flush_failed = true;
	log_event(&session->id, FLUSH_FAILED, -r);
	return IO_FAILED;
}

/*
 * Section 5.2.6.2: where the driver did not take FLUSH, a write is durable when
 * it completes. Where it was not offered it cannot know better either.
 */
static enum io_end write_data(struct session *session, uint64_t offset,
			      uint64_t *ret_moved)
{
	const bool through = session->write_through &&
			     session->request.data_len;
	enum io_end end;

	if (through && flush_failed(session))
		return IO_FAILED;
	end = transfer(session, offset, ret_moved);
	if (end != IO_DONE || !through)
		return end;
	return flush(session);
}

static enum io_end serve_data(struct session *session, uint64_t *ret_moved)
{
	const struct request *request = &session->request;
	const bool in = request->type == VIRTIO_BLK_T_IN;
	uint64_t offset;

	if (!range_ok(session, &offset) ||
	    !request_data_ok(request, session->mem, in) ||
	    !blocks_ok(session, offset))
		return IO_FAILED;
	return in ? transfer(session, offset, ret_moved)
		  : write_data(session, offset, ret_moved);
}

static enum io_end serve_get_id(struct session *session)
{
	const struct request *request = &session->request;

	if (request->data_len < VIRTIO_BLK_ID_BYTES ||
	    !request_copy_out(request, (struct cursor){ 0 }, session->mem,
			      session->disk.serial, VIRTIO_BLK_ID_BYTES))
		return IO_FAILED;
	return IO_DONE;
}

static struct io_result served(struct session *session, uint64_t moved)
{
	switch (session->request.type) {
	case VIRTIO_BLK_T_FLUSH:
		count_flush(session->stats);
		return done(VIRTIO_BLK_S_OK, 1);
	case VIRTIO_BLK_T_GET_ID:
		return done(VIRTIO_BLK_S_OK, VIRTIO_BLK_ID_BYTES + 1);
	case VIRTIO_BLK_T_OUT:
		count_write(session->stats, moved);
		return done(VIRTIO_BLK_S_OK, 1);
	default:
		count_read(session->stats, moved);
		return done(VIRTIO_BLK_S_OK, session->request.data_len + 1);
	}
}

struct io_result io_serve(struct session *session)
{
	uint64_t moved = 0;
	enum io_end end;

	switch (session->request.type) {
	case VIRTIO_BLK_T_FLUSH:
		end = flush(session);
		break;
	case VIRTIO_BLK_T_GET_ID:
		end = serve_get_id(session);
		break;
	default:
		end = serve_data(session, &moved);
	}
	/* It may have waited for guest memory for too long. */
	if (end == IO_ABANDONED || session_revoked(session))
		return ABANDONED;
	return end == IO_DONE ? served(session, moved) : failed(session);
}
