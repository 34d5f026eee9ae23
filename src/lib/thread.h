/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_THREAD_H
#define KTVBLK_THREAD_H

/*
 * Threads of ours, all made the same way: the VMM's signals are not for them,
 * but those that a fault raises are for whoever raised it, so a handler of the
 * VMM's sees them; and their stacks are small, so that a VMM that locks its
 * memory does not pay 8 MiB for each.
 */

#include <pthread.h>
#include <stddef.h>

/* 0 or -errno. */
int thread_start(pthread_t *thread, void *(*main)(void *), void *arg);

/* The same, on a stack that stays the caller's; NULL: as above. */
int thread_start_on(pthread_t *thread, void *stack, size_t stack_bytes,
		    void *(*main)(void *), void *arg);

#endif
