/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_LOG_SINKS_H
#define TEST_LOG_SINKS_H

/*
 * The log with both of its sinks in the hands of a test: the handler, and what
 * stands in place of the journal. For a test program, once, that has
 * sd_journal_sendv in its "wrap:" comment.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "log-scene.h"

static struct recorder journal;
static _Atomic int journal_answer;

int __wrap_sd_journal_sendv(const struct iovec *iov, int n);

int __wrap_sd_journal_sendv(const struct iovec *iov, int n)
{
	const char *fields[LOG_FIELDS_MAX];
	struct ktvblk_record record = { .fields = fields,
					.n_fields = (size_t)n };

	if (journal_answer)
		return journal_answer;
	for (int i = 0; i < n; i++) {
		char *field = strndup(iov[i].iov_base, iov[i].iov_len);

		if (!field)
			abort();
		fields[i] = field;
		if (strncmp(field, "MESSAGE=", 8) == 0)
			record.message = field + 8;
		if (strncmp(field, "MESSAGE_ID=", 11) == 0)
			record.message_id = field + 11;
	}
	recorder_handle(&record, &journal);
	for (int i = 0; i < n; i++)
		free((void *)(uintptr_t)fields[i]);
	return 0;
}

__attribute__((unused)) static void set_up(void)
{
	recorder_init(&journal);
	journal_answer = 0;
	id = (struct identity){ disk_id_new("vda", 2048), 23, 0 };
	recorder_start(&rec);
	ck_assert_int_eq(log_ref(), 0);
}

__attribute__((unused)) static void tear_down(void)
{
	recorder_go_on(&rec);
	recorder_go_on(&journal);
	ck_assert_int_eq(ktvblk_set_log_level(LOG_INFO), 0);
	log_unref(far_away());
	recorder_stop(&rec);
	recorder_destroy(&journal);
	/* No record has kept it. */
	ck_assert_uint_eq(id.disk->refs, 1);
	disk_id_unref(id.disk);
	ck_assert(eventually(count_threads("ktvblk-log") == 0));
}

__attribute__((unused)) static const char *
id_at(const struct recorder *recorder, int n)
{
	const struct kept_record *r = recorder->first;

	while (r && n--)
		r = r->next;
	return r ? r->message_id : "none";
}

#endif
