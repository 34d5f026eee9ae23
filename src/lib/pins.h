/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_PINS_H
#define KTVBLK_PINS_H

/*
 * Buffers of the session that an io_uring has registered: their pages are found
 * and held once, and not for each transfer. Only those that are in use all the
 * time, and only the first part of each, as it counts as locked memory. Where
 * that is not allowed transfers do without.
 */

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ktvblk.h"

struct pins {
	unsigned char *base; /* of the first buffer; NULL: there are none */
	size_t stride; /* from one to the next */
	unsigned int n;
	bool open; /* the ring has a table of them */
	bool full; /* no more can be had, for now */
	uint8_t *uses; /* of each, up to PIN_USES: then it is registered */
};

/* uses: n of them, 0, the caller's to keep. */
void pins_init(struct pins *pins, unsigned char *base, size_t stride,
	       uint8_t *uses, unsigned int n);

/* A transfer begins: the index of its buffer, if it is registered, or -1. */
int pins_use(struct pins *pins, struct io_uring *uring,
	     const struct ktvblk_io *io);

/*
 * Nothing is out: let go of all. False: it cannot be, and the buffers must stay
 * as they are.
 */
bool pins_drop(struct pins *pins, struct io_uring *uring);

#endif
