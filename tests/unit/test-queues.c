/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Several queues: each has a worker and a life of its own; what is the disk's is
 * common to them.
 */

#include <poll.h>
#include <string.h>

#include "device.h"
#include "several.h"

#define BLK_CONFIG_NUM_QUEUES 0x122u

static bool kicked(struct rig *rig, unsigned int queue)
{
	struct pollfd fd = {
		.fd = ktvblk_queue_kick_fd(rig->dev, queue),
		.events = POLLIN,
	};

	return poll(&fd, 1, 0) == 1;
}

/*
 * The registers
 */

START_TEST(each_queue_is_set_up_and_serves_by_itself)
{
	static const uint32_t counts[] = { 0, 1, 2, 3, 16 };
	struct several several;
	struct rig *rig = &several.rig;

	for (size_t row = 0; row < ARRAY_SIZE(counts); row++) {
		const uint32_t n = counts[row] ? counts[row] : 1;
		uint16_t told = 0xffff;

		several_open(&several, counts[row], WAIT_MS);
		rig_write(rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
		ck_assert(!(rig_read(rig, VIRTIO_MMIO_DEVICE_FEATURES) &
			    RIG_MQ) == (n == 1));
		ktvblk_mmio_read(rig->dev, BLK_CONFIG_NUM_QUEUES, &told, 2);
		ck_assert_uint_eq(told, n > 1 ? n : 0);
		ck_assert_uint_eq(several_workers(rig), n);
		for (unsigned int i = 0; i < n; i++) {
			rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, i);
			ck_assert_uint_eq(
				rig_read(rig, VIRTIO_MMIO_QUEUE_NUM_MAX), 256);
			ck_assert_uint_eq(
				rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 1);
			ck_assert_int_eq(several_read(rig, i), VIRTIO_BLK_S_OK);
			ck_assert_uint_eq(rig_used_idx(rig), 1);
		}
		ck_assert_uint_eq(rig_counters(rig).reads_completed, n);
		ck_assert_int_eq(ktvblk_get_state(rig->dev),
				 KTVBLK_STATE_RUNNING);
		/* One worker each, with names that can be told apart. */
		ck_assert(eventually(count_threads("ktvblk-") == n + 1));
		ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
		ck_assert_int_eq(recorder_count(&several.rec, NULL), 0);
		several_close(&several);
	}
}
END_TEST

START_TEST(each_queue_has_its_kick_eventfd)
{
	struct several several;
	struct rig *rig = &several.rig;

	several_open(&several, 4, WAIT_MS);
	ck_assert_int_eq(ktvblk_queue_kick_fd(NULL, 0), -EINVAL);
	ck_assert_int_eq(ktvblk_queue_kick_fd(rig->dev, 4), -EINVAL);
	ck_assert_int_eq(ktvblk_queue_kick_fd(rig->dev, UINT32_MAX), -EINVAL);
	ck_assert_int_eq(ktvblk_queue_kick_fd(rig->dev, 0),
			 ktvblk_kick_fd(rig->dev));
	for (unsigned int i = 0; i < 4; i++)
		for (unsigned int k = 0; k < i; k++)
			ck_assert_int_ne(ktvblk_queue_kick_fd(rig->dev, i),
					 ktvblk_queue_kick_fd(rig->dev, k));
	/* As an ioeventfd would. */
	rig_select(rig, 3);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	ck_assert_int_eq(eventfd_signal(ktvblk_queue_kick_fd(rig->dev, 3)), 0);
	several_await(rig, 3);
	several_close(&several);
}
END_TEST

START_TEST(a_queue_that_is_not_there_takes_nothing)
{
	static const uint32_t none[] = { 2, 16, 0x10000, UINT32_MAX };
	struct several several;
	struct rig *rig = &several.rig;

	several_open_with(&several,
			  &(struct rig_options){ .config.n_queues = 2 });
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, none[i]);
		ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
		rig_write(rig, VIRTIO_MMIO_QUEUE_NUM, 8);
		rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
		rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
		ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 0);
		rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, none[i]);
	}
	for (unsigned int i = 0; i < 2; i++) {
		ck_assert_uint_eq(rig->dev->queues[i].config.size, 256);
		ck_assert_uint_eq(rig->dev->queues[i].config.desc_addr, 0);
		ck_assert(!rig->dev->queues[i].config.ready);
		ck_assert(!kicked(rig, i));
	}
	/* And the kick of one is no kick of the other. */
	rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
	ck_assert(!kicked(rig, 0) && kicked(rig, 1));
	rig_start(rig);
	ck_assert_int_eq(several_read(rig, 0), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(several_read(rig, 1), VIRTIO_BLK_S_OK);
	several_close(&several);
}
END_TEST

