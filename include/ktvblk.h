/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_H
#define KTVBLK_H

/*
 * libktvblk: a virtio-blk device for a VMM, over virtio-mmio version 2.
 *
 * When the storage under the disk hangs, the VMM does not: reset and destroy
 * come back within their budget, I/O that ends later reaches neither the ring
 * nor guest memory, and the journal says which device it was.
 *
 * Errors: every function that returns int answers 0 or more, or a negative
 * errno; a failed call changed nothing and left its outputs untouched.
 *
 * Threads, marked at each function:
 *   [any]     from any thread, at any time while the caller has a reference;
 *   [device]  the VMM lets no two of these run at once on the same device.
 * Nothing here may be called from a signal handler, nor in a forked child
 * before exec.
 *
 * A thread that is stuck in storage answers no signal, and whatever waits for
 * all threads of a process waits for it: setuid(), setgroups() and the like of
 * the C library, execve(), the end of the process. See libktvblk(7), which also
 * says what the library's threads, and what callbacks start, inherit.
 *
 * Section numbers are those of the OASIS virtio specification, version 1.2.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library is built with everything else hidden. */
#pragma GCC visibility push(default)

/* Of this header; the two numbers are for the preprocessor. */
#define KTVBLK_VERSION "1.1.0"
#define KTVBLK_VERSION_MAJOR 1
#define KTVBLK_VERSION_MINOR 1

/* The device's window in guest-physical address space. */
#define KTVBLK_MMIO_SIZE 0x1000
/* Where a KVM_IOEVENTFD (4 bytes) belongs; see ktvblk_kick_fd(). */
#define KTVBLK_MMIO_QUEUE_NOTIFY 0x50

#define KTVBLK_SECTOR_SIZE 512
#define KTVBLK_SERIAL_MAX 20
#define KTVBLK_NAME_MAX 255
#define KTVBLK_QUEUE_SIZE_MAX 1024
#define KTVBLK_QUEUES_MAX 16

struct ktvblk_mem;
struct ktvblk_io;
struct ktvblk_backend;
struct ktvblk_dev;
struct ktvblk_stats;

/* The version of the library that runs, as "1.1.0". [any] */
const char *ktvblk_version(void);

/*
 * Guest memory
 *
 * A worker that is stuck in storage still holds a reference, so the VMM may
 * unmap the regions only once release() has run.
 */

struct ktvblk_region {
	uint64_t guest_addr; /* these three are multiples of 4096 */
	void *host_addr;
	uint64_t size;
	__extension__ union {
		uint64_t flags; /* KTVBLK_REGION_READ_ONLY, since 1.1 */
		uint64_t reserved; /* as that was called before */
	};
};

/*
 * The device never writes there, so it may be mapped without PROT_WRITE: ROM, for
 * one. A request that would is an I/O error, or, if its status would lie there,
 * dropped as one whose status lies nowhere. The guest may write it or not, which
 * is the VMM's to see to.
 */
#define KTVBLK_REGION_READ_ONLY (UINT64_C(1) << 0)

/*
 * Describe guest RAM. The array is copied. release(userdata), if not NULL, runs
 * exactly once, when the last reference is gone: on a thread of the library,
 * or on the caller's where the VMM itself drops the last one. It may call
 * anything but what waits for the device it ran for. [any]
 *   -EINVAL  no region, NULL, a size of zero, not 4096-aligned, a range that
 *            overlaps another in guest addresses or reaches the end of the
 *            address space, a flag that is not known
 *   -ENOMEM
 */
int ktvblk_mem_new(const struct ktvblk_region *regions, size_t n_regions,
		   void (*release)(void *userdata), void *userdata,
		   struct ktvblk_mem **ret_mem);

/* Takes and gives NULL. [any] */
struct ktvblk_mem *ktvblk_mem_ref(struct ktvblk_mem *mem);

/* Takes NULL, returns NULL. [any] */
struct ktvblk_mem *ktvblk_mem_unref(struct ktvblk_mem *mem);

/*
 * Storage
 *
 * All ops but capacity() run on a device's workers, one at a time for each
 * queue: from config.n_queues 2 on they must bear being called by several
 * threads at once. They may block: the VMM never waits for them beyond its budget. They
 * may call whatever is marked [any], and ktvblk_destroy() of their own device,
 * which then answers KTVBLK_HELPER_DISCONNECTED. They must return: an
 * exception or a longjmp out of one ends the process; pthread_exit() ends the
 * worker, is recorded, and leaves the device at NEEDS_RESET. A plugin that
 * brought them must not be unloaded before release() has run.
 */

