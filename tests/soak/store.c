/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A disk that stays, whichever way its device gets at it: calls and answers on a
 * mapping of its file, or the file itself. All but the file can be made to hang.
 */

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "harness.h"
#include "soak.h"

static ssize_t move(struct guest *guest, const struct iovec *iov, int n_iov,
		    uint64_t offset, bool in)
{
	ssize_t moved = 0;

	for (int i = 0; i < n_iov; i++) {
		unsigned char *at = guest->disk + offset + moved;

		must(guest, offset + (uint64_t)moved + iov[i].iov_len <=
				    SOAK_DISK_BYTES);
		if (in)
			memcpy(iov[i].iov_base, at, iov[i].iov_len);
		else
			memcpy(at, iov[i].iov_base, iov[i].iov_len);
		moved += (ssize_t)iov[i].iov_len;
	}
	return moved;
}

/* A system call that nothing ends but us. */
static void pass_gate(struct guest *guest)
{
	struct pollfd gate = { .fd = guest->gate_fd, .events = POLLIN };

	if (!guest->hold)
		return;
	guest->calls_held++;
	must(guest, poll(&gate, 1, -1) == 1);
	guest->calls_held--;
}

static ssize_t soak_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	struct guest *guest = (struct guest *)userdata;

	pass_gate(guest);
	return move(guest, iov, n_iov, offset, true);
}

static ssize_t soak_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	struct guest *guest = (struct guest *)userdata;

	pass_gate(guest);
	return move(guest, iov, n_iov, offset, false);
}

static int soak_flush(void *userdata)
{
	pass_gate((struct guest *)userdata);
	return 0;
}

static int soak_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = SOAK_DISK_BYTES;
	return 0;
}

static void soak_release(void *userdata)
{
	((struct guest *)userdata)->storage_released++;
}

static int soak_submit(void *userdata, struct ktvblk_io *io)
{
	struct guest *guest = (struct guest *)userdata;
	struct answers *later = &guest->later;

	SCOPED_LOCK(&later->lock);
	must(guest, later->n < ARRAY_SIZE(later->ios));
	later->ios[later->n++] = io;
	pthread_cond_signal(&later->changed);
	return 0;
}

/*
 * What it answers: now and then interrupted, or but a part of what was to be
 * read. Never of a write, which is to happen as a whole or not at all.
 */
static ssize_t perform(struct guest *guest, const struct ktvblk_io *io,
		       uint64_t dice)
{
	ssize_t n;

	if (io->op == KTVBLK_IO_FLUSH)
		return 0;
	if (dice % 64 == 0)
		return -EINTR;
	n = move(guest, io->iov, io->n_iov, io->offset,
		 io->op == KTVBLK_IO_READ);
	if (io->op == KTVBLK_IO_READ && dice % 64 == 1)
		n = MAX(n / 2, 1);
	return n;
}

/* With the lock: one of them, or NULL. The first hangs while `hold` is set. */
static struct ktvblk_io *pick(struct guest *guest, uint64_t dice)
{
	struct answers *later = &guest->later;
	const unsigned int n_stuck = guest->hold ? 1 : 0;
	struct ktvblk_io *io;
	unsigned int i;

	later->n_held = MIN(later->n, n_stuck);
	if (later->n <= n_stuck)
		return NULL;
	i = n_stuck + (unsigned int)(dice % (later->n - n_stuck));
	io = later->ios[i];
	later->n--;
	memmove(&later->ios[i], &later->ios[i + 1],
		(later->n - i) * sizeof(struct ktvblk_io *));
	return io;
}

static uint64_t roll(uint64_t *dice)
{
	*dice = *dice * UINT64_C(6364136223846793005) + 1442695040888963407;
	return *dice >> 33;
}

