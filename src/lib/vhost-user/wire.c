/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See wire.h. */

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "util.h"
#include "vhost-user/wire.h"

#define HEADER_BYTES sizeof(struct vu_header)

/*
 * Room for the descriptors, and for what a socket that was handed to us may have
 * been told to add.
 */
union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(VU_FDS_MAX * sizeof(int)) +
		   CMSG_SPACE(sizeof(struct ucred))];
};

/* All of them become the message's, or are closed. False: too many. */
static bool take_fds(struct message *message, struct msghdr *msg)
{
	bool ok = !(msg->msg_flags & MSG_CTRUNC);
	struct cmsghdr *cmsg;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t n;

		if (cmsg->cmsg_level != SOL_SOCKET ||
		    cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd),
			       sizeof(fd));
			if (message->n_fds < VU_FDS_MAX) {
				message->fds[message->n_fds++] = fd;
			} else {
				close(fd);
				ok = false;
			}
		}
	}
	return ok;
}

/* Of the part that has begun: never beyond, so no descriptor comes early. */
static enum wire_end receive(int fd, struct message *message,
			     const char **ret_why)
{
	const bool in_header = message->have < HEADER_BYTES;
	union control control;
	struct iovec iov;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;

	if (in_header)
		iov = (struct iovec){
			(char *)&message->header + message->have,
			HEADER_BYTES - message->have,
		};
	else
		iov = (struct iovec){
			(char *)&message->payload + message->have -
				HEADER_BYTES,
			HEADER_BYTES + message->header.size - message->have,
		};
	n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? WIRE_MORE
							 : WIRE_CLOSED;
	if (!take_fds(message, &msg)) {
		*ret_why = "more descriptors than can come along";
		return WIRE_BAD;
	}
	if (n == 0)
		return WIRE_CLOSED;
	message->have += (size_t)n;
	return WIRE_MESSAGE;
}

static const char *check_header(const struct vu_header *header)
{
	if ((header->flags & VU_VERSION_MASK) != VU_VERSION)
		return "not this version of the protocol";
	if (header->flags & VU_REPLY)
		return "an answer to nothing";
	if (header->size > sizeof(union vu_payload))
		return "longer than any message";
	return NULL;
}

static bool is_whole(const struct message *message)
{
	return message->have >= HEADER_BYTES &&
	       message->have == HEADER_BYTES + message->header.size;
}

enum wire_end wire_receive(int fd, struct message *message,
			   const char **ret_why)
{
	do {
		const enum wire_end end = receive(fd, message, ret_why);

		if (end != WIRE_MESSAGE)
			return end;
		if (message->have != HEADER_BYTES)
			continue;
		memset(&message->payload, 0, sizeof(message->payload));
		*ret_why = check_header(&message->header);
		if (*ret_why)
			return WIRE_BAD;
	} while (!is_whole(message));
	return WIRE_MESSAGE;
}

int message_take_fd(struct message *message, unsigned int i)
{
	const int fd = message->fds[i];

	message->fds[i] = -1;
	return fd;
}

void message_end(struct message *message)
{
	for (unsigned int i = 0; i < message->n_fds; i++)
		closep(&message->fds[i]);
	message->n_fds = 0;
	message->have = 0;
}

int wire_send(int fd, uint32_t request, uint32_t flags, const void *payload,
	      size_t size, int with_fd)
{
	struct vu_header header = {
		.request = request,
		.flags = VU_VERSION | flags,
		.size = (uint32_t)size,
	};
	struct iovec iov[] = {
		{ &header, sizeof(header) },
		{ (void *)(uintptr_t)payload, size },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = ARRAY_SIZE(iov) };
	union {
		struct cmsghdr cmsg;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	ssize_t n;

	if (with_fd >= 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		control.cmsg.cmsg_level = SOL_SOCKET;
		control.cmsg.cmsg_type = SCM_RIGHTS;
		control.cmsg.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.cmsg), &with_fd, sizeof(with_fd));
	}
	n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	/* Half of one is of no use to anybody. */
	return (size_t)n == sizeof(header) + size ? 0 : -EAGAIN;
}
