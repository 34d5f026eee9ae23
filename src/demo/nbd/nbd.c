/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See nbd.h. All of libnbd is called on one thread, which sleeps until the
 * socket is ready or submit() has asked for something:
 *
 *   submit() ──► asked ──► begin() ──► libnbd ──► end_piece() ──► answer
 *                  ▲                                  │
 *                  └──────── the connection was lost ◄┘
 *
 * A request that is asked again may have been done already, which does no harm,
 * unless the server does it once more, for the old connection, after its
 * second answer: so it must be done with a connection when that is lost.
 */

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "nbd.h"

#define PIECE_BYTES (UINT32_C(1) << 20) /* of a request: any server takes it */
#define CONNECT_MS 5000
#define BACK_OFF_MS 50 /* at first: twice as long each time */
#define BACK_OFF_MAX_MS 2000

struct flight {
	struct nbd_storage *storage;
	struct ktvblk_io *io;
	struct flight *next;
	unsigned int n_pieces; /* with libnbd, and one while begin() runs */
	int error;
	uint64_t n_written; /* a flush: this many writes are what it is about */
	unsigned int n_told; /* losses told when it was asked */
};

struct nbd_storage {
	char *uri;
	unsigned int flags;
	int wake_fd;
	pthread_t thread;

	atomic_bool abandoned, closing;
	_Atomic int64_t size; /* capacity() finds another one */
	bool told; /* the size, by capacity() */
	atomic_uint n_told; /* of n_losses: flushes have failed for them */
	pthread_mutex_t lock; /* of these two, and never held for long */
	struct flight *asked; /* and not begun, the first */
	struct flight *last;

