/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_VRINGS_H
#define KTVBLK_VU_VRINGS_H

/*
 * The queues as the front end sets them up. One runs while it has all it needs: a
 * size, addresses, a kick, memory, and is enabled; what ends that stops it,
 * within the budget, and its worker touches nothing of the front end's any more.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vhost-user/inflight.h"

struct vhost_user;

struct vu_queue {
	bool has_addr;
	bool has_kick; /* one was set, or came in a message */
	bool enabled;
	uint16_t size;
	struct vhost_vring_addr addr;
	struct ring_position at; /* where it goes on */
	int kick_fd, call_fd, error_fd; /* -1: none */
	bool in_band; /* call_fd is ours, to be told by a message */
	struct own_marks *marks; /* while the front end gives no region */
	struct loan loan; /* for the device, while it is started */
};

void vrings_init(struct vhost_user *vu);
/* Stop all; GET_VRING_BASE still knows where they were. */
void vrings_halt(struct vhost_user *vu);
/* And forget what was set; the device's next is as its first. */
void vrings_reset(struct vhost_user *vu);
void vrings_close(struct vhost_user *vu);

/* Does some queue go on where it was, with a driver that was there before? */
bool vrings_have_begun(const struct vhost_user *vu);

/* Start what can be started. NULL, or what is wrong with it. */
const char *vring_update(struct vhost_user *vu, unsigned int i);

/* Stop one, or all; they may be started again where they are. */
void vring_stop(struct vhost_user *vu, unsigned int i);
void vrings_stop(struct vhost_user *vu);

/*
 * Stop it for good: where it is to be started next. What is still out is in the
 * front end's region, or put back, or lost, with a record.
 */
uint16_t vring_end(struct vhost_user *vu, unsigned int i);

/* The descriptors are its own now; -1: none. NULL, or what is wrong. */
const char *vring_set_kick(struct vhost_user *vu, unsigned int i, int fd);
const char *vring_set_call(struct vhost_user *vu, unsigned int i, int fd);
void vring_set_error(struct vhost_user *vu, unsigned int i, int fd);

/* The front end rings by a message. */
const char *vring_ring(struct vhost_user *vu, unsigned int i);

/* The log of pages is another, or is wanted, or not any more. */
const char *vrings_change_log(struct vhost_user *vu);

/* Memory has become another: those that run go over, or are stopped for it. */
const char *vrings_change_memory(struct vhost_user *vu);

#endif
