/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The disk's cache as the guest's driver has it, whoever connects: one that counts
 * on flushes has its writes cached, and one that does not has each of them durable,
 * also where another process served it before and nobody says so.
 */

#include <string.h>

#include "device.h"
#include "front-end.h"
#include "vhost-user/inflight.h"

#define CACHE (UINT64_C(1) << VIRTIO_BLK_F_CONFIG_WCE)

struct scene {
	struct front_end front;
	unsigned int flushes; /* of the storage, until now */
};

static void open_scene(struct scene *scene, bool region)
{
	front_open(&scene->front, &(struct rig_options){ .features = CACHE });
	scene->flushes = 0;
	if (region)
		front_get_inflight(&scene->front);
}

static void write_cache(struct front_end *front, uint8_t value)
{
	struct {
		uint32_t offset, size, flags;
		uint8_t wce;
	} __attribute__((packed)) set = {
		.offset = offsetof(struct virtio_blk_config, wce),
		.size = 1,
		.wce = value,
	};

	front_tell(front, VU_SET_CONFIG, &set, sizeof(set), -1);
}

/* As a front end does at first, for all that it shows later. */
static uint8_t read_cache(struct front_end *front)
{
	const uint32_t size = sizeof(struct virtio_blk_config);
	const struct vu_config ask = { .size = size };
	struct virtio_blk_config config;
	union vu_payload answer;

	front_send(front, VU_GET_CONFIG, 0, &ask,
		   offsetof(struct vu_config, bytes) + size, NULL, 0);
	front_receive(front, VU_GET_CONFIG, &answer, NULL);
	memcpy(&config, answer.config.bytes, size);
	return config.wce;
}

static unsigned int flushes_by(struct scene *scene, uint32_t type)
{
	struct rig *rig = &scene->front.rig;
	const unsigned int before = scene->flushes;

	ck_assert_int_eq(rig_request(rig, type, 0,
				     type == VIRTIO_BLK_T_OUT ? 512 : 0),
			 VIRTIO_BLK_S_OK);
	scene->flushes = storage_calls(rig->storage, OP_FLUSH);
	return scene->flushes - before;
}

static void expect_cached(struct scene *scene)
{
	ck_assert_uint_eq(flushes_by(scene, VIRTIO_BLK_T_OUT), 0);
}

static void expect_durable(struct scene *scene)
{
	ck_assert_uint_eq(flushes_by(scene, VIRTIO_BLK_T_OUT), 1);
}

/* The same driver goes on, at another back end, which is asked for nothing. */
static void take_over(struct scene *scene)
{
	struct front_end *front = &scene->front;

	front_disconnect(front);
	front_connect(front);
	front_negotiate(front);
	front_set_memory(front);
	front_start_again(front, rig_used_idx(&front->rig));
}

START_TEST(the_write_cache_is_what_the_guest_says)
{
	struct scene scene;

	open_scene(&scene, _i);
	ck_assert_uint_eq(read_cache(&scene.front), 1);
	front_start(&scene.front);
	expect_cached(&scene);
	write_cache(&scene.front, 0);
	ck_assert_uint_eq(read_cache(&scene.front), 0);
	expect_durable(&scene);
	/* A flush does not change what was said. */
	flushes_by(&scene, VIRTIO_BLK_T_FLUSH);
	expect_durable(&scene);
	write_cache(&scene.front, 1);
	ck_assert_uint_eq(read_cache(&scene.front), 1);
	expect_cached(&scene);
	front_close(&scene.front);
}
END_TEST

START_TEST(who_comes_after_a_back_end_knows_it_by_the_region)
{
	struct scene scene;

	open_scene(&scene, true);
	read_cache(&scene.front);
	front_start(&scene.front);
	expect_cached(&scene);
	take_over(&scene);
	expect_cached(&scene);
	write_cache(&scene.front, 0);
	expect_durable(&scene);
	for (int i = 0; i < 2; i++) {
		take_over(&scene);
		flushes_by(&scene, VIRTIO_BLK_T_FLUSH);
		expect_durable(&scene);
	}
	write_cache(&scene.front, 1);
	take_over(&scene);
	expect_cached(&scene);
	front_close(&scene.front);
}
END_TEST

