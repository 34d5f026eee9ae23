/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_WIRE_H
#define KTVBLK_VU_WIRE_H

/*
 * Messages on a stream socket, with the descriptors that come along. Nothing
 * here waits: a message may come in any number of pieces, and what is sent has
 * to find room.
 */

#include <stdbool.h>
#include <stddef.h>

#include "vhost-user/protocol.h"

#define VU_FDS_MAX VU_TABLE_REGIONS

struct message {
	struct vu_header header;
	union vu_payload payload;
	unsigned int n_fds;
	int fds[VU_FDS_MAX]; /* the message's, unless taken; -1: taken */
	size_t have; /* bytes, of the header and then of the payload */
};

enum wire_end {
	WIRE_MESSAGE, /* it is whole */
	WIRE_MORE, /* the rest has not come */
	WIRE_CLOSED, /* by the other side */
	WIRE_BAD,
};

/* Go on with *message. *ret_why: a constant, for WIRE_BAD. */
enum wire_end wire_receive(int fd, struct message *message,
			   const char **ret_why);

/* The descriptor is the caller's from now on. */
int message_take_fd(struct message *message, unsigned int i);

/* What came along and was not taken is closed; the next one may come. */
void message_end(struct message *message);

/* Bytes of a payload, and one descriptor unless it is -1. 0 or -errno. */
int wire_send(int fd, uint32_t request, uint32_t flags, const void *payload,
	      size_t size, int with_fd);

#endif
