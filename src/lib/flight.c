/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See flight.h. */

#include <string.h>

#include "flight.h"
#include "util.h"

#define LONG_BITS (8 * sizeof(long))

void flight_init(struct flight *flight, const struct pages *pages,
		 unsigned int n)
{
	*flight = (struct flight){ .pages = pages, .n = n };
}

static struct io *fresh(struct flight *flight)
{
	const unsigned int slot = flight->n_fresh++;
	const struct pages *pages = flight->pages;
	struct io *io = &pages->ios[slot];

	*io = (struct io){ .slot = slot };
	io->request.ranges = io->ranges;
	if (pages->bounce)
		io->bounce = pages->bounce + (size_t)slot * pages->bounce_bytes;
	if (pages->iovs)
		io->iovs = pages->iovs + (size_t)slot * IOV_BATCH_MAX;
	flight->grown |= slot > 0;
	return io;
}

struct io *flight_take(struct flight *flight)
{
	struct io *io = flight->free;

	if (io)
		flight->free = io->next;
	else
		io = fresh(flight);
	io->request.chain.descs = flight->pages->chain;
	io->in_flight = false;
	flight->n_busy++;
	return io;
}

static unsigned long *head_word(struct flight *flight, uint16_t head,
				unsigned long *ret_bit)
{
	*ret_bit = 1ul << (head % LONG_BITS);
	return &flight->heads[head / LONG_BITS];
}

void flight_put(struct flight *flight, struct io *io)
{
	unsigned long *word, bit;

	if (io->in_flight) {
		word = head_word(flight, io->request.head, &bit);
		*word &= ~bit;
	}
	if (flight->keeper == io)
		flight->keeper = NULL;
	io->next = flight->free;
	flight->free = io;
	flight->n_busy--;
}

void flight_keep(struct flight *flight, struct io *io)
{
	struct request *request = &io->request;
	unsigned long bit, *word = head_word(flight, request->head, &bit);

	io->in_flight = true;
	flight->grown |= request->n_segs > IO_SEGS;
	*word |= bit;
	if (request->n_segs > IO_SEGS) {
		flight->keeper = io;
		return;
	}
	memcpy(io->segs, request->chain.descs,
	       request->n_segs * sizeof(*io->segs));
	request->chain.descs = io->segs;
}

bool flight_has_head(const struct flight *flight, uint16_t head)
{
	return head < KTVBLK_QUEUE_SIZE_MAX &&
	       flight->heads[head / LONG_BITS] >> (head % LONG_BITS) & 1;
}

void flight_idle(struct flight *flight)
{
	pages_idle(flight->pages);
	flight->n_fresh = 0;
	flight->free = NULL;
	flight->grown = false;
}
