/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_LATER_H
#define TEST_LATER_H

/*
 * Storage that answers later: what was submitted stands in a list, in the order
 * in which it came, until a test completes one of it.
 */

#include "storage.h"

#define LATER_MAX 1024

struct later {
	struct storage *storage; /* where the bytes are */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct ktvblk_io *ios[LATER_MAX];
	unsigned int n;
	unsigned int n_ever[OP_COUNT]; /* submitted so far */
	bool at_once; /* each is completed before submit() returns */
	int refusal; /* submit() answers this, if not 0 */
	/* In each submit, first; without the lock. */
	void (*hook)(struct later *later, struct ktvblk_io *io);
};

/* On a storage that it does not own. */
void later_init(struct later *later);

/* As storage_backend(), and storage that has its answers here. */
struct ktvblk_backend *later_backend(struct later *later,
				     struct storage *storage);

/* Wait until so many are in the list, no less and no more. */
void later_wait(struct later *later, unsigned int n);
unsigned int later_count(struct later *later);
unsigned int later_ever(struct later *later, enum storage_op op);

/* The i-th of the list: do it, or only answer; all there are. */
void later_complete(struct later *later, unsigned int i);
void later_answer(struct later *later, unsigned int i, ssize_t result);
void later_complete_all(struct later *later);

/* Look at the i-th of the list. */
struct ktvblk_io later_look(struct later *later, unsigned int i);

#endif
