/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_PAGE_H
#define TEST_PAGE_H

/* A page of guest memory that holds up who touches it, by userfaultfd. */

#include <stdbool.h>

struct page {
	void *at;
	int fd;
};

/* From now on; false: not permitted here. What was in it is lost. */
bool page_block(struct page *page, void *at);

/* Wait until somebody is held up. */
void page_wait(const struct page *page);

/* Let it go on, with 4096 bytes in the page, or with zeros. */
void page_bring(struct page *page, const void *bytes);

#endif
