/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_CASE_H
#define BENCH_CASE_H

/*
 * What is measured: a combination of storage, request and driver, with a name
 * such as cache/4k/d32/read/fenced or null/512/d1/write/zerocopy/no-event-idx.
 * The engine is the device's own choice, unless that is named last.
 */

#include <stdbool.h>
#include <stdint.h>

#define DEPTH_MAX 128
#define DISK_BYTES (UINT64_C(64) << 20)

enum store_kind {
	STORE_NULL, /* ops that return at once */
	STORE_TMPFS,
	STORE_CACHE, /* a file of a real file system, in the page cache */
	STORE_DIRECT, /* the same with O_DIRECT */
	STORE_KINDS
};

enum mix {
	MIX_READ,
	MIX_WRITE,
	MIX_MIXED, /* two reads to a write */
	MIX_FLUSH, /* fifteen writes to a flush */
	MIX_ALL, /* ten reads and five writes to a flush */
	MIXES
};

struct bench_case {
	char name[96];
	enum store_kind store;
	uint32_t bytes;
	unsigned int depth;
	enum mix mix;
	bool zero_copy;
	bool no_event_idx;
	bool no_indirect;
	bool no_poll; /* KTVBLK_NO_POLL */
	bool spin; /* a driver that looks at the ring and never sleeps */
	uint32_t stall_warn_ms; /* of the device; 0: the default */
	bool late_irq; /* one that is woken when three quarters are done */
	uint32_t engine; /* enum ktvblk_engine */
	/* The last slot writes and flushes by turns, and has no latency. */
	bool flusher;
	bool sequential;
};

enum op { CASE_READ, CASE_WRITE, CASE_FLUSH };

/* The n-th request: the device and the limit get the same ones. */
static inline enum op case_op(const struct bench_case *c, uint32_t n)
{
	switch (c->mix) {
	case MIX_WRITE:
		return CASE_WRITE;
	case MIX_MIXED:
		return n % 3 == 2 ? CASE_WRITE : CASE_READ;
	case MIX_FLUSH:
		return n % 16 == 15 ? CASE_FLUSH : CASE_WRITE;
	case MIX_ALL:
		if (n % 16 == 15)
			return CASE_FLUSH;
		return n % 3 == 2 ? CASE_WRITE : CASE_READ;
	default:
		return CASE_READ;
	}
}

static inline bool case_is_flusher(const struct bench_case *c,
				   unsigned int slot)
{
	return c->flusher && slot == c->depth - 1;
}

/* turn: how often this slot has been used. */
static inline enum op case_slot_op(const struct bench_case *c,
				   unsigned int slot, uint32_t n, uint32_t turn)
{
	if (case_is_flusher(c, slot))
		return turn % 2 ? CASE_FLUSH : CASE_WRITE;
	return case_op(c, n);
}

static inline uint64_t case_offset(const struct bench_case *c, uint32_t n)
{
	const uint32_t blocks = (uint32_t)(DISK_BYTES / c->bytes);

	if (c->sequential)
		return n % blocks * (uint64_t)c->bytes;
	/* The golden ratio: all over the disk, the same in each run. */
	return (uint64_t)((uint32_t)(n * UINT32_C(0x9e3779b1)) >> 8) % blocks *
	       c->bytes;
}

/*
 * Call visit() for each case of the selection: those that match one of the
 * patterns (see fnmatch) of all there are, or the short list if there is none.
 */
void cases_visit(const char *const *patterns, int n_patterns, bool full,
		 void (*visit)(const struct bench_case *c, void *userdata),
		 void *userdata);

const char *store_name(enum store_kind store);

#endif
