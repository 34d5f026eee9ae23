/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See jail-front.h. By the front end of the unit tests, in a program that is none. */

#include "front-end.h"
#include "jail-front.h"

static struct front_end front;

int jail_front_open(void)
{
	front_open_alone(&front, 16);
	return front.listen_fd;
}

static void submit(uint32_t type)
{
	rig_chain(&front.rig, 0, type, 0, type == VIRTIO_BLK_T_FLUSH ? 0 : 512);
	rig_avail(&front.rig, 0);
	rig_kick(&front.rig);
}

static void request(uint32_t type)
{
	const uint16_t used = rig_used_idx(&front.rig);

	submit(type);
	rig_wait_used(&front.rig, (uint16_t)(used + 1));
	ck_assert_int_eq(*rig_chain_status(&front.rig, 0), VIRTIO_BLK_S_OK);
}

static void start(void)
{
	front_connect(&front);
	front_negotiate(&front);
	front_get_inflight(&front);
	front_start(&front);
}

void jail_front_live(void)
{
	uint16_t base;

	start();
	request(VIRTIO_BLK_T_OUT);
	request(VIRTIO_BLK_T_FLUSH);
	request(VIRTIO_BLK_T_IN);
	base = front_stop(&front, 0);
	front_start_again(&front, base);
	request(VIRTIO_BLK_T_IN);
	front_disconnect(&front);
}

void jail_front_hang(struct hang *hang)
{
	start();
	hang_arm(hang);
	submit(VIRTIO_BLK_T_IN);
	hang_await_stuck(hang);
	front_stop(&front, 0);
	front_disconnect(&front);
}

void jail_front_close(void)
{
	front_free_alone(&front);
}
