/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Restoring: what is refused, and then nothing has changed; and bytes from
 * anybody, of which none does more than a guest can.
 */

/* wrap: malloc calloc pthread_create eventfd epoll_create1 timerfd_create */

#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "device.h"
#include "faults.h"
#include "move.h"
#include "wedge.h"

WRAP_EVENTFD
WRAP_PTHREAD_CREATE
WRAP(int, epoll_create1, (int flags), (flags), 0, -1)
WRAP(int, timerfd_create, (int clock, int flags), (clock, flags), 0, -1)
WRAP(void *, malloc, (size_t size), (size), 0, NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), 0, NULL)

/* A device whose image is taken, and one that is to have it. */
struct scene {
	struct rig rig;
	struct image image;
	struct saved saved;
	struct ktvblk_dev *to;
};

static void open_scene(struct scene *scene)
{
	rig_open(&scene->rig,
		 &(struct rig_options){ .config = { .n_queues = 2 },
					.features = RIG_MQ | RIG_EVENT_IDX });
	rig_start(&scene->rig);
	for (unsigned int q = 0; q < 2; q++) {
		rig_select(&scene->rig, q);
		ck_assert_int_eq(
			rig_request(&scene->rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	}
	image_take(&scene->image, &scene->rig);
	scene->saved = image_read(&scene->image);
	scene->to = move_make(&scene->rig, &scene->rig.options.config, true);
}

static void close_scene(struct scene *scene)
{
	if (scene->to)
		scene->to->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(ktvblk_destroy(scene->to), KTVBLK_JOINED);
	rig_close(&scene->rig);
}

static int restore(struct ktvblk_dev *dev, const struct image *image)
{
	return ktvblk_restore(dev, image->bytes, image->size);
}

/* All that a driver and a VMM can see of it. */
static void look(struct ktvblk_dev *dev, struct image *seen)
{
	const int n = ktvblk_save(dev, seen->bytes, sizeof(seen->bytes));

	ck_assert_int_gt(n, 0);
	seen->size = (size_t)n;
	seen->bytes[seen->size++] = (unsigned char)ktvblk_get_state(dev);
	seen->bytes[seen->size++] = (unsigned char)dev->ports->account;
	seen->bytes[seen->size++] = ports_pause_wanted(dev->ports);
}

static void expect_refused(struct ktvblk_dev *dev, const struct image *image,
			   int error)
{
	struct image before, after;

	look(dev, &before);
	ck_assert_int_eq(restore(dev, image), error);
	look(dev, &after);
	ck_assert_mem_eq(before.bytes, after.bytes, before.size);
}

/* A device that was refused takes what is right. */
static void expect_taken(struct scene *scene)
{
	ck_assert_int_eq(restore(scene->to, &scene->image), 0);
	move_over(&scene->rig, scene->to);
	scene->to = NULL;
	ck_assert_int_eq(ktvblk_resume(scene->rig.dev), 1);
	for (unsigned int q = 0; q < 2; q++) {
		rig_select(&scene->rig, q);
		ck_assert_int_eq(
			rig_request(&scene->rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	}
}

START_TEST(a_device_that_cannot_be_restored_refuses)
{
	struct scene scene;
	struct ktvblk_dev *dev;

	open_scene(&scene);
	ck_assert_int_eq(ktvblk_restore(NULL, scene.image.bytes,
					scene.image.size),
			 -EINVAL);
	ck_assert_int_eq(ktvblk_restore(scene.to, NULL, 0), -EINVAL);
	ck_assert_int_eq(ktvblk_restore(scene.to, NULL, 100), -EINVAL);
	/* Without memory. */
	dev = move_make(&scene.rig, &scene.rig.options.config, false);
	expect_refused(dev, &scene.image, -EINVAL);
	dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(ktvblk_destroy(dev), KTVBLK_JOINED);
	/* In service, after a reset, and restored once. */
	expect_refused(scene.rig.dev, &scene.image, -EBUSY);
	rig_reset(&scene.rig);
	expect_refused(scene.rig.dev, &scene.image, -EBUSY);
	ck_assert_int_eq(restore(scene.to, &scene.image), 0);
	expect_refused(scene.to, &scene.image, -EBUSY);
	/* On its way out. */
	dev = move_make(&scene.rig, &scene.rig.options.config, true);
	ktvblk_request_stop(dev);
	ck_assert_int_eq(restore(dev, &scene.image), -EBUSY);
	dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(ktvblk_destroy(dev), KTVBLK_JOINED);
	close_scene(&scene);
}
END_TEST

START_TEST(a_device_of_another_make_refuses)
{
	struct ktvblk_config configs[7];
	struct scene scene;

	open_scene(&scene);
	for (size_t i = 0; i < ARRAY_SIZE(configs); i++)
		configs[i] = scene.rig.options.config;
	configs[0].capacity_bytes = RIG_DISK_BYTES - 512;
	configs[1].capacity_bytes = RIG_DISK_BYTES + 512;
	configs[2].flags = KTVBLK_READ_ONLY;
	configs[3].n_queues = 1;
	configs[4].n_queues = 3;
	configs[5].queue_size_max = 128;
	configs[6].features_masked = RIG_EVENT_IDX;
	for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
		struct ktvblk_dev *dev =
			move_make(&scene.rig, &configs[i], true);

		expect_refused(dev, &scene.image, -EINVAL);
		dev->destroy_timeout_ms = WAIT_MS;
		ck_assert_int_eq(ktvblk_destroy(dev), KTVBLK_JOINED);
	}
	scene.saved.block_bytes = 4096;
	image_write(&scene.image, &scene.saved);
	expect_refused(scene.to, &scene.image, -EINVAL);
	close_scene(&scene);
}
END_TEST

/* What the one offered is enough; the guest goes on without the rest. */
START_TEST(a_device_that_offers_more_takes_it)
{
	struct scene scene;

	open_scene(&scene);
	scene.saved.features &= ~RIG_INDIRECT_DESC;
	image_write(&scene.image, &scene.saved);
	expect_taken(&scene);
	close_scene(&scene);
}
END_TEST

struct faulty {
	const char *name;
	struct fault *fault;
	int error;
	unsigned int n_hit; /* how often it failed */
};

/*
 * Each call that a start takes fails once, of the first queue's and of the
 * second's: no worker is left, and the next try goes well.
 */
START_TEST(a_start_that_fails_changes_nothing)
{
	struct faulty faulty[] = {
		{ "thread", &pthread_create_fault, EAGAIN, 0 },
		{ "epoll", &epoll_create1_fault, EMFILE, 0 },
		{ "timer", &timerfd_create_fault, ENFILE, 0 },
		{ "eventfd", &eventfd_fault, EMFILE, 0 },
		{ "calloc", &calloc_fault, ENOMEM, 0 },
		{ "malloc", &malloc_fault, ENOMEM, 0 },
	};
	struct recorder rec;
	struct scene scene;
	struct image before, after;

	wedge_record(&rec);
	for (size_t i = 0; i < ARRAY_SIZE(faulty); i++) {
		struct faulty *row = &faulty[i];

		open_scene(&scene);
		for (unsigned int skip = 0;; skip++) {
			int r;

			look(scene.to, &before);
			fault_set(row->fault,
				  &(struct fault_when){ .error = row->error,
							.skip = skip,
							.here = true });
			r = restore(scene.to, &scene.image);
			fault_clear(row->fault);
			if (r == 0)
				break;
			ck_assert_int_eq(r, -row->error);
			row->n_hit++;
			look(scene.to, &after);
			ck_assert_mem_eq(before.bytes, after.bytes,
					 before.size);
			ck_assert_uint_eq(ports_workers(scene.to->ports), 0);
		}
		scene.to->destroy_timeout_ms = WAIT_MS;
		ck_assert_int_eq(ktvblk_destroy(scene.to), KTVBLK_JOINED);
		scene.to =
			move_make(&scene.rig, &scene.rig.options.config, true);
		expect_taken(&scene);
		close_scene(&scene);
	}
	/* A thread, an epoll and a timer for each queue. */
	for (size_t i = 0; i < 3; i++)
		ck_assert_msg(faulty[i].n_hit == 2, "%s failed %u times",
			      faulty[i].name, faulty[i].n_hit);
	recorder_wait(&rec, KTVBLK_MESSAGE_START_FAILED);
	recorder_stop(&rec);
}
END_TEST

/* And with a pause that was asked for before, which stays. */
START_TEST(a_failed_restore_leaves_a_pause_as_it_was)
{
	struct recorder rec;
	struct scene scene;

	wedge_record(&rec);
	open_scene(&scene);
	for (unsigned int i = 0; i < 2; i++) {
		fault_set(&pthread_create_fault,
			  &(struct fault_when){
				  .error = EAGAIN, .skip = 1, .here = true });
		ck_assert_int_eq(restore(scene.to, &scene.image), -EAGAIN);
		ck_assert_int_eq(ktvblk_resume(scene.to), (int)i);
		ck_assert_int_eq(ktvblk_pause_begin(scene.to, -1), 0);
	}
	expect_taken(&scene);
	close_scene(&scene);
	recorder_stop(&rec);
}
END_TEST

/*
 * Bytes
 */

START_TEST(damaged_bytes_are_refused)
{
	struct scene scene;
	struct image damaged;

	open_scene(&scene);
	for (size_t at = 0; at < scene.image.size; at++)
		for (unsigned int bit = 0; bit < 8; bit++) {
			damaged = scene.image;
			damaged.bytes[at] ^= (unsigned char)(1u << bit);
			ck_assert_int_eq(restore(scene.to, &damaged), -EINVAL);
		}
	for (size_t size = 0; size < sizeof(damaged.bytes); size++) {
		unsigned char *exact = malloc(size ? size : 1);

		memset(exact, 0, size ? size : 1);
		memcpy(exact, scene.image.bytes, MIN(size, scene.image.size));
		if (size != scene.image.size)
			ck_assert_int_eq(ktvblk_restore(scene.to, exact, size),
					 -EINVAL);
		free(exact);
	}
	expect_refused(scene.to, &damaged, -EINVAL);
	expect_taken(&scene);
	close_scene(&scene);
}
END_TEST

/* Any byte wrong and the crc right: refused, or a device that can be ended. */
START_TEST(forged_bytes_do_no_harm)
{
	unsigned int n_taken = 0, n_refused = 0;
	struct scene scene;
	struct recorder rec;

	wedge_record(&rec);
	open_scene(&scene);
	for (size_t at = 0; at < scene.image.size - 4; at++)
		for (unsigned int i = 0; i < 4; i++) {
			static const unsigned char masks[] = { 1, 2, 0x80,
							       0xff };
			struct image forged = scene.image;
			struct ktvblk_dev *dev;

			forged.bytes[at] ^= masks[i];
			image_seal(&forged);
			if (restore(scene.to, &forged) < 0) {
				n_refused++;
				continue;
			}
			n_taken++;
			dev = scene.to;
			ck_assert_int_eq(ktvblk_is_paused(dev), 1);
			ck_assert_int_eq(ktvblk_resume(dev), 1);
			ck_assert_int_eq(ktvblk_pause(dev, WAIT_MS), 0);
			dev->destroy_timeout_ms = WAIT_MS;
			ck_assert_int_eq(ktvblk_destroy(dev), KTVBLK_JOINED);
			scene.to = move_make(&scene.rig,
					     &scene.rig.options.config, true);
		}
	ck_assert_uint_gt(n_taken, 20);
	ck_assert_uint_gt(n_refused, 200);
	close_scene(&scene);
	recorder_stop(&rec);
}
END_TEST

/* Each is the image with one thing in it that no device comes to be. */
#define FORGED(...)                                                            \
	do {                                                                   \
		struct saved s = scene.saved;                                  \
		struct saved_queue *q = &s.queues[0];                          \
                                                                               \
		(void)q;                                                       \
		__VA_ARGS__;                                                   \
		image_write(&image, &s);                                       \
		expect_refused(scene.to, &image, -EINVAL);                     \
	} while (0)

START_TEST(what_no_device_can_be_is_refused)
{
	struct scene scene;
	struct image image;

	open_scene(&scene);
	/* Registers. */
	FORGED(s.status = S_OK | 16);
	FORGED(s.status = S_OK | 0x100);
	FORGED(s.status = S_DRV | VIRTIO_CONFIG_S_DRIVER_OK);
	FORGED(s.status = S_FEAT | VIRTIO_CONFIG_S_NEEDS_RESET);
	FORGED(s.status = S_FEAT);
	FORGED(s.status = 0);
	FORGED(s.interrupt_status = 4);
	FORGED(s.driver_features &= ~RIG_VERSION_1);
	FORGED(s.driver_features |= 1u << VIRTIO_BLK_F_RO);
	FORGED(s.features |= 1u << VIRTIO_BLK_F_RO);
	FORGED(s.features &= ~RIG_EVENT_IDX);
	/* A queue's set-up. */
	FORGED(q->config.size = 0);
	FORGED(q->config.size = 12);
	FORGED(q->config.size = 512);
	FORGED(q->config.desc_addr += 8);
	FORGED(q->config.avail_addr += 1);
	FORGED(q->config.used_addr += 2);
	FORGED(q->config.desc_addr = RIG_RAM_BYTES);
	FORGED(q->config.desc_addr = RIG_RAM_BYTES - 16);
	FORGED(q->config.avail_addr = RIG_RAM_BYTES - 4);
	FORGED(q->config.avail_addr = 0);
	FORGED(q->config.used_addr = UINT64_MAX - 3);
	/* The last of it, of EVENT_IDX, lies behind. */
	FORGED(q->config.used_addr = RIG_RAM_BYTES - (4 + 16 * 8));
	/* Where it is. */
	FORGED(q->next_avail += 17);
	FORGED(q->next_used++);
	FORGED(q->flags &= ~(uint32_t)SAVED_RUNNING);
	FORGED(q->flags &= ~(uint32_t)SAVED_READY);
	FORGED(q->flags |= SAVED_STOPPED);
	FORGED(q->flags |= SAVED_POISONED);
	FORGED(q->flags |= SAVED_POISONED | SAVED_UNRULY);
	FORGED(q->flags = SAVED_STOPPED);
	FORGED(q->flags = SAVED_STOPPED; q->next_avail = q->next_used = 0;
	       q->flags |= SAVED_READY);
	FORGED(q->flags = 0; q->next_avail = q->next_used = 0);
	FORGED(q = &s.queues[1]; q->flags = SAVED_RUNNING;
	       q->next_avail = q->next_used = 0);
	FORGED(q->flags = SAVED_STOPPED | SAVED_UNRULY;
	       q->next_avail = q->next_used = 0);
	/* What comes of a session only, without one. */
	FORGED(s.status = S_FEAT; s.flush_failed = true;
	       s.queues[0] = s.queues[1] =
		       (struct saved_queue){ .config = { .size = 16 } });
	FORGED(s.status = S_FEAT;
	       s.queues[0] = s.queues[1] = (struct saved_queue){
		       .flags = SAVED_STOPPED, .config = { .size = 16 } });
	/* Tokens. */
	FORGED(s.throttle.ops.rate = 1; s.throttle.ops.available = INT64_MIN);
	FORGED(s.throttle.bytes.rate = 1;
	       s.throttle.bytes.available = -(INT64_C(1) << 32));
	FORGED(s.throttle.bytes.rate = 1;
	       s.throttle.bytes.remainder = NSEC_PER_SEC);
	FORGED(s.throttle.bytes.available = 1);
	FORGED(s.throttle.ops.remainder = 1);
	expect_taken(&scene);
	close_scene(&scene);
}
END_TEST

/*
 * Versions
 */

/* A section of 3 bytes with this tag, before the at-th byte. */
static void put_section(struct image *image, size_t at, uint32_t tag)
{
	const uint32_t head[] = { htole32(tag), htole32(3) };

	memmove(image->bytes + at + 11, image->bytes + at, image->size - at);
	memcpy(image->bytes + at, head, sizeof(head));
	memset(image->bytes + at + 8, 0x77, 3);
	image->size += 11;
	image_seal(image);
}

START_TEST(what_a_later_version_adds_is_refused_unless_it_may_be_passed_over)
{
	static const uint32_t may = 0x80000000, must[] = { 0, 1, 3, 5, 6, 77 };
	struct scene scene;
	struct image image;
	size_t end;

	open_scene(&scene);
	end = scene.image.size - 4;
	for (size_t i = 0; i < ARRAY_SIZE(must); i++) {
		image = scene.image;
		put_section(&image, end, must[i]);
		expect_refused(scene.to, &image, -EINVAL);
		image = scene.image;
		put_section(&image, 16, must[i]);
		expect_refused(scene.to, &image, -EINVAL);
	}
	/* Another version of it all. */
	image = scene.image;
	image.bytes[8]++;
	image_seal(&image);
	expect_refused(scene.to, &image, -EINVAL);
	/* Twice, or without its end. */
	image = scene.image;
	memcpy(image.bytes + end, image.bytes + 16, 40);
	image.size += 40;
	image_seal(&image);
	expect_refused(scene.to, &image, -EINVAL);
	image = scene.image;
	image.size -= 44;
	image_seal(&image);
	expect_refused(scene.to, &image, -EINVAL);
	/* But not these. */
	put_section(&scene.image, end, may | 6);
	put_section(&scene.image, 16, may | 1);
	expect_taken(&scene);
	close_scene(&scene);
}
END_TEST

/*
 * What the first version wrote, byte for byte: no later one may write it
 * otherwise, or not take it.
 */
START_TEST(the_bytes_are_those_of_the_first_version)
{
	static const unsigned char bytes[] = {
		0x6b, 0x74, 0x76, 0x62, 0x6c, 0x6b, 0x0d, 0x0a, 0x01, 0x00,
		0x00, 0x00, 0xce, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
		0x20, 0x00, 0x00, 0x00, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33,
		0x22, 0x11, 0x01, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99,
		0x00, 0x02, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01,
		0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00,
		0x34, 0x00, 0x00, 0x00, 0x09, 0x08, 0x07, 0x06, 0x05, 0x04,
		0x03, 0x02, 0x4f, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00,
		0x0d, 0x0c, 0x0b, 0x0a, 0x11, 0x10, 0x0f, 0x0e, 0x15, 0x14,
		0x13, 0x12, 0x19, 0x18, 0x17, 0x16, 0x57, 0x56, 0x55, 0x54,
		0x53, 0x52, 0x51, 0x50, 0x5f, 0x5e, 0x5d, 0x5c, 0x5b, 0x5a,
		0x59, 0x58, 0x07, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00,
		0x22, 0x00, 0x00, 0x00, 0x21, 0x20, 0x1f, 0x1e, 0x1d, 0x1c,
		0x1b, 0x1a, 0x29, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22,
		0x31, 0x30, 0x2f, 0x2e, 0x2d, 0x2c, 0x2b, 0x2a, 0x1f, 0x00,
		0x00, 0x00, 0x33, 0x32, 0x35, 0x34, 0x37, 0x36, 0x04, 0x00,
		0x00, 0x00, 0x24, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00,
		0x3f, 0x3e, 0x3d, 0x3c, 0x3b, 0x3a, 0x39, 0x38, 0x47, 0x46,
		0x45, 0x44, 0x43, 0x42, 0x41, 0x40, 0xfe, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0x4f, 0x4e, 0x4d, 0x4c, 0x4b, 0x4a,
		0x49, 0x48, 0x98, 0x57, 0xc5, 0x6c,
	};
	const struct saved first = {
		.capacity_bytes = 0x1122334455667788,
		.features = 0x99aabbccddeeff01,
		.block_bytes = 512,
		.n_queues = 1,
		.queue_size_max = 256,
		.read_only = true,
		.driver_features = 0x0203040506070809,
		.status = 0x4f,
		.interrupt_status = 3,
		.device_features_sel = 0x0a0b0c0d,
		.driver_features_sel = 0x0e0f1011,
		.queue_sel = 0x12131415,
		.config_generation = 0x16171819,
		.shown_sectors = 0x5051525354555657,
		.capacity_was_read = true,
		.read_sectors = 0x58595a5b5c5d5e5f,
		.flush_failed = true,
		.writeback = true,
		.throttle.ops = { .rate = 1,
				  .available = 0x38393a3b3c3d3e3f,
				  .remainder = 0x4041424344454647 },
		.throttle.bytes = { .rate = 1,
				    .available = -2,
				    .remainder = 0x48494a4b4c4d4e4f },
		.queues[0] = { .flags = SAVED_READY | SAVED_RUNNING |
					SAVED_STOPPED | SAVED_POISONED |
					SAVED_UNRULY,
			       .config = { .size = 0x3233,
					   .desc_addr = 0x1a1b1c1d1e1f2021,
					   .avail_addr = 0x2223242526272829,
					   .used_addr = 0x2a2b2c2d2e2f3031 },
			       .next_avail = 0x3435,
			       .next_used = 0x3637 },
	};
	struct image image;
	struct saved again;

	image_write(&image, &first);
	ck_assert_uint_eq(image.size, sizeof(bytes));
	ck_assert_mem_eq(image.bytes, bytes, sizeof(bytes));
	/* And what is read from there is the same. */
	ck_assert_int_eq(saved_decode(&again, bytes, sizeof(bytes)), 0);
	ck_assert(again.queues[0].config.ready);
	ck_assert(again.throttle.ops.rate && again.throttle.bytes.rate);
	image_write(&image, &again);
	ck_assert_mem_eq(image.bytes, bytes, sizeof(bytes));
}
END_TEST

TEST_PROGRAM("restore", a_device_that_cannot_be_restored_refuses,
	     a_device_of_another_make_refuses,
	     a_device_that_offers_more_takes_it,
	     a_start_that_fails_changes_nothing,
	     a_failed_restore_leaves_a_pause_as_it_was,
	     damaged_bytes_are_refused, forged_bytes_do_no_harm,
	     what_no_device_can_be_is_refused,
	     what_a_later_version_adds_is_refused_unless_it_may_be_passed_over,
	     the_bytes_are_those_of_the_first_version)
