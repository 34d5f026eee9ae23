/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which engine it is, and what they have in common. */

#include "engine.h"
#include "util.h"

ssize_t engine_call_range(const struct ktvblk_backend *backend,
			  const struct ktvblk_io *io)
{
	const struct ktvblk_backend_ops *ops = &backend->ops;
	int r = -EOPNOTSUPP;

	if (io->op == KTVBLK_IO_DISCARD && ops->discard)
		r = ops->discard(backend->userdata, io->offset, io->length);
	else if (io->op == KTVBLK_IO_WRITE_ZEROES && ops->write_zeroes)
		r = ops->write_zeroes(backend->userdata, io->offset, io->length,
				      io->flags);
	return MIN(r, 0);
}

struct engine *engine_new(enum ktvblk_engine which,
			  const struct ktvblk_backend *backend, unsigned int n)
{
	if (which == KTVBLK_ENGINE_SYNC)
		return engine_sync_new(backend);
	if (backend->fd >= 0)
		return engine_uring_new(backend, n,
					which == KTVBLK_ENGINE_IO_URING);
	return backend->ops.submit ? engine_submit_new(backend)
				   : engine_sync_new(backend);
}
