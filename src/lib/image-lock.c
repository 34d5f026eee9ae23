/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One image, one writer. QEMU tells what it does to an image, and what others
 * must not do meanwhile, by shared locks on single bytes far inside the file:
 * one for each permission at a base, one for each that it does not share at
 * another. All are locked first, and then is looked who has the opposite ones:
 * of two who come at once none wins, but never both.
 *
 * The locks are the open file description's. So they last as long as anybody
 * has that: a backend's duplicate, a call that is stuck in it, the kernel's own
 * thread that makes it.
 */

#include <fcntl.h>

#include "ktvblk.h"
#include "util.h"

#define BASE_DOES 100
#define BASE_KEEPS_OTHERS_FROM 200

enum permission {
	PERMISSION_READ = 1 << 0,
	PERMISSION_WRITE = 1 << 1,
	PERMISSION_RESIZE = 1 << 3,
	PERMISSIONS_END = 1 << 4,
};

/* A shared lock goes with any number of others: nobody waits for it. */
static int set_byte(int fd, short type, off_t at)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = at,
		.l_len = 1,
	};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
}

/* -EBUSY: another open file has a lock there, of whichever kind. */
static int look_at_byte(int fd, off_t at, pid_t *ret_holder)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = at,
		.l_len = 1,
	};

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	if (lock.l_type == F_UNLCK)
		return 0;
	/* -1: of an open file; 0 and less: of what has no number here. */
	*ret_holder = lock.l_pid > 0 ? lock.l_pid : 0;
	return -EBUSY;
}

static int set_bytes(int fd, short type, off_t base, unsigned int permissions)
{
	int r = 0;

	for (unsigned int i = 0; r == 0 && 1u << i < PERMISSIONS_END; i++)
		if (permissions & 1u << i)
			r = set_byte(fd, type, base + i);
	return r;
}

static int look_at_bytes(int fd, off_t base, unsigned int permissions,
			 pid_t *ret_holder)
{
	int r = 0;

	for (unsigned int i = 0; r == 0 && 1u << i < PERMISSIONS_END; i++)
		if (permissions & 1u << i)
			r = look_at_byte(fd, base + i, ret_holder);
	return r;
}

static void unlock(int fd)
{
	set_bytes(fd, F_UNLCK, BASE_DOES, PERMISSIONS_END - 1);
	set_bytes(fd, F_UNLCK, BASE_KEEPS_OTHERS_FROM, PERMISSIONS_END - 1);
}

int ktvblk_image_lock(int fd, uint64_t flags, pid_t *ret_holder)
{
	const unsigned int does = flags & KTVBLK_READ_ONLY
					  ? PERMISSION_READ
					  : PERMISSION_READ | PERMISSION_WRITE;
	const unsigned int keeps = PERMISSION_WRITE | PERMISSION_RESIZE;
	pid_t holder = 0;
	int r;

	if (flags & ~KTVBLK_READ_ONLY)
		return -EINVAL;
	r = set_bytes(fd, F_RDLCK, BASE_DOES, does);
	if (r == 0)
		r = set_bytes(fd, F_RDLCK, BASE_KEEPS_OTHERS_FROM, keeps);
	if (r == 0)
		r = look_at_bytes(fd, BASE_KEEPS_OTHERS_FROM, does, &holder);
	if (r == 0)
		r = look_at_bytes(fd, BASE_DOES, keeps, &holder);
	if (r == 0) /* of an earlier call */
		r = set_bytes(fd, F_UNLCK, BASE_DOES,
			      (PERMISSIONS_END - 1) & ~does);
	if (r < 0)
		unlock(fd);
	if (r == -EBUSY && ret_holder)
		*ret_holder = holder;
	return r;
}