	/* The thread's, and before it runs nbd_storage_new()'s. */
	struct nbd_handle *nbd; /* NULL: between two tries */
	bool connected; /* nbd has been of use */
	bool leaving; /* the server is, and will do nothing more */
	int64_t next_ms; /* not connected: when to stop or start to try */
	int64_t back_off_ms;
	int64_t connected_size; /* the server's, for this connection */
	int error; /* of the last try */
	uint64_t n_written, n_durable; /* writes answered, and flushed */
	unsigned int n_losses; /* of writes that were not */
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wake(const struct nbd_storage *storage)
{
	const uint64_t one = 1;
	ssize_t n = write(storage->wake_fd, &one, sizeof(one));

	(void)n; /* EAGAIN: it is awake */
}

/* Append it; true: there was none. */
static bool ask(struct nbd_storage *storage, struct flight *flight)
{
	bool first;

	flight->next = NULL;
	pthread_mutex_lock(&storage->lock);
	first = !storage->asked;
	if (first)
		storage->asked = flight;
	else
		storage->last->next = flight;
	storage->last = flight;
	pthread_mutex_unlock(&storage->lock);
	return first;
}

/* On the device's worker. */
static int submit(void *userdata, struct ktvblk_io *io)
{
	struct nbd_storage *storage = userdata;
	struct flight *flight;

	if (io->op > KTVBLK_IO_FLUSH)
		return -EOPNOTSUPP;
	flight = calloc(1, sizeof(*flight));
	if (!flight)
		return -ENOMEM;
	flight->storage = storage;
	flight->io = io;
	flight->n_told = storage->n_told;
	if (ask(storage, flight))
		wake(storage);
	return 0;
}

/* The io is the device's again, and may be gone when this returns. */
static void answer(struct flight *flight, int error)
{
	struct nbd_storage *storage = flight->storage;
	const struct ktvblk_io *io = flight->io;

	if (io->op == KTVBLK_IO_WRITE && !error)
		storage->n_written++;
	if (io->op == KTVBLK_IO_FLUSH && !error &&
	    storage->n_durable < flight->n_written)
		storage->n_durable = flight->n_written;
	ktvblk_io_complete(flight->io, error ? -error : (ssize_t)io->length);
	free(flight);
}

static void end_piece(struct flight *flight)
{
	if (--flight->n_pieces)
		return;
	if (flight->error == ENOTCONN)
		ask(flight->storage, flight); /* again: see begin_asked() */
	else
		answer(flight, flight->error);
}

/* ENOTCONN stays: then all of it is asked again. */
static void fail(struct flight *flight, int error)
{
	if (error == ESHUTDOWN) {
		flight->storage->leaving = true;
		error = ENOTCONN;
	}
	if (flight->error != ENOTCONN)
		flight->error = error;
}

static int piece_done(void *userdata, int *error)
{
	struct flight *flight = userdata;

	if (*error)
		fail(flight, *error);
	end_piece(flight);
	return 1; /* libnbd may forget it */
}

static bool is_up(struct nbd_handle *nbd)
{
	return nbd_aio_is_ready(nbd) == 1 || nbd_aio_is_processing(nbd) == 1;
}

static void begin_piece(struct flight *flight, void *data, size_t n,
			uint64_t offset)
{
	const nbd_completion_callback done = { .callback = piece_done,
					       .user_data = flight };
	struct nbd_handle *nbd = flight->storage->nbd;
	int64_t r;

	flight->n_pieces++;
	if (flight->io->op == KTVBLK_IO_READ)
		r = nbd_aio_pread(nbd, data, n, offset, done, 0);
	else if (flight->io->op == KTVBLK_IO_WRITE)
		r = nbd_aio_pwrite(nbd, data, n, offset, done, 0);
	else
		r = nbd_aio_flush(nbd, done, 0);
	if (r >= 0)
		return; /* piece_done() may have run */
	fail(flight, nbd_get_errno() ? nbd_get_errno() : EIO);
	if (!is_up(nbd))
		fail(flight, ENOTCONN);
	flight->n_pieces--;
}

static void begin_data(struct flight *flight)
{
	const struct ktvblk_io *io = flight->io;
	uint64_t offset = io->offset;

	for (int i = 0; i < io->n_iov; i++) {
		char *data = io->iov[i].iov_base;
		size_t left = io->iov[i].iov_len;

		while (left) {
			const size_t n = left < PIECE_BYTES ? left
							    : PIECE_BYTES;

			begin_piece(flight, data, n, offset);
			data += n;
			left -= n;
			offset += n;
		}
	}
}

static void begin_flush(struct flight *flight)
{
	struct nbd_storage *storage = flight->storage;

	flight->n_written = storage->n_written;
	if (flight->n_told != storage->n_losses) {
		/* Those asked before somebody heard this fail as well. */
		storage->n_told = storage->n_losses;
		fail(flight, EIO);
	} else if (nbd_can_flush(storage->nbd) == 1) {
		begin_piece(flight, NULL, 0, 0);
	} /* else it has nothing to flush */
}

static void begin(struct flight *flight)
{
	flight->n_pieces = 1;
	flight->error = 0;
	if (flight->storage->abandoned)
		fail(flight, EIO);
	else if (flight->io->op == KTVBLK_IO_FLUSH)
		begin_flush(flight);
	else
		begin_data(flight);
	end_piece(flight);
}

static struct flight *next_asked(struct nbd_storage *storage)
{
	struct flight *flight;