struct ktvblk_backend_ops {
	size_t size; /* sizeof(struct ktvblk_backend_ops) */
	/*
	 * Read or write at a byte offset; the bytes moved, or -errno. Who moves
	 * fewer is asked to go on. 0 is the end of the storage: an error of a
	 * write, and of a read inside the size that capacity() told; behind
	 * that, or where config.capacity_bytes was given instead, the guest
	 * gets zeros for the rest. -EINTR is tried again, up to 16 times for
	 * one request.
	 */
	ssize_t (*preadv)(void *userdata, const struct iovec *iov, int n_iov,
			  uint64_t offset);
	/* NULL: the storage can only be read. */
	ssize_t (*pwritev)(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset);
	/*
	 * Make all completed writes durable; 0 or -errno. Called for a flush of
	 * the guest; and for each write before it completes, where the driver
	 * did not take FLUSH, or features_masked has it, or the guest wants no
	 * write cache. Once it has failed, it
	 * is not called again before a reset of the device, and all that asks
	 * for it fails. Not called where nothing was
	 * written since the last one. NULL: nothing to do.
	 */
	int (*flush)(void *userdata);
	/*
	 * The size in bytes. Called once by ktvblk_new(), on its thread, unless
	 * config.capacity_bytes is given; and for ktvblk_refresh_capacity() on a
	 * thread of its own, while others may be in any other call.
	 */
	int (*capacity)(void *userdata, uint64_t *ret_bytes);
	/*
	 * The storage is not used any more, and may be opened by somebody else.
	 * Never on the thread that calls ktvblk_destroy(). May be NULL.
	 */
	void (*release)(void *userdata);
	/*
	 * Since 1.1, in place of preadv, pwritev and flush: begin what *io says
	 * and return, without waiting for it; ktvblk_io_complete() brings the
	 * answer, from any thread and in any order, also before this returns.
	 * 0, or -errno: then nothing was begun, that is the answer, and *io is
	 * the device's again. Else *io, its iovec and the memory that is about
	 * stay as they are until it is completed, whatever happens to the
	 * device: a reset or destroy waits for all that is out as it waits for
	 * a worker, up to its budget, and what is completed later is let go
	 * and otherwise ignored. What is never completed is a wedge for good,
	 * and holds the guest's memory and this storage with it.
	 *
	 * NULL: the storage is asked by preadv, pwritev and flush. Where both
	 * are given config.engine decides.
	 */
	int (*submit)(void *userdata, struct ktvblk_io *io);
	/*
	 * Since 1.1, both for storage that can be written, both 0 or -errno,
	 * about whole blocks inside the capacity, at most 1 GiB at a time.
	 *
	 * discard: the guest has no use for these bytes any more. The storage
	 * may keep them as they are, or have zeros there, and touches no other.
	 * write_zeroes: they read as zeros from now on, which flush() makes
	 * durable; flags is 0, or KTVBLK_IO_MAY_UNMAP: where the storage need
	 * not keep room for them.
	 *
	 * -EOPNOTSUPP, -ENOSYS, -ENOTTY, -EPERM: the storage cannot, and is not
	 * asked again; -EINVAL: not in this place. Then a discard is done, with
	 * no effect, as in QEMU; and zeros are asked for without
	 * KTVBLK_IO_MAY_UNMAP, and at last written by pwritev, in pieces.
	 * -EINTR as above. What else there is is an error of the request.
	 *
	 * discard NULL: the guest is not offered it. write_zeroes NULL: zeros
	 * are written.
	 */
	int (*discard)(void *userdata, uint64_t offset, uint64_t length);
	int (*write_zeroes)(void *userdata, uint64_t offset, uint64_t length,
			    uint32_t flags);
	/* KTVBLK_SUBMIT_*: what else submit() takes, in place of those two. */
	uint32_t submit_flags;
	/* Discards of less than this, a power of two, gain nothing; 0: none. */
	uint32_t discard_granularity_bytes;
};

#define KTVBLK_SUBMIT_DISCARD 1u
#define KTVBLK_SUBMIT_WRITE_ZEROES 2u

/* What is asked of storage that answers later. */
enum ktvblk_io_op {
	KTVBLK_IO_READ = 0,
	KTVBLK_IO_WRITE = 1,
	KTVBLK_IO_FLUSH = 2, /* no data; what was completed before, durably */
	/* As the ops of that name; these have no iov. See submit_flags. */
	KTVBLK_IO_DISCARD = 3,
	KTVBLK_IO_WRITE_ZEROES = 4
	/* More may come: -EOPNOTSUPP is the answer to what is not known. */
};

/*
 * One transfer. It is the device's; a later library may have more behind.
 */
struct ktvblk_io {
	uint32_t op; /* enum ktvblk_io_op */
	int n_iov;
	const struct iovec *iov;
	uint64_t offset; /* in bytes, these two */
	uint64_t length; /* of all of iov; or of the range, where there is none */
	void *userdata; /* the storage's own, for as long as it has the io */
	uint32_t flags; /* of KTVBLK_IO_WRITE_ZEROES: KTVBLK_IO_MAY_UNMAP, or 0 */
	uint32_t reserved;
};

/* Zeros that may be a hole. */
#define KTVBLK_IO_MAY_UNMAP 1u

/*
 * The answer to one transfer, exactly once for each: the bytes moved or -errno,
 * as preadv and pwritev have them, 0 or -errno of the others. Never waits. [any]
 *   -EINVAL    NULL
 *   -EALREADY  it was completed before, as far as that can be seen
 */
int ktvblk_io_complete(struct ktvblk_io *io, ssize_t result);

/*
 * Storage by callbacks. The ops are copied. [any]
 *   -EINVAL  NULL, ops->size too small, capacity missing, or both of preadv and
 *            submit; a flag of submit_flags that is not known, or without submit;
 *            discard_granularity_bytes not a power of two from 512 on
 *   -E2BIG   ops->size is larger than this library's, and not all zeros there
 *   -ENOMEM
 */
int ktvblk_backend_new(const struct ktvblk_backend_ops *ops, void *userdata,
		       struct ktvblk_backend **ret_backend);

