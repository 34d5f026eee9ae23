/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * QueueReset (sections 2.6.1, 4.2.2): a queue is as after a reset of the device
 * once the write has come back, within the budget of one and fenced as one, and
 * all else is as it was. Linux's driver for virtio-mmio does without, so the
 * driver is the tests' own.
 */

#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "fleet.h"
#include "mmio.h"
#include "wedge.h"

#define BUDGET 50
#define DEPTH 32u
#define RING_RESET (UINT64_C(1) << VIRTIO_F_RING_RESET)

static uint32_t queue_reset_of(struct rig *rig, unsigned int queue)
{
	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, queue);
	return rig_read(rig, VIRTIO_MMIO_QUEUE_RESET);
}

/* The write has come back: it is over, and the queue as new. */
static void reset_queue(struct rig *rig, unsigned int queue)
{
	const struct queue_config *config = &rig->dev->queues[queue].config;
	const struct queue_config fresh = { .size = rig->dev->queue_size_max };

	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, queue);
	rig_write(rig, VIRTIO_MMIO_QUEUE_RESET, 1);
	ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_QUEUE_RESET), 0);
	ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 0);
	ck_assert_uint_eq(config->size, fresh.size);
	ck_assert_uint_eq(
		config->desc_addr | config->avail_addr | config->used_addr, 0);
}

static int read_sector(struct rig *rig)
{
	return rig_request(rig, VIRTIO_BLK_T_IN, 0, 512);
}

static void open_one(struct rig *rig, uint64_t features, uint64_t masked)
{
	rig_open(rig, &(struct rig_options){
			      .config = { .reset_timeout_ms = WAIT_MS,
					  .features_masked = masked },
			      .features = features,
		      });
}

START_TEST(only_who_negotiated_it_resets_a_queue)
{
	const struct {
		uint64_t features, masked;
	} rows[] = { { 0, 0 }, { 0, RING_RESET }, { RING_RESET, 0 } };
	struct rig rig;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const bool taken = rows[i].features;

		open_one(&rig, rows[i].features, rows[i].masked);
		rig_write(&rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
		ck_assert_uint_eq(
			rig_read(&rig, VIRTIO_MMIO_DEVICE_FEATURES) >> 8 & 1,
			!rows[i].masked);
		rig_start(&rig);
		ck_assert_int_eq(read_sector(&rig), 0);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, 0);
		/* 1 is what it takes. */
		rig_write(&rig, VIRTIO_MMIO_QUEUE_RESET, 0);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_RESET, 3);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 1);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_RESET, 1);
		ck_assert_uint_eq(queue_reset_of(&rig, 0), 0);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY),
				  !taken);
		if (!taken)
			ck_assert_int_eq(read_sector(&rig), 0);
		rig_close(&rig);
	}
}
END_TEST

START_TEST(a_feature_that_is_masked_is_refused)
{
	struct rig rig;

	open_one(&rig, 0, RING_RESET);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_DRV);
	rig_write(&rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	rig_write(&rig, VIRTIO_MMIO_DRIVER_FEATURES,
		  (uint32_t)((RIG_VERSION_1 | RING_RESET) >> 32));
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_FEAT);
	ck_assert_uint_eq(rig_status(&rig), S_DRV);
	rig_close(&rig);
}
END_TEST

