/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_DEVICE_H
#define KTVBLK_DEVICE_H

/*
 * The device as the VMM holds it: the register file, the configuration, and the
 * sessions of the moment, one for each queue. No worker ever touches it.
 *
 * Who may call what, from where:
 *   the VMM's device lock   everything in mmio, config, status, queue, device,
 *                           lifecycle, pause and save, but what is listed next
 *   any thread, no lock     state.c, is_paused, kick_fd, irq_fd, the stats
 *   a worker                session, drain, io, ranges, request, virtqueue
 *   any thread of ours      counters, identity, journal, gate, ports, watch, era,
 *                           disk-throttle
 *   ktvblk-log              record, watch_scan, watch_locate
 */

#include <sched.h>

#include "session.h"

struct device_queue {
	struct queue_config config; /* latched by the session at its start */
	bool stopped; /* behind DRIVER_OK: not ready then, or not any more */
	struct session *session; /* never NULL */
	struct session *spare; /* the next one; NULL: see next_session() */
	struct pages pages; /* of the last session, for the next */
	const struct loan *loan; /* for the next start; NULL: by MMIO */
	struct ring_position at; /* where the last session was when it ended */
};

struct vhost_user; /* see vhost-user/vhost-user.h */
/* What config space says of the disk's blocks, in logical ones. */
struct topology {
	uint8_t physical_exp, offset_blocks;
	uint16_t min_io_blocks;
	uint32_t opt_io_blocks;
};

struct ktvblk_dev {
	/* fixed at creation */
	struct disk_config disk;
	struct disk_id *disk_id;
	struct ports *ports;
	struct ktvblk_stats *stats;
	struct disk_throttle *throttle;
	uint64_t features; /* offered */
	bool write_cache; /* there is one after a reset */
	struct topology topology;
	uint16_t queue_size_max;
	uint32_t reset_timeout_ms;
	uint32_t destroy_timeout_ms;

	/* the VMM's */
	struct holdings *holdings; /* NULL: let go, the end is near */
	/* In the place of MMIO: see vhost-user/transport.c. NULL: there is none */
	struct vhost_user *transport;
	cpu_set_t cpus;
	bool has_cpus;
	bool driver_elsewhere; /* on CPUs that are not just ours */
	void (*init)(void *userdata);
	void *init_data;
	struct dirty_log dirty;
	struct asking *asking; /* the last; NULL: the storage never was */
	_Atomic uint64_t stop_requested_ns; /* 0: not yet */
	_Atomic uint64_t reset_requested_ns; /* 0: no */
	uint64_t paused_ns; /* when that was asked for last */
	bool started; /* at any time: it cannot be restored any more */

	/* the register file */
	uint32_t device_features_sel;
	uint32_t driver_features_sel;
	uint64_t driver_features;
	uint32_t queue_sel;
	uint32_t config_generation;
	uint64_t shown_sectors; /* the capacity in config space */
	bool capacity_was_read; /* by the driver, since reset: it was this */
	uint64_t read_sectors;

	pthread_mutex_t session_lock; /* of these pointers, for state.c */
	struct era *era; /* never NULL */
	struct era *spare_era; /* the next one; NULL: see next_era() */
	bool era_is_kept; /* by a worker that was left behind */
	/* On records of no queue: the STOP_FD is that of the first. */
	struct identity id;
	unsigned int n_queues;
	struct device_queue queues[];
};

/* 0 or -errno. */
int device_make_session(struct ktvblk_dev *dev,
			const struct device_queue *queue,
			struct session **ret_session);

/* Of a device without a worker; takes one that is not whole. */
void device_free(struct ktvblk_dev *dev);

/* A write of 0 to Status (section 2.4). */
void device_reset(struct ktvblk_dev *dev);

/*
 * At DRIVER_OK: a worker for the first queue and for each other that is ready;
 * where that fails, NEEDS_RESET.
 */
void device_start(struct ktvblk_dev *dev);

/*
 * QueueReady 0, or QueueReset, and QueueReady 1 behind DRIVER_OK: end the
 * session, start another.
 */
void device_stop_queue(struct ktvblk_dev *dev, struct device_queue *queue);
bool device_start_queue(struct ktvblk_dev *dev, struct device_queue *queue);

/*
 * The same for a transport's queues, all that are running of those from `queue`
 * on, by a budget that began at since_ns. True: no worker was left behind.
 */
