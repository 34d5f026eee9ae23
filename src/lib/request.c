/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The gates. Their order is what the guest can see, so it is kept: a request
 * with two faults answers for the first. None of them touches the storage or
 * takes tokens.
 */

#include "journal.h"
#include "request.h"
#include "util.h"

#define HEADER_BYTES ((uint32_t)sizeof(struct virtio_blk_outhdr))
#define RANGE_BYTES ((uint32_t)sizeof(struct virtio_blk_discard_write_zeroes))

/* What the layout of a chain says, before anything in it is believed. */
struct framing {
	/* As many pieces as it can be in, if each has a byte. */
	uint64_t header_addr[HEADER_BYTES];
	uint32_t header_len[HEADER_BYTES];
	unsigned int n_header;
	uint32_t header_bytes;
	unsigned int status; /* where in the chain */
};

/* The last writable byte; false: there is none. */
static bool find_status(struct request *request, struct framing *framing)
{
	const struct chain *chain = &request->chain;
	unsigned int i = chain->n_descs;

	while (i-- > 0)
		if (chain->descs[i].writable && chain->descs[i].len) {
			framing->status = i;
			return !__builtin_add_overflow(chain->descs[i].addr,
						       chain->descs[i].len - 1,
						       &request->status_addr);
		}
	return false;
}

/* In place: there are never more segments than descriptors so far. */
static void add_segment(struct request *request, struct chain_desc seg)
{
	request->chain.descs[request->n_segs++] = seg;
	request->data_len += seg.len;
}

static void frame_readable(struct request *request, struct framing *framing,
			   struct chain_desc desc)
{
	const uint32_t take =
		MIN(HEADER_BYTES - framing->header_bytes, desc.len);

	if (take) {
		framing->header_addr[framing->n_header] = desc.addr;
		framing->header_len[framing->n_header++] = take;
	}
	if (framing->header_bytes == HEADER_BYTES || take < desc.len) {
		desc.addr += take;
		desc.len -= take;
		add_segment(request, desc);
	}
	framing->header_bytes += take;
}

