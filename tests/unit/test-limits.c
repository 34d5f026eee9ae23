/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The kernel's own refusals: no more descriptors, no more threads, a file that
 * must not grow or that shrinks under the disk. What fails says so, nothing is
 * left of it, a wedge is bounded all the same, and with the limit gone the
 * device works.
 */

#include <fcntl.h>
#include <sys/resource.h>

#include "life.h"
#include "recorder.h"
#include "wedge.h"

#define BUDGET_MS 20u

/* A limit, lowered, and what it was. */
static void set_limit(__rlimit_resource_t which, rlim_t now,
		      struct rlimit *ret_before)
{
	struct rlimit limit;

	ck_assert_int_eq(getrlimit(which, ret_before), 0);
	limit = *ret_before;
	limit.rlim_cur = now;
	ck_assert_int_eq(setrlimit(which, &limit), 0);
}

static void give_limit_back(__rlimit_resource_t which,
			    const struct rlimit *limit)
{
	ck_assert_int_eq(setrlimit(which, limit), 0);
}

static struct recorder rec;
static struct traces before;

static void begin(struct life *life, uint32_t budget_ms)
{
	wedge_record(&rec);
	before = traces_now();
	life_open(life, 0, budget_ms);
}

/* Its device is gone, or will be. */
static void finish(struct life *life)
{
	life_wait_released(life);
	life_check_disk(life);
	life_close(life);
	/* First: the last record comes after the last release. */
	traces_expect_gone(&before);
	recorder_stop(&rec);
}

static void end(struct life *life)
{
	ck_assert_int_eq(life_destroy(life), KTVBLK_JOINED);
	finish(life);
}

static void work(struct life *life)
{
	ck_assert(life_reset(life));
	ck_assert(life_start(life));
	ck_assert_int_eq(life_request(life, VIRTIO_BLK_T_OUT, 1, 4096), 0);
	ck_assert_int_eq(life_request(life, VIRTIO_BLK_T_IN, 0, 8192), 0);
}

/*
 * Descriptors
 */

#define FDS_MOST 200u

struct shortage {
	struct rlimit before;
	int fds[FDS_MOST];
	unsigned int n;
};

/* From here on only so many more can be had. */
static void take_fds(struct shortage *shortage, unsigned int spare)
{
	int fd;

	shortage->n = 0;
	set_limit(RLIMIT_NOFILE, FDS_MOST, &shortage->before);
	while ((fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)) >= 0)
		shortage->fds[shortage->n++] = fd;
	ck_assert_int_eq(errno, EMFILE);
	while (spare--)
		close(shortage->fds[--shortage->n]);
}

static void give_fds_back(struct shortage *shortage)
{
	while (shortage->n)
		close(shortage->fds[--shortage->n]);
	give_limit_back(RLIMIT_NOFILE, &shortage->before);
}

START_TEST(without_descriptors_there_is_no_device_and_nothing_is_left)
{
	struct shortage shortage;
	unsigned int spare = 0;
	struct life life;
	int r;

	begin(&life, WAIT_MS);
	do {
		take_fds(&shortage, spare);
		r = life_create(&life);
		give_fds_back(&shortage);
		ck_assert(r == 0 || r == -EMFILE);
		ck_assert_uint_eq(count_fds(),
				  before.fds + 1 + (r ? 0 : spare));
	} while (r && ++spare < 20);
	/* The file's, kick, interrupt, state, and stop, also the next one. */
	ck_assert_uint_eq(spare, 6);
	work(&life);
	end(&life);
}
END_TEST

START_TEST(without_descriptors_driver_ok_fails_and_the_next_one_works)
{
	struct shortage shortage;
	struct life life;
	bool started = false;

	begin(&life, WAIT_MS);
	ck_assert_int_eq(life_create(&life), 0);
	for (unsigned int spare = 0; !started; spare++) {
		ck_assert_uint_lt(spare, 20);
		take_fds(&shortage, spare);
		started = life_start(&life);
		if (!started)
			ck_assert(life_reset(&life));
		give_fds_back(&shortage);
		work(&life);
		if (!started)
			ck_assert(life_reset(&life));
	}
	end(&life);
}
END_TEST

static void wedge_and_reset(struct life *life, const char *record_id)
{
	recorder_clear(&rec);
	ck_assert(life_wedge(life));
	life_reset(life);
	recorder_wait(&rec, record_id);
	life_let_go(life);
	ck_assert(eventually(ktvblk_get_state(life->rig.dev) !=
			     KTVBLK_STATE_WEDGED));
}

