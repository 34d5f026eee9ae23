/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_JAIL_H
#define TEST_JAIL_H

/*
 * Threads that call the library, each behind a seccomp filter of its own, which
 * the library's threads inherit; and who made which system call.
 */

/* By what they call. */
enum caller {
	BACKEND,
	LOCK,
	NEW,
	MMIO,
	VHOST,
	END,
	PAUSE,
	CHANGE,
	SET,
	N_CALLERS
};

extern const char *const caller_names[N_CALLERS];

/*
 * Start them. NULL: nothing is forbidden, and each call is noted. Else a file
 * of lines "THREAD CALL": what they do not list kills the process, but for
 * io_uring_setup, which is refused then.
 */
void crew_start(const char *allowed);

/*
 * The calling thread is one of them, behind its filter; it must have made no
 * other before, and makes no more of them.
 */
void crew_be(enum caller caller, const char *allowed);

/* Have it done by one of them, and wait. */
void crew_do(enum caller caller, void (*job)(void));

/* A line "THREAD CALL" for each call noted. */
void crew_print_calls(void);

#endif
