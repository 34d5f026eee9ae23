/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_CACHE_H
#define KTVBLK_VU_CACHE_H

/*
 * Whether the guest's driver counts on flushes, which no front end says of itself:
 * it tells what the driver writes, when that writes it, and shows it what it read
 * here once, be that of a process before us. A driver that thinks each write to be
 * durable must not have them in a cache, so what is not known is the safe one.
 */

#include <stdbool.h>

struct vhost_user;

struct cache_known {
	bool said; /* the driver has written it */
	bool shown; /* the front end has asked what it is */
	bool back; /* this */
};

/* A connection begins; who made it may know nothing of us. */
void cache_begin(struct vhost_user *vu);

/* The front end was told; and tells what the driver has written. */
void cache_shown(struct vhost_user *vu);
void cache_say(struct vhost_user *vu, bool back);

/* Before a device's first queue starts. */
void cache_agree(struct vhost_user *vu);

#endif
