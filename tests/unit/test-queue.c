/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The set-up of the one queue: taken until DRIVER_OK, refused where it is no
 * queue, and what was there before stays.
 */

#include <syslog.h>

#include "device.h"
#include "wedge.h"

static const struct {
	uint32_t low, high;
	uint64_t align;
	size_t offset; /* in struct queue_config */
} addresses[] = {
	{ VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, 16,
	  offsetof(struct queue_config, desc_addr) },
	{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 2,
	  offsetof(struct queue_config, avail_addr) },
	{ VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, 4,
	  offsetof(struct queue_config, used_addr) },
};

static uint64_t address(struct rig *rig, size_t i)
{
	return *(const uint64_t *)(const void *)((const char *)&rig->dev
							 ->queues[0]
							 .config +
						 addresses[i].offset);
}

/* At FEATURES_OK, with nothing set up. */
static void open_at_features_ok(struct rig *rig)
{
	rig_open(rig, NULL);
	rig_prepare(rig);
	queues_reset(rig->dev);
}

/* 12.1.23 */
START_TEST(queue_num_max)
{
	struct rig rig;

	rig_open(&rig, NULL);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_NUM_MAX), 256);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, 1);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(queue_num_max_is_what_the_vmm_says)
{
	const struct rig_options options = {
		.config = { .queue_size_max = 64 },
	};
	struct rig rig;

	rig_open(&rig, &options);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_NUM_MAX), 64);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 64);
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 128);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 16);
	rig_close(&rig);
}
END_TEST

/* 12.1.45, and it takes no writes */
START_TEST(invalid_queue_select_returns_zero)
{
	static const uint32_t others[] = { 1, 99, 0x10000, UINT32_MAX };
	struct rig rig;

	open_at_features_ok(&rig);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, 1);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, others[i]);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 0);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 8);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, 0);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
	}
	rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 1);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 256);
	ck_assert_uint_eq(rig.dev->queues[0].config.desc_addr, 0);
	rig_close(&rig);
}
END_TEST

/* 4.1, M0012, T0042 */
START_TEST(a_size_that_is_none_is_refused_and_the_old_one_kept)
{
	static const uint32_t bad[] = {
		0, 3, 5, 255, 257, 512, 0x8000, 0xffff, 0x10000, UINT32_MAX
	};
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	open_at_features_ok(&rig);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 256);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 32);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct kept_record *record;

		recorder_clear(&rec);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, bad[i]);
		ck_assert_uint_eq(rig.dev->queues[0].config.size, 32);
		record = recorder_find(&rec, KTVBLK_MESSAGE_QUEUE_SIZE_INVALID);
		ck_assert_ptr_nonnull(record);
		expect_number(record, "KTVBLK_VALUE", bad[i]);
		ck_assert_int_eq(record->priority, LOG_WARNING);
	}
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(every_power_of_two_up_to_the_most_is_a_size)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	open_at_features_ok(&rig);
	for (uint32_t size = 1; size <= 256; size *= 2) {
		rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, size);
		ck_assert_uint_eq(rig.dev->queues[0].config.size, size);
	}
	/* The register is taken as 16 bits wide. */
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 0x10010);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 16);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(the_halves_of_an_address_may_come_in_any_order)
{
	struct rig rig;

	open_at_features_ok(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		rig_write(&rig, addresses[i].low, 0x89abcde0);
		ck_assert_uint_eq(address(&rig, i), 0x89abcde0);
		rig_write(&rig, addresses[i].high, 0x01234567);
		ck_assert_uint_eq(address(&rig, i), 0x0123456789abcde0);
		rig_write(&rig, addresses[i].high, 0xffffffff);
		ck_assert_uint_eq(address(&rig, i), 0xffffffff89abcde0);
		rig_write(&rig, addresses[i].low, 0);
		ck_assert_uint_eq(address(&rig, i), 0xffffffff00000000);
	}
	rig_close(&rig);
}
END_TEST

