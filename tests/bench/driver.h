/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_DRIVER_H
#define BENCH_DRIVER_H

/*
 * A driver that does what Linux's virtio_blk does, whoever serves its queue. It
 * fills free slots in one go and kicks if the device wants to be kicked; takes
 * all that is done; asks for an interrupt and sleeps only when there is nothing
 * to take. The kick is a write to the eventfd, as KVM does it for a guest.
 */

#include <linux/virtio_ring.h>

#include "case.h"
#include "measure.h"

struct driver {
	const struct bench_case *what;
	unsigned char *ram; /* of the guest, from its address 0 on */
	int kick_fd;
	int irq_fd; /* does not block */
	/* An interrupt has come; may be NULL. */
	void (*acknowledge)(struct driver *driver);

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

/* What one run was. The driver knows nothing of the worker's part. */
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

/* Of guest memory, for a driver with so many slots; and of its queue. */
uint64_t driver_ram_bytes(const struct bench_case *what, unsigned int n_slots);
uint16_t driver_queue_size(const struct bench_case *what);

/* The memory is faulted in. The descriptors are the caller's to fill in. */
void driver_open(struct driver *driver, const struct bench_case *what,
		 unsigned char *ram);

/* Of rings at these addresses, all below 64 KiB. */
void driver_set_up_queue(struct driver *driver, uint64_t desc, uint64_t avail,
			 uint64_t used);

/* The data of the slots, for who does the same work without a device. */
unsigned char *driver_data(const struct driver *driver, unsigned int slot);

/* Make n requests available and kick if that is asked for. */
void driver_submit(struct driver *driver, unsigned int n);

/* Take what is done; how many. latency may be NULL. */
unsigned int driver_reap(struct driver *driver, struct histogram *latency);

/* Sleep for the interrupt, unless it is due already. */
void driver_await(struct driver *driver);

/* Interrupts for what had been taken by then. */
void driver_take_late_irqs(struct driver *driver);

/*
 * Fill all slots and take all that comes back. The interrupt is asked for
 * before: for the last completion, or without EVENT_IDX for any.
 */
void driver_batch(struct driver *driver);

/* Keep what->depth requests in flight for so long, and then none. */
void driver_run(struct driver *driver, uint64_t for_ns, struct run *run);

#endif
