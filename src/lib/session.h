/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_SESSION_H
#define KTVBLK_SESSION_H

/*
 * One life of the queue between its start and its stop, and the unit of
 * fencing: a worker is bound to one session and touches nothing of another. The
 * device holds one reference, the worker's thread the other; a worker that is
 * left behind keeps its session, and with it all it may still use.
 *
 * Who writes what: the device's side (under the VMM's lock) before the worker
 * starts and after it was joined; the worker in between, with the gate held. The
 * device's side too, with the gate, what replace.c is about. Both sides,
 * atomically: the era, stop, fate.
 */

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "counters.h"
#include "disk-throttle.h"
#include "engine.h"
#include "era.h"
#include "flight.h"
#include "gate.h"
#include "holdings.h"
#include "identity.h"
#include "journal.h"
#include "loan.h"
#include "pages.h"
#include "polling.h"
#include "ports.h"
#include "virtqueue.h"
#include "watch.h"

/* What a session takes from its device, for the device's whole life. */
struct disk_config {
	uint32_t block_bytes; /* these two: see backend.h */
	uint32_t mem_align;
	bool read_only;
	bool discard; /* it can be offered */
	bool unmap; /* zeros may be a hole */
	uint32_t discard_align_sectors;
	bool zero_copy;
	enum ktvblk_engine engine;
	struct pages_shape shape;
	uint32_t stall_warn_ms;
	uint32_t poll_us; /* 0: never */
	bool poll_by_default; /* thus only where a CPU can be spared */
	unsigned char serial[KTVBLK_SERIAL_MAX];
};

/* How the worker's end and the device's patience met: the last to come acts. */
enum fate {
	FATE_RUNNING,
	FATE_ENDED, /* the worker did its last act, but its thread may be there */
	FATE_ORPHANED, /* left behind: ktvblk-drop joins it, and cleans up */
	FATE_DETACHED, /* left behind: it cleans up by itself */
};

struct session {
	_Atomic unsigned int refs;
	struct identity id;
	struct disk_config disk;
	struct ports *ports;
	struct ktvblk_stats *stats;
	struct disk_throttle *throttle;
	struct era *era; /* NULL: it is a spare one */

	_Atomic bool stop;
	_Atomic bool last; /* its pages will be unmapped */
	_Atomic uint32_t fate;

	struct gate gate;
	/* Set with the gate held, or, past its grace, without: so atomic. */
	_Atomic bool revoked;
	_Atomic bool throttled; /* a request waits for tokens */
	struct seat seat;

	int kick_fd; /* its queue's, of the ports */
	int irq_fd; /* the ports', or what was lent */
	_Atomic bool irq_renewed; /* what was told until now may be unheard */
	int stop_fd; /* its number is the session's identity */
	int epoll_fd; /* these two: -1 before the start */
	int timer_fd;

	/*
	 * From the start to the worker's end; the two are what is in it. With the
	 * gate they, and vq with them, change under way: see replace.c.
	 */
	struct holdings *holdings;
	const struct ktvblk_mem *mem; /* NULL: none was bound */
	bool borrows; /* what follows is its own, and mem is what was lent */
	int bell_fd; /* the driver's kick; these two: -1, there is none */
	int error_fd;
	struct ktvblk_mem *_Atomic lent_mem;
	struct lease *_Atomic lent[LOAN_LEASES];
	const struct ktvblk_backend *backend;
	struct pages pages;
	struct engine *engine;
	struct flight flight;
	struct watch *watch;
	struct virtqueue vq;
	struct polling polling;
	bool poisoned;
	bool mem_unset_told;
	bool write_through; /* the driver has no way to flush */
	bool has_wce; /* it may say how it is by era->cache */
	struct request_rules rules;

	cpu_set_t cpus;
	bool has_cpus;
	bool driver_elsewhere;
	pthread_t thread;
	_Atomic bool has_thread; /* one to be joined */
	bool started; /* it had one */
	void (*init)(void *userdata); /* the VMM's, before anything else */
	void *init_data;
	bool gate_held; /* by the worker; its own note */
	const char *panic; /* how the worker ended by itself; NULL: it did not */
	uint64_t stuck_since_ns;
	/* For ktvblk-drop: see teardown.c. */
	pthread_t reaper;
	struct log_job job;
	struct gate untold; /* held until the record of the wedge is made */
};

