/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The parsing of one chain: the input is the descriptor table, one indirect
 * table and what they point at. Whatever it is, what passes the gates fits
 * together and lies in guest memory where it says so.
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "reach.h"
#include "request.h"
#include "util.h"

/* wrap: log_emit */

#define RAM_BYTES 0x20000u
#define INDIRECT_AT 0x1000u
#define HEADERS_AT 0x4000u
#define QUEUE_SIZE 64u

static const enum event not_here[] = { EVENT_SEGMENT_TOO_LARGE, EVENT_COUNT };
const struct reach reach = { .first = EVENT_CHAIN_MALFORMED,
			     .last = EVENT_RANGES_INVALID,
			     .but = not_here };

static unsigned char *ram;
static struct ktvblk_mem *mem;
static struct ktvblk_stats *stats;
static struct disk_id *disk_id;

static void set_up(void)
{
	struct ktvblk_region regions[2] = {
		{ .size = RAM_BYTES / 2 },
		{ .guest_addr = RAM_BYTES / 2, .size = RAM_BYTES / 2 },
	};

	ram = aligned_alloc(4096, RAM_BYTES);
	if (!ram)
		abort();
	/* Neighbours in guest memory, the other way round in ours. */
	regions[0].host_addr = ram + RAM_BYTES / 2;
	regions[1].host_addr = ram;
	stats = stats_new();
	disk_id = disk_id_new("fuzz", 8);
	if (!stats || !disk_id ||
	    ktvblk_mem_new(regions, 2, NULL, NULL, &mem) < 0)
		abort();
	ktvblk_set_log_level(LOG_DEBUG); /* no thread takes them here */
}

static void put(uint64_t addr, const void *from, size_t len)
{
	if (!mem_write(mem, addr, from, len))
		abort();
}

static void put_tables(struct fuzz_input *input)
{
	const uint8_t n = fuzz_u8(input);

	for (unsigned int i = 0; i < n && input->left; i++) {
		const uint8_t where = fuzz_u8(input);
		struct vring_desc desc = { .flags = htole16(where >> 5) };

		desc.addr = htole64(fuzz_addr(input, HEADERS_AT));
		desc.len = htole32(fuzz_len(input));
		desc.next = htole16(fuzz_u8(input));
		put((where & 16 ? INDIRECT_AT : 0) + (where % 16u) * 16u, &desc,
		    sizeof(desc));
	}
	for (uint64_t at = HEADERS_AT; input->left; at++) {
		const uint8_t byte = fuzz_u8(input);

		if (at < RAM_BYTES)
			put(at, &byte, 1);
	}
}

static void check_served(const struct request *request)
{
	static unsigned char copy[1 << 16];
	struct cursor at = { 0 };
	uint64_t sum = 0;
	struct iovec iov[8];
	int n;

	if (request->n_ranges > RANGES_MAX ||
	    !request->n_ranges == request_has_ranges(request->type))
		abort();
	if (request->n_ranges) {
		if (request->n_segs ||
		    request->sector != request->ranges[0].sector)
			abort();
		return;
	}
	for (unsigned int i = 0; i < request->n_segs; i++)
		sum += request->chain.descs[i].len;
	if (sum != request->data_len ||
	    request->n_segs > request->chain.n_descs)
		abort();
	if (request->type == VIRTIO_BLK_T_FLUSH && sum)
		abort();
	if (request_data_ok(request, mem, request->type != VIRTIO_BLK_T_OUT) &&
	    sum <= sizeof(copy)) {
		/* All of it is there, by each way to get at it. */
		if (!request_copy_in(request, at, mem, copy, sum) ||
		    request_map(request, at, mem, sum, iov, 8, &n) > sum ||
		    n > 8)
			abort();
		cursor_advance(request, &at, sum / 2);
		if (!request_copy_in(request, at, mem, copy, sum - sum / 2) ||
		    request_copy_in(request, at, mem, copy, sum - sum / 2 + 1))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	static struct chain_desc descs[CHAIN_DESC_MAX];
	static struct range ranges[RANGES_MAX];
	static struct request request = { .chain.descs = descs,
					  .ranges = ranges };
	struct request_rules rules;
	struct identity id;
	struct virtqueue vq;
	uint8_t how, status = 0xee;

	if (!ram)
		set_up();
	memset(ram, 0, RAM_BYTES);
	how = fuzz_u8(&input);
	vq = (struct virtqueue){
		.mem = mem,
		.ring = { .size = QUEUE_SIZE, .ready = true },
		.indirect = how & 1,
	};
	virtqueue_map(&vq);
	id = (struct identity){ .disk = disk_id, .stop_fd = -1 };
	put_tables(&input);
	request.head = how >> 2;
	rules = (struct request_rules){
		.read_only = how & 2,
		.discard = how & 4,
		.write_zeroes = how & 4,
	};
	switch (request_read(&request, &vq, &rules, &id, stats, &status)) {
	case REQUEST_SERVE:
		check_served(&request);
		break;
	case REQUEST_COMPLETE:
		if (status > VIRTIO_BLK_S_UNSUPP)
			abort();
		break;
	case REQUEST_DROP:
		if (status != 0xee)
			abort();
		break;
	}
	return 0;
}
