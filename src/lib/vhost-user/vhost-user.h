/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_H
#define KTVBLK_VU_H

/*
 * vhost-user in the place of MMIO: a front end, in another process, is the
 * device's register file.
 *
 *   transport   the thread, the socket, one connection after another
 *   front       what each message asks for
 *   vrings      queues: set up, started, stopped
 *   table       the front end's memory
 *   inflight    which requests are out, for who comes after us
 *   cache       whether the driver counts on flushes
 *   channel     what we tell the front end
 *   log         which pages were written
 *   wire        messages
 *
 * The thread is the only one that touches the device's sessions, register file
 * and holdings while it runs, so it is in the place of the VMM's lock.
 */

#include <pthread.h>

#include "device.h"
#include "vhost-user/cache.h"
#include "vhost-user/channel.h"
#include "vhost-user/log.h"
#include "vhost-user/table.h"
#include "vhost-user/vrings.h"
#include "vhost-user/wire.h"

enum transport_fate {
	TRANSPORT_RUNNING,
	TRANSPORT_ENDED,
	TRANSPORT_LEFT, /* by a destroy: its thread ends the device */
};

struct vhost_user {
	struct ktvblk_dev *dev;
	pthread_t thread;
	bool has_thread; /* one to be joined */
	_Atomic uint32_t fate;
	bool once;
	int listen_fd; /* -1: none, or not any more */
	int wake_fd; /* look at what is asked of you */
	int ended_fd;
	_Atomic bool connected;
	_Atomic bool config_changed;

	/* The connection's. */
	int fd; /* -1: none */
	struct message in;
	uint64_t features;
	uint64_t protocol;
	uint32_t status;
	bool fresh; /* what is started next is a device's first */
	uint64_t stops_since_ns; /* the budget of the stops of now; 0: none */
	struct channel channel;
	struct inflight inflight;
	struct page_log *log; /* NULL: none */
	struct cache_known cache;
	struct vu_queue vrings[KTVBLK_QUEUES_MAX];
	struct table table;
};

static inline bool vu_has(const struct vhost_user *vu,
			  enum vu_protocol_feature bit)
{
	return vu->protocol >> bit & 1;
}

/* Do what the message says. NULL, or why the connection is to be closed. */
const char *front_handle(struct vhost_user *vu, struct message *message);

/* For lifecycle.c: tell it to end, and wait; false: it could not be waited for
 * and ends the device by itself. */
void transport_request_stop(struct vhost_user *vu);
bool transport_join(struct vhost_user *vu, uint64_t deadline_ns);
/* Once the sessions are gone. Takes NULL. */
void transport_free(struct vhost_user *vu);

/* For any thread: config space is another. */
void transport_config_changed(struct vhost_user *vu);

#endif