/* Nor is it known of a driver that was moved here, whatever was read before. */
START_TEST(without_a_region_each_write_is_durable_until_there_is_a_flush)
{
	struct scene scene;

	open_scene(&scene, false);
	read_cache(&scene.front);
	front_start(&scene.front);
	write_cache(&scene.front, 0);
	expect_durable(&scene);
	front_disconnect(&scene.front);
	front_connect(&scene.front);
	front_negotiate(&scene.front);
	if (_i)
		ck_assert_uint_eq(read_cache(&scene.front), 1);
	front_set_memory(&scene.front);
	front_start_again(&scene.front, 1);
	expect_durable(&scene);
	expect_durable(&scene);
	flushes_by(&scene, VIRTIO_BLK_T_FLUSH);
	expect_cached(&scene);
	front_close(&scene.front);
}
END_TEST

/* Another server's has only the queues' parts. */
START_TEST(a_region_without_room_for_it_says_nothing)
{
	struct scene scene;

	open_scene(&scene, true);
	scene.front.inflight.mmap_size -= sizeof(struct inflight_tail);
	read_cache(&scene.front);
	front_start(&scene.front);
	expect_cached(&scene);
	take_over(&scene);
	expect_durable(&scene);
	flushes_by(&scene, VIRTIO_BLK_T_FLUSH);
	expect_cached(&scene);
	front_close(&scene.front);
}
END_TEST

/* What a driver before it wanted is nothing to it. */
START_TEST(a_new_driver_has_what_it_is_shown)
{
	struct scene scene;

	open_scene(&scene, false);
	front_start(&scene.front);
	write_cache(&scene.front, 0);
	expect_durable(&scene);
	front_disconnect(&scene.front);
	front_connect(&scene.front);
	ck_assert_uint_eq(read_cache(&scene.front), 1);
	front_start(&scene.front);
	expect_cached(&scene);
	/* Of one that was not asked the front end shows another's. */
	front_disconnect(&scene.front);
	front_connect(&scene.front);
	front_start(&scene.front);
	expect_durable(&scene);
	front_close(&scene.front);
}
END_TEST

/* QEMU goes on showing what it was told last. */
START_TEST(a_reset_keeps_what_the_front_end_shows)
{
	struct scene scene;

	open_scene(&scene, _i);
	read_cache(&scene.front);
	front_start(&scene.front);
	write_cache(&scene.front, 0);
	front_tell(&scene.front, VU_RESET_DEVICE, NULL, 0, -1);
	if (_i)
		front_get_inflight(&scene.front);
	front_start(&scene.front);
	expect_durable(&scene);
	take_over(&scene);
	expect_durable(&scene);
	front_close(&scene.front);
}
END_TEST

/* Nor does a flush that failed become good as the front end comes back. */
START_TEST(a_driver_that_goes_on_is_not_told_that_all_is_well_again)
{
	static const int64_t fails = -EIO;
	struct scene scene;
	struct rig *rig = &scene.front.rig;

	open_scene(&scene, _i);
	read_cache(&scene.front);
	front_start(&scene.front);
	expect_cached(&scene);
	storage_script(rig->storage, &fails, 1);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_FLUSH, 0, 0),
				 VIRTIO_BLK_S_IOERR);
		take_over(&scene);
	}
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_FLUSH, 0, 0),
			 VIRTIO_BLK_S_IOERR);
	/* But the next one's storage is as good as any. */
	front_disconnect(&scene.front);
	front_connect(&scene.front);
	front_start(&scene.front);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_FLUSH, 0, 0),
			 VIRTIO_BLK_S_OK);
	front_close(&scene.front);
}
END_TEST

int main(void)
{
	const TTest *const both[] = {
		the_write_cache_is_what_the_guest_says,
		without_a_region_each_write_is_durable_until_there_is_a_flush,
		a_reset_keeps_what_the_front_end_shows,
		a_driver_that_goes_on_is_not_told_that_all_is_well_again,
	};
	const TTest *const tests[] = {
		who_comes_after_a_back_end_knows_it_by_the_region,
		a_region_without_room_for_it_says_nothing,
		a_new_driver_has_what_it_is_shown,
	};
	const int r =
		run_loops("vu-cache: both ways", 2, both, ARRAY_SIZE(both));

	return run_tests("vu-cache", tests, ARRAY_SIZE(tests)) || r;
}
