/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_TRANSFERS_H
#define TEST_TRANSFERS_H

/*
 * An engine on a file, and transfers for it, without a device or a worker: the
 * thread of the test is the worker.
 */

#include "engine.h"
#include "harness.h"

#define DISK_BYTES (1u << 20)
#define JOB_BYTES_MAX 16384u

enum disk_kind {
	DISK_MEMORY, /* has no calls that do not wait */
	DISK_FILE, /* where this program is */
	DISK_DIRECT, /* the same by O_DIRECT */
	DISK_KINDS
};

/* One with a pattern on it; -1: the file system does not take it. */
int image_open(enum disk_kind kind);
unsigned char disk_byte(uint64_t i);

/* An engine with room for n on a descriptor, which it takes. */
struct rigged {
	struct engine *engine;
	struct ktvblk_backend *backend;
	int fd; /* the same file, for the test */
};

struct rigged rigged_new(int fd, unsigned int n, bool all);
/* On one that is no file, and no disk either. */
struct rigged rigged_on_socket(int fd, unsigned int n);
void rigged_end(struct rigged *rigged);

struct job {
	struct transfer transfer;
	struct iovec iov[4];
	unsigned char *buffer; /* of JOB_BYTES_MAX, page-aligned */
	bool is_out;
	unsigned int n_tries; /* in vain */
};

/* In so many pieces; a write is of the bytes ~disk_byte(). */
struct job *job_new(enum ktvblk_io_op op, uint64_t offset, size_t n_bytes,
		    int n_iov);
/* One that does not: free it. */
void job_free(struct job *job);

/* True: it has ended. */
bool job_begin(struct rigged *rigged, struct job *job);

/* The next that ends, or NULL when wait() says 0 and there is none in time. */
struct job *job_wait(struct rigged *rigged);
/* All that is out. */
void jobs_wait(struct rigged *rigged);

/* One from begin to end: its result. */
ssize_t job_run(struct rigged *rigged, struct job *job);

/* Did it do what it says? */
void job_check(const struct rigged *rigged, const struct job *job);

/* It goes by the ring, and well; and then all is over. */
void job_is_the_last(struct rigged *rigged, struct job *job);

/*
 * The whole of a main(): the tests, or none where the kernel refuses. What the
 * library does there is for test-ring-refused.
 */
#define RING_PROGRAM(name, ...)                                                \
	int main(void)                                                         \
	{                                                                      \
		const TTest *const tests_[] = { __VA_ARGS__ };                 \
                                                                               \
		return ring_is_refused()                                       \
			       ? 77                                            \
			       : run_tests(name, tests_, ARRAY_SIZE(tests_));  \
	}

/* It says so, too. */
bool ring_is_refused(void);

#endif