/*
 * Storage in a regular file or a block device, raw: the format is never
 * guessed. The library works on a duplicate of fd, which it closes before
 * release(userdata) (may be NULL) runs; the caller keeps fd. A descriptor
 * opened O_RDONLY makes storage that can only be read, and so does a memfd
 * sealed against writing, an immutable file, and a read-only block device. What
 * only a write can find out, such as a file that is in use for swap, is an
 * error of each write.
 *
 * A block device's blocks are the guest's, of 4096 bytes as well; what is best
 * for the storage, a file system's block for one, is told as the topology.
 *
 * With O_DIRECT the storage's blocks may be larger than a sector: 4096 bytes,
 * say. Then they are the guest's blk_size, the capacity is rounded down to
 * whole ones, and a request that is not whole blocks is an I/O error, with a
 * record. Guest memory may be aligned as it likes: what the storage could not
 * work on goes through a buffer of the device, with KTVBLK_ZERO_COPY too.
 *
 * Inside the size it had when this was called, or, without
 * config.capacity_bytes, by ktvblk_new(), storage that has become shorter is an
 * error for a read, never zeros. A write makes a regular file long enough.
 *
 * A discard punches a hole into a file, and zeros are a hole, or room that is
 * kept for them, without being written, where the file system can do that. Of a
 * block device the guest is offered discards where the device takes them. All
 * of it is io_uring's where that serves. A device that can discard and not
 * write zeros is asked by the worker itself.
 *
 * The kernel tells of writes that were lost once for each open file: where fd,
 * or another duplicate of it, is passed to fsync() or the like meanwhile, the
 * guest's flush does not hear of it.
 *
 * The close drops the process's POSIX locks on the file, not those of
 * F_OFD_SETLK. [any]
 *   -EBADF   not a descriptor, or one without data (O_PATH)
 *   -EINVAL  NULL; neither a regular file nor a block device; write-only;
 *            O_APPEND, which would ignore the guest's sector; O_DIRECT
 *            that asks for blocks of more than 1 MiB, or memory aligned to
 *            more than 4096
 *   -EMFILE, -ENFILE, -ENOMEM, and what fstat(), and ioctl() of a block device,
 *   may answer
 */
int ktvblk_backend_new_fd(int fd, void (*release)(void *userdata),
			  void *userdata, struct ktvblk_backend **ret_backend);

/*
 * One image, one writer: lock what fd is open on, as QEMU does, its qemu-img and
 * qemu-storage-daemon too, so that neither they nor another program that asks
 * here use an image that is written to elsewhere. flags: 0, to write, alone; or
 * KTVBLK_READ_ONLY, beside others that only read. It never waits for a lock,
 * but for what a file system of a network does to take one.
 *
 * The lock is the open file description's (F_OFD_SETLK): it also holds for the
 * duplicate of ktvblk_backend_new_fd(), before or after which this may be
 * called, and ends when the last is closed. A call that is stuck in the storage
 * keeps it, after ktvblk_destroy() too, for as long as it may still write; the
 * caller's own fd, until he closes it. A block device is locked by its node: two
 * nodes of one device are two.
 *
 * On -EBUSY *ret_holder, if ret_holder is not NULL, is the process that has a
 * lock in the way, or 0 where the kernel does not tell, as of locks like these.
 * After an error the open file has none of these locks, those of an earlier
 * call neither. [any]
 *   -EINVAL  an unknown flag, or no file to lock
 *   -EBADF   not a descriptor, or not open for reading
 *   -EBUSY   it is in use
 *   -ENOLCK, and what else fcntl() may answer
 */
int ktvblk_image_lock(int fd, uint64_t flags, pid_t *ret_holder);

/* Takes and gives NULL. [any] */
struct ktvblk_backend *ktvblk_backend_ref(struct ktvblk_backend *backend);

/* Takes NULL, returns NULL. [any] */
struct ktvblk_backend *ktvblk_backend_unref(struct ktvblk_backend *backend);

/*
 * Throttle
 *
 * Two token buckets, requests and bytes. A rate of 0 is no limit; a burst of 0
 * is one second's worth. A request larger than the burst goes through on
 * credit and those behind it wait for the debt.
 */

struct ktvblk_throttle {
	uint64_t iops;
	uint64_t bytes_per_sec;
	uint64_t iops_burst;
	uint64_t bytes_burst;
	uint64_t reserved[4]; /* 0 */
};

/*
 * Check a throttle the way ktvblk_new() does. On -EINVAL *ret_why, if ret_why
 * is not NULL, names the fields and the mend; it is a constant. [any]
 *   -EINVAL  NULL; a burst without its rate, or below it; reserved not 0
 */
int ktvblk_throttle_check(const struct ktvblk_throttle *throttle,
			  const char **ret_why);

/*
 * The device
 */

#define KTVBLK_READ_ONLY (UINT64_C(1) << 0)
/*
 * Hand the storage guest memory itself instead of a buffer of the device. This
 * saves a copy and gives up a promise: a call that is stuck when the device is
 * reset or destroyed may, when it ends, still write or read the guest memory of
 * its own request. Its record says KTVBLK_FENCED=no.
 */
#define KTVBLK_ZERO_COPY (UINT64_C(1) << 1)
/* Always sleep at once where there is nothing to do: see poll_us. */
#define KTVBLK_NO_POLL (UINT64_C(1) << 2)

