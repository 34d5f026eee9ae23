/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PEERS_CLIENT_H
#define PEERS_CLIENT_H

/*
 * The front end of the unit tests, with shared memory, and the benchmark's
 * driver on its queue; and the server they have.
 */

#include "../driver.h"
#include "server.h"

struct client;

/*
 * Start the server and set up a queue with it. NULL with a reason: it is not to
 * be had here.
 */
struct client *client_open(enum peer peer, const struct bench_case *what,
			   int file_fd, uint32_t cpu, const char **ret_why);
void client_close(struct client *client);

/* driver_run(), and the server's CPU time. */
void client_run(struct client *client, uint64_t for_ns, struct run *run);

const struct server *client_server(const struct client *client);

#endif
