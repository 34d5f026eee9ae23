/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_MEMORY_H
#define KTVBLK_MEMORY_H

/*
 * Guest memory. Every address is the guest's word for it and may be wrong;
 * whatever is not wholly inside the regions is refused. The guest writes to it
 * while we look, so what decides anything is read once, by mem_read_once()
 * and the rings' atomics, and only the copy is used.
 */

#include <endian.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ktvblk.h"

struct mem_region {
	uint64_t start;
	uint64_t end; /* the first address behind it */
	unsigned char *host;
	bool read_only; /* to us, whatever the guest can do there */
};

struct ktvblk_mem {
	_Atomic unsigned int refs;
	void (*release)(void *userdata);
	void *userdata;
	size_t n_regions;
	struct mem_region regions[]; /* by address; never fewer than two */
};

/* The region with addr, or NULL; by binary search. */
const struct mem_region *mem_search(const struct ktvblk_mem *mem,
				    uint64_t addr);

static inline const struct mem_region *mem_find(const struct ktvblk_mem *mem,
						uint64_t addr)
{
	const struct mem_region *region = mem->regions;

	/* Most machines have RAM below the 32-bit hole, and above. */
	if (addr - region->start >= region->end - region->start) {
		region++;
		if (addr - region->start >= region->end - region->start)
			region = mem_search(mem, addr);
	}
	return region;
}

/*
 * The host's address of addr, and how many bytes follow there in one piece, at
 * most len of them. NULL: addr is not in guest memory, or not in such as may be
 * written, where that is wanted.
 */
static inline void *mem_span_for(const struct ktvblk_mem *mem, uint64_t addr,
				 uint64_t len, bool writing, uint64_t *ret_len)
{
	const struct mem_region *region = mem_find(mem, addr);

	*ret_len = 0;
	if (!region || (writing && region->read_only))
		return NULL;
	*ret_len = len < region->end - addr ? len : region->end - addr;
	return region->host + (addr - region->start);
}

/* To read from. */
static inline void *mem_span(const struct ktvblk_mem *mem, uint64_t addr,
			     uint64_t len, uint64_t *ret_len)
{
	return mem_span_for(mem, addr, len, false, ret_len);
}

/* The host's address of len bytes in one piece, or NULL. */
static inline void *mem_at_for(const struct ktvblk_mem *mem, uint64_t addr,
			       uint64_t len, bool writing)
{
	uint64_t have;
	void *p = mem_span_for(mem, addr, len, writing, &have);

	return have == len ? p : NULL;
}

static inline void *mem_at(const struct ktvblk_mem *mem, uint64_t addr,
			   uint64_t len)
{
	return mem_at_for(mem, addr, len, false);
}

/* The front of something in guest memory that lies in one piece there. */
struct piece {
	unsigned char *host;
	uint64_t bytes; /* 0: none */
};

static inline struct piece piece_for(const struct ktvblk_mem *mem,
				     uint64_t addr, uint64_t len, bool writing)
{
	struct piece piece;

	piece.host = (unsigned char *)mem_span_for(mem, addr, len, writing,
						   &piece.bytes);
	return piece;
}

static inline struct piece piece_at(const struct ktvblk_mem *mem, uint64_t addr,
				    uint64_t len)
{
	return piece_for(mem, addr, len, false);
}

/* Is all of it guest memory? It may lie in several regions. */
bool mem_covers(const struct ktvblk_mem *mem, uint64_t addr, uint64_t len);

/* And may all of it be written? */
bool mem_covers_writable(const struct ktvblk_mem *mem, uint64_t addr,
			 uint64_t len);

/*
 * Copy, over region borders too; false: not all of it is guest memory, or such as
 * may be written.
 */
bool mem_read(const struct ktvblk_mem *mem, uint64_t addr, void *to,
	      uint64_t len);
bool mem_write(const struct ktvblk_mem *mem, uint64_t addr, const void *from,
	       uint64_t len);
bool mem_zero(const struct ktvblk_mem *mem, uint64_t addr, uint64_t len);

static inline bool mem_write_byte(const struct ktvblk_mem *mem, uint64_t addr,
				  uint8_t byte)
{
	uint8_t *at = (uint8_t *)mem_at_for(mem, addr, 1, true);

	if (at)
		*at = byte;
	return at;
}

/* mem_read() for a few bytes the guest may be changing: each is read once. */
bool mem_read_bytes_once(const struct ktvblk_mem *mem, uint64_t addr, void *to,
			 uint64_t len);

/* 16 bytes, each read once; false: they are not aligned for that. */
static inline bool load_once(const void *at, void *to)
{
	const uint64_t *from = (const uint64_t *)at;
	uint64_t words[2];

	if ((uintptr_t)at % sizeof(words[0]))
		return false;
	words[0] = __atomic_load_n(&from[0], __ATOMIC_RELAXED);
	words[1] = __atomic_load_n(&from[1], __ATOMIC_RELAXED);
	memcpy(to, words, sizeof(words));
	return true;
}

/* The same, quick for a descriptor or a request's header. */
static inline bool mem_read_once(const struct ktvblk_mem *mem, uint64_t addr,
				 void *to, uint64_t len)
{
	const void *from;

	return (len == 16 && (from = mem_at(mem, addr, len)) &&
		load_once(from, to)) ||
	       mem_read_bytes_once(mem, addr, to, len);
}

#endif