struct ktvblk_config {
	size_t size; /* KTVBLK_CONFIG_INIT fills it */
	struct ktvblk_backend *backend; /* the device takes its own reference */
	const char *name; /* of the disk, on every record; may be NULL */
	/* For GET_ID; NULL: "libktvblk", for each disk. Not made unique. */
	const char *serial;
	uint64_t capacity_bytes; /* 0: what the backend says */
	uint64_t flags; /* KTVBLK_READ_ONLY, _ZERO_COPY, _NO_POLL */
	uint64_t features_masked; /* virtio feature bits not to offer */
	struct ktvblk_throttle throttle;
	uint32_t reset_timeout_ms; /* budget; 0: 1000 */
	uint32_t destroy_timeout_ms; /* budget; 0: 1000 */
	uint32_t stall_warn_ms; /* record a request this old; 0: 5000 */
	/*
	 * A worker that has served all there was looks at the avail ring for at
	 * most so long before it sleeps: less while that finds nothing, and
	 * none for an idle disk. 0: 50, or none where the worker has only the
	 * one CPU of the thread that started it, or by vhost-user that of the
	 * front end.
	 */
	uint32_t poll_us;
	uint16_t queue_size_max; /* a power of two; 0: 256 */
	uint16_t reserved[3]; /* 0 */
	/* Since 1.1. */
	uint32_t engine; /* enum ktvblk_engine */
	uint32_t depth; /* requests with the storage at once; 0: 64 */
	/*
	 * How many queues the guest may use, up to KTVBLK_QUEUES_MAX, each with
	 * a worker of its own; 0: 1. From 2 on it is told so (VIRTIO_BLK_F_MQ).
	 * Throttle, counters and pause are the whole disk's, and while a worker
	 * that was left behind lives, none of any queue touches the disk.
	 */
	uint32_t n_queues;
	uint32_t discard; /* enum ktvblk_discard */
	uint32_t write_cache; /* enum ktvblk_write_cache */
	/*
	 * The blocks the guest is told of (VIRTIO_BLK_F_BLK_SIZE, _TOPOLOGY); 0:
	 * those of the storage. Requests are whole logical blocks, or errors:
	 * a power of two from 512 to 4096, and not below what O_DIRECT asks for,
	 * which may be more. Physical ones: a power of two, from those to 1 MiB;
	 * what is best to be read or written at once: a multiple of the first.
	 */
	uint32_t logical_block_bytes;
	uint32_t physical_block_bytes;
	uint32_t opt_io_bytes;
};

/*
 * How the disk begins after each reset, until the guest says otherwise by the
 * field writeback (VIRTIO_BLK_F_CONFIG_WCE): with a cache that it has to flush,
 * or so that each write is flushed before it completes. A driver that took FLUSH
 * and not CONFIG_WCE is taken to flush by itself, and one that took neither has
 * each write flushed, whatever is said here.
 */
enum ktvblk_write_cache {
	KTVBLK_WRITE_CACHE_ON = 0,
	KTVBLK_WRITE_CACHE_OFF = 1
};

/* May the guest give space back? */
enum ktvblk_discard {
	/*
	 * Where the storage can: DISCARD, and zeros that may be a hole
	 * (WRITE_ZEROES with UNMAP).
	 */
	KTVBLK_DISCARD_AUTO = 0,
	/* No DISCARD is offered; zeros are written, or room is kept for them. */
	KTVBLK_DISCARD_OFF = 1
};

/* How a worker asks the storage. */
enum ktvblk_engine {
	/*
	 * The storage's submit() if it has one. Of a file, what is quickest and
	 * does not wait: calls that answer at once, io_uring for what does not.
	 * Else, and where the kernel refuses io_uring, which is recorded, sync.
	 */
	KTVBLK_ENGINE_AUTO = 0,
	/* One call at a time, on the worker: preadv(), pwritev(), flush(). */
	KTVBLK_ENGINE_SYNC = 1,
	/*
	 * All by io_uring; a file only. Where the kernel refuses it later, by a
	 * filter of system calls, say, which is recorded, the rest by calls.
	 */
	KTVBLK_ENGINE_IO_URING = 2
};

#ifdef __cplusplus
#define KTVBLK_CONFIG_INIT                                                     \
	{                                                                      \
		sizeof(struct ktvblk_config), NULL, NULL, NULL, 0, 0, 0,       \
			{ 0, 0, 0, 0, { 0, 0, 0, 0 } }, 0, 0, 0, 0, 0,         \
			{ 0, 0, 0 }, 0, 0, 0, 0, 0, 0, 0, 0                    \
	}
#else
#define KTVBLK_CONFIG_INIT                                                     \
	{                                                                      \
		.size = sizeof(struct ktvblk_config)                           \
	}
#endif

/*
 * Make a device at its reset state. No worker runs before the guest's
 * DRIVER_OK. The config and its strings are copied. A capacity that is not a
 * whole number of blocks, sectors as a rule, is rounded down. [any]
 *   -EINVAL        NULL, config->size too small, no backend, unknown flag,
 *                  VERSION_1 masked, BLK_SIZE masked with blocks that are
 *                  larger than a sector, blocks that cannot be so, a throttle that ktvblk_throttle_check()
 *                  refuses, queue_size_max not a power of two or above
 *                  KTVBLK_QUEUE_SIZE_MAX, a budget above an hour, poll_us
 *                  above 1000, or set with KTVBLK_NO_POLL, name or serial
 *                  not printable UTF-8, reserved not 0, an engine that is not
 *                  known or not for this backend, a depth above
 *                  KTVBLK_QUEUE_SIZE_MAX, n_queues above KTVBLK_QUEUES_MAX, or
 *                  above 1 with MQ masked, discard or write_cache not known
 *   -ENOSYS, -EPERM, and what io_uring_setup() and io_uring_enter() may answer:
 *                  KTVBLK_ENGINE_IO_URING, and the kernel refuses it
 *   -E2BIG         config->size is larger than this library's, and not all
 *                  zeros there
 *   -ENAMETOOLONG  name or serial too long
 *   -EROFS         the backend can only be read, KTVBLK_READ_ONLY is not set
 *   -ENOMEM, -EMFILE, -ENFILE, -EAGAIN (no thread for the records), and what
 *   the backend's capacity() answered
 */