/* Features are nobody's before FEATURES_OK. */
START_TEST(a_queue_is_reset_before_driver_ok)
{
	const struct queue_config *config;
	struct rig rig;

	open_one(&rig, RING_RESET, 0);
	config = &rig.dev->queues[0].config;
	rig_write(&rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	rig_write(&rig, VIRTIO_MMIO_DRIVER_FEATURES,
		  (uint32_t)(RING_RESET >> 32));
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 8);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_RESET, 1);
	ck_assert_uint_eq(config->size, 8);
	rig_prepare(&rig);
	ck_assert_uint_eq(config->size, 16);
	reset_queue(&rig, 0);
	/* Which is no reason not to go on. */
	rig_set_up_queue(&rig);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_int_eq(read_sector(&rig), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(a_queue_that_was_reset_is_left_alone_and_set_up_anew)
{
	const struct traces before = traces_now();
	struct recorder rec;
	struct rig rig;
	uint64_t sum;

	wedge_record(&rec);
	open_one(&rig, RING_RESET | RIG_EVENT_IDX, 0);
	rig_start(&rig);
	for (unsigned int i = 0; i < 3; i++) {
		/* Wherever its indices were, they begin at 0. */
		for (unsigned int n = 0; n <= i; n++)
			ck_assert_int_eq(read_sector(&rig), 0);
		reset_queue(&rig, 0);
		ck_assert(eventually(worker_tid(&rig) == 0));
		ck_assert_uint_eq(rig_status(&rig), S_OK);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION),
				  0);
		rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
		rig_avail(&rig, 0);
		sum = wedge_ram_sum(&rig);
		rig_kick(&rig);
		/* Again, of one that is not in use. */
		reset_queue(&rig, 0);
		ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
		/* Another size, other rings: all of it is said again. */
		rig.options.queue_size = i % 2 ? 16 : 32;
		rig_set_up_queue(&rig);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 1);
	}
	ck_assert_int_eq(read_sector(&rig), 0);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_reset_of_a_queue_is_nothing_to_the_others)
{
	struct rig rig;

	rig_open(&rig, &(struct rig_options){
			       .config = { .n_queues = 3 },
			       .features = RING_RESET | RIG_MQ,
		       });
	rig_start(&rig);
	for (unsigned int i = 0; i < 3; i++) {
		for (unsigned int n = 0; n < 3; n++) {
			rig_select(&rig, n);
			ck_assert_int_eq(read_sector(&rig), 0);
		}
		reset_queue(&rig, i);
		for (unsigned int n = 0; n < 3; n++) {
			rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, n);
			ck_assert_uint_eq(rig_read(&rig,
						   VIRTIO_MMIO_QUEUE_READY),
					  n != i);
			rig_select(&rig, n);
			if (n != i)
				ck_assert_int_eq(read_sector(&rig), 0);
		}
		rig_select(&rig, i);
		rig_set_up_queue(&rig);
	}
	/* There is none: nothing happens. */
	rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, 3);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_RESET, 1);
	ck_assert_uint_eq(ports_workers(rig.dev->ports), 3);
	rig_close(&rig);
}
END_TEST

START_TEST(a_queue_is_reset_within_the_budget_whatever_hangs)
{
	const struct traces before = traces_now();
	struct recorder rec;
	uint64_t start, sum;
	struct rig rig;

	wedge_record(&rec);
	open_one(&rig, RING_RESET, 0);
	rig.dev->reset_timeout_ms = BUDGET;
	rig_start(&rig);
	ck_assert_int_eq(read_sector(&rig), 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 1);
	start = clock_start();
	reset_queue(&rig, 0);
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	expect_text(recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
		    "KTVBLK_FENCED", "yes");
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	/* The queue's next life waits for who was left behind. */
	rig_set_up_queue(&rig);
	rig_chain(&rig, 0, VIRTIO_BLK_T_OUT, 2, 512);
	rig_avail(&rig, 0);
	sum = wedge_ram_sum(&rig);
	rig_kick(&rig);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), VIRTIO_BLK_S_OK);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	wedge_close(&rig);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_device_that_needs_a_reset_is_not_mended_by_less)
{
	struct rig rig;

	open_one(&rig, RING_RESET, 0);
	rig_start(&rig);
	rig_set_avail_idx(&rig, 100);
	rig_kick(&rig);
	ck_assert(eventually(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET));
	reset_queue(&rig, 0);
	ck_assert(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET);
	rig_set_up_queue(&rig);
	ck_assert(eventually(worker_tid(&rig) == 0));
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(read_sector(&rig), 0);
	rig_close(&rig);
}
END_TEST

/*
 * Each engine, with 32 in flight
 */

struct crowd {
	struct rig rig;
	struct later later;
};

enum disk { CALLS, LATER, FILE_AUTO, FILE_RING, DISK_COUNT };

