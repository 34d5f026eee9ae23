/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Regions are sorted and 4096-aligned, so a naturally aligned field never lies
 * across two of them, and an address is found by binary search.
 */

#include <string.h>

#include "memory.h"
#include "util.h"

#define REGION_ALIGN 4096u

/* The program's come as an array, so it cannot grow. */
_Static_assert(sizeof(struct ktvblk_region) ==
		       (sizeof(void *) == 8 || _Alignof(uint64_t) == 8 ? 32
								       : 28),
	       "ABI");

static int compare_regions(const void *a, const void *b)
{
	const struct mem_region *x = (const struct mem_region *)a;
	const struct mem_region *y = (const struct mem_region *)b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static bool region_valid(const struct ktvblk_region *region)
{
	const uintptr_t host = (uintptr_t)region->host_addr;
	uintptr_t host_end;
	uint64_t end;

	return host && region->size &&
	       !(region->flags & ~KTVBLK_REGION_READ_ONLY) &&
	       ((host | region->guest_addr | region->size) &
		(REGION_ALIGN - 1)) == 0 &&
	       region->size <= SIZE_MAX &&
	       !__builtin_add_overflow(region->guest_addr, region->size,
				       &end) &&
	       !__builtin_add_overflow(host, region->size, &host_end);
}

static bool regions_overlap(const struct ktvblk_mem *mem)
{
	for (size_t i = 1; i < mem->n_regions; i++)
		if (mem->regions[i].start < mem->regions[i - 1].end)
			return true;
	return false;
}

int ktvblk_mem_new(const struct ktvblk_region *regions, size_t n_regions,
		   void (*release)(void *userdata), void *userdata,
		   struct ktvblk_mem **ret_mem)
{
	struct ktvblk_mem *mem;
	size_t bytes;

	if (!regions || !n_regions || !ret_mem)
		return -EINVAL;
	for (size_t i = 0; i < n_regions; i++)
		if (!region_valid(&regions[i]))
			return -EINVAL;
	/* mem_span() looks at two without asking; an empty one has nothing. */
	if (__builtin_mul_overflow(MAX(n_regions, (size_t)2),
				   sizeof(mem->regions[0]), &bytes) ||
	    __builtin_add_overflow(bytes, sizeof(*mem), &bytes))
		return -ENOMEM;
	mem = malloc(bytes);
	if (!mem)
		return -ENOMEM;
	atomic_init(&mem->refs, 1);
	mem->release = release;
	mem->userdata = userdata;
	mem->n_regions = n_regions;
	mem->regions[1] = (struct mem_region){ 0 };
	for (size_t i = 0; i < n_regions; i++)
		mem->regions[i] = (struct mem_region){
			.start = regions[i].guest_addr,
			.end = regions[i].guest_addr + regions[i].size,
			.host = (unsigned char *)regions[i].host_addr,
			.read_only = regions[i].flags & KTVBLK_REGION_READ_ONLY,
		};
	qsort(mem->regions, n_regions, sizeof(mem->regions[0]),
	      compare_regions);
	if (regions_overlap(mem)) {
		free(mem);
		return -EINVAL;
	}
	*ret_mem = mem;
	return 0;
}

struct ktvblk_mem *ktvblk_mem_ref(struct ktvblk_mem *mem)
{
	if (mem)
		refs_get(&mem->refs);
	return mem;
}

struct ktvblk_mem *ktvblk_mem_unref(struct ktvblk_mem *mem)
{
	void (*release)(void *userdata);
	void *userdata;

	if (!mem || !refs_put(&mem->refs))
		return NULL;
	release = mem->release;
	userdata = mem->userdata;
	/* Before: it may end the thread. */
	free(mem);
	if (release)
		release(userdata);
	return NULL;
}

const struct mem_region *mem_search(const struct ktvblk_mem *mem, uint64_t addr)
{
	size_t low = 0, high = mem->n_regions;

	/* The first region that ends behind addr. */
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (mem->regions[mid].end <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low == mem->n_regions || addr < mem->regions[low].start
		       ? NULL
		       : &mem->regions[low];
}

static bool covers(const struct ktvblk_mem *mem, uint64_t addr, uint64_t len,
		   bool writing)
{
	uint64_t have;

	for (; len; addr += have, len -= have)
		if (!mem_span_for(mem, addr, len, writing, &have))
			return false;
	return true;
}

bool mem_covers(const struct ktvblk_mem *mem, uint64_t addr, uint64_t len)
{
	return covers(mem, addr, len, false);
}

bool mem_covers_writable(const struct ktvblk_mem *mem, uint64_t addr,
			 uint64_t len)
{
	return covers(mem, addr, len, true);
}

bool mem_read(const struct ktvblk_mem *mem, uint64_t addr, void *to,
	      uint64_t len)
{
	unsigned char *out = (unsigned char *)to;
	uint64_t have;

	for (; len; addr += have, out += have, len -= have) {
		const void *host = mem_span(mem, addr, len, &have);

		if (!host)
			return false;
		memcpy(out, host, (size_t)have);
	}
	return true;
}

bool mem_write(const struct ktvblk_mem *mem, uint64_t addr, const void *from,
	       uint64_t len)
{
	const unsigned char *in = (const unsigned char *)from;
	uint64_t have;

	for (; len; addr += have, in += have, len -= have) {
		void *host = mem_span_for(mem, addr, len, true, &have);

		if (!host)
			return false;
		memcpy(host, in, (size_t)have);
	}
	return true;
}

bool mem_zero(const struct ktvblk_mem *mem, uint64_t addr, uint64_t len)
{
	uint64_t have;

	for (; len; addr += have, len -= have) {
		void *host = mem_span_for(mem, addr, len, true, &have);

		if (!host)
			return false;
		memset(host, 0, (size_t)have);
	}
	return true;
}

static void copy_once(unsigned char *to, const unsigned char *from, size_t len)
{
	if (((uintptr_t)from & 7) == 0)
		for (; len >= 8; to += 8, from += 8, len -= 8) {
			uint64_t word = __atomic_load_n((const uint64_t *)from,
							__ATOMIC_RELAXED);

			memcpy(to, &word, 8);
		}
	for (; len; to++, from++, len--)
		*to = __atomic_load_n(from, __ATOMIC_RELAXED);
}

bool mem_read_bytes_once(const struct ktvblk_mem *mem, uint64_t addr, void *to,
			 uint64_t len)
{
	unsigned char *out = (unsigned char *)to;
	uint64_t have;

	for (; len; addr += have, out += have, len -= have) {
		const void *host = mem_span(mem, addr, len, &have);

		if (!host)
			return false;
		copy_once(out, (const unsigned char *)host, (size_t)have);
	}
	return true;
}
