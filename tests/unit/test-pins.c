/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Buffers that io_uring has registered: which, when, and that a buffer whose
 * memory was given back is never one of them.
 */

/* wrap: io_uring_register_buffers_sparse io_uring_register_buffers_update_tag */
/* wrap: io_uring_unregister_buffers */

#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bounds.h"
#include "faults.h"
#include "transfers.h"

#define BLOCK 4096u

#define FAILED(name) (-name##_fault.when.error)

WRAP(int, io_uring_register_buffers_sparse,
     (struct io_uring * ring, unsigned int n), (ring, n), 0,
     FAILED(io_uring_register_buffers_sparse))
WRAP(int, io_uring_register_buffers_update_tag,
     (struct io_uring * ring, unsigned int at, const struct iovec *iovs,
      const __u64 *tags, unsigned int n),
     (ring, at, iovs, tags, n), 0, FAILED(io_uring_register_buffers_update_tag))
WRAP(int, io_uring_unregister_buffers, (struct io_uring * ring), (ring), 0,
     FAILED(io_uring_unregister_buffers))

static unsigned int n_pins(void)
{
	return atomic_load(&io_uring_register_buffers_update_tag_fault.calls);
}

static unsigned int n_pins_before; /* the test, if all are one process */

static unsigned int n_pinned(void)
{
	return n_pins() - n_pins_before;
}

/* An engine that has the one buffer of a job. */
struct one {
	struct rigged rigged;
	struct job *job;
};

/* False: there is no O_DIRECT here. */
static bool one_new(struct one *one, enum disk_kind kind)
{
	const int fd = image_open(kind);
	struct engine *engine;

	n_pins_before = n_pins();
	if (fd < 0) {
		fprintf(stderr, "no O_DIRECT in the file system here\n");
		return false;
	}
	one->rigged = rigged_new(fd, 1, true);
	engine = one->rigged.engine;
	one->job = job_new(KTVBLK_IO_READ, 0, BLOCK, 1);
	engine->ops->buffers(engine, one->job->buffer, JOB_BYTES_MAX, 1);
	return true;
}

static void one_end(struct one *one)
{
	job_free(one->job);
	rigged_end(&one->rigged);
}

static bool one_idle(struct one *one)
{
	return one->rigged.engine->ops->idle(one->rigged.engine);
}

/* Reads and writes of other places each time, all with the right bytes. */
static void use(struct one *one, unsigned int times)
{
	struct job *job = one->job;
	struct ktvblk_io *io = &job->transfer.io;

	for (unsigned int i = 0; i < times; i++) {
		io->op = i % 3 ? KTVBLK_IO_READ : KTVBLK_IO_WRITE;
		/* What was written is not what a read of a job expects. */
		io->offset = (i % 3 ? i : 200 + i % 16) * BLOCK;
		memset(job->buffer, (int)i, BLOCK);
		job_run(&one->rigged, job);
		job_check(&one->rigged, job);
	}
}

START_TEST(a_buffer_that_is_in_use_is_registered_once)
{
	struct one one;

	if (!one_new(&one, DISK_DIRECT))
		return;
	use(&one, PIN_USES - 1);
	ck_assert_uint_eq(n_pinned(), 0);
	use(&one, 3 * PIN_USES);
	ck_assert_uint_eq(n_pinned(), 1);
	one_end(&one);
}
END_TEST

/* The page cache has no use for it. */
START_TEST(without_o_direct_none_is)
{
	struct one one;

	ck_assert(one_new(&one, DISK_MEMORY));
	use(&one, 2 * PIN_USES);
	ck_assert_uint_eq(n_pinned(), 0);
	ck_assert(one_idle(&one));
	one_end(&one);
}
END_TEST

START_TEST(other_memory_is_none_of_them)
{
	struct job *jobs[] = { job_new(KTVBLK_IO_READ, 0, BLOCK, 1),
			       job_new(KTVBLK_IO_READ, 0, 2 * BLOCK, 2) };
	struct one one;

	if (!one_new(&one, DISK_DIRECT))
		return;
	use(&one, 2 * PIN_USES);
	/* Of another buffer, in pieces, not from its beginning. */
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
		for (unsigned int n = 0; n < 2 * PIN_USES; n++)
			job_run(&one.rigged, jobs[i]);
		job_check(&one.rigged, jobs[i]);
		job_free(jobs[i]);
	}
	one.job->iov[0].iov_base = one.job->buffer + BLOCK;
	one.job->transfer.io.op = KTVBLK_IO_READ;
	one.job->transfer.io.offset = 0;
	job_run(&one.rigged, one.job);
	memmove(one.job->buffer, one.job->buffer + BLOCK, BLOCK);
	job_check(&one.rigged, one.job);
	ck_assert_uint_eq(n_pinned(), 1);
	one_end(&one);
}
END_TEST

START_TEST(a_buffer_whose_memory_is_given_back_is_not_registered_any_more)
{
	struct one one;

	if (!one_new(&one, DISK_DIRECT))
		return;
	for (unsigned int i = 1; i <= 3; i++) {
		use(&one, 2 * PIN_USES);
		ck_assert_uint_eq(n_pinned(), i);
		ck_assert(one_idle(&one));
		/* Else what the kernel holds is not this memory. */
		ck_assert_int_eq(madvise(one.job->buffer, JOB_BYTES_MAX,
					 MADV_DONTNEED),
				 0);
	}
	use(&one, 2);
	one_end(&one);
}
END_TEST

START_TEST(what_cannot_be_given_back_is_told)
{
	struct one one;

	if (!one_new(&one, DISK_DIRECT))
		return;
	use(&one, 2 * PIN_USES);
	fault_set(&io_uring_unregister_buffers_fault,
		  &(struct fault_when){ .error = ENXIO });
	ck_assert(!one_idle(&one));
	use(&one, 2 * PIN_USES);
	fault_set(&io_uring_unregister_buffers_fault,
		  &(struct fault_when){ .error = EINTR, .times = 3 });
	ck_assert(one_idle(&one));
	ck_assert(one_idle(&one));
	one_end(&one);
}
END_TEST

static void check_without(struct fault *fault)
{
	const unsigned int before = atomic_load(&fault->calls);
	struct one one;

	fault_set(fault, &(struct fault_when){ .error = ENOMEM, .times = 9 });
	if (!one_new(&one, DISK_DIRECT))
		return;
	use(&one, 4 * PIN_USES);
	/* Asked for once, and again when there may be more. */
	ck_assert_uint_eq(atomic_load(&fault->calls), before + 1);
	fault_clear(fault);
	one_end(&one);
}

START_TEST(where_memory_may_not_be_locked_it_works_too)
{
	check_without(&io_uring_register_buffers_update_tag_fault);
}
END_TEST

START_TEST(where_there_can_be_no_table_it_works_too)
{
	check_without(&io_uring_register_buffers_sparse_fault);
}
END_TEST

RING_PROGRAM("pins", a_buffer_that_is_in_use_is_registered_once,
	     without_o_direct_none_is, other_memory_is_none_of_them,
	     a_buffer_whose_memory_is_given_back_is_not_registered_any_more,
	     what_cannot_be_given_back_is_told,
	     where_memory_may_not_be_locked_it_works_too,
	     where_there_can_be_no_table_it_works_too)
