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

/* Volatile as in worker.c. */
struct rest {
	struct ktvblk_mem *volatile mem;
};

/*
 * Behind the storage, also where its release ends the thread. If that of memory
 * does so too, on the way out, this comes here again; there must be no other
 * handler between them, as the C library has it called again as well.
 */
static void drop_memory(void *arg)
{
	struct rest *rest = (struct rest *)arg;
	struct ktvblk_mem *mem = rest->mem;

	rest->mem = NULL;
	ktvblk_mem_unref(mem);
}

struct holdings *holdings_unref(struct holdings *holdings)
{
	struct ktvblk_backend *backend;
	struct rest rest;

	if (!holdings || !refs_put(&holdings->refs))
		return NULL;
	backend = holdings->backend;
	rest.mem = holdings->mem;
	free(holdings);
	/* First the storage: its calls may use the memory. */
	pthread_cleanup_push(drop_memory, &rest);
	ktvblk_backend_unref(backend);
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
