/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See pins.h. */

#include <string.h>

#include "bounds.h"
#include "pins.h"
#include "util.h"

void pins_init(struct pins *pins, unsigned char *base, size_t stride,
	       uint8_t *uses, unsigned int n)
{
	*pins = (struct pins){
		.base = base,
		.stride = stride,
		.n = n,
		.uses = uses,
	};
}

static size_t pinned_bytes(const struct pins *pins)
{
	return MIN(pins->stride, (size_t)PIN_BYTES);
}

static bool pin(struct pins *pins, struct io_uring *uring, unsigned int i)
{
	const struct iovec iov = { pins->base + i * pins->stride,
				   pinned_bytes(pins) };
	const __u64 tag = 0;

	if (!pins->open)
		pins->open = io_uring_register_buffers_sparse(uring, pins->n) ==
			     0;
	return pins->open &&
	       io_uring_register_buffers_update_tag(uring, i, &iov, &tag, 1) ==
		       1;
}

int pins_use(struct pins *pins, struct io_uring *uring,
	     const struct ktvblk_io *io)
{
	const unsigned char *at = io->n_iov == 1 ? io->iov->iov_base : NULL;
	size_t i;

	if (!pins->base || !at || io->length > pinned_bytes(pins))
		return -1;
	/* Guest memory is none of them. */
	i = (size_t)((uintptr_t)at - (uintptr_t)pins->base) / pins->stride;
	if (i >= pins->n || at != pins->base + i * pins->stride)
		return -1;
	if (pins->uses[i] == PIN_USES)
		return (int)i;
	if (pins->full || ++pins->uses[i] < PIN_USES)
		return -1;
	if (pin(pins, uring, (unsigned int)i))
		return (int)i;
	pins->uses[i] = 0;
	pins->full = true;
	return -1;
}

bool pins_drop(struct pins *pins, struct io_uring *uring)
{
	unsigned int n_tries = EINTR_RETRY_MAX;
	int r = 0;

	if (!pins->open)
		return true;
	do {
		r = io_uring_unregister_buffers(uring);
	} while (r == -EINTR && n_tries--);
	if (r < 0)
		return false;
	pins->open = pins->full = false;
	memset(pins->uses, 0, pins->n);
	return true;
}
