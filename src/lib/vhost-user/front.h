/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_FRONT_H
#define KTVBLK_VU_FRONT_H

/* What messages are handled by: of queues, in a file of their own. */

#include "vhost-user/vhost-user.h"

/* What of a message's answer there is. */
struct answer {
	bool is_due;
	union vu_payload payload;
	size_t size;
	int fd;
};

static inline void answer_u64(struct answer *answer, uint64_t value)
{
	answer->is_due = true;
	answer->payload.u64 = value;
	answer->size = sizeof(value);
}

/* NULL, or why the connection is to be closed. */
typedef const char *handler(struct vhost_user *vu, struct message *message,
			    struct answer *answer);

handler front_set_vring_num, front_set_vring_addr, front_set_vring_base,
	front_get_vring_base, front_set_vring_enable, front_set_vring_kick,
	front_set_vring_call, front_set_vring_err, front_vring_kick;

bool front_vring_runs(const struct vhost_user *vu, uint32_t index);

#endif
