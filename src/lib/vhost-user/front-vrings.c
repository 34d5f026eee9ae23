/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the messages about one queue ask for. */

#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>

#include "util.h"
#include "vhost-user/front.h"

static bool is_vring(const struct vhost_user *vu, uint32_t index)
{
	return index < vu->dev->n_queues;
}

bool front_vring_runs(const struct vhost_user *vu, uint32_t index)
{
	return device_queue_runs(&vu->dev->queues[index]);
}

#define NO_QUEUE "a queue that is not there"

const char *front_set_vring_num(struct vhost_user *vu, struct message *message,
				struct answer *answer)
{
	const struct vhost_vring_state *state = &message->payload.state;
	const unsigned int size = state->num;

	(void)answer;
	if (!is_vring(vu, state->index))
		return NO_QUEUE;
	if (!size || size > KTVBLK_QUEUE_SIZE_MAX || (size & (size - 1)))
		return "a size that no queue has";
	if (front_vring_runs(vu, state->index))
		return "the size of a queue that runs";
	vu->vrings[state->index].size = (uint16_t)size;
	return NULL;
}

const char *front_set_vring_addr(struct vhost_user *vu, struct message *message,
				 struct answer *answer)
{
	const struct vhost_vring_addr *addr = &message->payload.addr;
	struct vu_queue *vring;

	(void)answer;
	if (!is_vring(vu, addr->index))
		return NO_QUEUE;
	if (addr->desc_user_addr % VRING_DESC_ALIGN_SIZE ||
	    addr->avail_user_addr % VRING_AVAIL_ALIGN_SIZE ||
	    addr->used_user_addr % VRING_USED_ALIGN_SIZE)
		return "a ring that is not aligned";
	vring = &vu->vrings[addr->index];
	/* On the fly, only whether it is to be logged may change. */
	if (front_vring_runs(vu, addr->index) &&
	    (addr->desc_user_addr != vring->addr.desc_user_addr ||
	     addr->avail_user_addr != vring->addr.avail_user_addr ||
	     addr->used_user_addr != vring->addr.used_user_addr))
		return "other rings of a queue that runs";
	vring->addr = *addr;
	vring->has_addr = true;
	return vring_update(vu, addr->index);
}

const char *front_set_vring_base(struct vhost_user *vu, struct message *message,
				 struct answer *answer)
{
	const struct vhost_vring_state *state = &message->payload.state;
	struct vu_queue *vring;

	(void)answer;
	if (!is_vring(vu, state->index))
		return NO_QUEUE;
	if (front_vring_runs(vu, state->index))
		return "the base of a queue that runs";
	vring = &vu->vrings[state->index];
	own_marks_unref(vring->marks);
	vring->marks = NULL;
	vring->at =
		(struct ring_position){ .next_avail = (uint16_t)state->num };
	return NULL;
}

const char *front_get_vring_base(struct vhost_user *vu, struct message *message,
				 struct answer *answer)
{
	const uint32_t index = message->payload.state.index;

	if (!is_vring(vu, index))
		return NO_QUEUE;
	answer->is_due = true;
	answer->size = sizeof(answer->payload.state);
	answer->payload.state = (struct vhost_vring_state){
		.index = index,
		.num = vring_end(vu, index),
	};
	return NULL;
}

const char *front_set_vring_enable(struct vhost_user *vu,
				   struct message *message,
				   struct answer *answer)
{
	const struct vhost_vring_state *state = &message->payload.state;

	(void)answer;
	if (!is_vring(vu, state->index))
		return NO_QUEUE;
	if (state->num > 1)
		return "neither enabled nor disabled";
	vu->vrings[state->index].enabled = state->num;
	if (!state->num)
		vring_stop(vu, state->index);
	return vring_update(vu, state->index);
}

/*
 * An eventfd or a pipe, by the name the kernel gives it: to ask the descriptor
 * itself could mean to wait. Not to block is a property of what was passed, so
 * the front end may take it back, and so it is only the first of our precautions.
 */
static bool is_line(int fd)
{
	char path[32], name[32];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name));
	if (n < 0)
		return false;
	if (!(n == 20 && !memcmp(name, "anon_inode:[eventfd]", 20)) &&
	    !(n > 6 && !memcmp(name, "pipe:[", 6)))
		return false;
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0;
}

/* *ret_fd: -1 where there is none, and that was said. */
static const char *get_line(struct vhost_user *vu, struct message *message,
			    unsigned int *ret_index, int *ret_fd)
{
	const uint64_t said = message->payload.u64;

	*ret_index = said & VU_VRING_INDEX;
	*ret_fd = -1;
	if (said & ~(uint64_t)(VU_VRING_INDEX | VU_VRING_NO_FD) ||
	    !is_vring(vu, *ret_index))
		return NO_QUEUE;
	if (message->n_fds != !(said & VU_VRING_NO_FD))
		return "not the descriptor it speaks of";
	if (!message->n_fds)
		return NULL;
	if (!is_line(message->fds[0]))
		return "neither an eventfd nor a pipe";
	*ret_fd = message_take_fd(message, 0);
	return NULL;
}

const char *front_set_vring_kick(struct vhost_user *vu, struct message *message,
				 struct answer *answer)
{
	unsigned int index;
	int fd;
	const char *why = get_line(vu, message, &index, &fd);

	(void)answer;
	if (why)
		return why;
	if (fd < 0 && !vu_has(vu, VU_P_INBAND_NOTIFICATIONS))
		return "a queue without a kick, which is not polled";
	return vring_set_kick(vu, index, fd);
}

const char *front_set_vring_call(struct vhost_user *vu, struct message *message,
				 struct answer *answer)
{
	unsigned int index;
	int fd;
	const char *why = get_line(vu, message, &index, &fd);

	(void)answer;
	return why ? why : vring_set_call(vu, index, fd);
}

const char *front_set_vring_err(struct vhost_user *vu, struct message *message,
				struct answer *answer)
{
	unsigned int index;
	int fd;
	const char *why = get_line(vu, message, &index, &fd);

	(void)answer;
	if (!why)
		vring_set_error(vu, index, fd);
	return why;
}

const char *front_vring_kick(struct vhost_user *vu, struct message *message,
			     struct answer *answer)
{
	(void)answer;
	if (!is_vring(vu, message->payload.state.index))
		return NO_QUEUE;
	return vring_ring(vu, message->payload.state.index);
}
