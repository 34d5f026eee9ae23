/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One mapping, the stack first; to unmap it interrupts other CPUs once. */

#include <sys/mman.h>

#include "bounds.h"
#include "pages.h"
#include "util.h"
#include "virtqueue.h"

/* Of chain and buffer. */
static size_t touched_bytes(const struct pages *pages)
{
	return CHAIN_BYTES + (pages->bounce ? BOUNCE_BYTES : 0);
}

bool pages_map(struct pages *pages, bool zero_copy)
{
	const size_t front = DROP_STACK_BYTES + CHAIN_BYTES;
	unsigned char *all;

	if (pages->drop_stack)
		return true;
	all = (unsigned char *)mmap(NULL,
				    front + (zero_copy ? 0 : BOUNCE_BYTES),
				    PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		return false;
	pages->drop_stack = all;
	pages->chain = all + DROP_STACK_BYTES;
	pages->bounce = zero_copy ? NULL : all + front;
	return true;
}

void pages_idle(struct pages *pages)
{
	if (pages->chain)
		madvise(pages->chain, touched_bytes(pages), MADV_DONTNEED);
}

void pages_unmap(struct pages *pages)
{
	if (pages->drop_stack)
		munmap(pages->drop_stack,
		       DROP_STACK_BYTES + touched_bytes(pages));
	*pages = (struct pages){ 0 };
}

void pages_take(struct pages *to, struct pages *from)
{
	if (!from->drop_stack)
		return; /* they are there already, or nowhere */
	*to = *from;
	*from = (struct pages){ 0 };
}
