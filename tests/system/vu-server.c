/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vu-server SOCKET FILE [QUEUES]: serve a file to vhost-user front ends, one after
 * another, until SIGTERM. For tests that have a real one.
 */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ktvblk.h"

/* One line for each record: what has come, and of what. */
static void say(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	printf("%s:", record->message);
	for (size_t i = 0; i < record->n_fields; i++)
		if (!strncmp(record->fields[i], "KTVBLK_", 7))
			printf(" %s", record->fields[i]);
	printf("\n");
	fflush(stdout);
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unlink(path);
	strncpy(addr.sun_path, path, sizeof(addr.sun_path) - 1);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, 8) < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev;
	enum ktvblk_outcome outcome;
	sigset_t signals;
	int fd, r, signal;

	if (argc < 3)
		return 2;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	ktvblk_set_log_handler(say, NULL, NULL);
	fd = open(argv[2], O_RDWR | O_CLOEXEC);
	r = ktvblk_backend_new_fd(fd, NULL, NULL, &config.backend);
	config.name = argv[2];
	config.n_queues = argc > 3 ? (uint32_t)atoi(argv[3]) : 1;
	if (r == 0)
		r = ktvblk_new(&config, &dev);
	if (r == 0)
		r = ktvblk_vhost_user_start(dev, listen_at(argv[1]), 0);
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", argv[2], strerror(-r));
		return 1;
	}
	ktvblk_backend_unref(config.backend);
	sigwait(&signals, &signal);
	outcome = ktvblk_destroy(dev);
	printf("%s\n", ktvblk_outcome_name(outcome));
	return outcome == KTVBLK_JOINED ? 0 : 3;
}