bool device_stop_running(struct ktvblk_dev *dev, struct device_queue *queue,
			 unsigned int n, uint64_t since_ns);

/*
 * No queue is running, and what the driver does next is its first; or it goes on,
 * and what it wrote may be lost as before.
 */
void device_renew(struct ktvblk_dev *dev, bool goes_on);

/* Does the driver's worker for it run, or did it end by itself? */
static inline bool device_queue_runs(const struct device_queue *queue)
{
	return queue->session->has_thread;
}

/* state.c: the session of now, with a reference; from any thread. */
struct session *device_session(const struct ktvblk_dev *dev,
			       unsigned int queue);

/* state.c: tell the workers to stop; from any thread. */
void device_signal_stop(const struct ktvblk_dev *dev);

/*
 * The session of a queue, at its start or where a device that was saved had it;
 * it is to have one, and no stop is under way. 0, or -errno with a record.
 */
int device_start_session(struct ktvblk_dev *dev, struct device_queue *queue,
			 const struct ring_position *at);

/* End all sessions, and have those of a device at reset. */
void device_end_sessions(struct ktvblk_dev *dev);

/* Interrupt the driver for what InterruptStatus says. */
void device_interrupt(struct ktvblk_dev *dev);

/*
 * resize.c: the disk has this size from now on, in sectors, of which the storage
 * says that it has so many bytes: for any thread. And what follows from the
 * driver's having got to DRIVER_OK, here or before it was moved.
 */
void device_resize(struct ktvblk_dev *dev, uint64_t bytes, uint64_t told_bytes);
void device_tell_missed_resize(struct ktvblk_dev *dev);

/* And the storage could not say what it is; for any thread. */
void device_size_unknown(struct ktvblk_dev *dev, int error);

/* refresh.c: what the storage still answers is nothing any more. */
void device_forget_asking(struct ktvblk_dev *dev);
void device_drop_asking(struct ktvblk_dev *dev);

/* Is it one of its workers that calls? */
bool device_on_worker(const struct ktvblk_dev *dev);

/* Let QueueNotify reach the worker; never blocks. */
void device_kick(struct ktvblk_dev *dev, uint32_t queue);

/* status.c: a write of anything else (section 3.1.1). */
void status_write(struct ktvblk_dev *dev, uint32_t value);

/* May the driver write features, may it set up the selected queue? */
bool status_takes_features(const struct ktvblk_dev *dev);
bool status_takes_queue(const struct ktvblk_dev *dev);

/* Did the driver take this feature? Not before FEATURES_OK. */
bool status_has_feature(const struct ktvblk_dev *dev, unsigned int bit);

/* config.c: what a guest reads of config space, at any offset. */
void config_read(struct ktvblk_dev *dev, uint64_t offset, void *data,
		 size_t len);

/* Before it reads the generation: is the disk's size another one? */
void config_look(struct ktvblk_dev *dev);

/* Is field `writeback` among these bytes? Nothing else may a guest write. */
#define CONFIG_CACHE_AT offsetof(struct virtio_blk_config, wce)
static inline bool config_has_cache(uint64_t offset, size_t len)
{
	return offset <= CONFIG_CACHE_AT && CONFIG_CACHE_AT - offset < len;
}
void config_set_cache(struct ktvblk_dev *dev, bool back);

/* By a guest. */
void config_write(struct ktvblk_dev *dev, uint64_t offset, const void *data,
		  size_t len);

/* `writeback` as it is at a reset; and once these features are agreed on. */
void config_reset(struct ktvblk_dev *dev);
void config_agree(struct ktvblk_dev *dev);

/* topology.c: of a config and its backend; first, whether it can be so. */
bool topology_ok(const struct ktvblk_config *config);
uint32_t topology_logical(const struct ktvblk_config *config);
struct topology topology_of(const struct ktvblk_config *config);

/* queue.c: the set-up of the queues (section 4.2.3.2). */
void queues_reset(struct ktvblk_dev *dev);
void queue_reset(const struct ktvblk_dev *dev, struct device_queue *queue);
void queue_set_size(struct device_queue *queue, uint16_t size_max,
		    uint32_t value);

/* One half of an address; `align` is a power of two. */
void queue_set_address(const struct device_queue *queue, uint64_t *addr,
		       uint32_t value, bool high, uint64_t align);

#endif