static int new_file(void)
{
	const int fd = memfd_create("disk", MFD_CLOEXEC);
	unsigned char bytes[RIG_DISK_BYTES];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = storage_pattern(i);
	ck_assert_int_eq(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	return fd;
}

static bool open_crowd(struct crowd *crowd, enum disk disk)
{
	struct rig_options options = fleet_options();

	memset(crowd, 0, sizeof(*crowd));
	options.features = RING_RESET | (disk % 2 ? RIG_EVENT_IDX : 0);
	options.config.depth = DEPTH;
	options.config.reset_timeout_ms = disk == LATER ? BUDGET : WAIT_MS;
	if (disk == LATER) {
		later_init(&crowd->later);
		options.later = &crowd->later;
	}
	if (disk == FILE_RING && engine_uring_probe() < 0)
		return false;
	if (disk == FILE_AUTO || disk == FILE_RING)
		options.disk_fd = new_file();
	options.config.engine = disk == FILE_RING ? KTVBLK_ENGINE_IO_URING
						  : KTVBLK_ENGINE_AUTO;
	rig_open(&crowd->rig, &options);
	rig_start(&crowd->rig);
	return true;
}

/* What had come since then is whole, and nothing comes any more. */
static void expect_still(struct rig *rig, uint16_t since)
{
	const uint16_t n_used = rig_used_idx(rig);

	for (unsigned int n = since; n < n_used; n++)
		fleet_expect(rig, fleet_used(rig, n), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(rig_used_idx(rig), n_used);
}

static void serve_anew(struct rig *rig)
{
	rig_set_up_queue(rig);
	fleet_send(rig, 0, DEPTH, VIRTIO_BLK_T_IN);
	rig_wait_used(rig, DEPTH);
	for (unsigned int i = 0; i < DEPTH; i++)
		fleet_expect(rig, i, VIRTIO_BLK_S_OK);
}

START_TEST(a_queue_is_reset_amid_many_requests_of_each_engine)
{
	struct crowd crowd;
	struct rig *rig = &crowd.rig;

	for (int disk = 0; disk < DISK_COUNT; disk++) {
		if (disk == LATER || !open_crowd(&crowd, (enum disk)disk))
			continue;
		for (unsigned int i = 0; i < 4; i++) {
			const uint16_t n_used = rig_used_idx(rig);

			fleet_send(rig, 0, DEPTH, VIRTIO_BLK_T_IN);
			/* Amid them, as soon as there are some. */
			if (i % 2)
				ck_assert(eventually(rig_used_idx(rig) !=
						     n_used));
			reset_queue(rig, 0);
			expect_still(rig, n_used);
			serve_anew(rig);
		}
		rig_close(rig);
	}
}
END_TEST

START_TEST(a_queue_is_reset_though_many_requests_hang)
{
	struct recorder rec;
	struct crowd crowd;
	struct rig *rig = &crowd.rig;
	uint64_t start, sum;

	wedge_record(&rec);
	open_crowd(&crowd, LATER);
	fleet_send(rig, 0, DEPTH, VIRTIO_BLK_T_IN);
	later_wait(&crowd.later, DEPTH);
	later_complete(&crowd.later, 7);
	rig_wait_used(rig, 1);
	ck_assert(eventually(worker_sleeps(rig)));
	start = clock_start();
	reset_queue(rig, 0);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	ck_assert_uint_eq(rig_used_idx(rig), 1);
	expect_still(rig, 0);
	for (unsigned int i = 0; i < DEPTH; i++)
		ck_assert(i == 7 || fleet_untouched(rig, i));
	/* It serves when the last of them has come, and not before. */
	rig_set_up_queue(rig);
	fleet_send(rig, 0, DEPTH, VIRTIO_BLK_T_IN);
	sum = later_ever(&crowd.later, OP_READ);
	while (later_count(&crowd.later) > 1)
		later_complete(&crowd.later, 0);
	ck_assert_uint_eq(later_ever(&crowd.later, OP_READ), sum);
	ck_assert_uint_eq(rig_used_idx(rig), 0);
	later_complete(&crowd.later, 0);
	later_wait(&crowd.later, DEPTH);
	later_complete_all(&crowd.later);
	rig_wait_used(rig, DEPTH);
	for (unsigned int i = 0; i < DEPTH; i++)
		fleet_expect(rig, i, VIRTIO_BLK_S_OK);
	rig_close(rig);
	recorder_stop(&rec);
}
END_TEST

TEST_PROGRAM("ring-reset", only_who_negotiated_it_resets_a_queue,
	     a_feature_that_is_masked_is_refused,
	     a_queue_is_reset_before_driver_ok,
	     a_queue_that_was_reset_is_left_alone_and_set_up_anew,
	     a_reset_of_a_queue_is_nothing_to_the_others,
	     a_queue_is_reset_within_the_budget_whatever_hangs,
	     a_device_that_needs_a_reset_is_not_mended_by_less,
	     a_queue_is_reset_amid_many_requests_of_each_engine,
	     a_queue_is_reset_though_many_requests_hang)
