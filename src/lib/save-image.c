/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A device's state as bytes, all numbers little-endian:
 *
 *   magic[8]  version  bytes in all | section ... | crc
 *   section:  tag  bytes that follow | fields
 *
 * The crc is CRC-32, of all before it: against accidents only. Sections come in
 * the order of their tags, that of a queue once for each. A tag with the bit
 * OPTIONAL may be passed over by who does not know it, wherever it stands; any
 * other that is not known is refused, as is one of another length. So what a
 * later version adds goes into a section of its own, which is left out where it
 * says nothing that an earlier version would not do by itself: then that one can
 * still read it. `version` changes only where all this does.
 */

#include <endian.h>
#include <string.h>

#include "save.h"
#include "util.h"

#define MAGIC "ktvblk\r\n"
#define MAGIC_BYTES 8u
#define VERSION 1u
#define OPTIONAL UINT32_C(0x80000000)

#define HEADER_BYTES (MAGIC_BYTES + 8u)
#define SECTION_BYTES 8u /* its tag and length */
#define CRC_BYTES 4u

enum tag {
	TAG_DISK = 1,
	TAG_REGISTERS = 2,
	TAG_QUEUE = 3,
	TAG_THROTTLE = 4,
	TAG_END = 5, /* nothing has it */
};

enum disk_flags { DISK_READ_ONLY = 1 };
enum register_flags {
	REGISTERS_FLUSH_FAILED = 1,
	REGISTERS_CAPACITY_WAS_READ = 2,
	REGISTERS_WRITEBACK = 4,
	REGISTERS_FLAGS = 7,
};
enum throttle_flags { THROTTLE_OPS = 1, THROTTLE_BYTES = 2 };

/* Fields one after another, in either direction. */
struct walk {
	unsigned char *to; /* NULL: reading */
	const unsigned char *from;
	size_t left; /* of what is read */
	bool bad;
};

static void number(struct walk *walk, void *value, size_t bytes)
{
	if (walk->to) {
		memcpy(walk->to, value, bytes);
		walk->to += bytes;
	} else if (walk->left >= bytes) {
		memcpy(value, walk->from, bytes);
		walk->from += bytes;
		walk->left -= bytes;
	} else {
		walk->bad = true;
	}
}

static void u16(struct walk *walk, uint16_t *value)
{
	uint16_t le = htole16(*value);

	number(walk, &le, sizeof(le));
	*value = le16toh(le);
}

static void u32(struct walk *walk, uint32_t *value)
{
	uint32_t le = htole32(*value);

	number(walk, &le, sizeof(le));
	*value = le32toh(le);
}

static void u64(struct walk *walk, uint64_t *value)
{
	uint64_t le = htole64(*value);

	number(walk, &le, sizeof(le));
	*value = le64toh(le);
}

/* So many flags; others are not known. */
static void flags(struct walk *walk, uint32_t *value, uint32_t all)
{
	u32(walk, value);
	if (*value & ~all)
		walk->bad = true;
}

#define DISK_BYTES 32u

static void disk(struct walk *walk, struct saved *saved)
{
	uint32_t set = saved->read_only ? DISK_READ_ONLY : 0;

	u64(walk, &saved->capacity_bytes);
	u64(walk, &saved->features);
	u32(walk, &saved->block_bytes);
	u32(walk, &saved->n_queues);
	u32(walk, &saved->queue_size_max);
	flags(walk, &set, DISK_READ_ONLY);
	saved->read_only = set & DISK_READ_ONLY;
}

#define REGISTERS_BYTES 52u

static void registers(struct walk *walk, struct saved *saved)
{
	uint32_t set =
		(saved->flush_failed ? (uint32_t)REGISTERS_FLUSH_FAILED : 0) |
		(saved->capacity_was_read
			 ? (uint32_t)REGISTERS_CAPACITY_WAS_READ
			 : 0) |
		(saved->writeback ? (uint32_t)REGISTERS_WRITEBACK : 0);

	u64(walk, &saved->driver_features);
	u32(walk, &saved->status);
	u32(walk, &saved->interrupt_status);
	u32(walk, &saved->device_features_sel);
	u32(walk, &saved->driver_features_sel);
	u32(walk, &saved->queue_sel);
	u32(walk, &saved->config_generation);
	u64(walk, &saved->shown_sectors);
	u64(walk, &saved->read_sectors);
	flags(walk, &set, REGISTERS_FLAGS);
	saved->flush_failed = set & REGISTERS_FLUSH_FAILED;
	saved->writeback = set & REGISTERS_WRITEBACK;
	saved->capacity_was_read = set & REGISTERS_CAPACITY_WAS_READ;
}

#define QUEUE_BYTES 34u

static void one_queue(struct walk *walk, struct saved_queue *queue)
{
	u64(walk, &queue->config.desc_addr);
	u64(walk, &queue->config.avail_addr);
	u64(walk, &queue->config.used_addr);
	flags(walk, &queue->flags, SAVED_QUEUE_FLAGS);
	u16(walk, &queue->config.size);
	u16(walk, &queue->next_avail);
	u16(walk, &queue->next_used);
	queue->config.ready = queue->flags & SAVED_READY;
}

