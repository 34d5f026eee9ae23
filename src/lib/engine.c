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

int engine_open(enum ktvblk_engine which, const struct ktvblk_backend *backend,
		unsigned int n, struct engine **ret_engine, int *ret_refused)
{
	const bool all = which == KTVBLK_ENGINE_IO_URING;
	int r;

	*ret_refused = 0;
	if (which != KTVBLK_ENGINE_SYNC && backend->fd >= 0) {
		r = engine_uring_open(backend, n, all, ret_engine);
		if (r == 0 || all)
			return r;
		*ret_refused = r;
	} else if (which != KTVBLK_ENGINE_SYNC && backend->ops.submit) {
		return engine_submit_open(backend, ret_engine);
	}
	return engine_sync_open(backend, ret_engine);
}