	pthread_mutex_lock(&storage->lock);
	flight = storage->asked;
	if (flight)
		storage->asked = flight->next;
	pthread_mutex_unlock(&storage->lock);
	return flight;
}

static void begin_asked(struct nbd_storage *storage)
{
	struct flight *flight;

	while (storage->abandoned || (storage->connected && !storage->leaving &&
				      is_up(storage->nbd))) {
		flight = next_asked(storage);
		if (!flight)
			break;
		begin(flight);
	}
}

/* A server has one size for a connection: for another one it is made again. */
static bool has_resized(const struct nbd_storage *storage)
{
	return storage->connected && storage->connected_size != storage->size;
}

/* What was out has come back by piece_done(), before the handle said so. */
static void lose(struct nbd_storage *storage)
{
	if (storage->connected && !has_resized(storage) &&
	    storage->n_durable != storage->n_written &&
	    !(storage->flags & NBD_STORAGE_KEEPS_WRITES)) {
		storage->n_losses++;
		storage->n_durable = storage->n_written;
	}
	nbd_close(storage->nbd);
	storage->nbd = NULL;
	storage->connected = storage->leaving = false;
	storage->next_ms = now_ms() + storage->back_off_ms;
	storage->back_off_ms *= 2;
	if (storage->back_off_ms > BACK_OFF_MAX_MS)
		storage->back_off_ms = BACK_OFF_MAX_MS;
}

static void note_error(struct nbd_storage *storage)
{
	storage->error = nbd_get_errno() ? nbd_get_errno() : EIO;
}

static void try_to_connect(struct nbd_storage *storage)
{
	storage->error = ETIMEDOUT;
	storage->next_ms = now_ms() + CONNECT_MS;
	storage->nbd = nbd_create();
	if (storage->nbd &&
	    nbd_set_pread_initialize(storage->nbd, false) == 0 &&
	    nbd_aio_connect_uri(storage->nbd, storage->uri) == 0)
		return;
	note_error(storage);
	lose(storage);
}

/* Another export would be another disk. */
static bool is_the_same(struct nbd_storage *storage)
{
	const int64_t size = nbd_get_size(storage->nbd);

	if (storage->size < 0)
		storage->size = size;
	storage->connected_size = size;
	storage->error = EINVAL;
	return size >= 0 && size == storage->size &&
	       nbd_get_block_size(storage->nbd, LIBNBD_SIZE_MINIMUM) <=
		       KTVBLK_SECTOR_SIZE;
}

static void tend_connection(struct nbd_storage *storage)
{
	struct nbd_handle *nbd = storage->nbd;
	const bool late = now_ms() >= storage->next_ms;

	if (!nbd) {
		if (late && !storage->abandoned)
			try_to_connect(storage);
	} else if (nbd_aio_is_dead(nbd) == 1 || nbd_aio_is_closed(nbd) == 1) {
		lose(storage);
	} else if (storage->connected) {
		/* Ends all that is out, as libnbd will see. */
		if (storage->leaving || storage->abandoned ||
		    has_resized(storage))
			shutdown(nbd_aio_get_fd(nbd), SHUT_RDWR);
	} else if (is_up(nbd) && is_the_same(storage)) {
		storage->connected = true;
		storage->back_off_ms = BACK_OFF_MS;
	} else if (is_up(nbd) || late || storage->abandoned) {
		lose(storage);
	}
}

/* -1: for as long as nothing happens. */
static int patience_ms(const struct nbd_storage *storage)
{
	const bool up = storage->nbd && is_up(storage->nbd);
	const int64_t left = storage->next_ms - now_ms();

	if (up || storage->connected)
		return up && storage->connected ? -1 : 0;
	if (!storage->nbd && storage->abandoned)
		return -1;
	return left > 0 ? (int)left : 0;
}

/* Until the server or submit() has something, or it is time. */
static void wait_and_move(struct nbd_storage *storage)
{
	const short over = POLLHUP | POLLERR;
	struct pollfd fds[2] = { { .fd = storage->wake_fd, .events = POLLIN },
				 { .fd = -1 } };
	unsigned int direction = 0;
	uint64_t count;
	int r = 0;

	if (storage->nbd) {
		direction = nbd_aio_get_direction(storage->nbd);
		fds[1].fd = nbd_aio_get_fd(storage->nbd);
	}
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		fds[1].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		fds[1].events |= POLLOUT;
	if (poll(fds, 2, patience_ms(storage)) <= 0)
		return;
	if (fds[0].revents && read(storage->wake_fd, &count, sizeof(count)) < 0)
		return;
	if (fds[1].revents & (fds[1].events & POLLIN ? POLLIN | over : 0))
		r = nbd_aio_notify_read(storage->nbd);
	else if (fds[1].revents &
		 (fds[1].events & POLLOUT ? POLLOUT | over : 0))
		r = nbd_aio_notify_write(storage->nbd);
	if (r < 0)
		note_error(storage); /* the handle is dead, as is seen next */
}

static void *thread_run(void *userdata)
{
	struct nbd_storage *storage = userdata;

	while (!storage->closing) {
		tend_connection(storage);
		begin_asked(storage);
		wait_and_move(storage);
	}
	return NULL;
}

/* By a connection of its own, in the time that one may take. */
static int64_t ask_size(const char *uri)
{
	const int64_t end_ms = now_ms() + CONNECT_MS;
	struct nbd_handle *nbd = nbd_create();
	int64_t left, size = -ETIMEDOUT;

	if (!nbd || nbd_aio_connect_uri(nbd, uri) < 0)
		size = -(nbd_get_errno() ? nbd_get_errno() : EIO);
	else
		while (nbd_aio_is_connecting(nbd) == 1 &&
		       (left = end_ms - now_ms()) > 0 &&
		       nbd_poll(nbd, (int)left) >= 0)
			;
	if (nbd && is_up(nbd)) {
		size = nbd_get_size(nbd);
		nbd_aio_disconnect(nbd, 0);
	}
	nbd_close(nbd);
	return size;
}

/* First what is known; from then on it is asked, for ktvblk_refresh_capacity(). */
static int capacity(void *userdata, uint64_t *ret_bytes)
{
	struct nbd_storage *storage = userdata;
	int64_t size = storage->size;

	if (storage->told)
		size = ask_size(storage->uri);
	if (size < 0)
		return (int)size;
	storage->told = true;
	if (storage->size != size) {
		storage->size = size;
		wake(storage);
	}
	*ret_bytes = (uint64_t)size;
	return 0;
}

static void free_storage(struct nbd_storage *storage)
{
	nbd_close(storage->nbd);
	close(storage->wake_fd);
	pthread_mutex_destroy(&storage->lock);
	free(storage->uri);
	free(storage);
}

/* All has been answered: while anything is out the device keeps its backend. */
static void release(void *userdata)
{
	struct nbd_storage *storage = userdata;

	storage->closing = true;
	wake(storage);
	pthread_join(storage->thread, NULL);
	if (storage->connected)
		nbd_aio_disconnect(storage->nbd, 0); /* a word, no wait */
	free_storage(storage);
}

/* A VMM's signals are not for this thread. */
static int start_thread(struct nbd_storage *storage)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&storage->thread, NULL, thread_run, storage);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

