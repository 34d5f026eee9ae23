/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Storage that is asked for its size while the device runs, however long it takes
 * for the answer.
 */

#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define KIB UINT64_C(1024)

/* A disk whose capacity() does as it is told; all else is none of its. */
struct asked {
	struct latch entered, leave;
	bool hold, ends_thread;
	_Atomic uint64_t bytes;
	_Atomic int error;
	_Atomic unsigned int calls, released;
	pthread_t caller;
};

static int asked_capacity(void *userdata, uint64_t *ret_bytes)
{
	struct asked *asked = (struct asked *)userdata;

	asked->caller = pthread_self();
	atomic_fetch_add(&asked->calls, 1);
	if (asked->hold) {
		latch_set(&asked->entered);
		latch_wait(&asked->leave, WAIT_MS);
	}
	if (asked->ends_thread)
		pthread_exit(NULL);
	if (asked->error)
		return -asked->error;
	*ret_bytes = asked->bytes;
	return 0;
}

static ssize_t asked_preadv(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	(void)userdata;
	(void)iov;
	(void)n_iov;
	(void)offset;
	return 0;
}

static void asked_release(void *userdata)
{
	atomic_fetch_add(&((struct asked *)userdata)->released, 1);
}

static struct ktvblk_dev *open_asked(struct asked *asked)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = asked_preadv,
		.capacity = asked_capacity,
		.release = asked_release,
	};
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev;

	*asked = (struct asked){ .bytes = 64 * KIB };
	latch_init(&asked->entered);
	latch_init(&asked->leave);
	ck_assert_int_eq(ktvblk_backend_new(&ops, asked, &config.backend), 0);
	config.flags = KTVBLK_READ_ONLY;
	ck_assert_int_eq(ktvblk_new(&config, &dev), 0);
	ktvblk_backend_unref(config.backend);
	return dev;
}

static uint64_t sectors(const struct ktvblk_dev *dev)
{
	struct ktvblk_identity identity;

	ck_assert_int_eq(ktvblk_get_identity(dev, &identity, sizeof(identity)),
			 0);
	return identity.capacity_sectors;
}

static void take_state(struct ktvblk_dev *dev)
{
	eventfd_drain(ktvblk_state_fd(dev));
}

static void await_state(struct ktvblk_dev *dev)
{
	struct pollfd fd = { .fd = ktvblk_state_fd(dev), .events = POLLIN };

	ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
	take_state(dev);
}

/* The one before is answered, but may not know that it is. */
static void refresh(struct ktvblk_dev *dev)
{
	take_state(dev);
	ck_assert(eventually(ktvblk_refresh_capacity(dev) == 0));
}

static void end(struct ktvblk_dev *dev, struct asked *asked)
{
	dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(ktvblk_destroy(dev), KTVBLK_JOINED);
	ck_assert_uint_eq(atomic_load(&asked->released), 1);
}

START_TEST(the_answer_is_told_and_becomes_the_size)
{
	struct asked asked;
	struct ktvblk_dev *dev = open_asked(&asked);

	ck_assert_int_eq(ktvblk_refresh_capacity(NULL), -EINVAL);
	for (uint64_t kib = 1; kib < 5; kib++) {
		atomic_store(&asked.bytes, kib * KIB + 100);
		refresh(dev);
		await_state(dev);
		ck_assert_uint_eq(sectors(dev), kib * 2);
		ck_assert_int_eq(pthread_equal(asked.caller, pthread_self()),
				 0);
	}
	ck_assert_uint_eq(atomic_load(&asked.calls), 5);
	end(dev, &asked);
}
END_TEST

START_TEST(a_file_that_grew_and_shrank_is_a_disk_that_did)
{
	const int fd = memfd_create("disk", MFD_CLOEXEC);
	struct rig rig;

	ck_assert_int_eq(ftruncate(fd, 64 * KIB), 0);
	rig_open(&rig, &(struct rig_options){ .disk_fd = dup(fd) });
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, T_IN, 128, 512), IOERR);
	rig_irqs_settled(&rig);
	for (uint64_t kib = 128; kib >= 32; kib /= 4) {
		ck_assert_int_eq(ftruncate(fd, (off_t)(kib * KIB)), 0);
		refresh(rig.dev);
		ck_assert(eventually(rig_irqs(&rig) == 1));
		ck_assert_uint_eq(rig_identity(&rig).capacity_sectors, 2 * kib);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS) &
					  VIRTIO_MMIO_INT_CONFIG,
				  VIRTIO_MMIO_INT_CONFIG);
		rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK, 3);
		ck_assert_int_eq(rig_request(&rig, T_IN, 2 * kib - 1, 512), OK);
		ck_assert_int_eq(rig_request(&rig, T_IN, 2 * kib, 512), IOERR);
		rig_irqs_settled(&rig);
	}
	/* The storage has told that size: less of it is an error, not zeros. */
	ck_assert_int_eq(ftruncate(fd, 4 * KIB), 0);
	ck_assert_int_eq(rig_request(&rig, T_IN, 16, 512), IOERR);
	close(fd);
	rig_close(&rig);
}
END_TEST

