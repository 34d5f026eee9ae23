/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See event.h. */

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "event.h"
#include "say.h"

int event_new(void)
{
	const int event = eventfd(0, EFD_CLOEXEC);

	if (event < 0)
		die("no eventfd: %s", strerror(errno));
	return event;
}

void event_signal(int event)
{
	const uint64_t one = 1;

	if (write(event, &one, sizeof(one)) < 0)
		die("cannot write an eventfd: %s", strerror(errno));
}

bool event_await(int event, int timeout_ms)
{
	struct pollfd pollfd = { .fd = event, .events = POLLIN };
	uint64_t count;

	if (timeout_ms != FOR_EVER && poll(&pollfd, 1, timeout_ms) != 1)
		return false;
	return read(event, &count, sizeof(count)) == sizeof(count);
}
