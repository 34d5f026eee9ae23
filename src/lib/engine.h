/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_ENGINE_H
#define KTVBLK_ENGINE_H

/*
 * How a transfer reaches the storage. An engine knows transfers and not
 * requests: it moves the bytes of one, says when that has ended, and how. It
 * belongs to one session and, but for ktvblk_io_complete(), to its worker.
 *
 *   sync     the backend's own calls, on the worker: ended when begun
 *   uring    a file: calls that do not wait, and io_uring for what would
 *   submit   the VMM's storage, which completes from wherever it likes
 */

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"

struct engine;

struct transfer {
	struct ktvblk_io io; /* what is asked */
	/*
	 * Once it has ended: bytes, 0 or more, or -errno. Fewer than asked for
	 * is no end of the storage's: the rest is the next transfer.
	 */
	ssize_t result;
	bool again; /* it has not: it is to begin once more */
	struct engine *engine;
	struct transfer *next; /* of those that have ended */
	_Atomic bool out; /* begun and not ended: for who completes it */
	/* These: an engine's own notes. */
	uint64_t begun_ns;
	unsigned int resort;
};

/*
 * None of these looks at a stop or at who owns the session: that is for the
 * caller. Those that may block are called with the gate open.
 */
struct engine_ops {
	/*
	 * Before anything else, and once: get ready on the thread that will use
	 * it. 0 or -errno. It may have become another engine; what it was
	 * refused for goes to *ret_refused, else 0.
	 */
	int (*open)(struct engine *engine, int *ret_refused);
	/* True: it has ended; else reap() brings it, once. May block. */
	bool (*begin)(struct engine *engine, struct transfer *transfer);
	/*
	 * Those below, and open(), are NULL where they have nothing to do: all of
	 * them where all has ended when begun, wait() where there is a
	 * descriptor.
	 */
	/* What was begun and held back for company goes out. May block. */
	void (*push)(struct engine *engine);
	/* What was held back will not go out: it has ended, with -ECANCELED. */
	void (*drop)(struct engine *engine);
	/* One that has ended, or NULL. */
	struct transfer *(*reap)(struct engine *engine);
	/*
	 * Push, and sleep until there may be one to reap, or, unless wake_fd is
	 * -1, wake_fd has become readable since the last call or was at the
	 * first, or the time is up (-1: never). 0, also for nothing, or
	 * -errno; -EINTR too, unless something went out in the same sleep.
	 * wake_fd is always the same, or -1.
	 */
	int (*wait)(struct engine *engine, int wake_fd, int timeout_ms);
	/*
	 * n buffers, each stride bytes behind the last, will be used for
	 * transfers over and over.
	 */
	void (*buffers)(struct engine *engine, unsigned char *base,
			size_t stride, unsigned int n);
	/*
	 * Nothing is out, nor will be for a while: what the buffers have is going
	 * to be given back. False: not now.
	 */
	bool (*idle)(struct engine *engine);
	/* Nothing is out any more, or it never opened; gives all back. */
	void (*close)(struct engine *engine);
};

struct engine {
	const struct engine_ops *ops;
	const struct ktvblk_backend *backend;
	unsigned int n_out; /* begun and not reaped */
	/*
	 * The errno with which the kernel has refused to go on; 0: it does. Then
	 * wait() has no edges: it comes back as long as wake_fd is readable,
	 * after a while each time.
	 */
	int refused;
	bool refused_told; /* the caller's own note */
	/* What was pushed goes on without us, all of it: see BURST_MAX. */
	bool overlaps;
	/* Reads begin without a wait for the storage. */
	bool reads_at_once;
	/* The caller's: it is likely to begin more before it pushes. */
	bool more;
	/*
	 * Readable when there is one to reap: what the worker sleeps on. -1:
	 * then it sleeps in wait() while anything is out.
	 */
	int fd;
};

/*
 * On whichever thread, with all the memory it will need, as a thread's first
 * malloc() may take 64 MiB of addresses, and of memory where all is locked. To
 * be freed by its close(); NULL: errno says why.
 */
struct engine *engine_sync_new(const struct ktvblk_backend *backend);
struct engine *engine_submit_new(const struct ktvblk_backend *backend);
/*
 * n is the most that will be out. all: no calls of its own beside io_uring, and
 * without that it does not open.
 */
struct engine *engine_uring_new(const struct ktvblk_backend *backend,
				unsigned int n, bool all);

/* Make it one of those, in its own memory. */
void engine_sync_init(struct engine *engine,
		      const struct ktvblk_backend *backend);

/* Would it work here? 0 or -errno. */
int engine_uring_probe(void);

/* Ask the backend's own call to discard a range, or for zeros there. */
ssize_t engine_call_range(const struct ktvblk_backend *backend,
			  const struct ktvblk_io *io);

/* The one that the configuration asks for; as above. */
struct engine *engine_new(enum ktvblk_engine which,
			  const struct ktvblk_backend *backend, unsigned int n);

#endif
