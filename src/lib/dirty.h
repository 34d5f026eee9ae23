/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_DIRTY_H
#define KTVBLK_DIRTY_H

/*
 * The VMM wants to know what of guest memory is written. It is told behind each
 * write, so that who clears a page's bit and then copies the page misses nothing,
 * and before the driver can know of it. Belongs to a session, whose gate is held
 * where it is called and where it is changed.
 */

#include <stdbool.h>
#include <stdint.h>

struct dirty_log {
	void (*fn)(void *userdata, uint64_t guest_addr, uint64_t length);
	void *userdata;
};

static inline bool dirty_is_wanted(const struct dirty_log *log)
{
	return __builtin_expect(log->fn != NULL, 0);
}

static inline void dirty_tell(const struct dirty_log *log, uint64_t addr,
			      uint64_t len)
{
	if (dirty_is_wanted(log))
		log->fn(log->userdata, addr, len);
}

#endif
