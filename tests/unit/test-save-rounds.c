/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A disk that is moved to another device again and again, at any moment of a
 * load whose every byte is compared. The driver of its two queues sleeps until its
 * interrupt and kicks only where it is asked to, so what gets lost is found.
 */

#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "harness.h"
#include "move.h"
#include "wedge.h"

#define QUEUES 2u
#define SLOTS 16u /* of each queue */
#define SECTORS 4u /* each has so many of the disk for itself */
#define SLOT_BYTES (SECTORS * KTVBLK_SECTOR_SIZE)
#define DISK_BYTES (QUEUES * SLOTS * SLOT_BYTES)

struct slot {
	bool busy;
	uint32_t type;
	uint32_t first, n; /* sectors of its own */
};

struct load {
	struct rig rig;
	unsigned int seed;
	bool event_idx;
	int fd;
	unsigned char model[DISK_BYTES];
	struct slot slots[QUEUES][SLOTS];
	uint16_t told[QUEUES]; /* avail idx at the last kick */
	unsigned int n_busy;
	unsigned int ever[OP_COUNT];
};

static unsigned int dice(struct load *load, unsigned int sides)
{
	load->seed = load->seed * 1664525u + 1013904223u;
	return (load->seed >> 16) % sides;
}

static unsigned char *model_of(struct load *load, unsigned int q,
			       unsigned int i)
{
	return load->model + (q * SLOTS + i) * SLOT_BYTES +
	       load->slots[q][i].first * KTVBLK_SECTOR_SIZE;
}

static uint64_t data_addr(unsigned int q, unsigned int i)
{
	return q * RIG_QUEUE_BYTES + RIG_DATA + i * SLOT_BYTES;
}

static void submit(struct load *load, unsigned int q, unsigned int i)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
					  VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN,
					  VIRTIO_BLK_T_FLUSH };
	struct slot *slot = &load->slots[q][i];
	struct rig_part data = { data_addr(q, i), 0, READABLE };

	slot->busy = true;
	slot->type = types[dice(load, ARRAY_SIZE(types))];
	slot->first = dice(load, SECTORS);
	slot->n = 1 + dice(load, SECTORS - slot->first);
	data.len = slot->n * KTVBLK_SECTOR_SIZE;
	if (slot->type == VIRTIO_BLK_T_OUT) {
		unsigned char *bytes = model_of(load, q, i);

		for (uint32_t n = 0; n < data.len; n++)
			bytes[n] = (unsigned char)dice(load, 256);
		memcpy(rig_at(&load->rig, data.addr), bytes, data.len);
		load->ever[OP_WRITE]++;
	} else if (slot->type == VIRTIO_BLK_T_IN) {
		data.flags = WRITABLE;
		memset(rig_at(&load->rig, data.addr), SENTINEL, data.len);
		load->ever[OP_READ]++;
	}
	rig_data(&load->rig, (uint16_t)(3 * i), slot->type,
		 (q * SLOTS + i) * SECTORS + slot->first, &data,
		 slot->type != VIRTIO_BLK_T_FLUSH);
	rig_avail(&load->rig, (uint16_t)(3 * i));
	load->n_busy++;
}

/* Only if the device asked for it. */
static void kick(struct load *load, unsigned int q)
{
	struct rig *rig = &load->rig;
	bool wanted = !(rig_used_flags(rig) & VRING_USED_F_NO_NOTIFY);

	if (load->event_idx)
		wanted = vring_need_event(rig_avail_event(rig), rig->avail_idx,
					  load->told[q]);
	load->told[q] = rig->avail_idx;
	if (wanted)
		rig_kick(rig);
}

static void submit_some(struct load *load, unsigned int n)
{
	for (unsigned int q = 0; q < QUEUES; q++) {
		rig_select(&load->rig, q);
		for (unsigned int k = 0; k < n; k++) {
			const unsigned int i = dice(load, SLOTS);

			if (!load->slots[q][i].busy)
				submit(load, q, i);
		}
		kick(load, q);
	}
}

static void finish(struct load *load, unsigned int q,
		   struct vring_used_elem elem)
{
	const unsigned int i = elem.id / 3;
	struct slot *slot;

