/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The gates. Their order is what the guest can see, so it is kept: a request
 * with two faults answers for the first. None of them touches the storage or
 * takes tokens.
 */

#include <linux/virtio_blk.h>

#include "journal.h"
#include "request.h"
#include "util.h"

#define HEADER_BYTES ((uint32_t)sizeof(struct virtio_blk_outhdr))

/* What the layout of a chain says, before anything in it is believed. */
struct framing {
	uint64_t header_addr[CHAIN_DESC_MAX];
	uint32_t header_len[CHAIN_DESC_MAX];
	unsigned int n_header;
	uint32_t header_bytes;
	const struct chain_desc *status; /* NULL: no writable byte */
	bool too_large;
};

static void add_segment(struct request *request, struct framing *framing,
			const struct chain_desc *desc, uint32_t skip,
			uint32_t len)
{
	framing->too_large |= len > SEG_BYTES_MAX;
	request->segs[request->n_segs++] =
		(struct segment){ .addr = desc->addr + skip,
				  .len = len,
				  .writable = desc->writable };
	request->data_len += len;
}

static void frame_readable(struct request *request, struct framing *framing,
			   const struct chain_desc *desc)
{
	const uint32_t take =
		MIN(HEADER_BYTES - framing->header_bytes, desc->len);

	if (framing->header_bytes == HEADER_BYTES || take < desc->len)
		add_segment(request, framing, desc, take, desc->len - take);
	if (!take)
		return;
	framing->header_addr[framing->n_header] = desc->addr;
	framing->header_len[framing->n_header++] = take;
	framing->header_bytes += take;
}

static void frame(struct request *request, struct framing *framing)
{
	const struct chain *chain = &request->chain;

	framing->n_header = 0;
	framing->header_bytes = 0;
	framing->status = NULL;
	framing->too_large = false;
	request->n_segs = 0;
	request->data_len = 0;
	for (unsigned int i = chain->n_descs; i-- > 0 && !framing->status;)
		if (chain->descs[i].writable && chain->descs[i].len)
			framing->status = &chain->descs[i];
	for (unsigned int i = 0; i < chain->n_descs; i++) {
		const struct chain_desc *desc = &chain->descs[i];

		if (!desc->writable)
			frame_readable(request, framing, desc);
		else if (desc == framing->status && desc->len > 1)
			add_segment(request, framing, desc, 0, desc->len - 1);
		else if (framing->status && desc < framing->status)
			add_segment(request, framing, desc, 0, desc->len);
	}
}

static bool read_header(struct request *request, const struct framing *framing,
			const struct ktvblk_mem *mem)
{
	struct virtio_blk_outhdr header;
	unsigned char *to = (unsigned char *)&header;

	for (unsigned int i = 0; i < framing->n_header; i++) {
		if (!mem_read_once(mem, framing->header_addr[i], to,
				   framing->header_len[i]))
			return false;
		to += framing->header_len[i];
	}
	request->type = le32toh(header.type);
	request->sector = le64toh(header.sector);
	return true;
}

static bool has_data_of_direction(const struct request *request, bool writable)
{
	for (unsigned int i = 0; i < request->n_segs; i++)
		if (request->segs[i].len &&
		    request->segs[i].writable == writable)
			return true;
	return false;
}

/* Gates 1 and 2: is there a chain, and a place for the status? */
static bool chain_ok(struct request *request, const struct virtqueue *vq,
		     struct framing *framing, const struct identity *id)
{
	const char *reason;

	switch (virtqueue_read_chain(vq, request->head, &request->chain,
				     &reason)) {
	case CHAIN_WHOLE:
		break;
	case CHAIN_TOO_LONG:
		log_event(id, CHAIN_TOO_LONG, request->head,
			  CHAIN_DESC_MAX + 1);
		return false;
	case CHAIN_MALFORMED:
		log_event(id, CHAIN_MALFORMED, request->head, reason);
		return false;
	}
	frame(request, framing);
	if (!framing->status || __builtin_add_overflow(framing->status->addr,
						       framing->status->len - 1,
						       &request->status_addr)) {
		log_event(id, CHAIN_NO_STATUS, request->head);
		return false;
	}
	return true;
}

/* Gates 3 to 8: true if it goes on. */
static bool shape_ok(struct request *request, const struct framing *framing,
		     const struct ktvblk_mem *mem, const struct identity *id)
{
	const uint16_t head = request->head;

	request->label = "header";
	if (framing->header_bytes < HEADER_BYTES) {
		log_event(id, HEADER_INVALID, head);
		return false;
	}
	if (!read_header(request, framing, mem)) {
		log_event(id, HEADER_UNREADABLE, head);
		return false;
	}
	request->label = "segment size";
	if (framing->too_large) {
		log_event(id, SEGMENT_TOO_LARGE, head);
		return false;
	}
	request->label = "data";
	switch (request->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
	case VIRTIO_BLK_T_GET_ID:
		if (request->n_segs)
			break;
		log_event(id, DATA_MISSING, head, request->type);
		return false;
	case VIRTIO_BLK_T_FLUSH:
		if (!request->n_segs)
			break;
		log_event(id, FLUSH_WITH_DATA, head, request->n_segs);
		return false;
	}
	if ((request->type == VIRTIO_BLK_T_IN ||
	     request->type == VIRTIO_BLK_T_OUT) &&
	    request->data_len % SECTOR_BYTES) {
		log_event(id, DATA_NOT_SECTORS, head, request->type,
			  request->data_len);
		return false;
	}
	return true;
}

