/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The backend's own calls, on the worker: each has ended when it has begun. */

#include "engine.h"
#include "util.h"

static bool sync_begin(struct engine *engine, struct transfer *transfer)
{
	const struct ktvblk_backend_ops *ops = &engine->backend->ops;
	const struct ktvblk_io *io = &transfer->io;
	void *userdata = engine->backend->userdata;

	switch (io->op) {
	case KTVBLK_IO_READ:
		transfer->result =
			ops->preadv(userdata, io->iov, io->n_iov, io->offset);
		break;
	case KTVBLK_IO_WRITE:
		transfer->result =
			ops->pwritev(userdata, io->iov, io->n_iov, io->offset);
		break;
	case KTVBLK_IO_FLUSH:
		transfer->result = ops->flush ? ops->flush(userdata) : 0;
		break;
	default:
		transfer->result = engine_call_range(engine->backend, io);
	}
	return true;
}

static void sync_close(struct engine *engine)
{
	free(engine);
}

static const struct engine_ops sync_ops = {
	.begin = sync_begin,
	.close = sync_close,
};

void engine_sync_init(struct engine *engine,
		      const struct ktvblk_backend *backend)
{
	*engine = (struct engine){
		.ops = &sync_ops,
		.backend = backend,
		.fd = -1,
	};
}

struct engine *engine_sync_new(const struct ktvblk_backend *backend)
{
	struct engine *engine = calloc(1, sizeof(*engine));

	if (engine)
		engine_sync_init(engine, backend);
	return engine;
}
