/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See table.h. */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "util.h"
#include "vhost-user/table.h"

static void mapping_release(struct lease *lease)
{
	struct mapping *mapping = container_of(lease, struct mapping, lease);

	munmap(mapping->base, mapping->bytes);
	free(mapping);
}

void mapping_unref(struct mapping *mapping)
{
	if (mapping)
		lease_unref(&mapping->lease);
}

/*
 * Asked first whether it has seals, as only memory has, and that question goes to
 * nobody: a file of FUSE's, say, could let the next one wait.
 */
static const char *check_fd(int fd, uint64_t end, struct stat *st)
{
	if (fcntl(fd, F_GET_SEALS) < 0)
		return "memory that is no memfd, nor of tmpfs or hugetlbfs";
	/* Where that can be done; where not, the front end has to be trusted. */
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
	if (fstat(fd, st) < 0 || !S_ISREG(st->st_mode))
		return "memory that is no file";
	if (end > (uint64_t)st->st_size)
		return "memory behind the end of its descriptor";
	return NULL;
}

struct mapping *mapping_new(int fd, uint64_t offset, uint64_t size,
			    const char **ret_why)
{
	struct mapping *mapping;
	uint64_t end, start, page;
	struct stat st;

	*ret_why = "memory of no size, or beyond all addresses";
	if (!size || __builtin_add_overflow(offset, size, &end) ||
	    end > INT64_MAX || size > SIZE_MAX / 2)
		return NULL;
	*ret_why = check_fd(fd, end, &st);
	if (*ret_why)
		return NULL;
	/* The kernel's pages, which may be huge ones. */
	page = MAX((uint64_t)st.st_blksize, PAGE_BYTES);
	start = offset - offset % page;
	*ret_why = "no memory";
	mapping = calloc(1, sizeof(*mapping));
	if (!mapping)
		return NULL;
	mapping->bytes = (size_t)((end - start + page - 1) / page * page);
	mapping->base = (unsigned char *)mmap(NULL, mapping->bytes,
					      PROT_READ | PROT_WRITE,
					      MAP_SHARED | MAP_NORESERVE, fd,
					      (off_t)start);
	if (mapping->base == MAP_FAILED) {
		*ret_why = "memory that cannot be mapped";
		free(mapping);
		return NULL;
	}
	mapping->at = mapping->base + (offset - start);
	atomic_init(&mapping->lease.refs, 1);
	mapping->lease.release = mapping_release;
	*ret_why = NULL;
	return mapping;
}

/* Ranges of the front end's addresses, too, are looked up. */
static bool user_overlap(const struct vu_region *a, const struct vu_region *b)
{
	return a->user_addr < b->user_addr + b->size &&
	       b->user_addr < a->user_addr + a->size;
}

static bool guest_overlap(const struct vu_region *a, const struct vu_region *b)
{
	return a->guest_addr < b->guest_addr + b->size &&
	       b->guest_addr < a->guest_addr + a->size;
}

static const char *check_region(const struct table *table,
				const struct vu_region *region)
{
	uint64_t end;

	if (!region->size ||
	    __builtin_add_overflow(region->guest_addr, region->size, &end) ||
	    __builtin_add_overflow(region->user_addr, region->size, &end))
		return "a region of no size, or beyond all addresses";
	if ((region->guest_addr | region->size | region->mmap_offset) %
	    PAGE_BYTES)
		return "a region that is not whole pages";
	if (table->n_slots == TABLE_SLOTS_MAX)
		return "more regions than there are slots";
	for (unsigned int i = 0; i < table->n_slots; i++)
		if (guest_overlap(region, &table->slots[i].region) ||
		    user_overlap(region, &table->slots[i].region))
			return "regions that overlap";
	return NULL;
}

const char *table_add(struct table *table, const struct vu_region *region,
		      int fd)
{
	const char *why = check_region(table, region);
	struct mapping *mapping;

	if (why)
		return why;
	mapping = mapping_new(fd, region->mmap_offset, region->size, &why);
	if (!mapping)
		return why;
	table->slots[table->n_slots].region = *region;
	table->slots[table->n_slots++].mapping = mapping;
	return NULL;
}

const char *table_remove(struct table *table, const struct vu_region *region)
{
	for (unsigned int i = 0; i < table->n_slots; i++) {
		const struct vu_region *have = &table->slots[i].region;

		if (have->guest_addr != region->guest_addr ||
		    have->user_addr != region->user_addr ||
		    have->size != region->size)
			continue;
		mapping_unref(table->slots[i].mapping);
		table->slots[i] = table->slots[--table->n_slots];
		return NULL;
	}
	return "a region that is not there";
}

void table_clear(struct table *table)
{
	while (table->n_slots)
		mapping_unref(table->slots[--table->n_slots].mapping);
}

/* What the memory of one moment is made of. */
struct pieces {
	unsigned int n;
	struct mapping *mappings[];
};

static void pieces_release(void *userdata)
{
	struct pieces *pieces = (struct pieces *)userdata;

	while (pieces->n)
		mapping_unref(pieces->mappings[--pieces->n]);
	free(pieces);
}

static const char *make_memory(const struct table *table,
			       struct ktvblk_mem **ret_mem)
{
	const unsigned int n = table->n_slots;
	struct ktvblk_region *regions = calloc(n, sizeof(*regions));
	struct pieces *pieces =
		calloc(1, sizeof(*pieces) + n * sizeof(pieces->mappings[0]));
	int r = -ENOMEM;

	for (unsigned int i = 0; regions && pieces && i < n; i++) {
		struct mapping *mapping = table->slots[i].mapping;

		regions[i] = (struct ktvblk_region){
			.guest_addr = table->slots[i].region.guest_addr,
			.size = table->slots[i].region.size,
			.host_addr = mapping->at,
		};
		pieces->mappings[i] = mapping;
	}
	if (regions && pieces)
		r = ktvblk_mem_new(regions, n, pieces_release, pieces, ret_mem);
	if (r == 0) {
		for (unsigned int i = 0; i < n; i++)
			refs_get(&table->slots[i].mapping->lease.refs);
		pieces->n = n;
		pieces = NULL;
	}
	free(regions);
	free(pieces);
	return r == 0 ? NULL : "memory that cannot be the guest's";
}

const char *table_renew(struct table *table, struct ktvblk_mem **ret_before)
{
	struct ktvblk_mem *mem = NULL;
	const char *why = table->n_slots ? make_memory(table, &mem) : NULL;

	*ret_before = NULL;
	if (why)
		return why;
	*ret_before = table->mem;
	table->mem = mem;
	return NULL;
}

bool table_translate(const struct table *table, uint64_t user_addr,
		     uint64_t *ret_guest_addr)
{
	for (unsigned int i = 0; i < table->n_slots; i++) {
		const struct vu_region *region = &table->slots[i].region;
		const uint64_t offset = user_addr - region->user_addr;

		if (offset >= region->size)
			continue;
		*ret_guest_addr = region->guest_addr + offset;
		return true;
	}
	return false;
}
