/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See cache.h. */

#include <linux/virtio_blk.h>

#include "util.h"
#include "vhost-user/vhost-user.h"

void cache_begin(struct vhost_user *vu)
{
	vu->cache = (struct cache_known){ 0 };
	config_reset(vu->dev);
}

void cache_shown(struct vhost_user *vu)
{
	struct cache_known *cache = &vu->cache;

	if (cache->said)
		return;
	cache->shown = true;
	cache->back = atomic_load(&vu->dev->era->cache) == CACHE_BACK;
}

void cache_say(struct vhost_user *vu, bool back)
{
	vu->cache.said = true;
	vu->cache.back = back;
	inflight_note_cache(&vu->inflight, back);
	config_set_cache(vu->dev, back);
}

/*
 * A driver that was there before us has what the one before us had noted. A new
 * one has read what the front end shows.
 */
void cache_agree(struct vhost_user *vu)
{
	const struct cache_known *cache = &vu->cache;
	const bool is_new = cache->shown && !vrings_have_begun(vu);
	bool back = cache->back;

	if (!(vu->features >> VIRTIO_BLK_F_CONFIG_WCE & 1))
		return;
	if (!cache->said && inflight_cache(&vu->inflight, &back)) {
		back = back && (!is_new || cache->back);
	} else if (!cache->said && !is_new) {
		atomic_store(&vu->dev->era->cache, CACHE_GUESSED_THROUGH);
		return;
	}
	config_set_cache(vu->dev, back);
	inflight_note_cache(&vu->inflight, back);
}
