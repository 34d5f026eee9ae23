/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_WEDGE_CASES_H
#define TEST_WEDGE_CASES_H

/* The cases that are no row of the table in wedge.c. */

#include "disk.h"
#include "recorder.h"
#include "runner.h"

extern const struct system_case race_cases[2];
extern const struct system_case more_cases[14];
extern const struct system_case durable_cases[5];

/* The budget of most. */
#define BUDGET_MS 60u

/* What a record says of the stuck thread, as it is printed. */
void note_stuck(const char *outcome, const struct kept_record *record);

/* The field is there, once, with this value. */
void check_field(const struct kept_record *record, const char *key,
		 const char *value);

#endif
