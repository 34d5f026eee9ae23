/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_TABLE_H
#define KTVBLK_VU_TABLE_H

/*
 * The front end's memory. Each region is mapped once, however many tables it is
 * in, and unmapped when the last session that may look at it has let go.
 *
 * Only what cannot make us wait is mapped: a memfd, or a file of tmpfs or
 * hugetlbfs, which also cannot become shorter under us where it can be sealed.
 */

#include <stdbool.h>
#include <stddef.h>

#include "ktvblk.h"
#include "loan.h"
#include "vhost-user/protocol.h"

/* As many as any front end asks for: KVM's number, less a few of its own. */
#define TABLE_SLOTS_MAX 509u

struct mapping {
	struct lease lease;
	unsigned char *base;
	size_t bytes;
	unsigned char *at; /* what was asked for */
};

/* size bytes from offset on; NULL, and *ret_why is a constant. */
struct mapping *mapping_new(int fd, uint64_t offset, uint64_t size,
			    const char **ret_why);
void mapping_unref(struct mapping *mapping); /* takes NULL */

struct table {
	struct {
		struct vu_region region;
		struct mapping *mapping;
	} slots[TABLE_SLOTS_MAX];
	unsigned int n_slots;
	struct ktvblk_mem *mem; /* what sessions get; NULL: none */
};

/* NULL, or why not, and then nothing has changed; mem stays until renewed. */
const char *table_add(struct table *table, const struct vu_region *region,
		      int fd);
const char *table_remove(struct table *table, const struct vu_region *region);
void table_clear(struct table *table);

/* The memory of now; the caller gives the reference to what was before back. */
const char *table_renew(struct table *table, struct ktvblk_mem **ret_before);

/* The guest's address of the front end's; false: there is none. */
bool table_translate(const struct table *table, uint64_t user_addr,
		     uint64_t *ret_guest_addr);

#endif
