/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The records of vhost-user. */

#include <sys/socket.h>

#include "front-end.h"
#include "journal-events.h"
#include "wedge.h"

static struct front_end front;

/* The device, and a front end that has connected. */
static void attach(struct rig *rig)
{
	front_attach(&front, rig);
	front_ask(&front, VU_GET_FEATURES);
}

static void go(struct rig *rig)
{
	attach(rig);
	front_disconnect(&front);
}

static void come_second(struct rig *rig)
{
	int other;
	char byte;

	attach(rig);
	other = front_dial(&front);
	ck_assert_int_eq(recv(other, &byte, 1, 0), 0);
	close(other);
}

static void talk_nonsense(struct rig *rig)
{
	attach(rig);
	front_send(&front, 99, 0, NULL, 0, NULL, 0);
	front_expect_closed(&front);
}

/* The first of two hangs, and the second is done. */
static void lose(struct rig *rig)
{
	struct later *later = rig->options.later;

	attach(rig);
	front_start(&front);
	rig = &front.rig;
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_chain(rig, 4, VIRTIO_BLK_T_IN, 1, 512);
	rig_avail_all(rig, (const uint16_t[]){ 0, 4 }, 2);
	rig_kick(rig);
	later_wait(later, 2);
	later_complete(later, 1);
	rig_wait_used(rig, 1);
	front_stop(&front, 0);
}

/* Nobody can connect to it any more. */
static void break_socket(struct rig *rig)
{
	attach(rig);
	ck_assert_int_eq(shutdown(front.listen_fd, SHUT_RDWR), 0);
}

#define SHARED .options = { .no_memory = true, .shared = true }
/* clang-format off */
#define EV(name, how, says, ...)                                               \
	{ .event = EVENT_##name, .provoke = how, .values = says, __VA_ARGS__ }
const struct provoked front_events[] = {
	EV(VHOST_USER_CONNECTED, attach, "KTVBLK_PEER_PID=*", SHARED),
	EV(VHOST_USER_DISCONNECTED, go, "", SHARED),
	EV(VHOST_USER_REFUSED, come_second, "KTVBLK_PEER_PID=*", SHARED),
	EV(VHOST_USER_CLOSED, talk_nonsense,
	  "KTVBLK_FRONT_REQUEST=99|KTVBLK_REASON=a message that is not known",
	   SHARED),
	EV(VHOST_USER_LOST, lose, "KTVBLK_IN_FLIGHT=1", SHARED),
	EV(VHOST_USER_ACCEPT_FAILED, break_socket, "ERRNO=22", SHARED),
	{ .provoke = NULL }
};
/* clang-format on */
