/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_WORKER_H
#define KTVBLK_WORKER_H

/* The thread that serves one session. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "identity.h"

enum token {
	TOKEN_KICK = 1,
	TOKEN_STOP = 2,
	TOKEN_TIMER = 3,
	TOKEN_ENDED = 4, /* a transfer has */
	TOKEN_BELL = 5, /* the driver's own kick */
	TOKEN_COUNT = 5,
};

struct session;

void *worker_main(void *session);

/* What a batch of events asks for. */
struct wake {
	bool stop;
	bool kick;
	bool bell;
	bool timer;
	bool ended;
};

/* Events behind a stop are not looked at. Records what should not happen. */
struct wake worker_dispatch(const struct epoll_event *events, int n,
			    const struct identity *id);

/* What to do after a drain that could go on only in wait_ns. */
enum retry_action {
	RETRY_NOT, /* it went on to the end */
	RETRY_NOW,
	RETRY_LATER,
};

struct retry {
	enum retry_action action;
	uint64_t wait_ns; /* for the timer, never 0 */
};

uint64_t retry_clamp_ns(uint64_t wait_ns);
struct retry retry_decide(bool stalled, uint64_t wait_ns);

#endif