START_TEST(a_driver_may_use_fewer_and_take_more_later)
{
	struct several several;
	struct rig *rig = &several.rig;

	several_open_with(&several, &(struct rig_options){ .config.n_queues = 4,
							   .features = RIG_MQ,
							   .queues_used = 2 });
	rig_start(rig);
	ck_assert_uint_eq(several_workers(rig), 2);
	ck_assert_int_eq(several_read(rig, 1), VIRTIO_BLK_S_OK);
	rig_select(rig, 3);
	rig_set_up_queue(rig);
	ck_assert_uint_eq(several_workers(rig), 3);
	ck_assert_int_eq(several_read(rig, 3), VIRTIO_BLK_S_OK);
	/* A reset forgets it. */
	rig_reset(rig);
	ck_assert_uint_eq(several_workers(rig), 0);
	rig_start(rig);
	ck_assert_uint_eq(several_workers(rig), 2);
	several_close(&several);
}
END_TEST

/* Section 5.2.3: it must not, and if it does there is nothing to fear. */
START_TEST(a_driver_that_did_not_take_mq_is_served_all_the_same)
{
	struct several several;

	several_open_with(&several,
			  &(struct rig_options){ .config.n_queues = 2 });
	rig_start(&several.rig);
	ck_assert_int_eq(several_read(&several.rig, 0), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(several_read(&several.rig, 1), VIRTIO_BLK_S_OK);
	several_close(&several);
}
END_TEST

/*
 * All queues in the same memory: a guest's own loss, and nobody else's. The
 * thread sanitizer sees what this guest makes of its memory, and is right.
 */
START_TEST(queues_that_share_their_rings_harm_nobody)
{
	struct several several;
	struct rig *rig = &several.rig;

#ifdef __SANITIZE_THREAD__
	return;
#endif
	several_open_with(&several,
			  &(struct rig_options){ .config.n_queues = 16,
						 .features = RIG_MQ });
	rig_prepare(rig);
	for (uint32_t i = 0; i < 16; i++) {
		rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, i);
		rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 0);
		rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, RIG_DESC);
		rig_write(rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW, RIG_AVAIL);
		rig_write(rig, VIRTIO_MMIO_QUEUE_USED_LOW, RIG_USED);
		rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_select(rig, 0);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	/* Each serves all that is there, once. */
	for (unsigned int round = 1; round < 20; round++) {
		rig_avail(rig, 0);
		for (uint32_t i = 0; i < 16; i++)
			rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, i);
		ck_assert(eventually(rig_counters(rig).reads_completed ==
				     16 * round));
	}
	rig_reset(rig);
	rig_start(rig);
	ck_assert_int_eq(several_read(rig, 7), VIRTIO_BLK_S_OK);
	several_close(&several);
}
END_TEST

/* Buffers take address space, and memory only for what was moved. */
START_TEST(sixteen_queues_take_no_more_memory_than_is_used)
{
	const pid_t self = getpid();
	struct several several;
	uint64_t before_kib;

	several_open(&several, 1, WAIT_MS);
	ck_assert_int_eq(several_read(&several.rig, 0), VIRTIO_BLK_S_OK);
	several_close(&several);
	before_kib = thread_status(self, "VmRSS");
	several_open(&several, 16, WAIT_MS);
	for (unsigned int i = 0; i < 16; i++)
		ck_assert_int_eq(several_read(&several.rig, i),
				 VIRTIO_BLK_S_OK);
	/* Of what they could use: a buffer of 1 MiB each, and chains. */
	ck_assert(runs_slowly() ||
		  thread_status(self, "VmRSS") < before_kib + 16 * 256);
	several_close(&several);
}
END_TEST

static void count_init(void *userdata)
{
	(*(_Atomic unsigned int *)userdata)++;
}

static struct ktvblk_dev *paused_by_worker;
static _Atomic int pause_answer;

static void pause_own(struct storage *storage, enum storage_op op)
{
	(void)storage;
	if (op == OP_READ)
		pause_answer = ktvblk_pause(paused_by_worker, 0);
}

