/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_RECORDS_H
#define DEMO_RECORDS_H

/*
 * Where the library's records go, and how to see one: in the host's journal if
 * we may read it, else in that of a systemd-journald of our own, else in the
 * callback sink.
 */

#include <stdbool.h>
#include <stdint.h>

/* Before there are threads; false: do not look for a journal. */
void records_open(bool journal);
void records_close(void);

/* Give the records to the chosen place (again). */
void records_resume(void);

/*
 * Wait for the record of this kind about this device. As journalctl -o verbose
 * prints it, to be freed; NULL if it does not come.
 */
char *records_wait(const char *message_id, uint64_t instance_id);

/* Print such a record as a whole, with the command that finds it. */
void records_show(const char *message_id, uint64_t instance_id,
		  const char *record);

/* True if the record has this field with this value. */
bool record_has(const char *record, const char *field, uint64_t value);

/* Await a record, promise that it came, and tell its message. */
void records_tell(const char *what, const char *message_id,
		  uint64_t instance_id);

#endif
