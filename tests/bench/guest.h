/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

/*
 * A device and the guest before it: memory, and a driver that does what Linux's
 * virtio_blk does. It fills free slots in one go and kicks if the device wants
 * to be kicked; takes all that is done; asks for an interrupt and sleeps only
 * when there is nothing to take. The kick is a write to the eventfd, as KVM
 * does it for a guest; the interrupt is acknowledged by registers.
 */

#include <linux/virtio_ring.h>

#include "api.h"
#include "case.h"
#include "measure.h"
#include "store.h"

struct guest {
	const struct api *api;
	const struct bench_case *what;
	struct ktvblk_dev *dev;
	unsigned char *ram;
	uint64_t ram_bytes;
	pid_t worker; /* its thread, once started; 0 before */
	int kick_fd;
	int irq_fd;

	/* The queue, as the driver sees it. */
	uint16_t queue_size;
	struct vring_desc *descs;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t avail_idx;
	uint16_t told_idx; /* avail_idx at the last look whether to kick */
	uint16_t used_idx;
	uint16_t n_free;
	uint16_t free[DEPTH_MAX]; /* slots */
	uint64_t submitted_ns[DEPTH_MAX];
	uint32_t next; /* the request to be made, see case_op() */
	uint32_t flusher_turn; /* see case_slot_op() */

	uint64_t kicks;
	uint64_t irqs;
};

/* What one run was. */
struct run {
	uint64_t requests;
	uint64_t elapsed_ns;
	uint64_t worker_cpu_ns; /* and of the kernel's threads that serve it */
	uint64_t driver_cpu_ns;
	uint64_t syscalls; /* the worker's, like the next two */
	uint64_t allocations;
	uint64_t preempted;
	uint64_t kicks;
	uint64_t irqs;
	struct histogram latency;
};

/*
 * Make the device, up to its reset state. -errno: the engine that is named is
 * not to be had.
 */
int guest_open(struct guest *guest, const struct api *api,
	       const struct bench_case *what, const struct store *store,
	       uint32_t worker_cpu);
/* How long ktvblk_destroy() took. */
uint64_t guest_close(struct guest *guest);

/* Negotiate and set up the queue; then DRIVER_OK, which starts the worker. */
void guest_prepare(struct guest *guest);
void guest_go(struct guest *guest);
/* That, and find the worker's thread. */
void guest_start(struct guest *guest);
void guest_reset(struct guest *guest);

/* Of its memory. */
uint64_t guest_resident_bytes(const struct guest *guest);

/* The data of the slots, for who does the same work without a device. */
unsigned char *guest_data(const struct guest *guest, unsigned int slot);

/* Make n requests available and kick if that is asked for. */
void guest_submit(struct guest *guest, unsigned int n);

/* Take what is done; how many. latency may be NULL. */
unsigned int guest_reap(struct guest *guest, struct histogram *latency);

/* Sleep for the interrupt, unless it is due already. */
void guest_await(struct guest *guest);

/*
 * Fill all slots, with the worker asleep before and after, and take all that
 * comes back. The interrupt is asked for before: for the last completion, or
 * without EVENT_IDX for any.
 */
void guest_batch(struct guest *guest);

/* Keep what->depth requests in flight for so long, and then none. */
void guest_run(struct guest *guest, uint64_t for_ns, struct run *run);

#endif
