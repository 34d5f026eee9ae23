/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_RECORD_H
#define KTVBLK_RECORD_H

/* One record: as it waits in the queue, and as the text a sink gets. */

#include "identity.h"
#include "bounds.h"
#include "ktvblk.h"
#include "watch.h"

struct log_site {
	const char *file;
	const char *func;
	unsigned int line;
};

struct log_entry {
	enum event event;
	struct identity id; /* with a reference to the disk */
	uint64_t capacity_sectors; /* as it was then */
	struct watch *watch; /* with a reference; NULL: nobody is stuck */
	struct log_site site;
	struct log_args args;
};

struct record {
	const char *message_id;
	const char *message;
	int priority;
	size_t n_fields;
	const char *fields[LOG_FIELDS_MAX];
	size_t used;
	char text[LOG_TEXT_BYTES];
};

/* Make the record of an entry. On the log thread: it may read procfs. */
void record_format(struct record *record, const struct log_entry *entry);

/* To the journal; false: it is lost. */
bool record_send(const struct record *record);

/* To a VMM's handler. */
void record_pass(const struct record *record,
		 void (*handler)(const struct ktvblk_record *record,
				 void *userdata),
		 void *userdata);

/* A request type's name for people. */
const char *request_type_name(uint32_t type);

#endif