/* Answers, in any order, sometimes after a while. */
static void *answer_main(void *arg)
{
	struct guest *guest = (struct guest *)arg;
	struct answers *later = &guest->later;

	pthread_mutex_lock(&later->lock);
	while (!later->ends || later->n) {
		const struct timespec nap =
			ns_to_timespec(roll(&later->dice) % 200000);
		struct ktvblk_io *io = pick(guest, roll(&later->dice));

		if (!io) {
			pthread_cond_wait(&later->changed, &later->lock);
			continue;
		}
		pthread_mutex_unlock(&later->lock);
		if (roll(&later->dice) % 16 == 0)
			nanosleep(&nap, NULL);
		must(guest,
		     ktvblk_io_complete(io, perform(guest, io,
						    roll(&later->dice))) == 0);
		pthread_mutex_lock(&later->lock);
	}
	pthread_mutex_unlock(&later->lock);
	return NULL;
}

static void set_hold(struct guest *guest, bool hold)
{
	SCOPED_LOCK(&guest->later.lock);
	guest->hold = hold;
	pthread_cond_signal(&guest->later.changed);
}

unsigned int store_held(struct guest *guest)
{
	return guest->calls_held + guest->later.n_held;
}

bool store_hold(struct guest *guest)
{
	uint64_t n;

	if (guest->way == WAY_FILE)
		return false;
	/* Those that were held before have seen that they are not. */
	must(guest, eventually(store_held(guest) == 0));
	must(guest, read(guest->gate_fd, &n, sizeof(n)) == sizeof(n));
	set_hold(guest, true);
	return true;
}

void store_let_go(struct guest *guest)
{
	const uint64_t one = 1;

	set_hold(guest, false);
	must(guest, write(guest->gate_fd, &one, sizeof(one)) == sizeof(one));
}

/* Where they are refused, as for O_DIRECT on some file systems, without. */
static int file_backend(struct guest *guest, struct ktvblk_backend **ret)
{
	char path[64];
	int fd = -1, r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", guest->disk_fd);
	if (soak_random(guest, 2))
		fd = open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
	if (fd < 0)
		fd = open(path, O_RDWR | O_CLOEXEC);
	must(guest, fd >= 0);
	r = ktvblk_backend_new_fd(fd, soak_release, guest, ret);
	close(fd);
	return r;
}

struct ktvblk_backend *store_backend(struct guest *guest)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = soak_preadv,
		.pwritev = soak_pwritev,
		.flush = soak_flush,
		.capacity = soak_capacity,
		.release = soak_release,
		.submit = guest->way == WAY_LATER ? soak_submit : NULL,
	};
	struct ktvblk_backend *backend = NULL;

	if (guest->way == WAY_FILE)
		must(guest, file_backend(guest, &backend) == 0);
	else
		must(guest, ktvblk_backend_new(&ops, guest, &backend) == 0);
	return backend;
}

void store_open(struct guest *guest)
{
	void *map;

	/* Here, where O_DIRECT is there as a rule. */
	guest->disk_fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (guest->disk_fd < 0)
		guest->disk_fd = memfd_create("soak", MFD_CLOEXEC);
	must(guest, guest->disk_fd >= 0);
	must(guest, ftruncate(guest->disk_fd, SOAK_DISK_BYTES) == 0);
	map = mmap(NULL, SOAK_DISK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		   guest->disk_fd, 0);
	must(guest, map != MAP_FAILED);
	guest->disk = (unsigned char *)map;
	guest->gate_fd = eventfd(1, EFD_CLOEXEC);
	must(guest, guest->gate_fd >= 0);
	pthread_mutex_init(&guest->later.lock, NULL);
	cond_init(&guest->later.changed);
	guest->later.dice = guest->random;
	must(guest, pthread_create(&guest->later.thread, NULL, answer_main,
				   guest) == 0);
}

void store_close(struct guest *guest)
{
	struct answers *later = &guest->later;

	pthread_mutex_lock(&later->lock);
	later->ends = true;
	pthread_cond_signal(&later->changed);
	pthread_mutex_unlock(&later->lock);
	pthread_join(later->thread, NULL);
	pthread_cond_destroy(&later->changed);
	pthread_mutex_destroy(&later->lock);
	close(guest->gate_fd);
	munmap(guest->disk, SOAK_DISK_BYTES);
	close(guest->disk_fd);
}
