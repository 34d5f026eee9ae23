/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A kernel that refuses io_uring, wholly or some call of it, and one that is too
 * old for all we would like: an error, with nothing left, or less is asked for.
 */

/* wrap: io_uring_queue_init_params io_uring_submit */
/* wrap: io_uring_ring_dontfork calloc */

#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "faults.h"
#include "transfers.h"

#define BLOCK 4096u

#define FAILED(name) (-name##_fault.when.error)

static unsigned int lacks; /* of the features */

int __real_io_uring_queue_init_params(unsigned int n, struct io_uring *ring,
				      struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned int n, struct io_uring *ring,
				      struct io_uring_params *params);

static struct fault io_uring_queue_init_params_fault;

int __wrap_io_uring_queue_init_params(unsigned int n, struct io_uring *ring,
				      struct io_uring_params *params)
{
	int r;

	if (fault_hits(&io_uring_queue_init_params_fault, 0))
		return FAILED(io_uring_queue_init_params);
	r = __real_io_uring_queue_init_params(n, ring, params);
	ring->features &= ~lacks;
	return r;
}

WRAP_CALLOC
WRAP(int, io_uring_ring_dontfork, (struct io_uring * ring), (ring), 0,
     FAILED(io_uring_ring_dontfork))
WRAP(int, io_uring_submit, (struct io_uring * ring), (ring), 0,
     FAILED(io_uring_submit))

/* Where it has to be io_uring that is an error, else another takes its place. */
static void check_open(struct ktvblk_backend *backend, bool all, int error)
{
	struct engine *engine = engine_uring_new(backend, 1, all);
	int refused;

	ck_assert_ptr_nonnull(engine);
	ck_assert_int_eq(engine->ops->open(engine, &refused), all ? -error : 0);
	ck_assert_int_eq(refused, all ? 0 : -error);
	if (!all)
		ck_assert_ptr_null(engine->ops->open);
	engine->ops->close(engine);
}

static void check_refusal(struct fault *fault, int error)
{
	const struct fault_when when = { .error = error, .times = 3 };
	const int fd = image_open(DISK_MEMORY);
	struct ktvblk_backend *backend = NULL;
	unsigned int n_fds;

	ck_assert_int_eq(ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
	n_fds = count_fds();
	fault_set(fault, &when);
	check_open(backend, true, error);
	fault_set(fault, &when);
	check_open(backend, false, error);
	fault_set(fault, &when);
	ck_assert_int_eq(engine_uring_probe(), -error);
	fault_clear(fault);
	ck_assert_uint_eq(count_fds(), n_fds);
	ktvblk_backend_unref(backend);
	close(fd);
}

START_TEST(a_kernel_that_refuses_is_an_error_and_leaves_nothing)
{
	static const int errors[] = { ENOSYS, EPERM, ENOMEM, EMFILE, EINVAL };

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		check_refusal(&io_uring_queue_init_params_fault, errors[i]);
}
END_TEST

START_TEST(no_memory_is_an_error)
{
	const int fd = image_open(DISK_MEMORY);
	struct ktvblk_backend *backend = NULL;

	ck_assert_int_eq(ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
	fault_set(&calloc_fault,
		  &(struct fault_when){ .error = ENOMEM, .here = true });
	ck_assert_ptr_null(engine_uring_new(backend, 1, false));
	ck_assert_int_eq(errno, ENOMEM);
	ktvblk_backend_unref(backend);
	close(fd);
}
END_TEST

START_TEST(memory_that_forks_would_share_is_refused)
{
	check_refusal(&io_uring_ring_dontfork_fault, ENOMEM);
}
END_TEST

START_TEST(a_refusal_of_any_call_is_found_before)
{
	const unsigned int n_fds = count_fds();

	fault_set(&io_uring_submit_fault,
		  &(struct fault_when){ .error = EPERM });
	ck_assert_int_eq(engine_uring_probe(), -EPERM);
	ck_assert_int_eq(engine_uring_probe(), 0);
	ck_assert_uint_eq(count_fds(), n_fds);
}
END_TEST

START_TEST(an_older_kernel_is_asked_for_less)
{
	for (unsigned int n = 1; n <= 2; n++) {
		struct rigged rigged;
		struct job *job = job_new(KTVBLK_IO_READ, 0, BLOCK, 1);

		fault_set(&io_uring_queue_init_params_fault,
			  &(struct fault_when){ .error = EINVAL, .times = n });
		rigged = rigged_new(image_open(DISK_MEMORY), 1, true);
		ck_assert(!job_begin(&rigged, job));
		jobs_wait(&rigged);
		job_check(&rigged, job);
		job_free(job);
		rigged_end(&rigged);
	}
}
END_TEST

START_TEST(a_kernel_that_is_too_old_is_refused)
{
	static const unsigned int features[] = { IORING_FEAT_NODROP,
						 IORING_FEAT_EXT_ARG,
						 IORING_FEAT_RSRC_TAGS };
	const unsigned int n_fds = count_fds();

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		lacks = features[i];
		ck_assert_int_eq(engine_uring_probe(), -ENOSYS);
	}
	lacks = 0;
	ck_assert_int_eq(engine_uring_probe(), 0);
	ck_assert_uint_eq(count_fds(), n_fds);
}
END_TEST

/* A child has none of it mapped: what it wrote there would be the parent's. */
START_TEST(a_child_does_not_share_the_ring)
{
	struct rigged rigged = rigged_new(image_open(DISK_MEMORY), 1, true);
	int status;
	pid_t child = fork();

	if (child == 0) {
		char line[512];
		FILE *maps = fopen("/proc/self/maps", "r");

		while (maps && fgets(line, sizeof(line), maps))
			if (strstr(line, "io_uring"))
				_exit(1);
		_exit(maps ? 0 : 2);
	}
	ck_assert_int_gt(child, 0);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	rigged_end(&rigged);
}
END_TEST

int main(void)
{
	const TTest *const refusals[] = {
		a_kernel_that_refuses_is_an_error_and_leaves_nothing,
		no_memory_is_an_error,
	};
	/* Where there is one. */
	const TTest *const tests[] = {
		memory_that_forks_would_share_is_refused,
		a_refusal_of_any_call_is_found_before,
		a_kernel_that_is_too_old_is_refused,
		an_older_kernel_is_asked_for_less,
		a_child_does_not_share_the_ring,
	};
	int r = run_tests("ring-refused", refusals, ARRAY_SIZE(refusals));

	if (!ring_is_refused())
		r |= run_tests("ring", tests, ARRAY_SIZE(tests));
	return r;
}
