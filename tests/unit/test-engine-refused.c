/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A device for a file whose kernel refuses io_uring; and that its rings are its
 * own affair.
 */

/* wrap: io_uring_queue_init_params */

#include <liburing.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "faults.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"
#include "transfers.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define OK VIRTIO_BLK_S_OK
#define ALWAYS 1000u

WRAP(int, io_uring_queue_init_params,
     (unsigned int n, struct io_uring *ring, struct io_uring_params *params),
     (n, ring, params), 0, -io_uring_queue_init_params_fault.when.error)

static const int refusals[] = { ENOSYS, EPERM, ENOMEM };

static void refuse(int error)
{
	fault_set(&io_uring_queue_init_params_fault,
		  &(struct fault_when){ .error = error, .times = ALWAYS });
}

static void allow(void)
{
	fault_clear(&io_uring_queue_init_params_fault);
}

static int new_file(void)
{
	const int fd = memfd_create("disk", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, RIG_DISK_BYTES), 0);
	return fd;
}

static void open_device(struct rig *rig, enum ktvblk_engine engine)
{
	rig_open(rig, &(struct rig_options){
			      .disk_fd = new_file(),
			      .config = { .engine = engine },
		      });
}

static void check_served(struct rig *rig)
{
	ck_assert_int_eq(rig_request(rig, T_OUT, 3, 4096), OK);
	ck_assert_int_eq(rig_request(rig, T_FLUSH, 0, 0), OK);
	ck_assert_int_eq(rig_request(rig, T_IN, 3, 4096), OK);
}

START_TEST(a_kernel_that_refuses_has_the_disk_served_all_the_same)
{
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	refuse(refusals[_i]);
	open_device(&rig, KTVBLK_ENGINE_AUTO);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_start(&rig);
	check_served(&rig);
	ck_assert_uint_eq(
		kept_number(recorder_wait(&rec, KTVBLK_MESSAGE_ENGINE_REFUSED),
			    "ERRNO"),
		(uint64_t)refusals[_i]);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	rig_close(&rig);
	allow();
	recorder_stop(&rec);
}
END_TEST

START_TEST(who_does_not_ask_for_it_is_not_told)
{
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	refuse(refusals[_i]);
	open_device(&rig, KTVBLK_ENGINE_SYNC);
	rig_start(&rig);
	check_served(&rig);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	allow();
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_ring_that_was_asked_for_and_is_refused_is_no_device)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev = NULL;
	const int fd = new_file();

	ck_assert_int_eq(ktvblk_backend_new_fd(fd, NULL, NULL, &config.backend),
			 0);
	config.engine = KTVBLK_ENGINE_IO_URING;
	refuse(refusals[_i]);
	ck_assert_int_eq(ktvblk_new(&config, &dev), -refusals[_i]);
	ck_assert_ptr_null(dev);
	allow();
	ktvblk_backend_unref(config.backend);
	close(fd);
}
END_TEST

/* It was there when the device was made. */
START_TEST(a_ring_that_is_refused_at_the_start_is_asked_for_by_the_next)
{
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	open_device(&rig, KTVBLK_ENGINE_IO_URING);
	refuse(refusals[_i]);
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_uint_eq(
		kept_number(recorder_wait(&rec, KTVBLK_MESSAGE_START_FAILED),
			    "ERRNO"),
		(uint64_t)refusals[_i]);
	ck_assert(eventually(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET));
	allow();
	rig_reset(&rig);
	rig_start(&rig);
	check_served(&rig);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* A call that is not begun again by itself; the kernel ends a ring later. */
static void check_undisturbed(int epoll_fd)
{
	struct epoll_event event;

	ck_assert_int_eq(epoll_wait(epoll_fd, &event, 1, 50), 0);
}

/* Nor that of the ring by which it is found out whether there can be one. */
START_TEST(the_end_of_a_ring_does_not_wake_the_vmms_thread)
{
	const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct rig rig;

	ck_assert_int_ge(epoll_fd, 0);
	for (int i = 0; i < 4; i++) {
		open_device(&rig, KTVBLK_ENGINE_IO_URING);
		check_undisturbed(epoll_fd);
		rig_start(&rig);
		check_served(&rig);
		rig_reset(&rig);
		check_undisturbed(epoll_fd);
		rig_close(&rig);
		check_undisturbed(epoll_fd);
	}
	close(epoll_fd);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_kernel_that_refuses_has_the_disk_served_all_the_same,
		who_does_not_ask_for_it_is_not_told,
		a_ring_that_was_asked_for_and_is_refused_is_no_device,
	};
	/* Where there is one. */
	const TTest *const others[] = {
		a_ring_that_is_refused_at_the_start_is_asked_for_by_the_next,
		the_end_of_a_ring_does_not_wake_the_vmms_thread,
	};
	const int n = ARRAY_SIZE(refusals);
	int r = run_loops("engine-refused", n, tests, ARRAY_SIZE(tests));

	if (!ring_is_refused())
		r |= run_loops("engine", n, others, ARRAY_SIZE(others));
	return r;
}
