/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ktvblk-serve(1): from what is asked to the exit status. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "capabilities.h"
#include "guard.h"
#include "listener.h"
#include "options.h"
#include "say.h"
#include "serve.h"

const char program_name[] = PROGRAM;

#define BUDGET_MS 1000 /* the library's */

/* Or the image, or a socket, would have the number of one of them. */
static void fill_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	struct options options;
	struct server server = { .options = &options };
	struct guarded guarded = { .serve = serve, .userdata = &server };
	int r;

	fill_stdio();
	signal(SIGPIPE, SIG_IGN);
	r = options_parse(argc, argv, &options);
	if (r < 0)
		return STATUS_USAGE;
	if (r > 0)
		return fflush(stdout) == 0 ? STATUS_GOOD : STATUS_FAILED;
	if (options.capabilities)
		return capabilities_print();
	server.listener = listener_inherit(&options);
	if (server.listener < LISTENER_PATH)
		return -1 - server.listener;
	guarded.fd = server.listener;
	/* The process systemd knows is this one; the child tells by it. */
	if (sd_watchdog_enabled(0, &server.watchdog_us) <= 0)
		server.watchdog_us = 0;
	guarded.budget_ms = options.config.destroy_timeout_ms
				    ? options.config.destroy_timeout_ms
				    : BUDGET_MS;
	return guard_run(&guarded);
}