START_TEST(each_worker_is_the_devices_own)
{
	_Atomic unsigned int inits = 0;
	struct several several;
	struct rig *rig = &several.rig;

	several_open_with(&several,
			  &(struct rig_options){ .config.n_queues = 3,
						 .features = RIG_MQ });
	ck_assert_int_eq(ktvblk_set_worker_init(rig->dev, count_init, &inits),
			 0);
	rig_start(rig);
	ck_assert(eventually(inits == 3));
	paused_by_worker = rig->dev;
	rig->storage->hook = pause_own;
	for (unsigned int i = 0; i < 3; i++) {
		pause_answer = 0;
		several_ask(rig, i, VIRTIO_BLK_T_IN);
		several_await(rig, i);
		ck_assert_int_eq(pause_answer, -EDEADLK);
	}
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	several_close(&several);
}
END_TEST

/*
 * One throttle
 */

START_TEST(all_queues_together_have_one_throttle)
{
	struct several several;
	struct rig *rig = &several.rig;
	uint64_t start;

	several_open_with(&several, &(struct rig_options){
					    .config = { .n_queues = 4,
							.throttle.iops = 40 },
					    .features = RIG_MQ });
	rig_prepare(rig);
	start = now_ns();
	rig_drain_throttle(rig, start);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	for (int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < 4; i++)
			several_ask(rig, i, VIRTIO_BLK_T_IN);
		for (unsigned int i = 0; i < 4; i++)
			several_await(rig, i);
	}
	/* 16 requests of 25 ms each, whatever their queues. */
	ck_assert_uint_ge(now_ns() - start, 400 * NSEC_PER_MSEC);
	ck_assert_uint_eq(rig_counters(rig).reads_completed, 16);
	ck_assert_uint_eq(rig_counters(rig).currently_throttled, 0);
	several_close(&several);
}
END_TEST

START_TEST(who_is_first_in_line_is_not_passed_by)
{
	const struct ktvblk_throttle config = { .bytes_per_sec = 1000 };
	struct disk_throttle *shared = disk_throttle_new(&config, 1);
	_Atomic bool large = false, small = false;
	struct throttle_verdict verdict;
	uint64_t now = 1;

	ck_assert_ptr_nonnull(shared);
	ck_assert(disk_throttle_take(shared, &large, 600, now, &verdict));
	ck_assert(verdict.bytes_ok);
	ck_assert(disk_throttle_take(shared, &large, 600, now, &verdict));
	ck_assert(!verdict.bytes_ok);
	ck_assert_uint_eq(verdict.wait_ns, NSEC_PER_SEC / 5);
	/* There is enough for this one, but it is not its turn. */
	ck_assert(disk_throttle_take(shared, &small, 100, now, &verdict));
	ck_assert(!verdict.bytes_ok);
	ck_assert_uint_ge(verdict.wait_ns, NSEC_PER_SEC / 5);
	now += NSEC_PER_SEC / 5;
	ck_assert(disk_throttle_take(shared, &small, 100, now, &verdict));
	ck_assert(!verdict.bytes_ok && verdict.wait_ns);
	ck_assert(disk_throttle_take(shared, &large, 600, now, &verdict));
	ck_assert(verdict.bytes_ok);
	ck_assert_int_eq(shared->throttle.bytes.available, 0);
	now += NSEC_PER_SEC;
	ck_assert(disk_throttle_take(shared, &small, 100, now, &verdict));
	ck_assert(verdict.bytes_ok);

	/* Who is revoked gets nothing, and is in nobody's way. */
	ck_assert(disk_throttle_take(shared, &large, 1000, now, &verdict));
	ck_assert(!verdict.bytes_ok);
	large = true;
	disk_throttle_leave(shared, &large);
	ck_assert(!disk_throttle_take(shared, &large, 1, now, &verdict));
	ck_assert(disk_throttle_take(shared, &small, 100, now, &verdict));
	ck_assert(verdict.bytes_ok);
	disk_throttle_unref(shared);
}
END_TEST

TEST_PROGRAM("queues", each_queue_is_set_up_and_serves_by_itself,
	     each_queue_has_its_kick_eventfd,
	     a_queue_that_is_not_there_takes_nothing,
	     a_driver_may_use_fewer_and_take_more_later,
	     a_driver_that_did_not_take_mq_is_served_all_the_same,
	     queues_that_share_their_rings_harm_nobody,
	     sixteen_queues_take_no_more_memory_than_is_used,
	     each_worker_is_the_devices_own,
	     all_queues_together_have_one_throttle,
	     who_is_first_in_line_is_not_passed_by)
