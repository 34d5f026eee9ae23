/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_LOG_H
#define KTVBLK_VU_LOG_H

/*
 * The front end's map of pages that were written, a bit for each, while it copies
 * guest memory to another machine.
 */

#include "dirty.h"
#include "loan.h"
#include "vhost-user/protocol.h"

struct page_log; /* goes with the last lease of it */

/* NULL, and *ret_why is a constant. */
struct page_log *page_log_new(int fd, const struct vu_log *about,
			      const char **ret_why);
struct lease *page_log_lease(struct page_log *log);

/* Tells it; as long as there is a lease. */
struct dirty_log page_log_dirty(struct page_log *log);

#endif