	ck_assert_uint_lt(i, SLOTS);
	slot = &load->slots[q][i];
	ck_assert(slot->busy);
	ck_assert_uint_eq(*rig_chain_status(&load->rig, (uint16_t)elem.id), 0);
	if (slot->type == VIRTIO_BLK_T_IN)
		ck_assert_mem_eq(rig_at(&load->rig, data_addr(q, i)),
				 model_of(load, q, i),
				 slot->n * KTVBLK_SECTOR_SIZE);
	slot->busy = false;
	load->n_busy--;
}

/* What is done; true: there was something. */
static bool reap(struct load *load)
{
	struct rig *rig = &load->rig;
	bool any = false;

	for (unsigned int q = 0; q < QUEUES; q++) {
		rig_select(rig, q);
		while (rig->used_seen != rig_used_idx(rig)) {
			finish(load, q, rig_used(rig, rig->used_seen++));
			any = true;
		}
		if (load->event_idx)
			rig_set_used_event(rig, rig->used_seen);
	}
	return any;
}

static void await_some(struct load *load)
{
	struct pollfd irq = { .fd = ktvblk_irq_fd(load->rig.dev),
			      .events = POLLIN };

	while (!reap(load)) {
		ck_assert_msg(poll(&irq, 1, WAIT_MS) == 1,
			      "an interrupt got lost");
		rig_irqs(&load->rig);
		rig_write(&load->rig, VIRTIO_MMIO_INTERRUPT_ACK,
			  rig_read(&load->rig, VIRTIO_MMIO_INTERRUPT_STATUS));
	}
}

static void load_open(struct load *load, unsigned int depth, bool event_idx)
{
	struct rig_options options = {
		.config = { .n_queues = QUEUES, .depth = depth },
		.features = RIG_MQ | (event_idx ? RIG_EVENT_IDX : 0),
		.queue_size = 64,
		.disk_bytes = DISK_BYTES,
	};

	memset(load, 0, sizeof(*load));
	load->seed = 12345 + depth + event_idx;
	load->event_idx = event_idx;
	for (unsigned int i = 0; i < DISK_BYTES; i++)
		load->model[i] = storage_pattern(i);
	load->fd = -1;
	if (depth > 1) {
		options.disk_fd = memfd_create("disk", MFD_CLOEXEC);
		ck_assert_int_eq(pwrite(options.disk_fd, load->model,
					DISK_BYTES, 0),
				 DISK_BYTES);
		load->fd = dup(options.disk_fd);
		/* Where it can be had all of them are out at once. */
		if (engine_uring_probe() == 0)
			options.config.engine = KTVBLK_ENGINE_IO_URING;
	}
	rig_open(&load->rig, &options);
	rig_start(&load->rig);
}

static void load_close(struct load *load)
{
	unsigned char *bytes = load->rig.storage->bytes;

	if (load->fd >= 0)
		ck_assert_int_eq(pread(load->fd, bytes, DISK_BYTES, 0),
				 DISK_BYTES);
	ck_assert_mem_eq(bytes, load->model, DISK_BYTES);
	/* Each was done, and once. */
	for (int op = OP_READ; load->fd < 0 && op <= OP_WRITE; op++)
		ck_assert_uint_eq(storage_calls(load->rig.storage,
						(enum storage_op)op),
				  load->ever[op]);
	rig_close(&load->rig);
	closep(&load->fd);
}

/* A quarter of a thousand times each: one request at once or 32, EVENT_IDX or not. */
START_TEST(nothing_is_lost_however_often_a_disk_is_moved)
{
	const unsigned int n = rounds("SAVE_ROUNDS", 250, 40);
	struct load load;

	load_open(&load, _i & 1 ? 32 : 1, _i & 2);
	for (unsigned int i = 0; i < n; i++) {
		submit_some(&load, dice(&load, 8));
		if (load.n_busy && dice(&load, 2))
			await_some(&load);
		if (dice(&load, 4) == 0) {
			/* What comes while it is paused comes too. */
			ck_assert_int_eq(ktvblk_pause_begin(load.rig.dev, -1),
					 0);
			submit_some(&load, 4);
		}
		move(&load.rig);
		if (dice(&load, 2))
			submit_some(&load, 2);
		ck_assert_int_eq(ktvblk_resume(load.rig.dev), 1);
	}
	while (load.n_busy)
		await_some(&load);
	load_close(&load);
}
END_TEST

LOOP_PROGRAM("save-rounds", 4, nothing_is_lost_however_often_a_disk_is_moved)
