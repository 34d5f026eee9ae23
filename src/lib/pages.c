/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See pages.h. */

#include <sys/mman.h>

#include "bounds.h"
#include "pages.h"
#include "util.h"
#include "virtqueue.h"

static void *map(size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

const char *pages_map(struct pages *pages, bool zero_copy)
{
	if (!pages->drop_stack)
		pages->drop_stack = map(DROP_STACK_BYTES);
	if (!pages->drop_stack)
		return "stack";
	if (!pages->chain)
		pages->chain = map(CHAIN_BYTES);
	if (!pages->chain)
		return "chain";
	if (!pages->bounce && !zero_copy)
		pages->bounce = map(BOUNCE_BYTES);
	return pages->bounce || zero_copy ? NULL : "buffer";
}

void pages_idle(struct pages *pages)
{
	if (pages->chain)
		madvise(pages->chain, CHAIN_BYTES, MADV_DONTNEED);
	if (pages->bounce)
		madvise(pages->bounce, BOUNCE_BYTES, MADV_DONTNEED);
}

void pages_unmap(struct pages *pages)
{
	if (pages->drop_stack)
		munmap(pages->drop_stack, DROP_STACK_BYTES);
	if (pages->chain)
		munmap(pages->chain, CHAIN_BYTES);
	if (pages->bounce)
		munmap(pages->bounce, BOUNCE_BYTES);
	*pages = (struct pages){ 0 };
}

void pages_take(struct pages *to, struct pages *from)
{
	if (!from->drop_stack)
		return; /* they are there already, or nowhere */
	*to = *from;
	*from = (struct pages){ 0 };
}