static void balance(struct walk *walk, struct bucket *bucket)
{
	uint64_t available = (uint64_t)bucket->available;

	u64(walk, &available);
	u64(walk, &bucket->remainder);
	bucket->available = (int64_t)available;
}

#define THROTTLE_BYTES_ALL 36u

static void throttle(struct walk *walk, struct saved *saved)
{
	struct bucket *ops = &saved->throttle.ops;
	struct bucket *bytes = &saved->throttle.bytes;
	uint32_t set = (ops->rate ? (uint32_t)THROTTLE_OPS : 0) |
		       (bytes->rate ? (uint32_t)THROTTLE_BYTES : 0);

	flags(walk, &set, THROTTLE_OPS | THROTTLE_BYTES);
	balance(walk, ops);
	balance(walk, bytes);
	ops->rate = set & THROTTLE_OPS;
	bytes->rate = set & THROTTLE_BYTES;
}

static uint32_t section_bytes(uint32_t tag)
{
	switch (tag) {
	case TAG_DISK:
		return DISK_BYTES;
	case TAG_REGISTERS:
		return REGISTERS_BYTES;
	case TAG_QUEUE:
		return QUEUE_BYTES;
	default:
		return THROTTLE_BYTES_ALL;
	}
}

static void fields(struct walk *walk, uint32_t tag, struct saved *saved,
		   uint32_t queue)
{
	switch (tag) {
	case TAG_DISK:
		disk(walk, saved);
		break;
	case TAG_REGISTERS:
		registers(walk, saved);
		break;
	case TAG_QUEUE:
		one_queue(walk, &saved->queues[queue]);
		break;
	case TAG_THROTTLE:
		throttle(walk, saved);
		break;
	}
}

/* What comes next, of which queue. */
struct place {
	uint32_t tag;
	uint32_t queue;
};

static void go_on(struct place *place, uint32_t n_queues)
{
	if (place->tag != TAG_QUEUE || ++place->queue == n_queues)
		place->tag++;
}

static uint32_t crc_of(const unsigned char *bytes, size_t n)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < n; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

size_t saved_bytes(uint32_t n_queues)
{
	return HEADER_BYTES + SECTION_BYTES + DISK_BYTES + SECTION_BYTES +
	       REGISTERS_BYTES + n_queues * (SECTION_BYTES + QUEUE_BYTES) +
	       SECTION_BYTES + THROTTLE_BYTES_ALL + CRC_BYTES;
}

void saved_encode(const struct saved *from, unsigned char *to)
{
	struct saved saved = *from;
	struct place at = { .tag = TAG_DISK };
	struct walk walk = { .to = to };
	uint32_t version = VERSION, crc;
	uint32_t bytes = (uint32_t)saved_bytes(saved.n_queues);
	char magic[MAGIC_BYTES + 1] = MAGIC;

	number(&walk, magic, MAGIC_BYTES);
	u32(&walk, &version);
	u32(&walk, &bytes);
	while (at.tag != TAG_END) {
		uint32_t length = section_bytes(at.tag);

		u32(&walk, &at.tag);
		u32(&walk, &length);
		fields(&walk, at.tag, &saved, at.queue);
		go_on(&at, saved.n_queues);
	}
	crc = crc_of(to, bytes - CRC_BYTES);
	u32(&walk, &crc);
}

static bool has_header(struct walk *walk, const unsigned char *from,
		       size_t size)
{
	uint32_t version = 0, bytes = 0, crc = 0;
	struct walk tail = { .from = from + size - CRC_BYTES,
			     .left = CRC_BYTES };
	char magic[MAGIC_BYTES];

	number(walk, magic, MAGIC_BYTES);
	u32(walk, &version);
	u32(walk, &bytes);
	u32(&tail, &crc);
	return memcmp(magic, MAGIC, MAGIC_BYTES) == 0 && version == VERSION &&
	       bytes == size && crc == crc_of(from, size - CRC_BYTES);
}

int saved_decode(struct saved *saved, const unsigned char *from, size_t size)
{
	struct place at = { .tag = TAG_DISK };
	struct walk walk = { .from = from };

	memset(saved, 0, sizeof(*saved));
	if (size < saved_bytes(1))
		return -EINVAL;
	walk.left = size - CRC_BYTES;
	if (!has_header(&walk, from, size))
		return -EINVAL;
	while (walk.left && !walk.bad) {
		uint32_t tag = 0, length = 0;
		struct walk section = { 0 };

		u32(&walk, &tag);
		u32(&walk, &length);
		if (walk.bad || length > walk.left)
			return -EINVAL;
		section.from = walk.from;
		section.left = length;
		walk.from += length;
		walk.left -= length;
		if (tag & OPTIONAL)
			continue;
		if (tag != at.tag || tag == TAG_END ||
		    length != section_bytes(tag))
			return -EINVAL;
		fields(&section, tag, saved, at.queue);
		if (section.bad || saved->n_queues == 0 ||
		    saved->n_queues > KTVBLK_QUEUES_MAX)
			return -EINVAL;
		go_on(&at, saved->n_queues);
	}
	return walk.bad || at.tag != TAG_END ? -EINVAL : 0;
}
