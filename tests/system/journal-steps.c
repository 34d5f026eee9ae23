/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See journal-events.h. */

#include "harness.h"
#include "journal-events.h"
#include "wedge.h"

/* An eventfd that takes no more. */
void fill_eventfd(int fd)
{
	const uint64_t most = UINT64_MAX - 1;

	ck_assert_int_eq(write(fd, &most, sizeof(most)), sizeof(most));
}

void wait_needs_reset(struct rig *rig)
{
	ck_assert(eventually(rig_status(rig) & NEEDS_RESET));
}

void make_available(struct rig *rig, uint16_t head)
{
	rig_avail(rig, head);
	rig_kick(rig);
}

void submit(struct rig *rig, uint32_t type, uint64_t sector, uint32_t len)
{
	rig_chain(rig, 0, type, sector, len);
	make_available(rig, 0);
}

void start_and_submit(struct rig *rig, uint32_t type, uint64_t sector,
		      uint32_t len)
{
	rig_start(rig);
	submit(rig, type, sector, len);
}

void hang(struct rig *rig)
{
	storage_hold(rig->storage);
	start_and_submit(rig, IN, 7, 512);
	/* On its way to sleep; a record is to find it there. */
	storage_wait_held(rig->storage, 1);
	ck_assert(eventually(thread_state(worker_tid(rig)) == 'S'));
}

void set_status(struct rig *rig, uint32_t value)
{
	rig_write(rig, VIRTIO_MMIO_STATUS, value);
}

void poison(struct rig *rig)
{
	rig_start(rig);
	rig_set_avail_idx(rig, 100);
	rig_kick(rig);
	wait_needs_reset(rig);
}
