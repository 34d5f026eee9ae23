/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The VMM's storage, which answers later and from any thread. Answers come in a
 * list under a lock, with an eventfd to wake the worker.
 *
 * The lock is what the engine's life hangs on: who completes touches nothing
 * behind its unlock, and the worker takes the last answer with the lock held, so
 * that once it has that nobody is in here any more.
 */

#include <pthread.h>
#include <sys/eventfd.h>

#include "bounds.h"
#include "engine.h"
#include "util.h"

struct submit_engine {
	struct engine engine;
	pthread_mutex_t lock;
	struct transfer *first, **last; /* answers nobody has taken */
	struct transfer *taken; /* the worker's own */
};

#define SUBMIT(e) container_of(e, struct submit_engine, engine)

/* It is asked for ranges where it says that it takes them. */
static bool takes(const struct ktvblk_backend *backend, uint32_t op)
{
	const uint32_t flags = backend->ops.submit_flags;

	return op <= KTVBLK_IO_FLUSH ||
	       flags & (op == KTVBLK_IO_DISCARD ? KTVBLK_SUBMIT_DISCARD
						: KTVBLK_SUBMIT_WRITE_ZEROES);
}

static bool submit_begin(struct engine *engine, struct transfer *transfer)
{
	const struct ktvblk_backend *backend = engine->backend;
	int r;

	if (!takes(backend, transfer->io.op)) {
		transfer->result = -EOPNOTSUPP;
		return true;
	}
	transfer->engine = engine;
	/* Release: the answer may come from another thread before we return. */
	atomic_store(&transfer->out, true);
	r = backend->ops.submit(backend->userdata, &transfer->io);
	if (r < 0 && atomic_exchange(&transfer->out, false)) {
		transfer->result = r;
		return true;
	}
	/* Behind the call: a thread that ends in it has begun nothing. */
	engine->n_out++;
	return false;
}

static struct transfer *take(struct submit_engine *submit)
{
	SCOPED_LOCK(&submit->lock);
	struct transfer *first = submit->first;

	submit->first = NULL;
	submit->last = &submit->first;
	if (first)
		eventfd_drain(submit->engine.fd);
	return first;
}

static struct transfer *submit_reap(struct engine *engine)
{
	struct submit_engine *submit = SUBMIT(engine);
	struct transfer *transfer;

	if (!submit->taken && engine->n_out)
		submit->taken = take(submit);
	transfer = submit->taken;
	if (transfer) {
		submit->taken = transfer->next;
		engine->n_out--;
	}
	return transfer;
}

static void submit_close(struct engine *engine)
{
	struct submit_engine *submit = SUBMIT(engine);

	/* Whoever completed the last one is out of here behind this. */
	pthread_mutex_lock(&submit->lock);
	pthread_mutex_unlock(&submit->lock);
	pthread_mutex_destroy(&submit->lock);
	close(engine->fd);
	free(submit);
}

static const struct engine_ops submit_ops = {
	.begin = submit_begin,
	.reap = submit_reap,
	.close = submit_close,
};

struct engine *engine_submit_new(const struct ktvblk_backend *backend)
{
	struct submit_engine *submit = calloc(1, sizeof(*submit));

	if (!submit)
		return NULL;
	submit->engine = (struct engine){
		.ops = &submit_ops,
		.backend = backend,
		.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	if (submit->engine.fd < 0) {
		free(submit);
		return NULL;
	}
	pthread_mutex_init(&submit->lock, NULL);
	submit->last = &submit->first;
	return &submit->engine;
}

/*
 * Nobody else wakes a worker that was left behind. Of an eventfd that is full
 * EAGAIN is as good; other errors there are none, and they do not last.
 */
static void wake(const struct submit_engine *submit)
{
	int r = -EIO;

	for (unsigned int i = 0; r < 0 && r != -EAGAIN && i < WAKE_ATTEMPTS;
	     i++)
		r = eventfd_signal(submit->engine.fd);
}

int ktvblk_io_complete(struct ktvblk_io *io, ssize_t result)
{
	struct transfer *transfer;
	struct submit_engine *submit;

	if (!io)
		return -EINVAL;
	transfer = container_of(io, struct transfer, io);
	if (!atomic_exchange(&transfer->out, false))
		return -EALREADY;
	submit = SUBMIT(transfer->engine);
	transfer->result = result;
	transfer->next = NULL;

	SCOPED_LOCK(&submit->lock);
	if (!submit->first)
		wake(submit);
	*submit->last = transfer;
	submit->last = &transfer->next;
	return 0;
}
