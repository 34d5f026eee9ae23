/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See move.h. */

#include <string.h>

#include "harness.h"
#include "move.h"

void image_take(struct image *image, struct rig *rig)
{
	const int n = ktvblk_save(rig->dev, NULL, 0);

	ck_assert_int_gt(n, 0);
	ck_assert_uint_le((size_t)n, sizeof(image->bytes));
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	image->size = (size_t)n;
	ck_assert_int_eq(
		ktvblk_save(rig->dev, image->bytes, sizeof(image->bytes)), n);
}

struct saved image_read(const struct image *image)
{
	struct saved saved;

	ck_assert_int_eq(saved_decode(&saved, image->bytes, image->size), 0);
	return saved;
}

void image_write(struct image *image, const struct saved *saved)
{
	image->size = saved_bytes(saved->n_queues);
	ck_assert_uint_le(image->size, sizeof(image->bytes));
	saved_encode(saved, image->bytes);
}

/* By its definition: the rest of a division, bit by bit. */
static uint32_t crc32_of(const unsigned char *bytes, size_t n)
{
	uint32_t rest = 0xffffffff;

	for (size_t i = 0; i < 8 * n; i++) {
		const bool bit = bytes[i / 8] >> i % 8 & 1;
		const bool carry = (rest & 1) != bit;

		rest = rest >> 1 ^ (carry ? 0xedb88320 : 0);
	}
	return rest ^ 0xffffffff;
}

void image_seal(struct image *image)
{
	const uint32_t bytes = htole32((uint32_t)image->size);
	uint32_t crc;

	ck_assert_uint_ge(image->size, 20);
	memcpy(image->bytes + 12, &bytes, sizeof(bytes));
	crc = htole32(crc32_of(image->bytes, image->size - sizeof(crc)));
	memcpy(image->bytes + image->size - sizeof(crc), &crc, sizeof(crc));
}

struct ktvblk_dev *move_make(struct rig *rig,
			     const struct ktvblk_config *config, bool memory)
{
	struct ktvblk_config with = *config;
	struct ktvblk_dev *dev = NULL;

	with.size = sizeof(with);
	with.backend = rig->dev->holdings->backend;
	ck_assert_int_eq(ktvblk_new(&with, &dev), 0);
	if (memory)
		ck_assert_int_eq(
			ktvblk_set_memory(dev, rig->dev->holdings->mem), 0);
	return dev;
}

void move_over(struct rig *rig, struct ktvblk_dev *dev)
{
	ck_assert_int_eq(ktvblk_destroy(rig->dev), KTVBLK_JOINED);
	rig->dev = dev;
	ktvblk_stats_unref(rig->stats);
	rig->stats = ktvblk_get_stats(dev);
}

void move(struct rig *rig)
{
	struct image image;

	image_take(&image, rig);
	move_over(rig, move_make(rig, &rig->options.config, true));
	ck_assert_int_eq(ktvblk_restore(rig->dev, image.bytes, image.size), 0);
	ck_assert_int_eq(ktvblk_is_paused(rig->dev), 1);
}
