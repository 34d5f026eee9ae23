/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See holdings.h. */

#include "backend.h"
#include "holdings.h"
#include "memory.h"
#include "util.h"

struct holdings *holdings_new(struct ktvblk_backend *backend)
{
	struct holdings *holdings = calloc(1, sizeof(*holdings));

	if (!holdings)
		return NULL;
	atomic_init(&holdings->refs, 1);
	holdings->backend = ktvblk_backend_ref(backend);
	return holdings;
}

struct holdings *holdings_ref(struct holdings *holdings)
{
	refs_get(&holdings->refs);
	return holdings;
}

static void drop_memory(void *arg)
{
	struct holdings *holdings = (struct holdings *)arg;

	pthread_cleanup_push(free, holdings);
	ktvblk_mem_unref(holdings->mem);
	pthread_cleanup_pop(1);
}

struct holdings *holdings_unref(struct holdings *holdings)
{
	if (!holdings || !refs_put(&holdings->refs))
		return NULL;
	/* First the storage: its calls may use the memory. */
	pthread_cleanup_push(drop_memory, holdings);
	ktvblk_backend_unref(holdings->backend);
	pthread_cleanup_pop(1);
	return NULL;
}

struct holdings *holdings_unref_quick(struct holdings *holdings)
{
	struct ktvblk_backend *backend;
	struct ktvblk_mem *mem;

	if (!holdings || refs_put_not_last(&holdings->refs))
		return NULL;
	/* Nobody else has it, so it is ours to change. */
	backend = holdings->backend;
	mem = holdings->mem;
	if (backend && !backend->ops.release)
		holdings->backend = ktvblk_backend_unref(backend);
	else if (backend && refs_put_not_last(&backend->refs))
		holdings->backend = NULL;
	if (mem && !mem->release)
		holdings->mem = ktvblk_mem_unref(mem);
	else if (mem && refs_put_not_last(&mem->refs))
		holdings->mem = NULL;
	if (holdings->backend || holdings->mem)
		return holdings;
	return holdings_unref(holdings);
}
