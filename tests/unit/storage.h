/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_STORAGE_H
#define TEST_STORAGE_H

/*
 * A backend in memory that does what a test tells it: hang until it is let go,
 * answer from a script, call back into the test. Faults come through the
 * public ops table only.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ktvblk.h"

/* As those of enum ktvblk_io_op. */
enum storage_op {
	OP_READ,
	OP_WRITE,
	OP_FLUSH,
	OP_DISCARD,
	OP_WRITE_ZEROES,
	OP_COUNT
};

#define STORAGE_SCRIPT_MAX 64
/* In a script: do the thing itself, in full. */
#define AS_USUAL INT64_MIN

struct storage {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned char *bytes;
	uint64_t size; /* what is there; reads behind it are short */
	uint64_t capacity; /* what capacity() says */
	int capacity_error;

	bool hold; /* calls hang before they do anything ... */
	unsigned int held; /* ... this many just now */
	unsigned int calls[OP_COUNT];
	unsigned int released; /* the release callback */

	/*
	 * The next answers, one for each call whatever its op: -errno, or how
	 * many bytes at most are moved and then claimed; see also overlong.
	 */
	int64_t script[STORAGE_SCRIPT_MAX];
	unsigned int script_len, script_at;
	/* The last call about a range had these, and there were so many bytes. */
	uint64_t range_offset, range_length, range_total;
	uint32_t range_flags;
	bool overlong; /* claim one byte more than asked for */

	/* As O_DIRECT is, if set: whole blocks, in memory aligned to this. */
	uint32_t block_bytes, mem_align;

	/* In every call, before it does anything; without the lock. */
	void (*hook)(struct storage *storage, enum storage_op op);
	void *hook_data;

	struct later *later; /* which answers in its place, or NULL */
};

/* What a storage cannot; for rig_options. */
#define NO_DISCARD 1u
#define NO_WRITE_ZEROES 2u

/* size bytes of a pattern: byte i is storage_pattern(i). */
struct storage *storage_new(uint64_t size);
unsigned char storage_pattern(uint64_t i);

/* A backend on it; when that is released, `released` counts. */
struct ktvblk_backend *storage_backend(struct storage *storage);
/* On one that cannot all. */
struct ktvblk_backend *storage_less_backend(struct storage *storage,
					    unsigned int lacks);

/* The same with a submit(), which has the storage for its userdata. */
struct ktvblk_backend *
storage_submit_backend(struct storage *storage,
		       int (*submit)(void *userdata, struct ktvblk_io *io));

/* Do what is asked, as a call would: its answer. */
ssize_t storage_perform(struct storage *storage, const struct ktvblk_io *io);

/* The same in this file, which is closed; the calls are not this one's. */
struct ktvblk_backend *storage_file_backend(struct storage *storage, int fd);

/* Free it; its backend must have been released, or none was made. */
void storage_free(struct storage *storage);

void storage_script(struct storage *storage, const int64_t *answers,
		    unsigned int n);

/* Hang the calls from now on; wait until n hang; let them go. */
void storage_hold(struct storage *storage);
void storage_wait_held(struct storage *storage, unsigned int n);
void storage_let_go(struct storage *storage);

void storage_wait_released(struct storage *storage);
unsigned int storage_calls(struct storage *storage, enum storage_op op);

#endif