static int open_storage(struct nbd_storage *storage)
{
	if (!storage->uri || storage->wake_fd < 0)
		return -ENOMEM;
	try_to_connect(storage);
	while (storage->nbd && !storage->connected) {
		wait_and_move(storage);
		tend_connection(storage);
	}
	return storage->connected ? start_thread(storage) : -storage->error;
}

int nbd_storage_new(const char *uri, unsigned int flags,
		    struct nbd_storage **ret_storage,
		    struct ktvblk_backend **ret_backend)
{
	static const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.capacity = capacity,
		.release = release,
		.submit = submit,
	};
	struct nbd_storage *storage = calloc(1, sizeof(*storage));
	int r;

	if (!storage)
		return -ENOMEM;
	pthread_mutex_init(&storage->lock, NULL);
	storage->uri = strdup(uri);
	storage->flags = flags;
	storage->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	storage->size = -1;
	storage->back_off_ms = BACK_OFF_MS;
	r = open_storage(storage);
	if (r < 0) {
		free_storage(storage);
		return r;
	}
	r = ktvblk_backend_new(&ops, storage, ret_backend);
	if (r < 0)
		release(storage);
	else
		*ret_storage = storage;
	return r;
}

void nbd_storage_abandon(struct nbd_storage *storage)
{
	storage->abandoned = true;
	wake(storage);
}
