/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See limit.h. One thread, which fills in one go what has come back, and tells
 * the kernel and waits for more by one system call.
 */

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "count.h"
#include "limit.h"

struct loop {
	const struct guest *guest;
	const struct store *store;
	uint32_t cpu;
	uint64_t for_ns;
	struct run *run;
	struct io_uring ring;
	bool has_buffers; /* registered: RLIMIT_MEMLOCK may be too low */
	uint32_t next; /* request, see case_slot_op() */
	uint32_t flusher_turn;
	unsigned int in_flight;
	uint64_t put_ns[DEPTH_MAX];
};

/* As much as the kernel has of what makes it quick. */
static int make_ring(struct io_uring *ring)
{
	static const unsigned int flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(flags) && r == -EINVAL; i++)
		r = io_uring_queue_init(DEPTH_MAX, ring, flags[i]);
	return r;
}

bool limit_has_ring(void)
{
	struct io_uring ring;

	if (make_ring(&ring) < 0)
		return false;
	io_uring_queue_exit(&ring);
	return true;
}

static void open_ring(struct loop *loop)
{
	const struct bench_case *what = loop->guest->driver.what;
	const struct iovec data = {
		driver_data(&loop->guest->driver, 0),
		(size_t)(driver_data(&loop->guest->driver, what->depth) -
			 driver_data(&loop->guest->driver, 0)),
	};
	int r = make_ring(&loop->ring);

	if (r == 0)
		r = io_uring_register_files(&loop->ring, &loop->store->fd, 1);
	if (r < 0)
		die("io_uring: %s", strerror(-r));
	loop->has_buffers = io_uring_register_buffers(&loop->ring, &data, 1) ==
			    0;
}

static void prepare(struct loop *loop, struct io_uring_sqe *sqe, enum op op,
		    unsigned int slot, uint64_t offset)
{
	const uint32_t bytes = loop->guest->driver.what->bytes;
	void *data = driver_data(&loop->guest->driver, slot);

	if (op == CASE_FLUSH)
		io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
	else if (op == CASE_READ && loop->has_buffers)
		io_uring_prep_read_fixed(sqe, 0, data, bytes, offset, 0);
	else if (op == CASE_READ)
		io_uring_prep_read(sqe, 0, data, bytes, offset);
	else if (loop->has_buffers)
		io_uring_prep_write_fixed(sqe, 0, data, bytes, offset, 0);
	else
		io_uring_prep_write(sqe, 0, data, bytes, offset);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data64(sqe,
				slot | (op == CASE_FLUSH ? DEPTH_MAX : 0u));
}

static void put(struct loop *loop, unsigned int slot, uint64_t now)
{
	const struct bench_case *what = loop->guest->driver.what;
	const uint32_t n = loop->next++;
	const enum op op = case_slot_op(what, slot, n, loop->flusher_turn);

	loop->flusher_turn += case_is_flusher(what, slot);
	loop->put_ns[slot] = now;
	prepare(loop, io_uring_get_sqe(&loop->ring), op, slot,
		case_offset(what, n));
	loop->in_flight++;
}

static unsigned int take(struct loop *loop, const struct io_uring_cqe *cqe,
			 uint64_t now)
{
	const struct bench_case *what = loop->guest->driver.what;
	const uint64_t data = io_uring_cqe_get_data64(cqe);
	const unsigned int slot = (unsigned int)(data % DEPTH_MAX);
	const int want = data >= DEPTH_MAX ? 0 : (int)what->bytes;

	if (cqe->res != want)
		die("%s: request of the ring: %s", what->name,
		    cqe->res < 0 ? strerror(-cqe->res) : "short");
	if (!case_is_flusher(what, slot))
		histogram_add(&loop->run->latency, now - loop->put_ns[slot]);
	loop->in_flight--;
	loop->run->requests++;
	return slot;
}

static void run_ring(struct loop *loop)
{
	const uint64_t start = now_ns();
	struct io_uring_cqe *cqe;
	uint64_t now = start;
	unsigned int head;

	for (unsigned int slot = 0; slot < loop->guest->driver.what->depth;
	     slot++)
		put(loop, slot, now);
	while (loop->in_flight) {
		unsigned int n = 0;
		int r = io_uring_submit_and_wait(&loop->ring, 1);

		if (r < 0 && r != -EINTR)
			die("io_uring: %s", strerror(-r));
		now = now_ns();
		io_uring_for_each_cqe(&loop->ring, head, cqe)
		{
			const unsigned int slot = take(loop, cqe, now);

			n++;
			if (now - start < loop->for_ns)
				put(loop, slot, now);
		}
		io_uring_cq_advance(&loop->ring, n);
	}
	loop->run->elapsed_ns = now - start;
}

static void *ring_loop(void *arg)
{
	struct loop *loop = (struct loop *)arg;
	const pid_t self = gettid();
	uint64_t cpu_ns, syscalls;

	cpu_pin(loop->cpu);
	open_ring(loop);
	syscalls = counts_of(self).syscalls;
	cpu_ns = process_cpu_ns(0);
	run_ring(loop);
	loop->run->worker_cpu_ns = process_cpu_ns(0) - cpu_ns;
	loop->run->syscalls = counts_of(self).syscalls - syscalls;
	io_uring_queue_exit(&loop->ring);
	return NULL;
}

void limit_ring(const struct guest *guest, const struct store *store,
		uint32_t cpu, uint64_t for_ns, struct run *run)
{
	struct loop loop = { .guest = guest,
			     .store = store,
			     .cpu = cpu,
			     .for_ns = for_ns,
			     .run = run };
	pthread_t thread;
	int r;

	*run = (struct run){ 0 };
	r = pthread_create(&thread, NULL, ring_loop, &loop);
	if (r)
		die("pthread_create: %s", strerror(r));
	pthread_join(thread, NULL);
}
