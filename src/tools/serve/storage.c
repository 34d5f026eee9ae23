/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "image.h"
#include "say.h"
#include "storage.h"

static int refuse(const char *what, int error)
{
	complain("%s: %s", what,
		 error == -EINVAL ? "no file, block device or export that can "
				    "be a disk"
				  : strerror(-error));
	return -STATUS_FAILED;
}

static int open_file(const struct options *options,
		     struct ktvblk_backend **ret_backend)
{
	const int fd = image_open(options);
	int r;

	if (fd < 0)
		return fd;
	r = ktvblk_backend_new_fd(fd, NULL, NULL, ret_backend);
	close(fd); /* the backend has its own, and the lock with it */
	return r < 0 ? refuse(options->blk_file, r) : 0;
}

#ifdef SERVE_NBD
#include "../../demo/nbd/nbd.h"

static int open_nbd(const struct options *options, struct storage *storage)
{
	const int r = nbd_storage_new(
		options->nbd_uri,
		options->nbd_keeps_writes ? NBD_STORAGE_KEEPS_WRITES : 0,
		&storage->nbd, &storage->backend);

	return r < 0 ? refuse(options->nbd_uri, r) : 0;
}

void storage_abandon(struct storage *storage)
{
	if (storage->nbd)
		nbd_storage_abandon(storage->nbd);
}
#else
static int open_nbd(const struct options *options, struct storage *storage)
{
	(void)storage;
	complain("--nbd=%s: this program was built without libnbd",
		 options->nbd_uri);
	return -STATUS_FAILED;
}

void storage_abandon(struct storage *storage)
{
	(void)storage;
}
#endif

int storage_open(const struct options *options, struct storage *ret_storage)
{
	*ret_storage = (struct storage){ 0 };
	return options->nbd_uri ? open_nbd(options, ret_storage)
				: open_file(options, &ret_storage->backend);
}
