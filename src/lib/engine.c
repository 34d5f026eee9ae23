/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which engine it is. */

#include "engine.h"
#include "util.h"

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
