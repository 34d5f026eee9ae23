/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_API_H
#define BENCH_API_H

/*
 * A build of the library, loaded by its path, so that two can be measured in
 * one run. Its functions without their prefix: api->new(&config, &dev).
 */

#include "ktvblk.h"

#define API_FUNCTIONS(X)                                                       \
	X(version)                                                             \
	X(mem_new)                                                             \
	X(mem_unref)                                                           \
	X(backend_new)                                                         \
	X(backend_new_fd)                                                      \
	X(backend_unref)                                                       \
	X(new)                                                                 \
	X(destroy)                                                             \
	X(set_memory)                                                          \
	X(set_worker_cpus)                                                     \
	X(mmio_read)                                                           \
	X(mmio_write)                                                          \
	X(kick_fd)                                                             \
	X(irq_fd)                                                              \
	X(set_log_handler)

struct api {
	const char *path;
#define API_MEMBER(name) __typeof__(&ktvblk_##name) name;
	API_FUNCTIONS(API_MEMBER)
#undef API_MEMBER
};

/* Ends the program if it cannot. */
void api_load(struct api *api, const char *path);

#endif