int ktvblk_new(const struct ktvblk_config *config, struct ktvblk_dev **ret_dev);

/*
 * Bind guest memory, once, before the guest's DRIVER_OK; it survives reset. The
 * device takes its own reference. [device]
 *   -EINVAL  NULL
 *   -EBUSY   already bound, or told to stop (recorded: nothing changed); or
 *            vhost-user's
 */
int ktvblk_set_memory(struct ktvblk_dev *dev, struct ktvblk_mem *mem);

/*
 * Other guest memory in the place of what is bound, or, where none is, this from
 * now on; whatever the device is doing, and kept over resets. Running queues go
 * over between two accesses: a request in flight ends in the new memory, or as an
 * error where that has not its addresses. When this has returned 0 the old memory
 * is not touched any more, but by a worker that was left behind before, and its
 * release() runs when nobody has a reference to it, on a thread of the library's.
 * A queue whose rings are not in the new memory is not served until reset, which
 * the guest is told by NEEDS_RESET, and a record (QUEUE_POISONED_MEMORY).
 *
 * Waits for workers that are in guest memory just now, and not for storage, but
 * with KTVBLK_ZERO_COPY: then for all requests in flight, for which the device is
 * paused. A pause of the VMM's own stays. On -ETIMEDOUT nothing changed. Since
 * 1.1. [device]
 *   -EINVAL     NULL
 *   -EBUSY      told to stop
 *   -ETIMEDOUT  a worker is stuck in guest memory, or, with KTVBLK_ZERO_COPY, a
 *               request in storage
 *   -EDEADLK    called from a worker of the device's own
 *   -ENOMEM, -EAGAIN
 */
int ktvblk_replace_memory(struct ktvblk_dev *dev, struct ktvblk_mem *mem,
			  uint32_t timeout_ms);

/*
 * Have fn(userdata, guest_addr, length) told of all guest memory that the device
 * writes: data, status bytes, used rings. It is called behind the write, so who
 * clears a page's mark first and copies the page then misses nothing, and before
 * the used index makes it known to the guest; of the used index itself once more
 * behind that. What is told may be more than was written, and twice. fn runs on
 * the workers, those of several queues at once; it must not wait, as the
 * worker is in guest memory meanwhile, and may call whatever is marked [any]. NULL:
 * nobody is told.
 *
 * When this has returned 0 all that is written from then on is told to the new
 * fn, and the old one is in no call and gets no more, whatever workers are stuck
 * in. With KTVBLK_ZERO_COPY requests are told when they begin, too: what one that
 * was left behind still writes (KTVBLK_FENCED=no) nobody can tell. Kept over
 * resets. Since 1.1. [device]
 *   -EINVAL     NULL
 *   -ETIMEDOUT  a worker is stuck in guest memory, or in the old fn; nothing
 *               changed
 *   -EDEADLK    called from a worker of the device's own
 */
int ktvblk_set_dirty_log(struct ktvblk_dev *dev,
			 void (*fn)(void *userdata, uint64_t guest_addr,
				    uint64_t length),
			 void *userdata, uint32_t timeout_ms);

/*
 * Which CPUs each worker may run on, from its next start; none: as the thread
 * that writes DRIVER_OK. CPUs the kernel's mask cannot hold (1024 and up) are
 * left out; what cannot be applied is recorded and is no error. [device]
 *   -EINVAL  dev NULL, or cpus NULL with n_cpus not 0
 */
int ktvblk_set_worker_cpus(struct ktvblk_dev *dev, const uint32_t *cpus,
			   size_t n_cpus);

/*
 * What each worker runs first, on its own thread, before it serves: for whatever
 * a VMM wants of a thread that serves a disk, its scheduling, control group,
 * memory policy. From the next start; NULL: nothing. It may call whatever is
 * marked [any], and, as an op of the storage, may block: then the disk is not
 * served. userdata must be there as long as guest memory. [device]
 *   -EINVAL  dev NULL
 */
int ktvblk_set_worker_init(struct ktvblk_dev *dev, void (*init)(void *userdata),
			   void *userdata);

/*
 * Another size of the disk, at once and whatever the device is doing: rounded as
 * by ktvblk_new(), and kept over resets. A driver that runs hears of it by a
 * configuration interrupt, and reads it with another ConfigGeneration (sections
 * 2.5 and 4.2.2). Requests that begin from then on and go beyond it are errors;
 * one that has begun ends as the storage has it. What lies beyond the size that
 * the storage has told reads as zeros where it ends before, as with
 * config.capacity_bytes. Never waits. Since 1.1. [device]
 *   -EINVAL  NULL, or bytes 0
 */
int ktvblk_set_capacity(struct ktvblk_dev *dev, uint64_t bytes);

/*
 * Have the storage asked for its size, by its capacity(), and the disk have that:
 * as if ktvblk_set_capacity() were called with the answer, but that behind it a
 * read inside that size is never zeros for want of data. Returns at once, as the
 * storage may hang; when it has answered, 1 is added to ktvblk_state_fd(), and
 * ktvblk_get_identity() tells what it is. If it fails the size stays, with a
 * record (CAPACITY_UNKNOWN). A ktvblk_set_capacity() behind this makes the answer
 * void. One that is still out when the device is destroyed counts as a stuck
 * worker does. Since 1.1. [device]
 *   -EINVAL  NULL
 *   -EBUSY   the storage has not answered the last one, or told to stop
 *   -ENOMEM, -EAGAIN
 */
int ktvblk_refresh_capacity(struct ktvblk_dev *dev);

