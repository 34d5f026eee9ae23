/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See storage.h. */

#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "storage.h"
#include "util.h"

unsigned char storage_pattern(uint64_t i)
{
	return (unsigned char)(i * 31 + (i >> 9) * 7 + 1);
}

struct storage *storage_new(uint64_t size)
{
	struct storage *storage = calloc(1, sizeof(*storage));

	ck_assert_ptr_nonnull(storage);
	pthread_mutex_init(&storage->lock, NULL);
	cond_init(&storage->changed);
	storage->size = storage->capacity = size;
	storage->bytes = malloc(size ? (size_t)size : 1);
	ck_assert_ptr_nonnull(storage->bytes);
	for (uint64_t i = 0; i < size; i++)
		storage->bytes[i] = storage_pattern(i);
	return storage;
}

void storage_free(struct storage *storage)
{
	pthread_cond_destroy(&storage->changed);
	pthread_mutex_destroy(&storage->lock);
	free(storage->bytes);
	free(storage);
}

/* Into a call: count it, hang if told to; what the script says of it. */
static int64_t enter_call(struct storage *storage, enum storage_op op)
{
	int64_t answer = AS_USUAL;

	if (storage->hook)
		storage->hook(storage, op);
	SCOPED_LOCK(&storage->lock);
	storage->calls[op]++;
	storage->held++;
	pthread_cond_broadcast(&storage->changed);
	while (storage->hold)
		pthread_cond_wait(&storage->changed, &storage->lock);
	storage->held--;
	if (storage->script_at < storage->script_len)
		answer = storage->script[storage->script_at++];
	return answer;
}

static bool is_aligned(const struct storage *storage, const struct iovec *iov,
		       int n_iov, uint64_t offset)
{
	if (!storage->block_bytes)
		return true;
	for (int i = 0; i < n_iov; i++)
		if ((uintptr_t)iov[i].iov_base % storage->mem_align ||
		    iov[i].iov_len % storage->block_bytes)
			return false;
	return offset % storage->block_bytes == 0;
}

static ssize_t move(struct storage *storage, enum storage_op op,
		    const struct iovec *iov, int n_iov, uint64_t offset)
{
	const int64_t answer = enter_call(storage, op);
	uint64_t most = answer == AS_USUAL ? UINT64_MAX : (uint64_t)answer;
	ssize_t moved = 0;

	if (answer < 0 && answer != AS_USUAL)
		return (ssize_t)answer;
	if (!is_aligned(storage, iov, n_iov, offset))
		return -EINVAL;
	SCOPED_LOCK(&storage->lock);
	for (int i = 0; i < n_iov; i++) {
		const uint64_t at = offset + (uint64_t)moved;
		uint64_t n = MIN(iov[i].iov_len, most - (uint64_t)moved);

		n = at < storage->size ? MIN(n, storage->size - at) : 0;
		if (op == OP_READ)
			memcpy(iov[i].iov_base, storage->bytes + at, (size_t)n);
		else
			memcpy(storage->bytes + at, iov[i].iov_base, (size_t)n);
		moved += (ssize_t)n;
	}
	return moved + storage->overlong;
}

static ssize_t storage_preadv(void *userdata, const struct iovec *iov,
			      int n_iov, uint64_t offset)
{
	return move((struct storage *)userdata, OP_READ, iov, n_iov, offset);
}

static ssize_t storage_pwritev(void *userdata, const struct iovec *iov,
			       int n_iov, uint64_t offset)
{
	return move((struct storage *)userdata, OP_WRITE, iov, n_iov, offset);
}

static int storage_flush(void *userdata)
{
	const int64_t answer = enter_call((struct storage *)userdata, OP_FLUSH);

	return answer == AS_USUAL ? 0 : (int)answer;
}

/* What is discarded is 0xdd afterwards: the guest may not count on it. */
static int change(struct storage *storage, enum storage_op op, uint64_t offset,
		  uint64_t length, uint32_t flags)
{
	const int64_t answer = enter_call(storage, op);

	if (answer < 0 && answer != AS_USUAL)
		return (int)answer;
	SCOPED_LOCK(&storage->lock);
	storage->range_offset = offset;
	storage->range_length = length;
	storage->range_flags = flags;
	storage->range_total += length;
	if (offset > storage->size || length > storage->size - offset)
		return -EINVAL;
	memset(storage->bytes + offset, op == OP_DISCARD ? 0xdd : 0,
	       (size_t)length);
	return 0;
}

static int storage_discard(void *userdata, uint64_t offset, uint64_t length)
{
	return change((struct storage *)userdata, OP_DISCARD, offset, length,
		      0);
}

