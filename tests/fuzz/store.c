/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See store.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bounds.h"
#include "store.h"
#include "util.h"

#define DISK_BYTES (32u << 10)
#define THIN_BYTES 4096u /* behind it, which it has not */

static struct {
	unsigned char disk[DISK_BYTES];
	uint8_t trouble;
	struct ktvblk_io *out[KTVBLK_QUEUES_MAX * DEPTH_DEFAULT];
	unsigned int n_out;
} store;

void store_reset(void)
{
	if (store.n_out)
		abort(); /* the last input's */
	memset(store.disk, 0x5a, sizeof(store.disk));
	store.trouble = 0;
}

void store_set_trouble(uint8_t trouble)
{
	store.trouble = trouble;
}

static unsigned int next_trouble(void)
{
	const uint8_t trouble = store.trouble;

	store.trouble = trouble < 8 ? 0 : (uint8_t)(trouble - 8);
	return trouble & 7;
}

/* Storage that mostly works. */
static ssize_t answer(unsigned int trouble, ssize_t n)
{
	switch (trouble) {
	case 1:
		return -EINTR;
	case 2:
		return -EIO;
	case 3:
		return n / 2;
	case 4:
		return 0;
	case 5:
		return n + 1;
	default:
		return n;
	}
}

static ssize_t move(const struct iovec *iov, int n_iov, uint64_t offset,
		    bool in)
{
	uint64_t moved = 0;

	for (int i = 0; i < n_iov && offset + moved < DISK_BYTES; i++) {
		unsigned char *at = store.disk + offset + moved;
		const size_t n = MIN(iov[i].iov_len,
				     (size_t)(DISK_BYTES - (offset + moved)));

		if (in)
			memcpy(iov[i].iov_base, at, n);
		else
			memcpy(at, iov[i].iov_base, n);
		moved += n;
	}
	return (ssize_t)moved;
}

static ssize_t store_preadv(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	(void)userdata;
	return answer(next_trouble(), move(iov, n_iov, offset, true));
}

static ssize_t store_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			     uint64_t offset)
{
	(void)userdata;
	return answer(next_trouble(), move(iov, n_iov, offset, false));
}

static int store_flush(void *userdata)
{
	(void)userdata;
	return answer(next_trouble(), 0) < 0 ? -EIO : 0;
}

/* And storage that may not be able to do this at all. */
static ssize_t change(unsigned int trouble, uint32_t op, uint64_t offset,
		      uint64_t length)
{
	if (offset + length > DISK_BYTES + THIN_BYTES)
		abort();
	if (trouble > 5)
		return -EOPNOTSUPP;
	if (trouble != 1 && trouble != 2 && offset < DISK_BYTES)
		memset(store.disk + offset, op == KTVBLK_IO_DISCARD ? 0xdd : 0,
		       (size_t)MIN(length, DISK_BYTES - offset));
	return MIN(answer(trouble, 0), 0);
}

static int store_discard(void *userdata, uint64_t offset, uint64_t length)
{
	(void)userdata;
	return (int)change(next_trouble(), KTVBLK_IO_DISCARD, offset, length);
}

static int store_write_zeroes(void *userdata, uint64_t offset, uint64_t length,
			      uint32_t flags)
{
	(void)userdata;
	if (flags & ~KTVBLK_IO_MAY_UNMAP)
		abort();
	return (int)change(next_trouble(), KTVBLK_IO_WRITE_ZEROES, offset,
			   length);
}

static int store_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = DISK_BYTES + THIN_BYTES;
	return 0;
}

static ssize_t serve(const struct ktvblk_io *io, unsigned int trouble)
{
	switch (io->op) {
	case KTVBLK_IO_READ:
	case KTVBLK_IO_WRITE:
		return answer(trouble, move(io->iov, io->n_iov, io->offset,
					    io->op == KTVBLK_IO_READ));
	case KTVBLK_IO_FLUSH:
		return answer(trouble, 0);
	default:
		return change(trouble, io->op, io->offset, io->length);
	}
}

/* Once it has its answer the io is the device's: a second must find that. */
static void complete(struct ktvblk_io *io, unsigned int trouble)
{
	if (ktvblk_io_complete(io, serve(io, trouble)) < 0 ||
	    ktvblk_io_complete(io, 0) != -EALREADY)
		abort();
}

static int store_submit(void *userdata, struct ktvblk_io *io)
{
	(void)userdata;
	switch (store.trouble & 7) {
	case 6:
		next_trouble();
		return -EIO;
	case 7:
		complete(io, next_trouble());
		return 0;
	}
	if (store.n_out == ARRAY_SIZE(store.out))
		abort(); /* more than all queues are deep */
	store.out[store.n_out++] = io;
	return 0;
}

struct ktvblk_backend *store_backend(bool later)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = store_preadv,
		.pwritev = store_pwritev,
		.flush = store_flush,
		.capacity = store_capacity,
		.discard = store_discard,
		.write_zeroes = store_write_zeroes,
		.submit = later ? store_submit : NULL,
		.submit_flags = later ? KTVBLK_SUBMIT_DISCARD |
						KTVBLK_SUBMIT_WRITE_ZEROES
				      : 0,
	};
	struct ktvblk_backend *backend;

	if (ktvblk_backend_new(&ops, NULL, &backend) < 0)
		abort();
	return backend;
}

static const struct engine *engine_of(struct ktvblk_io *io)
{
	return container_of(io, struct transfer, io)->engine;
}

const struct engine *store_look(unsigned int i)
{
	return store.n_out ? engine_of(store.out[i % store.n_out]) : NULL;
}

const struct engine *store_complete(unsigned int i)
{
	const struct engine *engine = store_look(i);
	struct ktvblk_io *io;

	if (!engine)
		return NULL;
	i %= store.n_out;
	io = store.out[i];
	store.n_out--;
	memmove(&store.out[i], &store.out[i + 1],
		(store.n_out - i) * sizeof(*store.out));
	complete(io, next_trouble());
	return engine;
}

void store_complete_all(const struct engine *engine)
{
	unsigned int i = 0;

	while (i < store.n_out)
		if (!engine || engine_of(store.out[i]) == engine)
			store_complete(i);
		else
			i++;
}

unsigned int store_count(const struct engine *engine)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < store.n_out; i++)
		n += engine_of(store.out[i]) == engine;
	return n;
}