/*
 * Other limits than config.throttle, at once, whatever the device is doing. What
 * the disk owes for a large request stays owed; of the tokens that are there what
 * fits into the new burst is kept, and a limit that was not there before begins
 * with a whole burst. Requests that wait for tokens are looked at again. Since
 * 1.1. [any]
 *   -EINVAL  NULL, or what ktvblk_throttle_check() refuses
 *   -EAGAIN  a thread of the device's was held up by the system for 20 ms while
 *            it took tokens
 */
int ktvblk_set_throttle(struct ktvblk_dev *dev,
			const struct ktvblk_throttle *throttle);

/*
 * A guest's access at a byte offset into the device's window (section 4.2.2).
 * Registers answer 4-byte accesses only: other reads give all ones, other
 * writes are ignored. Config space, from 0x100, takes any width. Takes NULL.
 *
 * A write of 0 to Status resets the device, and one of 0 to QueueReady stops the
 * queue, which the driver may then set up and make ready anew; so does one of 1
 * to QueueReset (0x0c0) with VIRTIO_F_RING_RESET. They return within
 * reset_timeout_ms, or 20 ms later where a worker is stuck in guest memory
 * itself, however many are stuck; by then the guest's memory is the guest's again. No other access waits
 * for anything but, at a start, the kernel for memory. [device]
 */
void ktvblk_mmio_read(struct ktvblk_dev *dev, uint64_t offset, void *data,
		      size_t len);
void ktvblk_mmio_write(struct ktvblk_dev *dev, uint64_t offset,
		       const void *data, size_t len);

/*
 * Tell the workers to stop, as a reset does, and return at once: the write of 0 to
 * Status that has to follow counts its budget from here, so that many devices
 * can share one. Until then the device answers its registers and serves nothing.
 * No effect on a device without a worker, nor again. [device]
 *   -EINVAL  NULL
 */
int ktvblk_request_reset(struct ktvblk_dev *dev);

/*
 * Eventfds that stay the same for the device's life and belong to it: do not
 * close them. A write to the first is a QueueNotify of queue 0 and may be bound
 * as KVM_IOEVENTFD, with datamatch 0, at KTVBLK_MMIO_QUEUE_NOTIFY; the device writes the second for
 * each interrupt, edge-triggered, so it may be bound as KVM_IRQFD. Both are
 * non-blocking. [any]
 *   -EINVAL  NULL
 */
int ktvblk_kick_fd(const struct ktvblk_dev *dev);
int ktvblk_irq_fd(const struct ktvblk_dev *dev);

/*
 * The same as the first, of any queue: its KVM_IOEVENTFD has the queue's index as
 * datamatch. The first queue's is that of ktvblk_kick_fd(). [any]
 *   -EINVAL  NULL, or the device has no such queue
 */
int ktvblk_queue_kick_fd(const struct ktvblk_dev *dev, uint32_t queue);

/*
 * vhost-user
 *
 * In the place of MMIO a front end in another process is the device's register
 * file: QEMU, cloud-hypervisor, Firecracker, a kernel of UML. It brings the guest's
 * memory, the queues' addresses and their eventfds over a socket, whose protocol is
 * that of QEMU's docs/interop/vhost-user.rst.
 *
 * Whatever stops a queue (GET_VRING_BASE, SET_VRING_ENABLE 0, RESET_DEVICE, a
 * status of 0, memory that changes, the end of the connection) does so within
 * reset_timeout_ms, and fenced, as a write of 0 to Status; of several queues that
 * are stopped while one hangs, all within that of the first. When the answer is
 * sent nothing of the front end's is used any more, nor, but with
 * KTVBLK_ZERO_COPY, mapped. Requests that are out then stay marked in the front
 * end's inflight region, and are taken up again, in their order, by who starts the
 * queue next: once what hangs has ended. Without such a region those at the end
 * of what was taken are put back, and a record tells of others (VHOST_USER_LOST).
 *
 * The front end's memory must be a memfd, or a file of tmpfs or hugetlbfs. It is
 * sealed against shrinking where that can be done; a front end that shrinks what
 * cannot be sealed ends this process by SIGBUS.
 */

/* The transport ends behind its first connection. */
#define KTVBLK_VHOST_USER_ONCE (UINT64_C(1) << 0)

/*
 * Hand the device to vhost-user front ends. fd is a UNIX stream socket, listening
 * or connected; it is duplicated, and the caller keeps his. One front end at a
 * time: another one that connects is refused, with a record. A thread
 * ktvblk-vu-<id> serves them until ktvblk_request_stop() or ktvblk_destroy(). From
 * now on MMIO is ignored, reads give zeros, and so is ktvblk_request_reset(); memory
 * comes from the front end. Since 1.1. [device]
 *   -EINVAL     NULL, unknown flag, no such socket
 *   -EBUSY      it has a transport, memory is bound, or a driver has begun
 *   -ESHUTDOWN  told to stop
 *   -ENOMEM, -EMFILE, -EAGAIN
 */
int ktvblk_vhost_user_start(struct ktvblk_dev *dev, int fd, uint64_t flags);

/*
 * Readable once the thread serves nobody any more: the connection of a connected
 * socket, or of KTVBLK_VHOST_USER_ONCE, has ended, or the listening socket cannot
 * be used. It belongs to the device, as ktvblk_kick_fd(). Since 1.1. [any]
 *   -EINVAL  NULL, or there is no transport
 */
int ktvblk_vhost_user_ended_fd(const struct ktvblk_dev *dev);

/* 1: a front end is connected, 0: none. Since 1.1. [any]
 *   -EINVAL  NULL, or there is no transport
 */
