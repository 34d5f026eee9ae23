/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See limit.h. */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "limit.h"

struct limit {
	const struct guest *guest;
	const struct store *store;
	uint32_t cpu;
	uint64_t for_ns;
	struct run *run;
	int kick_fd;
	int irq_fd;
};

/* The n-th request. */
static void serve(const struct limit *limit, uint32_t n)
{
	const struct bench_case *what = limit->guest->driver.what;
	const enum op op = case_op(what, n);
	const struct iovec iov = {
		driver_data(&limit->guest->driver, n % what->depth), what->bytes
	};
	const off_t at = (off_t)case_offset(what, n);
	ssize_t moved = what->bytes;

	if (limit->store->fd < 0)
		return;
	if (op == CASE_FLUSH)
		moved = fdatasync(limit->store->fd) ? -1 : moved;
	else if (op == CASE_READ)
		moved = preadv(limit->store->fd, &iov, 1, at);
	else
		moved = pwritev(limit->store->fd, &iov, 1, at);
	if (moved != (ssize_t)what->bytes)
		die("%s: bare request: %s", what->name, strerror(errno));
}

static void *bare_loop(void *arg)
{
	const struct limit *limit = (const struct limit *)arg;
	struct run *run = limit->run;
	uint64_t start, cpu_ns;
	uint32_t n = 0;

	cpu_pin(limit->cpu);
	cpu_ns = thread_cpu_ns(gettid());
	start = now_ns();
	do {
		/* The clock costs what a few percent of a request do. */
		for (unsigned int i = 0; i < 8; i++)
			serve(limit, n++);
	} while (now_ns() - start < limit->for_ns);
	run->elapsed_ns = now_ns() - start;
	run->worker_cpu_ns = thread_cpu_ns(gettid()) - cpu_ns;
	run->requests = n;
	return NULL;
}

static void start(struct limit *limit, pthread_t *thread, void *(*loop)(void *))
{
	int r = pthread_create(thread, NULL, loop, limit);

	if (r)
		die("pthread_create: %s", strerror(r));
}

void limit_bare(const struct guest *guest, const struct store *store,
		uint32_t cpu, uint64_t for_ns, struct run *run)
{
	struct limit limit = { guest, store, cpu, for_ns, run, -1, -1 };
	pthread_t thread;

	*run = (struct run){ 0 };
	start(&limit, &thread, bare_loop);
	pthread_join(thread, NULL);
}

/* A kick of more than 1 is the last. */
static void *ping_pong_server(void *arg)
{
	const struct limit *limit = (const struct limit *)arg;
	const uint64_t one = 1;
	uint64_t count, cpu_ns;

	cpu_pin(limit->cpu);
	cpu_ns = thread_cpu_ns(gettid());
	for (uint32_t n = 0;; n++) {
		if (read(limit->kick_fd, &count, sizeof(count)) < 0)
			die("eventfd: %s", strerror(errno));
		if (count > 1)
			break;
		serve(limit, n);
		if (write(limit->irq_fd, &one, sizeof(one)) < 0)
			die("eventfd: %s", strerror(errno));
	}
	limit->run->worker_cpu_ns = thread_cpu_ns(gettid()) - cpu_ns;
	return NULL;
}

static void open_eventfds(struct limit *limit)
{
	limit->kick_fd = eventfd(0, EFD_CLOEXEC);
	limit->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (limit->kick_fd < 0 || limit->irq_fd < 0)
		die("eventfd: %s", strerror(errno));
}

static void close_eventfds(const struct limit *limit)
{
	close(limit->kick_fd);
	close(limit->irq_fd);
}

/* As the driver waits: see driver_await(). */
static void await_irq(const struct limit *limit)
{
	struct pollfd irq = { .fd = limit->irq_fd, .events = POLLIN };
	uint64_t count;

	if (poll(&irq, 1, 10000) != 1 ||
	    read(irq.fd, &count, sizeof(count)) < 0)
		die("no answer: %s", strerror(errno));
}

void limit_ping_pong(const struct guest *guest, const struct store *store,
		     uint32_t cpu, uint64_t for_ns, struct run *run)
{
	struct limit limit = { guest, store, cpu, for_ns, run, -1, -1 };
	const uint64_t one = 1, last = 2;
	uint64_t begun, now;
	pthread_t thread;

	*run = (struct run){ 0 };
	open_eventfds(&limit);
	start(&limit, &thread, ping_pong_server);
	begun = now = now_ns();
	while (now - begun < for_ns) {
		const uint64_t sent = now;

		if (write(limit.kick_fd, &one, sizeof(one)) < 0)
			die("eventfd: %s", strerror(errno));
		await_irq(&limit);
		now = now_ns();
		histogram_add(&run->latency, now - sent);
		run->requests++;
	}
	run->elapsed_ns = now - begun;
	if (write(limit.kick_fd, &last, sizeof(last)) < 0)
		die("eventfd: %s", strerror(errno));
	pthread_join(thread, NULL);
	close_eventfds(&limit);
}

static void *answer_and_end(void *arg)
{
	const struct limit *limit = (const struct limit *)arg;
	uint64_t count = 1;

	cpu_pin(limit->cpu);
	if (write(limit->irq_fd, &count, sizeof(count)) < 0 ||
	    read(limit->kick_fd, &count, sizeof(count)) < 0)
		die("eventfd: %s", strerror(errno));
	return NULL;
}

void limit_thread(uint32_t cpu, uint64_t *ret_start_ns, uint64_t *ret_end_ns)
{
	struct limit limit = { .cpu = cpu };
	uint64_t begun, count = 1;
	pthread_t thread;

	open_eventfds(&limit);
	begun = now_ns();
	start(&limit, &thread, answer_and_end);
	await_irq(&limit);
	*ret_start_ns = now_ns() - begun;
	begun = now_ns();
	if (write(limit.kick_fd, &count, sizeof(count)) < 0)
		die("eventfd: %s", strerror(errno));
	pthread_join(thread, NULL);
	*ret_end_ns = now_ns() - begun;
	close_eventfds(&limit);
}
