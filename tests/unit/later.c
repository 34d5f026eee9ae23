/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See later.h. */

#include <string.h>

#include "harness.h"
#include "later.h"
#include "util.h"

void later_init(struct later *later)
{
	memset(later, 0, sizeof(*later));
	pthread_mutex_init(&later->lock, NULL);
	cond_init(&later->changed);
}

static void keep(struct later *later, struct ktvblk_io *io)
{
	SCOPED_LOCK(&later->lock);
	ck_assert_uint_lt(later->n, LATER_MAX);
	later->ios[later->n++] = io;
	later->n_ever[io->op]++;
	pthread_cond_broadcast(&later->changed);
}

static struct ktvblk_io *take(struct later *later, unsigned int i)
{
	struct ktvblk_io *io;

	SCOPED_LOCK(&later->lock);
	ck_assert_uint_lt(i, later->n);
	io = later->ios[i];
	later->n--;
	memmove(&later->ios[i], &later->ios[i + 1],
		(later->n - i) * sizeof(struct ktvblk_io *));
	pthread_cond_broadcast(&later->changed);
	return io;
}

static int later_submit(void *userdata, struct ktvblk_io *io)
{
	struct storage *storage = (struct storage *)userdata;
	struct later *later = storage->later;

	if (later->hook)
		later->hook(later, io);
	if (later->refusal)
		return later->refusal;
	keep(later, io);
	if (later->at_once)
		later_complete(later, later_count(later) - 1);
	return 0;
}

struct ktvblk_backend *later_backend(struct later *later,
				     struct storage *storage)
{
	later->storage = storage;
	storage->later = later;
	return storage_submit_backend(storage, later_submit);
}

void later_wait(struct later *later, unsigned int n)
{
	ck_assert_msg(eventually(later_count(later) == n),
		      "%u are with the storage, not %u", later_count(later), n);
}

unsigned int later_count(struct later *later)
{
	SCOPED_LOCK(&later->lock);
	return later->n;
}

unsigned int later_ever(struct later *later, enum storage_op op)
{
	SCOPED_LOCK(&later->lock);
	return later->n_ever[op];
}

void later_complete(struct later *later, unsigned int i)
{
	struct ktvblk_io *io = take(later, i);

	ck_assert_int_eq(
		ktvblk_io_complete(io, storage_perform(later->storage, io)), 0);
}

void later_answer(struct later *later, unsigned int i, ssize_t result)
{
	ck_assert_int_eq(ktvblk_io_complete(take(later, i), result), 0);
}

void later_complete_all(struct later *later)
{
	while (later_count(later))
		later_complete(later, 0);
}

struct ktvblk_io later_look(struct later *later, unsigned int i)
{
	SCOPED_LOCK(&later->lock);
	ck_assert_uint_lt(i, later->n);
	return *later->ios[i];
}
