/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A file, by whatever costs least and does not wait:
 *
 *	                   O_DIRECT    calls that do not   neither
 *	                               wait (RWF_NOWAIT)
 *	read, write        io_uring    such a call, and    plain calls while they
 *	                               io_uring for what   are quick, io_uring
 *	                               would wait, and for else: pace.h
 *	                               many small ones
 *	flush, discard,    io_uring    io_uring            io_uring
 *	zeros
 *
 * What would wait does so in the kernel, be it in a thread of io_uring's or in
 * none, and the worker goes on with the rest. Nothing cancels it, so the ring,
 * the buffers and the worker stay until it has ended.
 *
 * A short answer is handed on as it is: the rest is the caller's next transfer,
 * which finds out for itself whether it would wait.
 */

#include <fcntl.h>
#include <sys/uio.h>

#include "bounds.h"
#include "engine.h"
#include "pace.h"
#include "ring.h"
#include "util.h"

/* Reads or writes. */
struct kind {
	bool may_nowait; /* not yet refused ... */
	bool has_nowait; /* ... and once not */
	struct pace pace; /* where it was */
};

/* How a transfer is done that the ring had no means for. */
enum resort {
	RESORT_NONE,
	RESORT_THREAD, /* by a thread of the kernel's */
	RESORT_CALL,
};

struct uring {
	struct engine engine; /* the first: it may be sync's to free */
	struct ring ring;
	struct transfer *back; /* taken back from it: they have ended */
	enum resort next; /* for the one that begins next: the same again */
	unsigned int n; /* at most so many out */
	bool all, direct;
	bool refused; /* the ring has been, and what was in it is back */
	struct kind kinds[2];
	uint8_t pin_uses[];
};

static struct uring *uring_of(struct engine *engine)
{
	return container_of(engine, struct uring, engine);
}

/*
 * Calls
 */

static ssize_t call_nowait(int fd, const struct ktvblk_io *io)
{
	const off_t offset = (off_t)io->offset;
	ssize_t n =
		io->op == KTVBLK_IO_READ
			? preadv2(fd, io->iov, io->n_iov, offset, RWF_NOWAIT)
			: pwritev2(fd, io->iov, io->n_iov, offset, RWF_NOWAIT);

	return n < 0 ? -errno : n;
}

static ssize_t call_plainly(const struct ktvblk_backend *backend,
			    const struct ktvblk_io *io)
{
	const struct ktvblk_backend_ops *ops = &backend->ops;

	switch (io->op) {
	case KTVBLK_IO_READ:
		return ops->preadv(backend->userdata, io->iov, io->n_iov,
				   io->offset);
	case KTVBLK_IO_WRITE:
		return ops->pwritev(backend->userdata, io->iov, io->n_iov,
				    io->offset);
	case KTVBLK_IO_FLUSH:
		return ops->flush(backend->userdata);
	default:
		return engine_call_range(backend, io);
	}
}

/* By a call, where that is known not to wait, or trusted: true: ended. */
static bool try_call(struct uring *uring, struct transfer *transfer)
{
	const struct ktvblk_io *io = &transfer->io;
	const struct ktvblk_backend *backend = uring->engine.backend;
	struct kind *kind;
	uint64_t start_ns;

	if (uring->all || uring->direct || io->op >= KTVBLK_IO_FLUSH)
		return false;
	kind = &uring->kinds[io->op == KTVBLK_IO_WRITE];
	/* The ring does just that, with one system call for all of them. */
	if (kind->has_nowait && io->length <= NOWAIT_BATCH_BYTES &&
	    (uring->engine.more || !ring_is_empty(&uring->ring)))
		return false;
	if (kind->may_nowait) {
		transfer->result = call_nowait(backend->fd, io);
		kind->may_nowait = !nowait_is_refused((int)-transfer->result);
		kind->has_nowait |= transfer->result >= 0;
		if (io->op == KTVBLK_IO_READ)
			uring->engine.reads_at_once = kind->may_nowait &&
						      kind->has_nowait;
		if (kind->may_nowait)
			return transfer->result != -EAGAIN;
	}
	start_ns = now_ns();
	if (!pace_is_plain(&kind->pace, start_ns)) {
		pace_begun(&kind->pace, start_ns, &transfer->begun_ns);
		return false;
	}
	transfer->result = call_plainly(backend, io);
	pace_called(&kind->pace, now_ns() - start_ns, io->length);
	return true;
}

static bool uring_begin(struct engine *engine, struct transfer *transfer)
{
	struct uring *uring = uring_of(engine);
	const enum resort resort = uring->next;

	uring->next = RESORT_NONE;
	transfer->begun_ns = 0;
	transfer->resort = resort;
	if (transfer->io.op > KTVBLK_IO_WRITE_ZEROES) {
		transfer->result = -EOPNOTSUPP;
		return true;
	}
	/* Without a ring, or a place in it, as the sync engine does. */
	if (resort == RESORT_CALL || engine->n_out >= uring->n ||
	    uring->ring.refused) {
		transfer->result = call_plainly(engine->backend, &transfer->io);
		return true;
	}
	if (resort == RESORT_NONE && try_call(uring, transfer))
		return true;
	ring_put(&uring->ring, &transfer->io, resort == RESORT_THREAD,
		 transfer);
	engine->n_out++;
	return false;
}

