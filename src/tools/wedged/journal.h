/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_JOURNAL_H
#define WEDGED_JOURNAL_H

#include <systemd/sd-journal.h>

#include "query.h"
#include "record.h"

/* Restrict a journal to the records that are looked at. 0 or -errno. */
int journal_restrict(sd_journal *journal, const struct query *query);

/*
 * Open the journal, with every trouble told on stderr. 0, or -errno.
 */
int journal_open(const struct query *query, sd_journal **ret_journal);

/*
 * Go on to the next record: 1 with one, 0 at the end, or -errno. What cannot be
 * understood is told on stderr, and makes *trouble true.
 */
int journal_next(sd_journal *journal, struct record *ret_record, bool *trouble);

#endif
