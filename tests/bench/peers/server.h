/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PEERS_SERVER_H
#define PEERS_SERVER_H

/* Programs that serve a file by vhost-user-blk, each in a process of its own. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum peer {
	PEER_SERVE, /* ours, fenced as it is by default */
	PEER_SERVE_ZERO_COPY,
	PEER_QSD_IO_URING, /* qemu-storage-daemon with an iothread */
	PEER_QSD_THREADS,
	PEERS
};

const char *peer_name(enum peer peer);

/* With the child that it serves from; 0: it has none. */
struct server {
	pid_t pid, child;
	int pid_fd;
};

/*
 * Serve this file to who connects to the socket that listens, all of it on this
 * CPU. False: there is no such program. It ends when we do.
 */
bool server_start(struct server *server, enum peer peer, int file_fd,
		  bool direct, int listen_fd, uint32_t cpu);
void server_stop(struct server *server);

/* Once it serves: what its child is. */
void server_find_child(struct server *server);

/* Of both. */
uint64_t server_cpu_ns(const struct server *server);
uint64_t server_idle_switches(const struct server *server, unsigned int for_ms);

#endif
