/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_JOURNALD_H
#define TEST_JOURNALD_H

/*
 * The real systemd-journald, in the namespaces journal.sh makes, and what it
 * has, by way of journalctl.
 */

#include <stddef.h>

/* Once, before any case: all of them share what is known of it. */
void journald_init(void);

/* Start it and wait until it listens. */
void journald_start(void);
/* End it by this signal; its socket stays. */
void journald_end(int signal);
void journald_remove_socket(void);
/* SIGSTOP, SIGCONT. */
void journald_signal(int signal);

struct entry {
	struct entry *next;
	size_t n_fields;
	struct {
		char *key;
		char *value;
	} fields[64];
};

/*
 * What `journalctl -o json MATCHES` answers, in order, after a sync. The
 * matches are separated by spaces. Nothing is ever freed.
 */
struct entry *journal_query(const char *matches);
size_t journal_count(const char *matches);

/* A field's value, or NULL. */
const char *entry_field(const struct entry *entry, const char *key);

#endif
