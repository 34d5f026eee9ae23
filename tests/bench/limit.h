/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_LIMIT_H
#define BENCH_LIMIT_H

/*
 * What no device can beat: the same requests on the same file into the same
 * memory, from a loop on the worker's CPU of calls (bare) or of an io_uring with
 * the same depth, and file and buffers registered (ring), or by a server on the
 * worker's CPU that an eventfd wakes for each and that answers by another
 * (ping-pong).
 */

#include "guest.h"
#include "store.h"

/* On a thread of its own; worker_cpu_ns is that thread's. */
void limit_bare(const struct guest *guest, const struct store *store,
		uint32_t cpu, uint64_t for_ns, struct run *run);

/* As bare; syscalls and latency too. */
void limit_ring(const struct guest *guest, const struct store *store,
		uint32_t cpu, uint64_t for_ns, struct run *run);
/* False: there is no io_uring here. */
bool limit_has_ring(void);

/* From the calling thread, to a server on this CPU, one at a time. */
void limit_ping_pong(const struct guest *guest, const struct store *store,
		     uint32_t cpu, uint64_t for_ns, struct run *run);

/* A thread from its start to an eventfd it writes; from another to its end. */
void limit_thread(uint32_t cpu, uint64_t *ret_start_ns, uint64_t *ret_end_ns);

#endif
