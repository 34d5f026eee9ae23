/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* An ops table is checked and copied; release() runs once, at the end. */

/* wrap: malloc calloc */

#include <string.h>

#include "alloc-fails.h"
#include "backend.h"
#include "harness.h"

static _Atomic int released;

static ssize_t some_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	(void)userdata, (void)iov, (void)n_iov, (void)offset;
	return 1;
}

static ssize_t some_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	(void)userdata, (void)iov, (void)n_iov, (void)offset;
	return 2;
}

static int some_flush(void *userdata)
{
	(void)userdata;
	return 3;
}

static int some_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = 4096;
	return 0;
}

static void some_release(void *userdata)
{
	if (userdata == &released)
		released++;
}

static struct ktvblk_backend_ops all_ops(void)
{
	released = 0;
	return (struct ktvblk_backend_ops){
		.size = sizeof(struct ktvblk_backend_ops),
		.preadv = some_preadv,
		.pwritev = some_pwritev,
		.flush = some_flush,
		.capacity = some_capacity,
		.release = some_release,
	};
}

static void refused(const struct ktvblk_backend_ops *ops, int error)
{
	struct ktvblk_backend *const untouched =
		(struct ktvblk_backend *)&released;
	struct ktvblk_backend *backend = untouched;

	ck_assert_int_eq(ktvblk_backend_new(ops, &released, &backend), error);
	ck_assert_ptr_eq(backend, untouched);
	ck_assert_int_eq(released, 0);
}

START_TEST(the_ops_are_copied)
{
	struct ktvblk_backend_ops ops = all_ops();
	struct ktvblk_backend *backend = NULL;
	uint64_t bytes = 0;

	ck_assert_int_eq(ktvblk_backend_new(&ops, &released, &backend), 0);
	memset(&ops, 0xff, sizeof(ops));
	ck_assert_ptr_eq(backend->userdata, &released);
	ck_assert_int_eq(backend->ops.preadv(NULL, NULL, 0, 0), 1);
	ck_assert_int_eq(backend->ops.pwritev(NULL, NULL, 0, 0), 2);
	ck_assert_int_eq(backend->ops.flush(NULL), 3);
	ck_assert_int_eq(backend->ops.capacity(NULL, &bytes), 0);
	ck_assert_uint_eq(bytes, 4096);
	ck_assert(!backend_is_read_only(backend));
	ktvblk_backend_unref(backend);
	ck_assert_int_eq(released, 1);
}
END_TEST

START_TEST(only_reading_and_the_capacity_are_needed)
{
	struct ktvblk_backend_ops ops = all_ops();
	struct ktvblk_backend *backend = NULL;

	ops.pwritev = NULL;
	ops.flush = NULL;
	ops.release = NULL;
	ck_assert_int_eq(ktvblk_backend_new(&ops, NULL, &backend), 0);
	ck_assert(backend_is_read_only(backend));
	ck_assert(!backend->ops.flush);
	ck_assert_ptr_null(ktvblk_backend_unref(backend));

	ops.preadv = NULL;
	refused(&ops, -EINVAL);
	ops = all_ops();
	ops.capacity = NULL;
	refused(&ops, -EINVAL);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
	struct ktvblk_backend_ops ops = all_ops();

	refused(NULL, -EINVAL);
	ck_assert_int_eq(ktvblk_backend_new(&ops, &released, NULL), -EINVAL);
	ck_assert_int_eq(released, 0);
}
END_TEST

START_TEST(ops_that_are_too_small_are_refused)
{
	struct ktvblk_backend_ops ops = all_ops();
	static const size_t sizes[] = {
		0, 1, sizeof(size_t),
		offsetof(struct ktvblk_backend_ops, submit) - 1
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		ops.size = sizes[i];
		refused(&ops, -EINVAL);
	}
}
END_TEST

START_TEST(larger_ops_may_set_only_what_is_known)
{
	struct {
		struct ktvblk_backend_ops ops;
		unsigned char later[24];
	} grown = { .ops = all_ops() };
	struct ktvblk_backend *backend = NULL;

	grown.ops.size = sizeof(grown);
	for (size_t i = 0; i < sizeof(grown.later); i++) {
		grown.later[i] = 1;
		refused(&grown.ops, -E2BIG);
		grown.later[i] = 0;
	}
	ck_assert_int_eq(ktvblk_backend_new(&grown.ops, &released, &backend),
			 0);
	ktvblk_backend_unref(backend);
	ck_assert_int_eq(released, 1);
}
END_TEST

START_TEST(without_memory_there_is_no_backend)
{
	struct ktvblk_backend_ops ops = all_ops();

	alloc_fails = 1;
	refused(&ops, -ENOMEM);
	ck_assert_uint_eq(alloc_fails, 0);
}
END_TEST

START_TEST(release_runs_once_with_the_last_reference)
{
	struct ktvblk_backend_ops ops = all_ops();
	struct ktvblk_backend *backend = NULL;

	ck_assert_int_eq(ktvblk_backend_new(&ops, &released, &backend), 0);
	ck_assert_ptr_eq(ktvblk_backend_ref(backend), backend);
	ck_assert_ptr_null(ktvblk_backend_unref(backend));
	ck_assert_int_eq(released, 0);
	ktvblk_backend_unrefp(&backend);
	ck_assert_int_eq(released, 1);
}
END_TEST

START_TEST(null_backends_are_taken_and_given)
{
	struct ktvblk_backend *none = NULL;

	ck_assert_ptr_null(ktvblk_backend_ref(NULL));
	ck_assert_ptr_null(ktvblk_backend_unref(NULL));
	ktvblk_backend_unrefp(&none);
}
END_TEST

static void *ref_and_unref(void *arg)
{
	struct ktvblk_backend *backend = (struct ktvblk_backend *)arg;

	for (int i = 0; i < 20000; i++)
		ktvblk_backend_unref(ktvblk_backend_ref(backend));
	return ktvblk_backend_unref(backend);
}

START_TEST(the_last_of_many_threads_releases)
{
	struct ktvblk_backend_ops ops = all_ops();
	struct ktvblk_backend *backend = NULL;
	pthread_t threads[4];

	ck_assert_int_eq(ktvblk_backend_new(&ops, &released, &backend), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
						ref_and_unref,
						ktvblk_backend_ref(backend)),
				 0);
	ktvblk_backend_unref(backend);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(released, 1);
}
END_TEST

TEST_PROGRAM("backend", the_ops_are_copied,
	     only_reading_and_the_capacity_are_needed,
	     bad_arguments_are_refused, ops_that_are_too_small_are_refused,
	     larger_ops_may_set_only_what_is_known,
	     without_memory_there_is_no_backend,
	     release_runs_once_with_the_last_reference,
	     null_backends_are_taken_and_given,
	     the_last_of_many_threads_releases)