int ktvblk_vhost_user_is_connected(const struct ktvblk_dev *dev);

/*
 * Pause and resume
 *
 * A paused worker is parked between two requests: all it did to guest memory
 * is visible and it does nothing more until ktvblk_resume(). A device is paused
 * when all its workers are. A pause survives
 * reset; a reset or destroy of a paused device is as quick as any. A device
 * with no worker and none left behind counts as paused.
 */

/*
 * Ask for a pause and return at once. When the device is paused, 1 is added to
 * the eventfd parked_fd (-1: to none), of which the device keeps a duplicate
 * until then. Asking again is no error and replaces parked_fd. [device]
 *   -EINVAL  NULL, or parked_fd below -1
 *   -EBADF, -EMFILE  parked_fd cannot be duplicated
 */
int ktvblk_pause_begin(struct ktvblk_dev *dev, int parked_fd);

/*
 * Pause and wait for it. On -ETIMEDOUT the request this call made is withdrawn
 * and the device keeps running. [device]
 *   -EINVAL     NULL
 *   -ETIMEDOUT  a worker is stuck, or one is left behind by a reset
 *   -EDEADLK    called from a worker of the device's own
 */
int ktvblk_pause(struct ktvblk_dev *dev, uint32_t timeout_ms);

/* 1 if paused, 0 if not. With 1, the guarantee above holds. [any]
 *   -EINVAL  NULL
 */
int ktvblk_is_paused(const struct ktvblk_dev *dev);

/* Go on: 1 if a pause was asked for, 0 if there was none to end. [device]
 *   -EINVAL  NULL
 */
int ktvblk_resume(struct ktvblk_dev *dev);

/*
 * Save and restore
 *
 * What a paused device is, as bytes, for another of the same configuration that
 * goes on with it: in this process, or in another one or machine that has the
 * guest's memory and the disk. That is all a guest can see of it: registers,
 * features, queues and where they were left, the write cache as the driver has it,
 * which size of the disk it knows of, what is owed to the throttle, a flush that
 * failed. Not the configuration itself, nor counters and settings of
 * the VMM's. Nothing is in flight. The bytes may be kept: a later library takes
 * those of an earlier one; see libktvblk(7).
 */

/*
 * Write it to buf, of size bytes: how many it took. The same device gives the
 * same bytes until it is resumed. With NULL and 0: how many it would take, in any
 * state. [device]
 *   -EINVAL  dev NULL, or buf NULL with size not 0
 *   -EBUSY   not paused (a worker that was left behind is enough: see
 *            ktvblk_is_paused()), or told to stop or to reset
 *   -ERANGE  size is too small
 */
int ktvblk_save(struct ktvblk_dev *dev, void *buf, size_t size);

/*
 * Be what was saved, and paused: ktvblk_resume() goes on. Of a device with guest
 * memory that was never at DRIVER_OK, of the size that the other one had last, by
 * config or ktvblk_set_capacity(), made with the same blocks, number and length of
 * queues, read-only or not, and all the features that the other one offered. Guest memory need not be there before the device is resumed. What
 * worker_init says runs at once. An interrupt that the driver has not
 * acknowledged is raised again; kicks that got lost are made up for.
 *
 * The bytes may come from anybody. They can do no more than a guest can. Where it
 * fails nothing has changed, but that the STOP_FD of records may be another.
 * [device]
 *   -EINVAL  dev or buf NULL, no guest memory is bound; bytes that are damaged,
 *            cut, of a later version or never from a device, or that do not suit
 *            this one or its guest memory
 *   -EBUSY   it was at DRIVER_OK before, or told to stop
 *   -ENOMEM, -EMFILE, -ENFILE, -EAGAIN  no worker could be had, which is
 *            recorded; what only the worker finds missing, an io_uring, is as
 *            at DRIVER_OK
 */
int ktvblk_restore(struct ktvblk_dev *dev, const void *buf, size_t size);

/*
 * State
 */

enum ktvblk_state {
	KTVBLK_STATE_IDLE = 0, /* no worker: the driver has not started it */
	KTVBLK_STATE_RUNNING = 1,
	KTVBLK_STATE_PAUSED = 2,
	KTVBLK_STATE_STALLED = 3, /* one request is older than stall_warn_ms */
	KTVBLK_STATE_WEDGED = 4, /* an earlier worker has not come back yet */
	KTVBLK_STATE_NEEDS_RESET = 5, /* only the guest's reset helps */
	KTVBLK_STATE_STOPPING = 6 /* after ktvblk_request_stop(), or _reset() */
};

/* What the device is doing. [any]
 *   -EINVAL  NULL
 */
int ktvblk_get_state(const struct ktvblk_dev *dev);

/*
 * An eventfd to which 1 is added whenever the state may have changed: a VMM that
 * polls it and then asks ktvblk_get_state() need not read records. That a
 * request has stalled is found, and told, by the thread that sends the records.
 * It belongs to the device, as ktvblk_kick_fd(). [any]
 *   -EINVAL  NULL
 */
int ktvblk_state_fd(const struct ktvblk_dev *dev);

/* Its name in lower case, or "unknown". A constant. [any] */
const char *ktvblk_state_name(int state);

/* What names the device on its records. */
struct ktvblk_identity {
	uint64_t instance_id; /* INSTANCE_ID: counts devices of the process */
	uint64_t capacity_sectors; /* CAPACITY_SECTORS, of now */
	/* STOP_FD of the first queue: another one after each reset. */
	int32_t stop_fd;
	uint32_t reserved;
};