static void frame(struct request *request, struct framing *framing)
{
	const struct chain *chain = &request->chain;

	framing->n_header = 0;
	framing->header_bytes = 0;
	request->n_segs = 0;
	request->n_ranges = 0;
	request->data_len = 0;
	for (unsigned int i = 0; i < chain->n_descs; i++) {
		struct chain_desc desc = chain->descs[i];

		if (!desc.writable) {
			frame_readable(request, framing, desc);
		} else if (i < framing->status) {
			add_segment(request, desc);
		} else if (i == framing->status && desc.len > 1) {
			desc.len--;
			add_segment(request, desc);
		}
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
	const struct chain_desc *segs = request->chain.descs;

	for (unsigned int i = 0; i < request->n_segs; i++)
		if (segs[i].len && segs[i].writable == writable)
			return true;
	return false;
}

/* Acquire: pairs with the store of who takes the session away. */
static bool revoked(const struct request *request)
{
	return request->revoked &&
	       atomic_load_explicit(request->revoked, memory_order_acquire);
}

/* Gates 1 and 2: is there a chain, and a place for the status? */
static enum chain_result read_chain(struct request *request,
				    const struct virtqueue *vq,
				    struct framing *framing,
				    const struct identity *id)
{
	const char *reason;
	enum chain_result result = virtqueue_read_chain(
		vq, request->head, &request->chain, &reason);

	if (revoked(request))
		return CHAIN_MALFORMED; /* or not: nobody is to know */
	if (result == CHAIN_MALFORMED) {
		log_event(id, CHAIN_MALFORMED, request->head, reason);
		return result;
	}
	if (!find_status(request, framing)) {
		log_event(id, CHAIN_NO_STATUS, request->head);
		return CHAIN_MALFORMED;
	}
	if (result == CHAIN_FLAWED)
		log_event(id, CHAIN_REFUSED, request->head, reason);
	return result;
}

/* Gates 3 to 8, but the fifth, which was of size: true if it goes on. */
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
	if (revoked(request))
		return false;
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

/* Is it one of those with ranges that the driver negotiated? */
static bool takes_ranges(const struct request *request,
			 const struct request_rules *rules)
{
	switch (request->type) {
	case VIRTIO_BLK_T_DISCARD:
		return rules->discard;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return rules->write_zeroes;
	default:
		return false;
	}
}

/*
 * The ranges, into memory of our own, once: what the guest makes of its copy
 * from then on is nobody's business. In records it is the first that says where
 * the request is.
 */
static bool read_ranges(struct request *request, const struct ktvblk_mem *mem,
			const struct identity *id)
{
	const uint32_t max = request->type == VIRTIO_BLK_T_DISCARD
				     ? RANGES_MAX
				     : ZERO_RANGES_MAX;
	struct virtio_blk_discard_write_zeroes raw[RANGES_MAX];
	const uint32_t n = request->data_len / RANGE_BYTES;

	request->label = "ranges";
	if (!n || n > max || request->data_len % RANGE_BYTES) {
		log_event(id, RANGES_INVALID, request->head, request->type,
			  request->data_len);
		return false;
	}
	if (has_data_of_direction(request, true)) {
		log_event(id, DATA_DIRECTION, request->head, request->type);
		return false;
	}
	if (!request_copy_in(request, (struct cursor){ 0 }, mem, raw,
			     n * RANGE_BYTES))
		return false;
	for (uint32_t i = 0; i < n; i++)
		request->ranges[i] = (struct range){
			.sector = le64toh(raw[i].sector),
			.n_sectors = le32toh(raw[i].num_sectors),
			.flags = le32toh(raw[i].flags),
		};
	request->n_ranges = n;
	request->n_segs = 0;
	request->sector = request->ranges[0].sector;
	/* Whatever it says, as a number of bytes. */
	request->data_len =
		MIN(request->ranges[0].n_sectors, UINT32_MAX / SECTOR_BYTES) *
		SECTOR_BYTES;
	return true;
}

/* A type that is not one of the usual ones. */
__attribute__((noinline, cold)) static enum request_action
read_other(struct request *request, const struct ktvblk_mem *mem,
	   const struct request_rules *rules, const struct identity *id,
	   uint8_t *ret_status)
{
	if (rules->read_only && request_has_ranges(request->type))
		return REQUEST_COMPLETE;
	if (!takes_ranges(request, rules)) {
		*ret_status = VIRTIO_BLK_S_UNSUPP;
		return REQUEST_COMPLETE;
	}
	request->well_formed = read_ranges(request, mem, id);
	return request->well_formed ? REQUEST_SERVE : REQUEST_COMPLETE;
}

/* Reading the chain may have taken long. */
static void count_refused(const struct request *request,
			  struct ktvblk_stats *stats)
{
	if (!revoked(request))
		count_io_error(stats);
}

enum request_action
request_read(struct request *request, const struct virtqueue *vq,
	     const struct request_rules *rules, const struct identity *id,
	     struct ktvblk_stats *stats, uint8_t *ret_status)
{
	enum request_action action;
	enum chain_result result;
	struct framing framing;

	request->well_formed = false;
	result = read_chain(request, vq, &framing, id);
	if (result == CHAIN_MALFORMED) {
		count_refused(request, stats);
		return REQUEST_DROP;
	}
	*ret_status = VIRTIO_BLK_S_IOERR;
	request->label = "chain";
	if (result == CHAIN_FLAWED)
		goto refuse;
	frame(request, &framing);
	if (!shape_ok(request, &framing, vq->mem, id))
		goto refuse;
	request->label = "normal";
	request->well_formed = true;
	switch (request->type) {
	case VIRTIO_BLK_T_OUT:
		if (rules->read_only)
			goto refuse;
		break;
	case VIRTIO_BLK_T_FLUSH:
		if (!rules->read_only)
			break;
		if (!revoked(request))
			count_flush(stats);
		*ret_status = VIRTIO_BLK_S_OK;
		return REQUEST_COMPLETE;
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_GET_ID:
		break;
	default:
		action = read_other(request, vq->mem, rules, id, ret_status);
		if (action == REQUEST_COMPLETE &&
		    *ret_status == VIRTIO_BLK_S_IOERR)
			goto refuse;
		return action;
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
	count_refused(request, stats);
	return REQUEST_COMPLETE;
}

void cursor_advance(const struct request *request, struct cursor *cursor,
		    uint64_t n)
{
	while (n && cursor->seg < request->n_segs) {
		const uint32_t left =
			request->chain.descs[cursor->seg].len - cursor->offset;

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
	for (; (len) && (at).seg < (request)->n_segs &&                        \
	       ((addr) = (request)->chain.descs[(at).seg].addr + (at).offset,  \
	       (have) = MIN((len), (request)->chain.descs[(at).seg].len -      \
					   (at).offset),                       \
	       true);                                                          \
	     (len) -= (have), (at).seg++, (at).offset = 0)

/* To write at one time: a page may be long in coming. */
static uint64_t step(uint64_t addr, uint64_t len)
{
	return MIN(len, PAGE_BYTES - addr % PAGE_BYTES);
}

/* Of each page: it may be the last before the session is revoked. */
static const struct dirty_log *dirty_log(const struct request *request)
{
	return request->dirty && dirty_is_wanted(request->dirty)
		       ? request->dirty
		       : NULL;
}

/* Made twice, as mostly there is no log. */
__attribute__((always_inline)) static inline bool
copy_out(const struct request *request, struct cursor at,
	 const struct ktvblk_mem *mem, const void *from, uint64_t len,
	 const struct dirty_log *log)
{
	const unsigned char *in = (const unsigned char *)from;
	uint64_t addr, have, n;

	for_each_range(request, at, len, addr, have)
		for (uint64_t done = 0; done < have; done += n, in += n) {
			n = step(addr + done, have - done);
			if (revoked(request) ||
			    !mem_write(mem, addr + done, in, n))
				return false;
			if (log && !revoked(request))
				dirty_tell(log, addr + done, n);
		}
	return !len;
}

bool request_copy_out(const struct request *request, struct cursor at,
		      const struct ktvblk_mem *mem, const void *from,
		      uint64_t len)
{
	const struct dirty_log *log = dirty_log(request);

	return log ? copy_out(request, at, mem, from, len, log)
		   : copy_out(request, at, mem, from, len, NULL);
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
	const struct dirty_log *log = dirty_log(request);
	uint64_t addr, have, n;

	for_each_range(request, at, len, addr, have)
		for (uint64_t done = 0; done < have; done += n) {
			n = step(addr + done, have - done);
			if (revoked(request) || !mem_zero(mem, addr + done, n))
				return false;
			if (log && !revoked(request))
				dirty_tell(log, addr + done, n);
		}
	return !len;
}

void request_tell_dirty(const struct request *request, struct cursor at,
			uint64_t len)
{
	uint64_t addr, have;

	for_each_range(request, at, len, addr, have)
		dirty_tell(request->dirty, addr, have);
}

bool request_data_ok(const struct request *request,
		     const struct ktvblk_mem *mem, bool writable)
{
	for (unsigned int i = 0; i < request->n_segs; i++) {
		const struct chain_desc *seg = &request->chain.descs[i];

		if (seg->len &&
		    (seg->writable != writable ||
		     !(writable ? mem_covers_writable(mem, seg->addr, seg->len)
				: mem_covers(mem, seg->addr, seg->len))))
			return false;
	}
	return true;
}

uint64_t request_map(const struct request *request, struct cursor at,
		     const struct ktvblk_mem *mem, uint64_t len,
		     struct iovec *iov, int max, int *ret_n)
{
	uint64_t total = 0, addr, have, piece;
	int n = 0;

	for_each_range(request, at, len, addr, have)
		for (uint64_t done = 0; done < have; done += piece) {
			void *host = mem_span_for(
				mem, addr + done, have - done,
				request->chain.descs[at.seg].writable, &piece);

			if (!host || n == max) {
				*ret_n = n;
				return total;
			}
			iov[n++] = (struct iovec){ host, (size_t)piece };
			total += piece;
		}
	*ret_n = n;
	return total;
}
