/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See page.h. */

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "harness.h"
#include "page.h"

#define PAGE 4096u

bool page_block(struct page *page, void *at)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = {
		.range = { (uintptr_t)at, PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	page->at = at;
	page->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (page->fd < 0 || ioctl(page->fd, UFFDIO_API, &api) < 0 ||
	    madvise(at, PAGE, MADV_DONTNEED) < 0 ||
	    ioctl(page->fd, UFFDIO_REGISTER, &range) < 0) {
		fprintf(stderr, "no userfaultfd here: not tested\n");
		closep(&page->fd);
		return false;
	}
	return true;
}

void page_wait(const struct page *page)
{
	struct pollfd fault = { .fd = page->fd, .events = POLLIN };

	ck_assert_int_eq(poll(&fault, 1, WAIT_MS), 1);
}

void page_bring(struct page *page, const void *bytes)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)page->at,
						   PAGE } };
	struct uffdio_copy copy = { .dst = (uintptr_t)page->at,
				    .src = (uintptr_t)bytes,
				    .len = PAGE };

	if (bytes)
		ck_assert_int_eq(ioctl(page->fd, UFFDIO_COPY, &copy), 0);
	else
		ck_assert_int_eq(ioctl(page->fd, UFFDIO_ZEROPAGE, &zero), 0);
	close(page->fd);
}
