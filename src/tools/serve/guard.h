/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_GUARD_H
#define SERVE_GUARD_H

/*
 * Two processes. A process with a thread that is stuck in the kernel cannot end,
 * and who waits for it waits as long: so what is started, watched and waited for
 * is a process that touches no storage, and its child serves. The guard passes
 * signals on, tells systemd what the child says, and ends with the status that
 * the child says, or without it when that takes too long. A child that systemd's
 * watchdog found silent it kills.
 */

#include <stdint.h>

struct guarded {
	int (*serve)(void *userdata); /* the exit status, in the child */
	void *userdata;
	int fd; /* the child's, which the guard closes; -1 */
	uint32_t budget_ms; /* of the child's end */
};

/* Returns in the guard only: the exit status. */
int guard_run(const struct guarded *guarded);

/*
 * In the child.
 */

/* To systemd, as sd_notify(3) has it; nobody need be there. */
__attribute__((format(printf, 1, 2))) void guard_tell(const char *format, ...);

/* Readable when the guard is gone. */
int guard_fd(void);

#endif
