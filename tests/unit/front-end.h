/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_FRONT_END_H
#define TEST_FRONT_END_H

/*
 * A vhost-user front end, for a rig whose guest memory is a memfd: all that rig_*()
 * does to rings and requests goes on as it is, only the registers are replaced.
 *
 *	struct front_end front;
 *
 *	front_open(&front, &(struct rig_options){ 0 });
 *	front_start(&front);
 *	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
 *	front_close(&front);
 */

#include "harness.h"
#include "rig.h"
#include "vhost-user/protocol.h"

/* Where the front end says that it has guest memory. */
#define FRONT_USER UINT64_C(0x7f0000000000)

struct front_end {
	struct rig rig;
	int listen_fd;
	int fd; /* the connection; -1: none */
	int kicks[KTVBLK_QUEUES_MAX], calls[KTVBLK_QUEUES_MAX],
		errors[KTVBLK_QUEUES_MAX];
	uint64_t features; /* to be taken, beside what is always */
	uint64_t protocol; /* the same; 0: REPLY_ACK and what is not in-band */
	bool acks; /* an answer to each message, of 0 */
	struct vu_inflight inflight;
	int inflight_fd; /* -1: none */
	uint64_t waited_ns; /* at front_clock_start() */
};

/* The same of a rig that was opened with shared memory, and none bound. */
void front_attach(struct front_end *front, const struct rig *rig);

/* A device that listens, and a front end that has connected to it. */
void front_open(struct front_end *front, const struct rig_options *options);
/* Gone; the device stays. And once more. */
void front_disconnect(struct front_end *front);
void front_connect(struct front_end *front);
int front_dial(struct front_end *front); /* one more connection */
void front_dial_by(struct front_end *front, int fd); /* by this socket */
/* All of it; it must be JOINED. */
void front_close(struct front_end *front);
/* What is left without the device. */
void front_free(struct front_end *front);

/* A front end, with memory and a socket that listens, and no device. */
void front_open_alone(struct front_end *front, uint16_t queue_size);
void front_free_alone(struct front_end *front);

/* One message as it is, with these descriptors. */
void front_send(struct front_end *front, uint32_t request, uint32_t flags,
		const void *payload, size_t size, const int *fds, size_t n_fds);
/* The answer: how long its payload is. It must be to this. */
size_t front_receive(struct front_end *front, uint32_t request,
		     union vu_payload *ret_payload, int *ret_fd);
/* The other side has closed it, whatever it had said. */
void front_expect_closed(struct front_end *front);

/* With an answer of 0, if that was negotiated. */
void front_tell(struct front_end *front, uint32_t request, const void *payload,
		size_t size, int fd);
void front_tell_u64(struct front_end *front, uint32_t request, uint64_t value,
		    int fd);
void front_tell_queue(struct front_end *front, uint32_t request,
		      unsigned int queue, uint32_t num);
/* Messages that have an answer of 64 bits. */
uint64_t front_ask(struct front_end *front, uint32_t request);

/* The steps of a start, and all of them. */
void front_negotiate(struct front_end *front);
void front_set_memory(struct front_end *front);
void front_set_up_queue(struct front_end *front, unsigned int queue,
			uint16_t base);
void front_enable(struct front_end *front, unsigned int queue, bool enable);
void front_start(struct front_end *front);
/* The rings stay as they are. */
void front_start_again(struct front_end *front, uint16_t base);

/* GET_VRING_BASE. */
uint16_t front_stop(struct front_end *front, unsigned int queue);

/* GET_INFLIGHT_FD, and SET_INFLIGHT_FD. */
void front_get_inflight(struct front_end *front);
void front_set_inflight(struct front_end *front);

/*
 * clock_start() and bound_ms() of wedge.h, for what the transport's thread does:
 * what that waited for a processor counts as well.
 */
uint64_t front_clock_start(struct front_end *front);
uint64_t front_bound_ms(const struct front_end *front, uint64_t ms);

/* How often the queue was called since the last look; takes it. */
uint64_t front_take_calls(struct front_end *front, unsigned int queue);

/* A sum over all of guest memory. */
uint64_t front_ram_sum(const struct front_end *front);

/* Bytes of guest memory that are mapped in this process, but for our own. */
uint64_t front_mapped(const struct front_end *front);

#endif
