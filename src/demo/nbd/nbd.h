/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef NBD_NBD_H
#define NBD_NBD_H

/*
 * Storage on an NBD server, by libnbd: an example of storage that answers
 * later, and of what is the storage's own business then. This file and nbd.c
 * need nothing else of the demo: copy them.
 *
 * Where the connection is lost, what was with the server is kept, asked again
 * when there is a server with the same export, and meanwhile not answered: to
 * the guest its disk is slow, and to the device it may stall. A server that
 * lives and says nothing is waited for. None of this keeps the device from its
 * reset or destroy. ktvblk_refresh_capacity() has the server asked for its size by
 * another connection, and the first one is made again where that has changed.
 */

#include <ktvblk.h>

struct nbd_storage;

/*
 * The server's end loses no write that it has answered, as where it serves a
 * file, and the machine goes on. Without this, one flush is an error for each
 * time that the connection is lost with writes that were not flushed.
 */
#define NBD_STORAGE_KEEPS_WRITES 1u

/*
 * Connect, which takes at most some seconds (and what a host's name takes to be
 * found). *ret_storage is there as long as *ret_backend.
 *   -EINVAL      the URI, or a server whose blocks are larger than a sector
 *   -ETIMEDOUT   no answer
 *   and what libnbd says
 */
int nbd_storage_new(const char *uri, unsigned int flags,
		    struct nbd_storage **ret_storage,
		    struct ktvblk_backend **ret_backend);

/*
 * Nobody wants the answers any more: all there is to answer, and all that is
 * asked from now on, is -EIO, and guest memory that a destroyed device had to
 * leave with the server comes back. From any thread.
 */
void nbd_storage_abandon(struct nbd_storage *storage);

#endif