START_TEST(a_failure_is_recorded_and_changes_nothing)
{
	for (unsigned int ends = 0; ends < 2; ends++) {
		struct recorder rec;
		struct asked asked;
		struct ktvblk_dev *dev;

		recorder_start(&rec);
		dev = open_asked(&asked);
		asked.error = EIO;
		asked.ends_thread = ends;
		refresh(dev);
		await_state(dev);
		expect_number(recorder_wait(&rec,
					    KTVBLK_MESSAGE_CAPACITY_UNKNOWN),
			      "ERRNO", ends ? ECANCELED : EIO);
		ck_assert_uint_eq(sectors(dev), 128);
		/* And it may be asked again. */
		asked.error = 0;
		asked.ends_thread = false;
		atomic_store(&asked.bytes, 4 * KIB);
		refresh(dev);
		await_state(dev);
		ck_assert_uint_eq(sectors(dev), 8);
		end(dev, &asked);
		recorder_stop(&rec);
	}
}
END_TEST

START_TEST(a_capacity_that_hangs_holds_up_nobody)
{
	struct recorder rec;
	struct traces traces = traces_now();
	struct ktvblk_dev *dev;
	uint64_t start_ns;
	struct asked asked;

	recorder_start(&rec);
	dev = open_asked(&asked);
	asked.hold = true;
	ck_assert_int_eq(ktvblk_refresh_capacity(dev), 0);
	ck_assert(latch_wait(&asked.entered, WAIT_MS));
	start_ns = clock_start();
	ck_assert_int_eq(ktvblk_refresh_capacity(dev), -EBUSY);
	/* Who sets it knows better than what is still to come. */
	ck_assert_int_eq(ktvblk_set_capacity(dev, 4 * KIB), 0);
	ck_assert_int_eq(ktvblk_pause(dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_resume(dev), 1);
	ck_assert_int_eq(ktvblk_get_state(dev), KTVBLK_STATE_IDLE);
	ck_assert_int_eq(ktvblk_destroy(dev), KTVBLK_TIMED_OUT);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(3000));
	recorder_wait(&rec, KTVBLK_MESSAGE_DESTROY_STILL_WEDGED);
	ck_assert_uint_eq(atomic_load(&asked.released), 0);
	latch_set(&asked.leave);
	ck_assert(eventually(atomic_load(&asked.released) == 1));
	traces_expect_gone(&traces);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_late_answer_is_void_behind_a_set_capacity)
{
	struct asked asked;
	struct ktvblk_dev *dev = open_asked(&asked);

	asked.hold = true;
	ck_assert_int_eq(ktvblk_refresh_capacity(dev), 0);
	ck_assert(latch_wait(&asked.entered, WAIT_MS));
	ck_assert_int_eq(ktvblk_set_capacity(dev, 4 * KIB), 0);
	atomic_store(&asked.bytes, 8 * KIB);
	asked.hold = false;
	latch_set(&asked.leave);
	/* That it has ended is seen by that another may begin. */
	ck_assert(eventually(ktvblk_refresh_capacity(dev) == 0));
	await_state(dev);
	ck_assert_uint_eq(sectors(dev), 16);
	ck_assert_int_eq(ktvblk_set_capacity(dev, 2 * KIB), 0);
	ck_assert_uint_eq(sectors(dev), 4);
	ck_assert_int_eq(ktvblk_request_stop(dev), 0);
	ck_assert_int_eq(ktvblk_refresh_capacity(dev), -EBUSY);
	end(dev, &asked);
}
END_TEST

/* The answer may come at any moment of a start, a reset, and the end. */
START_TEST(answers_come_under_starts_resets_and_ends)
{
	const unsigned int n = rounds("REFRESH_ROUNDS", 100, 15);

	for (unsigned int i = 0; i < n; i++) {
		const int fd = memfd_create("disk", MFD_CLOEXEC);
		struct rig rig;

		ck_assert_int_eq(ftruncate(fd, 64 * KIB), 0);
		rig_open(&rig, &(struct rig_options){ .disk_fd = dup(fd) });
		ck_assert_int_eq(ftruncate(fd, 128 * KIB), 0);
		if (i % 4 == 0)
			ck_assert_int_eq(ktvblk_refresh_capacity(rig.dev), 0);
		rig_prepare(&rig);
		/* A driver that has read the old one hears of the new. */
		rig_read(&rig, VIRTIO_MMIO_CONFIG);
		rig_read(&rig, VIRTIO_MMIO_CONFIG + 4);
		if (i % 4 == 1)
			ck_assert_int_eq(ktvblk_refresh_capacity(rig.dev), 0);
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
		if (i % 4 == 2)
			ck_assert_int_eq(ktvblk_refresh_capacity(rig.dev), 0);
		if (i % 4 == 1)
			ck_assert(eventually(
				rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS) &
				VIRTIO_MMIO_INT_CONFIG));
		if (i % 4 == 3)
			ck_assert_int_eq(ktvblk_refresh_capacity(rig.dev), 0);
		if (i % 8 > 3)
			rig_reset(&rig);
		close(fd);
		rig_close(&rig);
	}
}
END_TEST

TEST_PROGRAM("refresh", the_answer_is_told_and_becomes_the_size,
	     a_file_that_grew_and_shrank_is_a_disk_that_did,
	     a_failure_is_recorded_and_changes_nothing,
	     a_capacity_that_hangs_holds_up_nobody,
	     a_late_answer_is_void_behind_a_set_capacity,
	     answers_come_under_starts_resets_and_ends)
