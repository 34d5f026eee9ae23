/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_STORAGE_H
#define SERVE_STORAGE_H

/* Where the disk's sectors are: a file, or an NBD server. */

#include "options.h"

struct nbd_storage;

struct storage {
	struct ktvblk_backend *backend;
	struct nbd_storage *nbd; /* NULL: a file */
};

/* 0; or a negative exit status, told on stderr. */
int storage_open(const struct options *options, struct storage *ret_storage);

/* Nobody wants what is still out. */
void storage_abandon(struct storage *storage);

#endif
