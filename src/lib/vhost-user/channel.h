/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_CHANNEL_H
#define KTVBLK_VU_CHANNEL_H

/*
 * What we have to tell the front end by a socket of its own: that the disk has
 * changed, and, where it has no eventfds for that, that a queue has. What finds no
 * room is told later. Its answers are read and not looked at.
 */

#include <stdbool.h>
#include <stdint.h>

struct channel {
	int fd; /* -1: none */
	bool config_changed; /* to be told, these */
	uint32_t calls; /* a bit for each queue */
	uint32_t errors;
};

void channel_init(struct channel *channel);
void channel_set(struct channel *channel, int fd);
void channel_close(struct channel *channel);

/* Is there something to be told, for which there was no room? */
bool channel_waits(const struct channel *channel);

/* Tell what there is to tell, as far as there is room; where it is broken, close. */
void channel_flush(struct channel *channel, bool wants_reply);

/* Read whatever came. */
void channel_read(struct channel *channel);

#endif
