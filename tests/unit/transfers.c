/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See transfers.h. */

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "transfers.h"

unsigned char disk_byte(uint64_t i)
{
	return (unsigned char)(i * 31 + (i >> 9) * 7 + 1);
}

static int open_file(void)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	ck_assert_int_gt(n, 0);
	path[n] = '\0';
	return open(dirname(path), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
}

int image_open(enum disk_kind kind)
{
	static unsigned char bytes[DISK_BYTES];
	char path[64];
	int fd, direct;

	fd = kind == DISK_MEMORY ? memfd_create("disk", MFD_CLOEXEC)
				 : open_file();
	if (fd < 0 && errno == EOPNOTSUPP)
		return -1;
	ck_assert_int_ge(fd, 0);
	for (size_t i = 0; i < DISK_BYTES; i++)
		bytes[i] = disk_byte(i);
	ck_assert_int_eq(pwrite(fd, bytes, DISK_BYTES, 0), DISK_BYTES);
	if (kind != DISK_DIRECT)
		return fd;
	ck_assert_int_eq(fsync(fd), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	ck_assert(direct >= 0 || errno == EINVAL);
	close(fd);
	return direct;
}

static struct rigged rigged_on(struct ktvblk_backend *backend, int fd,
			       unsigned int n, bool all)
{
	struct rigged rigged = {
		.backend = backend,
		.fd = fd,
		.engine = engine_uring_new(backend, n, all),
	};
	int refused;

	ck_assert_ptr_nonnull(rigged.engine);
	ck_assert_int_eq(rigged.engine->ops->open(rigged.engine, &refused), 0);
	ck_assert_int_eq(refused, 0);
	ck_assert_int_eq(rigged.engine->fd, -1);
	ck_assert_uint_eq(rigged.engine->n_out, 0);
	return rigged;
}

struct rigged rigged_new(int fd, unsigned int n, bool all)
{
	struct ktvblk_backend *backend = NULL;

	ck_assert_int_eq(ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
	return rigged_on(backend, fd, n, all);
}

static ssize_t no_preadv(void *userdata, const struct iovec *iov, int n_iov,
			 uint64_t offset)
{
	(void)userdata, (void)iov, (void)n_iov, (void)offset;
	ck_abort_msg("a call that may hang");
}

static int no_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = 0;
	return 0;
}

struct rigged rigged_on_socket(int fd, unsigned int n)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = no_preadv,
		.capacity = no_capacity,
	};
	struct ktvblk_backend *backend = NULL;

	ck_assert_int_eq(ktvblk_backend_new(&ops, NULL, &backend), 0);
	backend->fd = fd;
	return rigged_on(backend, fd, n, true);
}

void rigged_end(struct rigged *rigged)
{
	ck_assert_uint_eq(rigged->engine->n_out, 0);
	rigged->engine->ops->close(rigged->engine);
	ktvblk_backend_unref(rigged->backend);
	close(rigged->fd);
}

struct job *job_new(enum ktvblk_io_op op, uint64_t offset, size_t n_bytes,
		    int n_iov)
{
	const size_t piece = n_iov ? n_bytes / (size_t)n_iov : 0;
	struct job *job = calloc(1, sizeof(*job));

	ck_assert_ptr_nonnull(job);
	ck_assert_uint_le(n_bytes, JOB_BYTES_MAX);
	job->buffer = mmap(NULL, JOB_BYTES_MAX, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(job->buffer != MAP_FAILED);
	for (size_t i = 0; op == KTVBLK_IO_WRITE && i < n_bytes; i++)
		job->buffer[i] = (unsigned char)~disk_byte(offset + i);
	for (int i = 0; i < n_iov; i++)
		job->iov[i] = (struct iovec){ job->buffer + (size_t)i * piece,
					      piece };
	job->transfer.io = (struct ktvblk_io){
		.op = op,
		.iov = job->iov,
		.n_iov = n_iov,
		.offset = offset,
		.length = n_bytes,
	};
	return job;
}

void job_free(struct job *job)
{
	ck_assert(!job->is_out);
	munmap(job->buffer, JOB_BYTES_MAX);
	free(job);
}

bool job_begin(struct rigged *rigged, struct job *job)
{
	const unsigned int n_out = rigged->engine->n_out;

	ck_assert(!job->is_out);
	job->transfer.engine = rigged->engine;
	job->is_out =
		!rigged->engine->ops->begin(rigged->engine, &job->transfer);
	ck_assert_uint_eq(rigged->engine->n_out, n_out + job->is_out);
	return !job->is_out;
}

static struct job *job_reap(struct rigged *rigged)
{
	const unsigned int n_out = rigged->engine->n_out;
	struct transfer *transfer = rigged->engine->ops->reap(rigged->engine);
	struct job *job;

	ck_assert_uint_eq(rigged->engine->n_out, n_out - !!transfer);
	if (!transfer)
		return NULL;
	job = container_of(transfer, struct job, transfer);
	ck_assert(job->is_out);
	job->is_out = false;
	return job;
}

struct job *job_wait(struct rigged *rigged)
{
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	struct job *job;
	int r;

	while (!(job = job_reap(rigged)) && now_ns() < until) {
		r = rigged->engine->ops->wait(rigged->engine, -1, WAIT_MS);
		ck_assert(r == 0 || r == -EINTR);
	}
	return job;
}

void jobs_wait(struct rigged *rigged)
{
	while (rigged->engine->n_out)
		ck_assert_msg(job_wait(rigged), "%u are lost",
			      rigged->engine->n_out);
	ck_assert_ptr_null(job_reap(rigged));
}

ssize_t job_run(struct rigged *rigged, struct job *job)
{
	if (!job_begin(rigged, job))
		ck_assert_ptr_eq(job_wait(rigged), job);
	return job->transfer.result;
}

void job_check(const struct rigged *rigged, const struct job *job)
{
	const struct ktvblk_io *io = &job->transfer.io;
	const size_t length = (size_t)io->length;
	unsigned char bytes[JOB_BYTES_MAX], *there;

	ck_assert_int_eq(job->transfer.result, (ssize_t)io->length);
	if (io->op == KTVBLK_IO_WRITE) {
		there = mmap(NULL, DISK_BYTES, PROT_READ, MAP_SHARED,
			     rigged->fd, 0);
		ck_assert(there != MAP_FAILED);
		ck_assert_mem_eq(there + io->offset, job->buffer, length);
		munmap(there, DISK_BYTES);
		return;
	}
	for (size_t i = 0; i < length; i++)
		bytes[i] = disk_byte(io->offset + i);
	ck_assert_mem_eq(job->buffer, bytes, length);
}

bool ring_is_refused(void)
{
	const int r = engine_uring_probe();

	if (r < 0)
		printf("no io_uring here: %s\n", strerror(-r));
	return r < 0;
}

void job_is_the_last(struct rigged *rigged, struct job *job)
{
	ck_assert(!job_begin(rigged, job));
	jobs_wait(rigged);
	job_check(rigged, job);
	job_free(job);
	rigged_end(rigged);
}