/* What has not gone out has ended; again: it is to begin once more. */
static void take_back(struct uring *uring, bool again)
{
	struct transfer *transfer;
	void *data;

	while (ring_take_back(&uring->ring, &data)) {
		transfer = (struct transfer *)data;
		transfer->result = -ECANCELED;
		transfer->again = again;
		transfer->next = uring->back;
		uring->back = transfer;
	}
}

/* Where the kernel does not take any more, calls do what it has not taken. */
static void look_at_refusal(struct uring *uring)
{
	if (!uring->ring.refused || uring->refused)
		return;
	uring->refused = true;
	uring->engine.refused = -uring->ring.refused;
	take_back(uring, true);
}

static void uring_push(struct engine *engine)
{
	struct uring *uring = uring_of(engine);

	ring_push(&uring->ring);
	look_at_refusal(uring);
}

static void uring_drop(struct engine *engine)
{
	take_back(uring_of(engine), false);
}

/*
 * fallocate() of a block device makes holes only where the device promises
 * zeros; the call knows another way to discard, which io_uring has not got.
 */
static bool has_other_way(const struct uring *uring,
			  const struct transfer *transfer, ssize_t result)
{
	return result == -EOPNOTSUPP && transfer->io.op == KTVBLK_IO_DISCARD &&
	       uring->engine.backend->block_device;
}

/*
 * The kernel may have had no memory, or no thread, for what a call would do; and
 * with O_NONBLOCK io_uring does not wait for a file. As nothing may begin here
 * the caller is to come again: once for a thread, and then for a call. What is
 * canceled is so by a signal to a thread of the kernel's; nobody here does.
 */
static void end_transfer(struct uring *uring, struct transfer *transfer,
			 ssize_t result)
{
	const bool call = has_other_way(uring, transfer, result);

	transfer->result = result;
	transfer->again = result == -EAGAIN || result == -ENOMEM ||
			  result == -ECANCELED || call;
	if (transfer->again)
		uring->next = transfer->resort == RESORT_NONE && !call
				      ? RESORT_THREAD
				      : RESORT_CALL;
	if (transfer->begun_ns)
		pace_ended(
			&uring->kinds[transfer->io.op == KTVBLK_IO_WRITE].pace,
			transfer->begun_ns, now_ns(), transfer->io.length);
	uring->engine.n_out--;
}

static struct transfer *uring_reap(struct engine *engine)
{
	struct uring *uring = uring_of(engine);
	struct transfer *transfer = uring->back;
	void *data;
	int result;

	if (transfer) {
		uring->back = transfer->next;
		engine->n_out--;
		return transfer;
	}
	if (!ring_reap(&uring->ring, &data, &result))
		return NULL;
	end_transfer(uring, (struct transfer *)data, result);
	return (struct transfer *)data;
}

static int uring_wait(struct engine *engine, int wake_fd, int timeout_ms)
{
	struct uring *uring = uring_of(engine);
	int r;

	if (uring->back)
		return 0;
	r = ring_wait(&uring->ring, wake_fd, timeout_ms);
	look_at_refusal(uring);
	return r;
}

/* It is O_DIRECT that has to find the pages of a buffer. */
static void uring_buffers(struct engine *engine, unsigned char *base,
			  size_t stride, unsigned int n)
{
	struct uring *uring = uring_of(engine);

	if (uring->direct)
		pins_init(&uring->ring.pins, base, stride, uring->pin_uses, n);
}

static bool uring_idle(struct engine *engine)
{
	struct ring *ring = &uring_of(engine)->ring;

	return pins_drop(&ring->pins, &ring->uring);
}

static void uring_close(struct engine *engine)
{
	struct uring *uring = uring_of(engine);

	ring_close(&uring->ring);
	free(uring);
}

static const struct engine_ops uring_ops = {
	.begin = uring_begin,
	.push = uring_push,
	.drop = uring_drop,
	.reap = uring_reap,
	.wait = uring_wait,
	.buffers = uring_buffers,
	.idle = uring_idle,
	.close = uring_close,
};

/* Without a ring there is nothing but its memory. */
static void closed_close(struct engine *engine)
{
	free(uring_of(engine));
}

static int closed_open(struct engine *engine, int *ret_refused)
{
	struct uring *uring = uring_of(engine);
	const int r = ring_open(&uring->ring, uring->n, engine->backend->fd);

	*ret_refused = 0;
	if (r == 0) {
		uring->direct = fcntl(engine->backend->fd, F_GETFL) & O_DIRECT;
		engine->overlaps = uring->direct;
		engine->ops = &uring_ops;
		return 0;
	}
	if (uring->all)
		return r;
	*ret_refused = r;
	engine_sync_init(engine, engine->backend);
	return 0;
}

static const struct engine_ops closed_ops = {
	.open = closed_open,
	.close = closed_close,
};

struct engine *engine_uring_new(const struct ktvblk_backend *backend,
				unsigned int n, bool all)
{
	struct uring *uring = calloc(1, sizeof(*uring) + n);

	if (!uring)
		return NULL;
	uring->engine = (struct engine){
		.ops = &closed_ops,
		.backend = backend,
		.fd = -1,
	};
	uring->n = n;
	uring->all = all;
	for (size_t i = 0; i < ARRAY_SIZE(uring->kinds); i++) {
		uring->kinds[i].may_nowait = true;
		pace_init(&uring->kinds[i].pace);
	}
	return &uring->engine;
}

int engine_uring_probe(void)
{
	return ring_probe();
}