START_TEST(a_misaligned_address_is_refused_and_the_old_one_kept)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	open_at_features_ok(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		const uint32_t align = (uint32_t)addresses[i].align;

		rig_write(&rig, addresses[i].low, 0x4000);
		for (uint32_t off = 1; off <= align; off += align / 2) {
			const uint32_t value = 0x5000 + off;
			const bool good = off % align == 0;

			recorder_clear(&rec);
			rig_write(&rig, addresses[i].low, value);
			ck_assert_uint_eq(address(&rig, i),
					  good ? value : 0x4000);
			ck_assert_int_eq(recorder_count(&rec, NULL), !good);
			if (good)
				continue;
			const struct kept_record *record = recorder_find(
				&rec, KTVBLK_MESSAGE_QUEUE_ADDRESS_MISALIGNED);
			ck_assert_ptr_nonnull(record);
			expect_number(record, "KTVBLK_VALUE", value);
		}
	}
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* M0029 */
START_TEST(only_one_is_ready)
{
	static const uint32_t others[] = { 0, 2, 3, 0x101, UINT32_MAX };
	struct rig rig;

	open_at_features_ok(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, 1);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 1);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, others[i]);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 0);
	}
	rig_close(&rig);
}
END_TEST

static void write_all(struct rig *rig)
{
	rig_write(rig, VIRTIO_MMIO_QUEUE_NUM, 64);
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		rig_write(rig, addresses[i].low, 0x7000);
		rig_write(rig, addresses[i].high, 7);
	}
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* 12.1.42; SeaBIOS sets its queue up before it writes features. */
START_TEST(changed_the_queue_may_be_set_up_before_features_ok)
{
	static const uint32_t states[] = { 0, S_ACK, S_DRV };
	struct rig rig;

	rig_open(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		rig_reset(&rig);
		ck_assert_uint_eq(rig.dev->queues[0].config.size, 256);
		ck_assert_uint_eq(rig.dev->queues[0].config.desc_addr, 0);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 0);
		if (states[i])
			rig_write(&rig, VIRTIO_MMIO_STATUS, states[i]);
		write_all(&rig);
		ck_assert_uint_eq(rig.dev->queues[0].config.size, 64);
		ck_assert_uint_eq(rig.dev->queues[0].config.desc_addr,
				  0x700007000);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 1);
	}
	rig_close(&rig);
}
END_TEST

/*
 * 12.1.51, S0095 and CVE-2026-5747: the ring of a live queue does not move. But
 * for QueueReady 0: see test-queue-stop.
 */
START_TEST(queue_config_rejected_after_driver_ok_changed_by_queue_ready_0)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, NULL);
	rig_start(&rig);
	write_all(&rig);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 16);
	ck_assert_uint_eq(rig.dev->queues[0].config.desc_addr, RIG_DESC);
	ck_assert_uint_eq(rig.dev->queues[0].config.avail_addr, RIG_AVAIL);
	ck_assert_uint_eq(rig.dev->queues[0].config.used_addr, RIG_USED);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 1);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_reset_forgets_the_queue)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, 5);
	rig_write(&rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	rig_write(&rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	rig_reset(&rig);
	ck_assert_uint_eq(rig.dev->queue_sel, 0);
	ck_assert_uint_eq(rig.dev->device_features_sel, 0);
	ck_assert_uint_eq(rig.dev->driver_features_sel, 0);
	ck_assert_uint_eq(rig.dev->driver_features, 0);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 256);
	ck_assert_uint_eq(rig.dev->queues[0].config.desc_addr, 0);
	ck_assert_uint_eq(rig.dev->queues[0].config.avail_addr, 0);
	ck_assert_uint_eq(rig.dev->queues[0].config.used_addr, 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_QUEUE_READY), 0);
	rig_close(&rig);
}
END_TEST

/* 12.1.17 */
START_TEST(drain_skipped_when_queue_not_ready)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, 0);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert(eventually(worker_sleeps(&rig)));
	rig_kick(&rig);
	ck_assert(eventually(
		poll(&(struct pollfd){ ktvblk_kick_fd(rig.dev), POLLIN, 0 }, 1,
		     0) == 0));
	ck_assert(eventually(worker_sleeps(&rig)));
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), SENTINEL);
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	ck_assert_uint_eq(rig_counters(&rig).reads_completed, 0);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 0);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("queue", queue_num_max, queue_num_max_is_what_the_vmm_says,
	     invalid_queue_select_returns_zero,
	     a_size_that_is_none_is_refused_and_the_old_one_kept,
	     every_power_of_two_up_to_the_most_is_a_size,
	     the_halves_of_an_address_may_come_in_any_order,
	     a_misaligned_address_is_refused_and_the_old_one_kept,
	     only_one_is_ready,
	     changed_the_queue_may_be_set_up_before_features_ok,
	     queue_config_rejected_after_driver_ok_changed_by_queue_ready_0,
	     a_reset_forgets_the_queue, drain_skipped_when_queue_not_ready)
