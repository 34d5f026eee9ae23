/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_FLIGHT_H
#define KTVBLK_FLIGHT_H

/*
 * The requests that are in flight: a table made at the session's start, so that
 * none is ever allocated, of which only what was needed at once is touched. The
 * one that was used last is used next, as its buffer is still in the cache.
 *
 * A chain is read into room that is common to all, as there is but one request
 * being started; one that stays takes its segments along, if they fit. If not,
 * it keeps the room, and none is started before it has ended.
 */

#include <stdbool.h>

#include "engine.h"
#include "pages.h"
#include "request.h"

enum io_state {
	IO_DATA, /* it moves its data */
	IO_DURABLE, /* it makes what was written durable */
	/* These two: see ranges.c. */
	IO_RANGES, /* it asks the storage to discard, or for zeros */
	IO_ZEROS, /* it writes them itself */
};

/* A request in service: see io.c. */
struct io {
	struct request request;
	struct transfer transfer;
	enum io_state state;
	bool through; /* of a write: it is durable when it completes */
	unsigned int interrupted; /* transfers of it, so far */
	struct cursor at;
	uint64_t offset; /* on the disk */
	uint64_t moved; /* bytes */
	uint64_t written; /* see io.c, durable() */
	unsigned int range; /* the one that it is at */
	unsigned int cannot; /* what the storage need not be asked for */
	uint8_t status; /* these two: once it is done */
	uint32_t used_len;

	unsigned int slot; /* where it is in the table; these: for good */
	unsigned char *bounce; /* its buffer; NULL: zero-copy */
	struct iovec *iovs; /* IOV_BATCH_MAX of them; NULL: fenced */
	struct iovec one;
	bool in_flight; /* it was left with the storage */
	struct io *next; /* of those that are free */
	/* A request has its data somewhere, or is about ranges. */
	union {
		struct chain_desc segs[IO_SEGS];
		struct range ranges[RANGES_MAX];
	};
};

struct flight {
	const struct pages *pages;
	unsigned int n; /* of the table in use */
	unsigned int n_fresh; /* so many have been used, the first ones */
	unsigned int n_busy;
	struct io *free;
	struct io *keeper; /* of the common room; NULL: nobody */
	struct io *beginning; /* the storage has been called for; or NULL */
	bool closed; /* nothing begins any more: see drain_out() */
	bool grown; /* more is touched than an idle session should have */
	unsigned long heads[KTVBLK_QUEUE_SIZE_MAX / (8 * sizeof(long))];
};

/* May another be started? */
static inline bool flight_has_room(const struct flight *flight)
{
	return flight->n_busy < flight->n && !flight->keeper;
}

void flight_init(struct flight *flight, const struct pages *pages,
		 unsigned int n);

/* There is room: one whose request is to be read. */
struct io *flight_take(struct flight *flight);
void flight_put(struct flight *flight, struct io *io);

/* It stays with the storage. */
void flight_keep(struct flight *flight, struct io *io);

/* Is this head one of those that do? */
bool flight_has_head(const struct flight *flight, uint16_t head);

/* Nothing is in flight: let the memory of all that was touched go. */
void flight_idle(struct flight *flight);

#endif
