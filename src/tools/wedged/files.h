/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_FILES_H
#define WEDGED_FILES_H

#include "query.h"

/*
 * See that the journal's files can be read; trouble is told on stderr. 0, or
 * -errno of the last trouble; -ENOTDIR: there is nothing that could be opened.
 */
int files_check(const struct query *query);

#endif
