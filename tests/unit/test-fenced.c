/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * KTVBLK_FENCED=yes is said only where it is so. Without copies a call has the
 * guest's memory in its hands, and a worker that waited in that memory may begin
 * one in the 20 ms that it gets behind the budget.
 */

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "wedge.h"

#define BUDGET 60
#define PAGE 4096

/* A page of the guest's that is brought from afar, at its time. */
struct page {
	int fd;
	unsigned char *at;
	_Alignas(PAGE) unsigned char bytes[PAGE];
	uint64_t brought_at_ns;
	pthread_t bringer;
};

/* False: not permitted here. */
static bool page_take(struct page *page, void *at)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = {
		.range = { (uintptr_t)at, PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	page->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (page->fd < 0)
		return false;
	page->at = (unsigned char *)at;
	memcpy(page->bytes, at, PAGE);
	ck_assert_int_eq(madvise(at, PAGE, MADV_DONTNEED), 0);
	if (ioctl(page->fd, UFFDIO_API, &api) == 0 &&
	    ioctl(page->fd, UFFDIO_REGISTER, &range) == 0)
		return true;
	close(page->fd);
	return false;
}

static void page_wait_touched(struct page *page)
{
	struct pollfd touched = { .fd = page->fd, .events = POLLIN };

	ck_assert_int_eq(poll(&touched, 1, WAIT_MS), 1);
}

static void *bring(void *arg)
{
	const struct page *page = (const struct page *)arg;
	struct uffdio_copy copy = { .dst = (uintptr_t)page->at,
				    .src = (uintptr_t)page->bytes,
				    .len = PAGE };
	const struct timespec until = ns_to_timespec(page->brought_at_ns);

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	ck_assert_int_eq(ioctl(page->fd, UFFDIO_COPY, &copy), 0);
	return NULL;
}

static void page_bring_at(struct page *page, uint64_t at_ns)
{
	page->brought_at_ns = at_ns;
	ck_assert_int_eq(pthread_create(&page->bringer, NULL, bring, page), 0);
}

static void page_wait_brought(struct page *page)
{
	pthread_join(page->bringer, NULL);
	close(page->fd);
}

static unsigned int calls_under_way(struct rig *rig)
{
	SCOPED_LOCK(&rig->storage->lock);
	return rig->storage->held;
}

/* What was said of the reset is still true when the storage lets go. */
static void expect_truth(struct rig *rig, struct recorder *rec,
			 bool call_under_way)
{
	const struct kept_record *record =
		recorder_find(rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	const uint64_t sum = wedge_ram_sum(rig);
	bool fenced;

	if (!record) {
		ck_assert(!call_under_way);
		return;
	}
	fenced = strcmp(kept_field(record, "KTVBLK_FENCED"), "yes") == 0;
	ck_assert_msg(!fenced || !call_under_way, "not so: %s",
		      record->message);
	storage_let_go(rig->storage);
	recorder_wait(rec, KTVBLK_MESSAGE_RECLAIMED);
	if (fenced)
		ck_assert_uint_eq(wedge_ram_sum(rig), sum);
}

/* A worker that touches the avail ring, which comes so much after the budget. */
static bool check_page_that_comes(int after_ms)
{
	static struct page page;
	struct recorder rec;
	bool taken;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, KTVBLK_ZERO_COPY | KTVBLK_NO_POLL);
	ck_assert(eventually(worker_sleeps(&rig)));
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 1, 512);
	rig_avail(&rig, 0);
	storage_hold(rig.storage);
	taken = page_take(&page, rig_at(&rig, RIG_AVAIL));
	if (taken) {
		rig_kick(&rig);
		page_wait_touched(&page);
		page_bring_at(&page, now_ns() + (uint64_t)(BUDGET + after_ms) *
							NSEC_PER_MSEC);
		rig_reset(&rig);
		page_wait_brought(&page);
		/* Whatever it does now, it did not begin behind the reset. */
		expect_truth(&rig, &rec, calls_under_way(&rig));
	}
	wedge_close(&rig);
	recorder_stop(&rec);
	return taken;
}

START_TEST(fenced_is_said_only_where_no_call_has_guest_memory)
{
	for (int after_ms = -8; after_ms <= 28; after_ms += 3) {
		if (check_page_that_comes(after_ms))
			continue;
		puts("userfaultfd is not permitted here: not tried");
		return;
	}
}
END_TEST

TEST_PROGRAM("fenced", fenced_is_said_only_where_no_call_has_guest_memory)
