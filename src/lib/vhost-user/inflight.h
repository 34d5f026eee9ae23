/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_INFLIGHT_H
#define KTVBLK_VU_INFLIGHT_H

/*
 * Where the queues' marks of taken.h are: in memory that the front end keeps
 * over our end; or, where it gave none, in our own, for as long as it is
 * connected.
 */

#include "taken.h"
#include "vhost-user/table.h"

/* Make one for n_queues of queue_size, never used: 0 or -errno. */
int inflight_make(uint16_t n_queues, uint16_t queue_size,
		  struct vu_inflight *ret_about, int *ret_fd);

/* Behind the queues' parts, where there is room, as in all that we make. */
struct inflight_tail {
	uint32_t magic;
	uint32_t writes_back;
	uint32_t padding[14];
};

struct inflight {
	struct mapping *mapping; /* NULL: the front end gave none */
	struct inflight_tail *tail; /* NULL: no room */
	uint16_t n_queues;
	uint16_t queue_size;
};

/* NULL or why not, and then nothing has changed. */
const char *inflight_set(struct inflight *inflight,
			 const struct vu_inflight *about, int fd);
void inflight_clear(struct inflight *inflight);

/* A queue's part of it, or NULL. */
struct taken_region *inflight_region(const struct inflight *inflight,
				     unsigned int queue);

/*
 * Whether the driver counts on flushes, for who comes after us: it has what is in
 * the region, and of the front end does not hear it. False: it was not noted.
 */
void inflight_note_cache(struct inflight *inflight, bool back);
bool inflight_cache(const struct inflight *inflight, bool *ret_back);

/* Our own, of one queue. */
struct own_marks {
	struct lease lease;
	struct taken_region region;
};

struct own_marks *own_marks_new(uint16_t queue_size); /* NULL: no memory */
void own_marks_unref(struct own_marks *marks); /* takes NULL */

#endif