START_TEST(without_descriptors_a_wedge_is_bounded_recorded_and_survived)
{
	struct shortage shortage;
	struct life life;

	begin(&life, BUDGET_MS);
	ck_assert_int_eq(life_create(&life), 0);
	ck_assert(life_start(&life));
	take_fds(&shortage, 0);
	wedge_and_reset(&life, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	/* The reset had all it needs. */
	ck_assert_uint_eq(rig_status(&life.rig), 0);
	give_fds_back(&shortage);
	work(&life);

	ck_assert(life_wedge(&life));
	take_fds(&shortage, 0);
	ck_assert_int_eq(life_destroy(&life), KTVBLK_TIMED_OUT);
	life_let_go(&life);
	life_wait_released(&life);
	give_fds_back(&shortage);
	finish(&life);
}
END_TEST

/*
 * Threads. The limit is a user's and root has none, so this thread, alone,
 * becomes another user until it is enough.
 */

#define NOBODY 65534

static struct rlimit threads_before;

static void take_threads(void)
{
	set_limit(RLIMIT_NPROC, 1, &threads_before);
	/* Of the kernel: fakeroot has an answer of its own. */
	if (syscall(SYS_getuid) == 0)
		ck_assert_int_eq(syscall(SYS_setresuid, NOBODY, NOBODY, 0), 0);
}

static void give_threads_back(void)
{
	syscall(SYS_setresuid, -1, 0, -1); /* only root has kept it */
	syscall(SYS_setresuid, 0, 0, 0);
	give_limit_back(RLIMIT_NPROC, &threads_before);
}

START_TEST(without_threads_there_is_no_first_device_and_nothing_is_left)
{
	struct life life;
	int r;

	begin(&life, WAIT_MS);
	take_threads();
	r = life_create(&life);
	give_threads_back();
	ck_assert_int_eq(r, -EAGAIN);
	ck_assert_uint_eq(count_fds(), before.fds + 1);
	ck_assert_int_eq(life_create(&life), 0);
	work(&life);
	end(&life);
}
END_TEST

START_TEST(without_threads_driver_ok_fails_and_the_next_one_works)
{
	struct life life;

	begin(&life, WAIT_MS);
	ck_assert_int_eq(life_create(&life), 0);
	for (int i = 0; i < 3; i++) {
		take_threads();
		ck_assert(!life_start(&life));
		ck_assert(life_reset(&life));
		ck_assert(!life_start(&life));
		give_threads_back();
		work(&life);
		ck_assert(life_reset(&life));
	}
	end(&life);
}
END_TEST

START_TEST(without_threads_a_wedge_is_bounded_recorded_and_survived)
{
	struct life life;

	begin(&life, BUDGET_MS);
	ck_assert_int_eq(life_create(&life), 0);
	ck_assert(life_start(&life));
	take_threads();
	wedge_and_reset(&life, KTVBLK_MESSAGE_RESET_HELPER_SPAWN_FAILED);
	give_threads_back();
	work(&life);

	ck_assert(life_wedge(&life));
	take_threads();
	ck_assert_int_eq(life_destroy(&life), KTVBLK_HELPER_SPAWN_FAILED);
	give_threads_back();
	ck_assert_uint_eq(life.released, 0);
	life_let_go(&life);
	life_wait_released(&life);
	finish(&life);
}
END_TEST

/* Its storage may hang in its release, so a thread is wanted for that too. */
START_TEST(without_threads_a_device_that_never_ran_is_released_all_the_same)
{
	struct life life;

	begin(&life, WAIT_MS);
	ck_assert_int_eq(life_create(&life), 0);
	take_threads();
	/* The log thread does it. */
	ck_assert_int_eq(life_destroy(&life), KTVBLK_JOINED);
	ck_assert_uint_eq(life.released, 1);
	give_threads_back();
	finish(&life);
}
END_TEST

/*
 * The file
 */

/* The signal it raises is blocked in the worker: the VMM need not ignore it. */
START_TEST(a_file_that_must_not_grow_fails_the_write_and_not_the_vmm)
{
	struct rlimit limit;
	struct life life;

	begin(&life, WAIT_MS);
	ck_assert_int_eq(life_create(&life), 0);
	ck_assert(life_start(&life));
	set_limit(RLIMIT_FSIZE, 4096, &limit);
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_OUT, 0, 4096), 0);
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_OUT, 8, 512),
			 VIRTIO_BLK_S_IOERR);
	/* Half of it goes in before the error. */
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_OUT, 4, 4096),
			 VIRTIO_BLK_S_IOERR);
	give_limit_back(RLIMIT_FSIZE, &limit);
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_OUT, 4, 4096), 0);
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_IN, 0, 8192), 0);
	end(&life);
}
END_TEST

/* See test-durable.c for what is read. */
START_TEST(a_file_cut_short_is_an_error_and_grows_again)
{
	struct life life;

	begin(&life, WAIT_MS);
	ck_assert_int_eq(life_create(&life), 0);
	ck_assert(life_start(&life));
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_OUT, 0, 16384), 0);
	ck_assert_int_eq(ftruncate(life.fd, 4096 + 100), 0);
	memset(life.model + 4096 + 100, 0, LIFE_DISK_BYTES - 4096 - 100);
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_IN, 4, 8192),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_IN, 64, 512),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_OUT, 100, 1024), 0);
	/* The hole before it, too. */
	ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_IN, 96, 3072), 0);
	ck_assert_int_eq(ftruncate(life.fd, LIFE_DISK_BYTES), 0);
	end(&life);
}
END_TEST

TEST_PROGRAM("limits",
	     without_descriptors_there_is_no_device_and_nothing_is_left,
	     without_descriptors_driver_ok_fails_and_the_next_one_works,
	     without_descriptors_a_wedge_is_bounded_recorded_and_survived,
	     without_threads_there_is_no_first_device_and_nothing_is_left,
	     without_threads_driver_ok_fails_and_the_next_one_works,
	     without_threads_a_wedge_is_bounded_recorded_and_survived,
	     without_threads_a_device_that_never_ran_is_released_all_the_same,
	     a_file_that_must_not_grow_fails_the_write_and_not_the_vmm,
	     a_file_cut_short_is_an_error_and_grows_again)
