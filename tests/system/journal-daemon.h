/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_JOURNAL_DAEMON_H
#define TEST_JOURNAL_DAEMON_H

/* A journald that has troubles. */

#include "runner.h"

extern const struct system_case daemon_cases[8];

#endif
