/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_JOURNAL_EVENTS_H
#define TEST_JOURNAL_EVENTS_H

/* How to have each event of the library recorded, by what happens outside. */

#include <stdatomic.h>

#include "events.h"
#include "rig.h"

struct provoked {
	enum event event;
	void (*provoke)(struct rig *rig);
	/*
	 * "KEY=value|...": all fields of the event and what is said of a stuck
	 * thread. A value of * is any, of - is none.
	 */
	const char *values;
	struct rig_options options;
};

/* Each to the one without a function. */
extern const struct provoked device_events[];
extern const struct provoked guest_events[];
extern const struct provoked front_events[];

/* What fails from now on. */
struct faults {
	_Atomic bool no_threads; /* pthread_create: EAGAIN */
	_Atomic bool no_join; /* pthread_clockjoin_np: EINVAL */
	_Atomic bool epoll_fails; /* epoll_wait: EIO */
	_Atomic uint32_t epoll_token; /* the next event is of this one ... */
	_Atomic uint32_t epoll_adds; /* ... and has these bits, too */
	_Atomic bool read_fails; /* read of 8 bytes: EIO */
	_Atomic bool timer_fails; /* timerfd_settime: EINVAL */
	_Atomic bool no_ring; /* io_uring_setup: EPERM */
	_Atomic bool no_tokens; /* throttle_take: none, but in no time */
};

extern struct faults faults;

#define IN VIRTIO_BLK_T_IN
#define OUT VIRTIO_BLK_T_OUT
#define FLUSH VIRTIO_BLK_T_FLUSH
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

/* Steps that many need. */
void set_status(struct rig *rig, uint32_t value);
void wait_needs_reset(struct rig *rig);
/* Make the head available and kick. */
void make_available(struct rig *rig, uint16_t head);
/* The usual chain at head 0. */
void submit(struct rig *rig, uint32_t type, uint64_t sector, uint32_t len);
void start_and_submit(struct rig *rig, uint32_t type, uint64_t sector,
		      uint32_t len);
/* Start a worker that hangs in a read of sector 7, and sleeps there. */
void hang(struct rig *rig);
/* Start, and have the avail index jump. */
void poison(struct rig *rig);
/* Write an eventfd until it takes no more. */
void fill_eventfd(int fd);

#endif
