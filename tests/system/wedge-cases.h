/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_WEDGE_CASES_H
#define TEST_WEDGE_CASES_H

/* The cases that are no row of the table in wedge.c. */

#include "disk.h"
#include "recorder.h"
#include "runner.h"

extern const struct system_case race_cases[4];
extern const struct system_case more_cases[31];
extern const struct system_case durable_cases[5];
extern const struct system_case depth_cases[22];
extern const struct system_case lock_cases[8];
extern const struct system_case front_cases[14];

/* The budget of most. */
#define BUDGET_MS 60u
/* The stall_warn_ms of those whose records are counted: none is of a stall. */
#define UNWARNED_MS 3600000u

/* What a record says of who is stuck, as it is printed. */
void note_stuck(const char *outcome, const struct kept_record *record);

/* The field is there, once, with this value. */
void check_field(const struct kept_record *record, const char *key,
		 const char *value);

/* The threads the kernel has made for what this worker gave to io_uring. */
struct helpers {
	unsigned int n_busy; /* they do not wait for work */
	bool all_sleep;
};
struct helpers helpers_of(pid_t worker);

/* It waits for completions, and what is out has gone as far as it goes. */
bool worker_waits(pid_t worker);

/*
 * The record says of those threads what can be seen now, while all of it is
 * stuck: how many, one of them and where it is; or that there is none.
 */
void check_helpers(const struct kept_record *record, pid_t worker);

/* No thread and no ring, and no more descriptors than this. */
void check_nothing_left(unsigned int n_fds);

#endif
