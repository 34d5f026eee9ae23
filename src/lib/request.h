/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_REQUEST_H
#define KTVBLK_REQUEST_H

/*
 * From a chain to a request that may be served, or to why not.
 *
 * Framing is read in bytes (section 2.7.4 leaves it to the driver): the first
 * 16 readable bytes are the header, the last writable byte is the status, what
 * is between them is data, cut into segments where descriptors end.
 */

#include <linux/virtio_blk.h>

#include "counters.h"
#include "dirty.h"
#include "identity.h"
#include "memory.h"
#include "virtqueue.h"

/* A piece of the disk that is to be discarded, or to read as zeros. */
struct range {
	uint64_t sector;
	uint32_t n_sectors;
	uint32_t flags;
};

/* What the driver may ask for, beside reads, flushes and the id. */
struct request_rules {
	bool read_only;
	bool discard, write_zeroes; /* negotiated */
};

struct request {
	uint16_t head;
	struct chain chain; /* whose descriptors become the segments */
	uint32_t type;
	uint64_t sector;
	uint64_t status_addr;
	uint32_t data_len; /* of its data; or of its first range */
	unsigned int n_segs; /* of chain.descs: of its data, and nothing else */
	bool well_formed; /* it passed all gates about its form */
	const char *label; /* which gate it ended at, for the records */
	struct range *ranges; /* the owner's: RANGES_MAX, of which are used */
	unsigned int n_ranges; /* so many; then there is no data any more */
	/* Then nothing is written or counted any more; NULL: that cannot be. */
	const _Atomic bool *revoked;
	const struct dirty_log *dirty; /* NULL: nobody is told */
};

enum request_action {
	REQUEST_SERVE,
	REQUEST_COMPLETE, /* with the status given, and nothing else */
	REQUEST_DROP, /* no status byte, no used entry: see below */
};

/*
 * Read the chain at request->head and pass it through the gates, in the order
 * of the reference. A chain without a place for its status is dropped: a used
 * entry without a status byte would have the driver read a stale one and take
 * it for success. All others are answered. Counts and records what it refuses.
 */
enum request_action
request_read(struct request *request, const struct virtqueue *vq,
	     const struct request_rules *rules, const struct identity *id,
	     struct ktvblk_stats *stats, uint8_t *ret_status);

static inline bool request_has_ranges(uint32_t type)
{
	return type == VIRTIO_BLK_T_DISCARD ||
	       type == VIRTIO_BLK_T_WRITE_ZEROES;
}

/* A place in the request's data. */
struct cursor {
	unsigned int seg;
	uint32_t offset;
};

void cursor_advance(const struct request *request, struct cursor *cursor,
		    uint64_t n);

/*
 * Copy len bytes from the cursor on, without moving it; false: not all of it is
 * guest memory, or the session is revoked, which is looked at for each page.
 */
bool request_copy_out(const struct request *request, struct cursor at,
		      const struct ktvblk_mem *mem, const void *from,
		      uint64_t len);
bool request_copy_in(const struct request *request, struct cursor at,
		     const struct ktvblk_mem *mem, void *to, uint64_t len);
bool request_zero(const struct request *request, struct cursor at,
		  const struct ktvblk_mem *mem, uint64_t len);

/* Say that it is written, or about to be. */
void request_tell_dirty(const struct request *request, struct cursor at,
			uint64_t len);

/* Is all data guest memory, of the given direction, and may be written then? */
bool request_data_ok(const struct request *request,
		     const struct ktvblk_mem *mem, bool writable);

/* Guest memory itself, len bytes at most, as iovecs; how many they hold. */
uint64_t request_map(const struct request *request, struct cursor at,
		     const struct ktvblk_mem *mem, uint64_t len,
		     struct iovec *iov, int max, int *ret_n);

#endif