static int storage_write_zeroes(void *userdata, uint64_t offset,
				uint64_t length, uint32_t flags)
{
	return change((struct storage *)userdata, OP_WRITE_ZEROES, offset,
		      length, flags);
}

static int storage_capacity(void *userdata, uint64_t *ret_bytes)
{
	const struct storage *storage = (const struct storage *)userdata;

	if (storage->capacity_error)
		return storage->capacity_error;
	*ret_bytes = storage->capacity;
	return 0;
}

static void storage_release(void *userdata)
{
	struct storage *storage = (struct storage *)userdata;

	SCOPED_LOCK(&storage->lock);
	storage->released++;
	pthread_cond_broadcast(&storage->changed);
}

static struct ktvblk_backend *make_backend(struct storage *storage,
					   int (*submit)(void *userdata,
							 struct ktvblk_io *io),
					   unsigned int lacks)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = storage_preadv,
		.pwritev = storage_pwritev,
		.flush = storage_flush,
		.capacity = storage_capacity,
		.release = storage_release,
		.submit = submit,
		.submit_flags = submit ? KTVBLK_SUBMIT_DISCARD |
						 KTVBLK_SUBMIT_WRITE_ZEROES
				       : 0,
		.discard = lacks & NO_DISCARD ? NULL : storage_discard,
		.write_zeroes = lacks & NO_WRITE_ZEROES ? NULL
							: storage_write_zeroes,
	};
	struct ktvblk_backend *backend = NULL;

	ck_assert_int_eq(ktvblk_backend_new(&ops, storage, &backend), 0);
	return backend;
}

struct ktvblk_backend *
storage_submit_backend(struct storage *storage,
		       int (*submit)(void *userdata, struct ktvblk_io *io))
{
	return make_backend(storage, submit, 0);
}

struct ktvblk_backend *storage_backend(struct storage *storage)
{
	return make_backend(storage, NULL, 0);
}

struct ktvblk_backend *storage_less_backend(struct storage *storage,
					    unsigned int lacks)
{
	return make_backend(storage, NULL, lacks);
}

ssize_t storage_perform(struct storage *storage, const struct ktvblk_io *io)
{
	if (io->op > KTVBLK_IO_FLUSH)
		return change(storage, (enum storage_op)io->op, io->offset,
			      io->length, io->flags);
	if (io->op == KTVBLK_IO_FLUSH)
		return storage_flush(storage);
	return move(storage, io->op == KTVBLK_IO_READ ? OP_READ : OP_WRITE,
		    io->iov, io->n_iov, io->offset);
}

struct ktvblk_backend *storage_file_backend(struct storage *storage, int fd)
{
	struct ktvblk_backend *backend = NULL;

	ck_assert_int_eq(ktvblk_backend_new_fd(fd, storage_release, storage,
					       &backend),
			 0);
	close(fd);
	return backend;
}

void storage_script(struct storage *storage, const int64_t *answers,
		    unsigned int n)
{
	SCOPED_LOCK(&storage->lock);
	ck_assert_uint_le(n, STORAGE_SCRIPT_MAX);
	memcpy(storage->script, answers, n * sizeof(*answers));
	storage->script_len = n;
	storage->script_at = 0;
}

void storage_hold(struct storage *storage)
{
	SCOPED_LOCK(&storage->lock);
	storage->hold = true;
}

/* Wait, with the lock, until the count is there. */
static void wait_for(struct storage *storage, const unsigned int *count,
		     unsigned int n)
{
	const struct timespec until =
		ns_to_timespec(now_ns() + WAIT_MS * NSEC_PER_MSEC);
	int r = 0;

	while (*count < n && r == 0)
		r = pthread_cond_timedwait(&storage->changed, &storage->lock,
					   &until);
	ck_assert_msg(*count >= n, "storage: waited in vain for %u", n);
}

void storage_wait_held(struct storage *storage, unsigned int n)
{
	SCOPED_LOCK(&storage->lock);
	wait_for(storage, &storage->held, n);
}

void storage_let_go(struct storage *storage)
{
	SCOPED_LOCK(&storage->lock);
	storage->hold = false;
	pthread_cond_broadcast(&storage->changed);
}

void storage_wait_released(struct storage *storage)
{
	SCOPED_LOCK(&storage->lock);
	wait_for(storage, &storage->released, 1);
}

unsigned int storage_calls(struct storage *storage, enum storage_op op)
{
	SCOPED_LOCK(&storage->lock);
	return storage->calls[op];
}
