/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

/* Where the sectors lie. */

#include "api.h"
#include "case.h"

struct store {
	enum store_kind kind;
	int fd; /* -1 for STORE_NULL */
};

/*
 * DISK_BYTES of it, written once, the files below the directory. False with a
 * reason: it is not to be had here.
 */
bool store_open(struct store *store, enum store_kind kind,
		const char *directory, const char **ret_why);
void store_close(struct store *store);

struct ktvblk_backend *store_backend(const struct store *store,
				     const struct api *api);

#endif