enum request_action request_read(struct request *request,
				 const struct virtqueue *vq, bool read_only,
				 const struct identity *id,
				 struct ktvblk_stats *stats,
				 uint8_t *ret_status)
{
	struct framing framing;

	request->well_formed = false;
	if (!chain_ok(request, vq, &framing, id)) {
		count_io_error(stats);
		return REQUEST_DROP;
	}
	*ret_status = VIRTIO_BLK_S_IOERR;
	if (!shape_ok(request, &framing, vq->mem, id))
		goto refuse;
	request->label = "normal";
	request->well_formed = true;
	switch (request->type) {
	case VIRTIO_BLK_T_OUT:
		if (read_only)
			goto refuse;
		break;
	case VIRTIO_BLK_T_FLUSH:
		if (!read_only)
			break;
		count_flush(stats);
		*ret_status = VIRTIO_BLK_S_OK;
		return REQUEST_COMPLETE;
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_GET_ID:
		break;
	default:
		*ret_status = VIRTIO_BLK_S_UNSUPP;
		return REQUEST_COMPLETE;
	}
	/* Data the other way: readable for OUT, writable for IN and GET_ID. */
	if (has_data_of_direction(request, request->type == VIRTIO_BLK_T_OUT)) {
		request->label = "direction";
		request->well_formed = false;
		log_event(id, DATA_DIRECTION, request->head, request->type);
		goto refuse;
	}
	return REQUEST_SERVE;

refuse:
	count_io_error(stats);
	return REQUEST_COMPLETE;
}

void cursor_advance(const struct request *request, struct cursor *cursor,
		    uint64_t n)
{
	while (n && cursor->seg < request->n_segs) {
		const uint32_t left =
			request->segs[cursor->seg].len - cursor->offset;

		if (n < left) {
			cursor->offset += (uint32_t)n;
			return;
		}
		n -= left;
		cursor->seg++;
		cursor->offset = 0;
	}
}

/*
 * Go through len bytes of data from a cursor on, one guest range at a time:
 * addr and have are set for each turn of the body.
 */
#define for_each_range(request, at, len, addr, have)                           \
	for (;                                                                 \
	     (len) && (at).seg < (request)->n_segs &&                          \
	     ((addr) = (request)->segs[(at).seg].addr + (at).offset,           \
	     (have) = MIN((len), (request)->segs[(at).seg].len - (at).offset), \
	     true);                                                            \
	     (len) -= (have), (at).seg++, (at).offset = 0)

bool request_copy_out(const struct request *request, struct cursor at,
		      const struct ktvblk_mem *mem, const void *from,
		      uint64_t len)
{
	const unsigned char *in = (const unsigned char *)from;
	uint64_t addr, have;

	for_each_range(request, at, len, addr, have) {
		if (!mem_write(mem, addr, in, have))
			return false;
		in += have;
	}
	return !len;
}

bool request_copy_in(const struct request *request, struct cursor at,
		     const struct ktvblk_mem *mem, void *to, uint64_t len)
{
	unsigned char *out = (unsigned char *)to;
	uint64_t addr, have;

	for_each_range(request, at, len, addr, have) {
		if (!mem_read(mem, addr, out, have))
			return false;
		out += have;
	}
	return !len;
}

bool request_zero(const struct request *request, struct cursor at,
		  const struct ktvblk_mem *mem, uint64_t len)
{
	uint64_t addr, have;

	for_each_range(request, at, len, addr, have)
		if (!mem_zero(mem, addr, have))
			return false;
	return !len;
}

bool request_data_ok(const struct request *request,
		     const struct ktvblk_mem *mem, bool writable)
{
	for (unsigned int i = 0; i < request->n_segs; i++) {
		const struct segment *seg = &request->segs[i];

		if (seg->len && (seg->writable != writable ||
				 !mem_covers(mem, seg->addr, seg->len)))
			return false;
	}
	return true;
}

uint64_t request_map(const struct request *request, struct cursor at,
		     const struct ktvblk_mem *mem, struct iovec *iov, int max,
		     int *ret_n)
{
	uint64_t total = 0, len = UINT64_MAX, addr, have, piece;
	int n = 0;

	for_each_range(request, at, len, addr, have)
		for (uint64_t done = 0; done < have; done += piece) {
			void *host =
				mem_span(mem, addr + done, have - done, &piece);

			if (!host || n == max) {
				*ret_n = n;
				return total;
			}
			iov[n++] = (struct iovec){ host, piece };
			total += piece;
		}
	*ret_n = n;
	return total;
}
