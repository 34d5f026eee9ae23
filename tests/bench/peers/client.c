/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See client.h. */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "front-end.h"

#define ANSWER_MS 10000

struct client {
	struct front_end front;
	struct driver driver;
	struct server server;
};

/* False: it has ended instead, after it said why. */
static bool answers(struct client *client)
{
	union vu_payload answer;
	struct pollfd fds[] = {
		{ .fd = client->front.fd, .events = POLLIN },
		{ .fd = client->server.pid_fd, .events = POLLIN },
	};

	front_send(&client->front, VU_GET_FEATURES, 0, NULL, 0, NULL, 0);
	if (poll(fds, ARRAY_SIZE(fds), ANSWER_MS) <= 0)
		die("a server does not answer");
	if (fds[1].revents)
		return false;
	front_receive(&client->front, VU_GET_FEATURES, &answer, NULL);
	return true;
}

static void start_queue(struct client *client, const struct bench_case *what)
{
	struct front_end *front = &client->front;
	struct driver *driver = &client->driver;

	if (driver_ram_bytes(what, what->depth) > RIG_RAM_BYTES)
		die("%s: too much for guest memory", what->name);
	driver_open(driver, what, front->rig.ram);
	driver->kick_fd = front->kicks[0];
	driver->irq_fd = front->calls[0];
	driver_set_up_queue(driver, RIG_DESC, RIG_AVAIL, RIG_USED);
	front->rig.options.features = RIG_EVENT_IDX | RIG_INDIRECT_DESC;
	front->protocol = UINT64_C(1) << VU_P_REPLY_ACK;
	front_start(front);
}

struct client *client_open(enum peer peer, const struct bench_case *what,
			   int file_fd, uint32_t cpu, const char **ret_why)
{
	struct client *client = (struct client *)calloc(1, sizeof(*client));

	if (!client)
		die("%s", strerror(errno));
	front_open_alone(&client->front, driver_queue_size(what));
	if (!server_start(&client->server, peer, file_fd,
			  what->store == STORE_DIRECT, client->front.listen_fd,
			  cpu)) {
		*ret_why = "not installed";
		goto none;
	}
	front_connect(&client->front);
	if (!answers(client)) {
		server_stop(&client->server);
		*ret_why = "it does not start";
		goto none;
	}
	server_find_child(&client->server);
	start_queue(client, what);
	return client;

none:
	front_free_alone(&client->front);
	free(client);
	return NULL;
}

void client_close(struct client *client)
{
	front_stop(&client->front, 0);
	front_disconnect(&client->front);
	server_stop(&client->server);
	front_free_alone(&client->front);
	free(client);
}

void client_run(struct client *client, uint64_t for_ns, struct run *run)
{
	const uint64_t cpu_ns = server_cpu_ns(&client->server);

	driver_run(&client->driver, for_ns, run);
	run->worker_cpu_ns = server_cpu_ns(&client->server) - cpu_ns;
}

const struct server *client_server(const struct client *client)
{
	return &client->server;
}
