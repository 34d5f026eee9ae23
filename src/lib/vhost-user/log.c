/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See log.h. */

#include "util.h"
#include "vhost-user/log.h"
#include "vhost-user/table.h"

#define LOG_PAGE UINT64_C(4096)

struct page_log {
	struct lease lease;
	struct mapping *mapping;
	uint64_t bytes;
};

static void release(struct lease *lease)
{
	struct page_log *log = container_of(lease, struct page_log, lease);

	mapping_unref(log->mapping);
	free(log);
}

struct page_log *page_log_new(int fd, const struct vu_log *about,
			      const char **ret_why)
{
	struct page_log *log = calloc(1, sizeof(*log));

	*ret_why = "no memory";
	if (!log)
		return NULL;
	log->mapping = mapping_new(fd, about->offset, about->size, ret_why);
	if (!log->mapping) {
		free(log);
		return NULL;
	}
	log->bytes = about->size;
	atomic_init(&log->lease.refs, 1);
	log->lease.release = release;
	return log;
}

struct lease *page_log_lease(struct page_log *log)
{
	return &log->lease;
}

/* Others set bits of the same bytes. What has no bit is not the front end's. */
static void mark(void *userdata, uint64_t guest_addr, uint64_t length)
{
	const struct page_log *log = (const struct page_log *)userdata;
	uint64_t page = guest_addr / LOG_PAGE;
	const uint64_t last = (guest_addr + length - 1) / LOG_PAGE;

	for (; length && page <= last && page / 8 < log->bytes; page++)
		__atomic_fetch_or(&log->mapping->at[page / 8],
				  (unsigned char)(1u << page % 8),
				  __ATOMIC_SEQ_CST);
}

struct dirty_log page_log_dirty(struct page_log *log)
{
	return (struct dirty_log){ .fn = mark, .userdata = log };
}