/*
 * size is sizeof(*ret_identity); what a later library adds is cut, what this
 * one does not know is zeroed. [any]
 *   -EINVAL  NULL, or size too small
 */
int ktvblk_get_identity(const struct ktvblk_dev *dev,
			struct ktvblk_identity *ret_identity, size_t size);

/*
 * Counters: never reset, and readable after the device is gone.
 */

struct ktvblk_counters {
	uint64_t reads_completed;
	uint64_t writes_completed;
	uint64_t flushes_completed; /* the guest's own */
	uint64_t bytes_read; /* from the storage, without padding */
	uint64_t bytes_written;
	uint64_t throttled_count; /* requests that had to wait for tokens */
	uint64_t io_errors; /* failures; one request can count twice */
	uint64_t currently_throttled; /* requests that wait for tokens now */
	uint64_t invalid_avail_idx_count; /* avail ring indices refused */
	/* Since 1.1: requests, of any number of ranges. */
	uint64_t discards_completed;
	uint64_t write_zeroes_completed;
};

/* A new reference to the device's counters, NULL for NULL. [any] */
struct ktvblk_stats *ktvblk_get_stats(const struct ktvblk_dev *dev);

/* Takes and gives NULL. [any] */
struct ktvblk_stats *ktvblk_stats_ref(struct ktvblk_stats *stats);

/* Takes NULL, returns NULL. [any] */
struct ktvblk_stats *ktvblk_stats_unref(struct ktvblk_stats *stats);

/*
 * Read the counters, each by itself: no two are promised to be of one moment.
 * size as in ktvblk_get_identity(). [any]
 *   -EINVAL  NULL, or size too small
 */
int ktvblk_stats_read(const struct ktvblk_stats *stats,
		      struct ktvblk_counters *ret_counters, size_t size);

/*
 * The end
 */

/* How a worker that was told to stop was seen to end. The larger is worse. */
enum ktvblk_outcome {
	KTVBLK_JOINED = 0, /* it is gone, and so is all it held */
	KTVBLK_PANICKED = 1, /* gone too, but it had ended by itself before */
	KTVBLK_TIMED_OUT = 2, /* it is stuck; ktvblk-drop waits for it */
	KTVBLK_HELPER_SPAWN_FAILED = 3, /* stuck, and left to end by itself */
	KTVBLK_HELPER_DISCONNECTED = 4 /* it could not be waited for */
};

/*
 * Tell the workers to stop and return at once. A destroy that follows counts its
 * budget from here, so that many devices can share one. Until then the device
 * answers its registers and starts no worker. Again: no effect. [device]
 *   -EINVAL  NULL
 */
int ktvblk_request_stop(struct ktvblk_dev *dev);

/*
 * End the device, whatever its storage does, within destroy_timeout_ms, or some
 * 20 ms later each where a worker is stuck in guest memory itself, where a
 * release hangs, and for the last device's records. The handle is gone whatever
 * the outcome. With KTVBLK_JOINED and KTVBLK_PANICKED
 * the device's references are gone as well, and the release callbacks have
 * run if they were the last; else they run when the stuck call has ended, and
 * guest memory must stay mapped until then. Of several workers the worst is
 * the outcome. Not a cancellation point. Takes
 * NULL: KTVBLK_JOINED. [device]
 */
enum ktvblk_outcome ktvblk_destroy(struct ktvblk_dev *dev);

/* Its name in lower case, or "unknown". A constant. [any] */
const char *ktvblk_outcome_name(enum ktvblk_outcome outcome);

/*
 * Records
 *
 * By default they go to the journal. Their fields and MESSAGE_IDs are in
 * ktvblk-messages.h.
 */

struct ktvblk_record {
	size_t size;
	const char *message_id; /* 32 hexadecimal digits */
	const char *message; /* one line of text */
	const char *const *fields; /* "KEY=value", MESSAGE and the rest too */
	size_t n_fields;
	int priority; /* as in syslog.h */
	int reserved;
};

/*
 * Give the records of all devices to handler instead of the journal; NULL: to
 * the journal again. The handler runs on the thread ktvblk-log, and the record
 * is its own only until it returns. It may call whatever is marked [any], and
 * must not wait for a device. release(userdata), if not NULL, runs once the
 * handler has been replaced and no call of it is in progress. [any]
 *   -EINVAL  a release without a handler
 *   -ENOMEM
 */
int ktvblk_set_log_handler(void (*handler)(const struct ktvblk_record *record,
					   void *userdata),
			   void (*release)(void *userdata), void *userdata);

/*
 * Make no records less important than this syslog priority; LOG_INFO at first.
 * LOG_DEBUG makes one for every request. [any]
 *   -EINVAL  not 0 to 7
 */
int ktvblk_set_log_level(int priority);

/*
 * Wait until the records made so far have been handed on, and one of each device
 * that is KTVBLK_STATE_STALLED. [any]
 *   -ETIMEDOUT  some have not
 *   -EDEADLK    called from the log handler
 */
int ktvblk_log_flush(uint32_t timeout_ms);

/*
 * For __attribute__((cleanup)): each drops what the variable holds.
 */

static inline void ktvblk_mem_unrefp(struct ktvblk_mem **mem)
{
	ktvblk_mem_unref(*mem);
}

static inline void ktvblk_backend_unrefp(struct ktvblk_backend **backend)
{
	ktvblk_backend_unref(*backend);
}

static inline void ktvblk_stats_unrefp(struct ktvblk_stats **stats)
{
	ktvblk_stats_unref(*stats);
}

static inline void ktvblk_destroyp(struct ktvblk_dev **dev)
{
	ktvblk_destroy(*dev);
}

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
