/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which engine it is. */

#include "engine.h"

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
