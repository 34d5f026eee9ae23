/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_WATCH_H
#define KTVBLK_WATCH_H

/*
 * What a worker is doing, for others to look at: the request in service, since
 * when, and where in the kernel its thread is. The worker writes, without a
 * lock; the log thread looks for requests that are too old, and teardown takes
 * a snapshot when its budget has run out.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "identity.h"
#include "ports.h"

struct watch {
	_Atomic unsigned int refs;
	/* request number << 2 | stalled << 1 | busy */
	_Atomic uint32_t word;
	_Atomic uint32_t type;
	_Atomic uint64_t sector;
	_Atomic uint64_t length;
	_Atomic uint64_t since_ns;
	uint64_t limit_ns;
	struct identity id; /* with a reference to the disk */
	struct ports *ports; /* to tell of a stall; NULL: nobody */

	pthread_mutex_t lock; /* holds the thread back from its last act */
	pid_t tid; /* 0: it has not come to run, or is gone */
	char left_name[16]; /* what it was called at its last act; or "" */

	struct watch *next; /* in the list of those with a live thread */
	struct watch **link;
};

struct watch_request {
	bool busy;
	uint32_t type;
	uint64_t sector;
	uint64_t length;
	uint64_t since_ns;
};

/* Where a thread is. What is not known is empty or 0. */
struct watch_stuck {
	pid_t tid;
	char state[2];
	char syscall[32];
	char wchan[64];
};

struct watch *watch_new(const struct identity *id, uint64_t limit_ns,
			struct ports *ports);
struct watch *watch_ref(struct watch *watch);
void watch_unref(struct watch *watch);

/*
 * On the worker: it begins to be looked at, and does its last act. The thread
 * may still be there then, in a destructor or in the kernel.
 */
void watch_enter(struct watch *watch);
void watch_leave(struct watch *watch);

/* It has ended: by who joined it. */
void watch_gone(struct watch *watch);

/*
 * On the worker: a request begins. True: nobody will look in time, the log
 * thread must be told. It is a full barrier, and there for others too: one for
 * each request is what it costs.
 */
bool watch_begin(struct watch *watch, const struct watch_request *request);

/* On the worker: it ended. True: it had been found stalled. */
bool watch_end(struct watch *watch);

/* The request in service now; busy is false if there is none. */
struct watch_request watch_snapshot(const struct watch *watch);

/* Is it older than its limit now? Whether or not anybody has found that. */
bool watch_is_stalled(const struct watch *watch, uint64_t now_ns);

/*
 * On the log thread: a request older than its limit, once for each, with a
 * reference to its watch; or NULL, and when to look again (0: nothing is busy;
 * watch_begin() tells when that changes).
 */
struct watch *watch_scan(uint64_t now_ns, uint64_t *ret_again_ns,
			 struct watch_request *ret_request);

/*
 * Look where the thread is; reads procfs. One that has done its last act may be
 * gone and its number be another's: by its name it is told from those.
 */
void watch_locate(struct watch *watch, struct watch_stuck *ret_stuck);

#endif
