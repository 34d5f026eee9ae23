/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_WATCH_H
#define KTVBLK_WATCH_H

/*
 * What a session is doing, for others to look at: the requests in service, a
 * slot for each, since when, and where in the kernel a thread is that holds
 * them up. The worker writes, without a lock; the log thread looks for requests
 * that are too old, and teardown takes a snapshot when its budget has run out.
 *
 * One stall of a session is open at a time: the oldest request that is too old
 * is marked, and no other until that one has ended and its end is told.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "identity.h"
#include "ports.h"

/*
 * A request in service. All slots of a session are written by one thread, its
 * worker, so they may share cache lines; but none lies across two.
 */
struct watch_slot {
	/* request number << 3 | seen << 2 | stalled << 1 | busy */
	_Atomic uint32_t word;
	_Atomic uint32_t type;
	_Atomic uint64_t sector;
	_Atomic uint64_t length;
	_Atomic uint64_t since_ns;
};

struct watch {
	struct watch_slot *slots;
	uint32_t n_slots;
	_Atomic unsigned int refs;
	uint64_t limit_ns;
	/*
	 * No stall is found before so many records are out, the one of the end
	 * of the stall before among them; UINT64_MAX: that has not ended.
	 */
	_Atomic uint64_t closed_at;
	_Atomic bool untold; /* marked, and its record is not out yet */
	struct identity id; /* with a reference to the disk */
	struct ports *ports; /* to tell of a stall; NULL: nobody */

	int epoll_fd; /* the worker sleeps on it while it waits; or -1 */
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

/* All that is in service at a moment. */
struct watch_snapshot {
	uint32_t n_in_flight;
	bool any_data; /* one of them may be about guest memory */
	struct watch_request oldest; /* not busy: there is none */
};

/* Who had found a request too old by the time it ended. */
enum watch_found {
	WATCH_UNFOUND,
	WATCH_SEEN, /* who asked for the state, but no record tells of it */
	WATCH_MARKED, /* the log thread */
};

/*
 * Where a session's requests are stuck: with which thread, and in how many.
 * What is not known is empty or 0.
 */
struct watch_stuck {
	bool counted; /* n_threads is known; 0: they are with no thread */
	unsigned int n_threads;
	pid_t tid; /* the worker, or of the kernel's the longest stuck */
	char state[2];
	char syscall[32];
	char wchan[64];
};

struct watch *watch_new(const struct identity *id, uint64_t limit_ns,
			struct ports *ports, uint32_t n_slots);
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
 * On the worker: a request begins, in a slot that is free. True: nobody will
 * look in time, the log thread must be told. It is a full barrier, and there
 * for others too: one for each request is what it costs.
 */
bool watch_begin(struct watch *watch, uint32_t slot,
		 const struct watch_request *request);

/*
 * On the worker: it ended. If it had been found too old, there is more to do:
 * see session_request_ended().
 */
enum watch_found watch_end(struct watch *watch, uint32_t slot);

/*
 * On the worker, after the end of a marked one: that is told by one of the first
 * `position` records. Only then may the next be found, so the log thread must
 * be told to look.
 */
void watch_close(struct watch *watch, uint64_t position);

/* What is in a slot, or what was last: then busy is false. */
struct watch_request watch_request(const struct watch *watch, uint32_t slot);

/* All slots at once. One that changes meanwhile is not the oldest. */
struct watch_snapshot watch_snapshot(const struct watch *watch);

/*
 * Is the oldest over its limit now? Whether or not the log thread has found
 * that. Who was told so is to hear of its end: that is WATCH_SEEN.
 */
bool watch_is_stalled(struct watch *watch, uint64_t now_ns);

/*
 * On the log thread, which has dealt with `position` records so far: the oldest
 * request of a session if it is over its limit, once for each, and all that is
 * in service there, with a reference to its watch; or NULL, and when to look again (0: not before somebody tells).
 */
struct watch *watch_scan(uint64_t now_ns, uint64_t position,
			 uint64_t *ret_again_ns,
			 struct watch_snapshot *ret_seen);

/* On the log thread: the record of the one that was found is out. */
void watch_told(struct watch *watch);

/* Is anybody's oldest over its limit, without a record that is out? */
bool watch_any_untold(uint64_t now_ns);

/*
 * Look who holds the requests up, and where; reads procfs. That is the worker,
 * or where it waits for completions, a thread of the kernel's or none at all. A
 * worker that has done its last act may be gone and its number be another's: by
 * its name it is told from those.
 */
void watch_locate(struct watch *watch, struct watch_stuck *ret_stuck);

#endif
