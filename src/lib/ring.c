/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See ring.h. */

#include <poll.h>

#include "backend.h"
#include "bounds.h"
#include "ring.h"
#include "thread.h"
#include "util.h"

/* 5.13: the first to have all of these, and a poll that stays. */
#define FEATURES                                                               \
	(IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS)
/* In place of a transfer. */
#define WAKE UINT64_C(0)

/* Of a kernel as old as it takes, and no interrupt for each completion. */
static int make_ring(struct io_uring *uring, unsigned int n_entries)
{
	static const unsigned int flags[] = {
		IORING_SETUP_COOP_TASKRUN |
			IORING_SETUP_SINGLE_ISSUER, /* 6.0 */
		IORING_SETUP_COOP_TASKRUN, /* 5.19 */
		0,
	};
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(flags) && r == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = flags[i],
		};

		r = io_uring_queue_init_params(n_entries, uring, &params);
	}
	if (r < 0)
		return r;
	r = (uring->features & FEATURES) == FEATURES
		    ? io_uring_ring_dontfork(uring)
		    : -ENOSYS;
	if (r < 0)
		io_uring_queue_exit(uring);
	return r;
}

/*
 * What blocks in a thread of the kernel's keeps that, and for files there are
 * four for each processor: so many that hang would hold up all that needs one.
 * Kernels before 5.15 have none to set.
 */
static void allow_threads(struct ring *ring)
{
	unsigned int most[2] = { ring->n }; /* the second stays as it is */

	io_uring_register_iowq_max_workers(&ring->uring, most);
}

/* The other call may be refused by itself. */
static int try_call(struct ring *ring)
{
	struct io_uring_cqe *cqe;
	int r;

	io_uring_prep_nop(io_uring_get_sqe(&ring->uring));
	r = io_uring_submit(&ring->uring);
	if (r < 0)
		return r;
	/* It has ended by now. */
	if (io_uring_peek_cqe(&ring->uring, &cqe) == 0)
		io_uring_cqe_seen(&ring->uring, cqe);
	return 0;
}

int ring_open(struct ring *ring, unsigned int n, int fd)
{
	int r;

	*ring = (struct ring){ .n = n, .fd = fd };
	r = make_ring(&ring->uring, n + 1);
	if (r < 0)
		return r;
	r = try_call(ring);
	if (r < 0) {
		io_uring_queue_exit(&ring->uring);
		return r;
	}
	/* It saves a reference for each transfer; else it does without. */
	if (io_uring_register_files(&ring->uring, &fd, 1) == 0) {
		ring->registered = true;
		ring->fd = 0;
	}
	allow_threads(ring);
	return 0;
}

/*
 * What closes the ring does so later, in a thread of the kernel's, and would
 * have the file open until then: so that is given back before.
 */
void ring_close(struct ring *ring)
{
	unsigned int n_tries = EINTR_RETRY_MAX;

	while (ring->registered &&
	       io_uring_unregister_files(&ring->uring) == -EINTR && n_tries--)
		;
	io_uring_queue_exit(&ring->uring);
}

/* pin: as of pins_use(). */
static void prepare(struct io_uring_sqe *sqe, int fd,
		    const struct ktvblk_io *io, int pin)
{
	const struct iovec *iov = io->iov;
	const unsigned int n_iov = (unsigned int)io->n_iov;

	if (io->op > KTVBLK_IO_FLUSH) {
		/* liburing's type for both is not always of 64 bits. */
		io_uring_prep_fallocate(
			sqe, fd, fallocate_mode(io->op, io->flags), 0, 0);
		sqe->off = io->offset;
		sqe->addr = io->length;
	} else if (io->op == KTVBLK_IO_FLUSH)
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	else if (pin >= 0 && io->op == KTVBLK_IO_READ)
		io_uring_prep_read_fixed(sqe, fd, iov->iov_base,
					 (unsigned int)iov->iov_len, io->offset,
					 pin);
	else if (pin >= 0)
		io_uring_prep_write_fixed(sqe, fd, iov->iov_base,
					  (unsigned int)iov->iov_len,
					  io->offset, pin);
	else if (io->op == KTVBLK_IO_READ && n_iov == 1)
		io_uring_prep_read(sqe, fd, iov->iov_base,
				   (unsigned int)iov->iov_len, io->offset);
	else if (io->op == KTVBLK_IO_READ)
		io_uring_prep_readv(sqe, fd, iov, n_iov, io->offset);
	else if (n_iov == 1)
		io_uring_prep_write(sqe, fd, iov->iov_base,
				    (unsigned int)iov->iov_len, io->offset);
	else
		io_uring_prep_writev(sqe, fd, iov, n_iov, io->offset);
}

void ring_put(struct ring *ring, const struct ktvblk_io *io, bool by_thread,
	      void *data)
{
	const int pin = pins_use(&ring->pins, &ring->uring, io);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	prepare(sqe, ring->fd, io, pin);
	io_uring_sqe_set_flags(sqe, (ring->registered ? IOSQE_FIXED_FILE : 0u) |
					    (by_thread ? IOSQE_ASYNC : 0u));
	io_uring_sqe_set_data(sqe, data);
}

bool ring_is_empty(const struct ring *ring)
{
	return io_uring_sq_ready(&ring->uring) == 0;
}

/*
 * By a thread of the kernel's the queue would be read at any time, but it is by
 * our calls only: so what it has not read yet is still ours.
 */