/* What all sessions of a disk share; each takes references. */
struct session_disk {
	struct disk_id *id;
	const struct disk_config *config;
	struct ports *ports;
	struct ktvblk_stats *stats;
	struct disk_throttle *throttle;
};

/*
 * A session of the queue that has this index, with its stop eventfd and without
 * an era. 0 or -errno.
 */
int session_new(const struct session_disk *disk, unsigned int queue,
		struct session **ret_session);

/* It is of this era from now on; its worker has not started, or never will. */
void session_set_era(struct session *session, struct era *era);

struct session *session_ref(struct session *session);
void session_unref(struct session *session);

/* Forget a stop, where there was no start; see device_reset(). */
void session_renew(struct session *session);

/* What a start takes from the device of that moment. */
struct session_start {
	struct holdings *holdings; /* the session takes a reference */
	const struct loan *loan; /* NULL: by MMIO */
	struct queue_config ring;
	struct ring_position at;
	uint64_t features; /* negotiated */
	const cpu_set_t *cpus; /* NULL: inherit */
	bool driver_elsewhere; /* a poll does not hold it back */
	void (*init)(void *userdata); /* NULL: none */
	void *init_data;
	struct dirty_log dirty;
};

/*
 * Latch the ring and start the worker, once; 0, or -errno with a record, and
 * then the session has no more than it had before, but for its pages.
 */
int session_start(struct session *session, const struct session_start *start);

/*
 * On the worker, as an io_uring belongs to the thread that made it, and its end
 * interrupts that thread in whatever it sleeps in. 0 or -errno; *ret_refused as
 * in engine.h.
 */
int session_open_engine(struct session *session, int *ret_refused);

/*
 * On the worker: take the gate back. False: the session was revoked meanwhile,
 * the gate is not held, and nothing but what the session owns may be touched.
 */
bool session_enter(struct session *session);
void session_leave(struct session *session);

/*
 * Is the worker to end? Looked at before anything begins: a call into storage,
 * a grant of tokens. It may have been held up in guest memory since the last
 * look, for so long that it has lost the session without losing the gate.
 */
static inline bool session_stopping(const struct session *session)
{
	return atomic_load_explicit(&session->stop, memory_order_acquire);
}

/* And has it? Looked at before each effect that others can see. */
static inline bool session_revoked(const struct session *session)
{
	return atomic_load_explicit(&session->revoked, memory_order_acquire);
}

/*
 * What was taken from the ring is brought to its end, as far as the budget goes,
 * where the driver goes on behind the stop: what is begun, and not begun with.
 */
static inline bool session_finishes(const struct session *session)
{
	return session->borrows && session_stopping(session) && !session->panic;
}

/* The disk's size: of now, as it may change at any time. */
static inline uint64_t session_capacity_bytes(const struct session *session)
{
	return disk_id_sectors(session->id.disk) << SECTOR_SHIFT;
}

/* Should the worker do something else than the next request? */
static inline bool session_interrupted(const struct session *session)
{
	return session_stopping(session) ||
	       ports_pause_wanted(session->ports) ||
	       ports_disk_is_taken(session->ports);
}

/* Set these interrupt status bits; and interrupt the driver for them. */
void session_note(struct session *session, uint32_t bits);
void session_raise(struct session *session, uint32_t bits);

/* Tell the driver that only a reset helps. */
void session_needs_reset(struct session *session);

/* Its ring is broken: it is served no more, and that is told. */
void session_poison(struct session *session);

/*
 * Guest memory is another's from now on; with the gate entered. A queue whose
 * rings are not in it is broken.
 */
void session_use_memory(struct session *session, struct ktvblk_mem *mem);

/* A request that waited for tokens does not any more. */
void session_unthrottle(struct session *session);

/* The request in that slot has ended; if it had been found stalled, say so. */
void session_request_ended(struct session *session, uint32_t slot);

/*
 * Of a session's or a device's: on the log thread, as it interrupts other CPUs,
 * and may block as long as anybody of the process is stuck in a page fault.
 */
void session_unmap(struct pages *pages);

/*
 * What was lent goes back: the worker does not look at it any more. Any number of
 * times, by anybody.
 */
void session_return_loan(struct session *session);

/* Let storage, memory and buffer go; may block, or end the thread. */
void session_release(struct session *session);

#endif
