/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_BOUNDS_H
#define KTVBLK_BOUNDS_H

/* The one place for limits and defaults. Units are in the names. */

#define SECTOR_SHIFT 9
#define SECTOR_BYTES 512u

/* What the device tells the guest. */
#define SEG_MAX 128u
#define QUEUE_SIZE_DEFAULT 256u

/*
 * The longest chain there can be: each descriptor of the queue, then each of an
 * indirect table. Indices have 16 bits, so what is longer goes in a circle.
 */
#define TABLE_DESC_MAX (UINT16_MAX + 1u)
#define CHAIN_DESC_MAX (KTVBLK_QUEUE_SIZE_MAX + TABLE_DESC_MAX)

/* Entries of the avail ring taken at a time; a power of two. */
#define AVAIL_BATCH 32u

/* Guest memory that is written between two looks at who owns it. */
#define PAGE_BYTES UINT64_C(4096)

/* Storage calls. */
#define EINTR_RETRY_MAX 16u
#define BOUNCE_BYTES (1u << 20) /* of one request, at most */
#define BOUNCE_POOL_BYTES                                                      \
	(16u << 20) /* of all of a queue, but for large blocks */
#define ZERO_COPY_BYTES_MAX (4u << 20) /* between two looks at a stop */
#define IOV_BATCH_MAX 256
#define DEPTH_DEFAULT 64u
#define IO_SEGS (SEG_MAX + 2u) /* that a request in flight has of its own */

/*
 * Ranges to discard, or to have zeros: how many in one request, and how long
 * each, which is one call of the storage. It may come to zeros being written,
 * and then one request should not be an endless one.
 */
#define RANGES_MAX 128u
#define ZERO_RANGES_MAX 16u
#define DISCARD_SECTORS_MAX (1u << 21)
#define ZERO_SECTORS_MAX (1u << 17)

/* What st_blksize is taken for: a block, and what is good to ask for. */
#define FILE_BLOCK_BYTES_MAX 4096u
#define FILE_IO_BYTES_MAX (16u << 20)
#define IDLE_KEEP_BYTES (32u << 10) /* of its buffer */
#define IDLE_MS 100 /* then the rest is given back */
/* Buffers registered with io_uring: behind so many uses, and so much of each. */
#define PIN_USES 8u
#define PIN_BYTES (16u << 10)
#define MEM_ALIGN_MAX 4096u /* of the buffer, and of guest memory */

/*
 * Calls that may wait, see pace.h: how many have to be quick, and so often that
 * is doubled; after how many quick calls it is halved again; what quick is.
 */
#define PACE_TRUST 32u
#define PACE_BACKOFF_MAX 5u
#define PACE_FORGIVE 1024u
#define PACE_PLAIN_QUICK_NS UINT64_C(250000)
#define PACE_RING_QUICK_NS UINT64_C(5000000) /* with its queue and threads */
#define PACE_BYTE_NS UINT64_C(1) /* on top, for each byte */

/*
 * Storage that works by itself: what is begun while it is idle, and what is
 * completed, in parts of so many, for it is to wait for none of ours.
 */
#define BURST_MAX 8u

/*
 * Calls that do not wait: up to so many bytes many are one system call's; more at
 * a time would be out of the CPU's cache before it is copied.
 */
#define NOWAIT_BATCH_BYTES (64u << 10)

/* What the kernel had no memory for is tried again so soon. */
#define URING_RETRY_MS 1

/*
 * With EVENT_IDX, before a call that does not wait: so many completions may wait
 * for their interrupt, none longer than the copies of so many bytes each take.
 */
#define IRQ_BATCH 8u
#define IRQ_BATCH_BYTES (128u << 10)

/* Without EVENT_IDX, how long a completion may wait for its interrupt. */
#define IRQ_HOLD_NS 100000u

/*
 * Looking at the avail ring before sleeping: the bound, where a worker begins
 * that has reason to, and how many looks it takes between two at the clock.
 */
#define POLL_US_DEFAULT 50u
#define POLL_US_MAX 1000u
#define POLL_START_NS UINT64_C(5000)
#define POLL_LOOKS 16u

/* The throttle's retry timer; 0 would disarm it. */
#define RETRY_NS_MIN UINT64_C(1)
#define RETRY_NS_MAX UINT64_C(1000000000)
/* Between two looks of who is not the first in line for tokens. */
#define TURN_NS UINT64_C(1000000)

/* vhost-user: how soon a connection that no descriptor was had for is tried again. */
#define ACCEPT_RETRY_MS 100

/* Teardown. */
#define BUDGET_MS_DEFAULT 1000u
#define BUDGET_MS_MAX 3600000u
#define STOP_ATTEMPTS 4u
#define STATUS_CAS_ATTEMPTS 4u
#define WAKE_ATTEMPTS 4u

/* Stacks: of threads that run callbacks, and of ktvblk-drop, which runs none. */
#define THREAD_STACK_BYTES (512u << 10)
#define DROP_STACK_BYTES (128u << 10)
#define GATE_GRACE_NS UINT64_C(20000000)
#define OVERSLEPT_NS UINT64_C(5000000) /* behind a deadline: nobody ran */
#define LOOK_AGAIN_NS UINT64_C(20000000) /* then, once */
#define LATE_LOOK_NS UINT64_C(1000000) /* where it was past before */
#define RELEASE_GRACE_NS UINT64_C(20000000)
#define LOG_STOP_NS UINT64_C(20000000)
#define TELLING_NS UINT64_C(20000000)
#define TOKENS_NS UINT64_C(20000000) /* for the lock of the throttle */

/* Records. */
#define STALL_WARN_MS_DEFAULT 5000u
#define LOG_QUEUE_ENTRIES 512u
#define LOG_QUEUE_RESERVED 128u /* for what a guest cannot provoke */
#define LOG_ARGS_MAX 8
#define LOG_FIELDS_MAX 32
#define LOG_TEXT_BYTES 4096
#define LOG_LIMIT_BURST 10u /* of one kind */
#define LOG_BUDGET_BURST 30u /* of all that a guest can provoke */
#define LOG_LIMIT_NS UINT64_C(5000000000)
#define LOG_EXIT_FLUSH_MS 500u

#endif