bool ring_take_back(struct ring *ring, void **ret_data)
{
	struct io_uring_sq *sq = &ring->uring.sq;
	uint64_t data;

	do {
		if (!io_uring_sq_ready(&ring->uring))
			return false;
		sq->sqe_tail--;
		/* Some of them the library had shown to the kernel. */
		if ((int)(sq->sqe_head - sq->sqe_tail) > 0) {
			sq->sqe_head = sq->sqe_tail;
			io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
		}
		data = sq->sqes[sq->sqe_tail & *sq->kring_mask].user_data;
		if (data == WAKE)
			ring->watching = false;
	} while (data == WAKE);
	*ret_data = (void *)(uintptr_t)data;
	return true;
}

/* Nothing there is now, and may be later. */
static bool passes(int r)
{
	return r >= 0 || r == -EAGAIN || r == -EBUSY || r == -ENOMEM ||
	       r == -EINTR || r == -ETIME;
}

void ring_push(struct ring *ring)
{
	int r;

	if (ring->refused || !io_uring_sq_ready(&ring->uring))
		return;
	r = io_uring_submit(&ring->uring);
	if (!passes(r))
		ring->refused = r;
}

/* The next completion of a transfer, with those of the look behind us. */
static struct io_uring_cqe *next_cqe(struct ring *ring)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
		if (io_uring_cqe_get_data64(cqe) != WAKE)
			return cqe;
		ring->watching = cqe->flags & IORING_CQE_F_MORE;
		if (cqe->res < 0 && cqe->res != -ECANCELED)
			ring->watch_error = cqe->res;
		else
			ring->woken = true;
		io_uring_cqe_seen(&ring->uring, cqe);
	}
	return NULL;
}

bool ring_reap(struct ring *ring, void **ret_data, int *ret_result)
{
	struct io_uring_cqe *cqe = next_cqe(ring);

	if (!cqe)
		return false;
	*ret_data = io_uring_cqe_get_data(cqe);
	*ret_result = cqe->res;
	io_uring_cqe_seen(&ring->uring, cqe);
	return true;
}

/*
 * A poll that stays says when the descriptor becomes readable, or is so now, and
 * not that it still is; it ends when the completion queue is full.
 */
static void watch(struct ring *ring, int fd)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	io_uring_sqe_set_data64(sqe, WAKE);
	ring->watching = true;
}

/* Is there what the caller waits for? 1, 0 or -errno. */
static int is_awaited(struct ring *ring, int wake_fd)
{
	int r = next_cqe(ring) != NULL;

	if (wake_fd < 0)
		return r;
	if (ring->watch_error)
		r = ring->watch_error;
	else if (ring->woken)
		r = 1;
	ring->watch_error = 0;
	/* He looks at all he has, when he comes back. */
	if (r)
		ring->woken = false;
	else if (!ring->watching)
		watch(ring, wake_fd);
	return r;
}

static int submit_and_wait(struct ring *ring, uint64_t deadline_ns)
{
	const uint64_t now = deadline_ns ? now_ns() : 0;
	const uint64_t left_ns = deadline_ns > now ? deadline_ns - now : 0;
	struct __kernel_timespec ts = {
		.tv_sec = (int64_t)(left_ns / NSEC_PER_SEC),
		.tv_nsec = (int64_t)(left_ns % NSEC_PER_SEC),
	};
	struct io_uring_cqe *cqe;
	int r;

	r = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1,
					     deadline_ns ? &ts : NULL, NULL);
	return MIN(r, 0);
}

/*
 * The kernel does go on with what is out, and the ring's own descriptor tells of
 * it. There is no edge to be had of the other one: who came back for it just now
 * only looks at it again after a while.
 */
static int wait_outside(struct ring *ring, int wake_fd, int timeout_ms)
{
	struct pollfd fds[] = {
		{ .fd = ring->uring.ring_fd, .events = POLLIN },
		{ .fd = ring->woken ? -1 : wake_fd, .events = POLLIN },
	};

	if (next_cqe(ring))
		return 0;
	if (ring->woken && (timeout_ms < 0 || timeout_ms > URING_RETRY_MS))
		timeout_ms = URING_RETRY_MS;
	poll(fds, ARRAY_SIZE(fds), timeout_ms);
	ring->woken = fds[1].revents;
	/* What did not fit is told of as well, but cannot be fetched. */
	if (fds[0].revents && !next_cqe(ring))
		poll(NULL, 0, URING_RETRY_MS);
	return 0;
}

int ring_wait(struct ring *ring, int wake_fd, int timeout_ms)
{
	const uint64_t deadline_ns =
		timeout_ms < 0
			? 0
			: now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	struct pollfd pollfd = { .fd = wake_fd, .events = POLLIN };
	int r = 0;

	if (ring->refused)
		return wait_outside(ring, wake_fd, timeout_ms);
	while (r == 0) {
		r = is_awaited(ring, wake_fd);
		if (r) {
			ring_push(ring);
			return MIN(r, 0);
		}
		r = submit_and_wait(ring, deadline_ns);
	}
	/* No memory for a request, or too much that was not fetched. */
	if (r == -EAGAIN || r == -EBUSY || r == -ENOMEM) {
		poll(&pollfd, 1, URING_RETRY_MS);
		return 0;
	}
	if (!passes(r)) {
		ring->refused = r;
		return 0;
	}
	return r == -ETIME ? 0 : r;
}

static void *probe(void *arg)
{
	struct ring ring;
	int *ret_r = (int *)arg;

	pthread_setname_np(pthread_self(), "ktvblk-probe");
	*ret_r = ring_open(&ring, 1, -1);
	if (*ret_r == 0)
		ring_close(&ring);
	return NULL;
}

int ring_probe(void)
{
	pthread_t thread;
	int r, found;

	r = thread_start(&thread, probe, &found);
	if (r == 0)
		r = -pthread_join(thread, NULL);
	return r < 0 ? r : found;
}
