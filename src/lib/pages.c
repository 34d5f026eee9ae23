/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One mapping, the stack first; to unmap it interrupts other CPUs once. */

#include <sys/mman.h>

#include "bounds.h"
#include "flight.h"
#include "pages.h"
#include "util.h"

/* In whole pages, which are 64 KiB at most. */
static size_t whole(size_t bytes)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

bool pages_map(struct pages *pages, const struct pages_shape *shape)
{
	const size_t chain = DROP_STACK_BYTES;
	const size_t ios = chain + whole(CHAIN_BYTES);
	const size_t iovs = ios + whole(shape->n_ios * sizeof(struct io));
	const size_t bounce =
		iovs + (shape->iovs ? whole(shape->n_ios * IOV_BATCH_MAX *
					    sizeof(struct iovec))
				    : 0);
	const size_t bytes = bounce + shape->n_ios * shape->bounce_bytes;
	unsigned char *all;

	if (pages->drop_stack)
		return true;
	all = (unsigned char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
				    -1, 0);
	if (all == MAP_FAILED)
		return false;
	pages->drop_stack = all;
	pages->chain = (struct chain_desc *)(void *)(all + chain);
	pages->ios = (struct io *)(void *)(all + ios);
	pages->iovs = shape->iovs ? (struct iovec *)(void *)(all + iovs) : NULL;
	pages->bounce = shape->bounce_bytes ? all + bounce : NULL;
	pages->bounce_bytes = shape->bounce_bytes;
	pages->bytes = bytes;
	return true;
}

void pages_idle(const struct pages *pages)
{
	if (pages->chain)
		madvise(pages->chain, pages->bytes - DROP_STACK_BYTES,
			MADV_DONTNEED);
}

void pages_unmap(struct pages *pages)
{
	if (pages->drop_stack)
		munmap(pages->drop_stack, pages->bytes);
	*pages = (struct pages){ 0 };
}

void pages_take(struct pages *to, struct pages *from)
{
	if (!from->drop_stack)
		return; /* they are there already, or nowhere */
	*to = *from;
	*from = (struct pages){ 0 };
}
