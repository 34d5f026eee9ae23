/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_SERVE_H
#define SERVE_SERVE_H

/* The disk's life: a device, a socket, and what comes meanwhile. */

#include "options.h"

struct server {
	const struct options *options;
	int listener; /* inherited; LISTENER_PATH */
	uint64_t watchdog_us; /* how often systemd wants a sign of life; 0 */
};

/* In the child: the exit status. */
int serve(void *server);

#endif
