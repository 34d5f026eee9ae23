/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Records out of the journal. Any program may write records that look like
 * ours, with any bytes in them; only what begins with an underscore is the
 * journal's own word.
 */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal.h"
#include "ktvblk-messages.h"
#include "say.h"
#include "util.h"

/* Those that are looked at. */
static const struct kind kinds[] = {
	{ KTVBLK_MESSAGE_DESTROY_TIMED_OUT, "destroy_timed_out", EFFECT_WEDGE },
	{ KTVBLK_MESSAGE_DESTROY_HELPER_SPAWN_FAILED,
	  "destroy_helper_spawn_failed", EFFECT_WEDGE },
	{ KTVBLK_MESSAGE_DESTROY_HELPER_DISCONNECTED,
	  "destroy_helper_disconnected", EFFECT_WEDGE },
	{ KTVBLK_MESSAGE_RESET_TIMED_OUT, "reset_timed_out", EFFECT_WEDGE },
	{ KTVBLK_MESSAGE_RESET_HELPER_SPAWN_FAILED, "reset_helper_spawn_failed",
	  EFFECT_WEDGE },
	{ KTVBLK_MESSAGE_RESET_HELPER_DISCONNECTED, "reset_helper_disconnected",
	  EFFECT_WEDGE },
	{ KTVBLK_MESSAGE_REQUEST_STALLED, "request_stalled", EFFECT_STALL },
	{ KTVBLK_MESSAGE_REQUEST_RESUMED, "request_resumed", EFFECT_RESUME },
	/* The request ended with its worker. */
	{ KTVBLK_MESSAGE_WORKER_PANICKED, "worker_panicked", EFFECT_RESUME },
	{ KTVBLK_MESSAGE_RECLAIMED, "reclaimed", EFFECT_RECLAIM },
	{ NULL, NULL, EFFECT_RECLAIM },
};

int journal_restrict(sd_journal *journal, const struct query *query)
{
	char match[64];
	int r = 0;

	for (const struct kind *kind = kinds; kind->message_id; kind++) {
		snprintf(match, sizeof(match), "MESSAGE_ID=%s",
			 kind->message_id);
		r = sd_journal_add_match(journal, match, 0);
		if (r < 0)
			return r;
	}
	if (query->has_boot) {
		char boot[SD_ID128_STRING_MAX];

		snprintf(match, sizeof(match), "_BOOT_ID=%s",
			 sd_id128_to_string(query->boot, boot));
		r = sd_journal_add_match(journal, match, 0);
	}
	return r < 0 ? r : 0;
}

static int seek(sd_journal *journal, const struct query *query)
{
	return query->since_us
		       ? sd_journal_seek_realtime_usec(journal, query->since_us)
		       : sd_journal_seek_head(journal);
}

int journal_open(const struct query *query, sd_journal **ret_journal)
{
	sd_journal *journal = NULL;
	int r;

	if (query->directory)
		r = sd_journal_open_directory(&journal, query->directory, 0);
	else
		r = sd_journal_open_namespace(
			&journal, NULL,
			SD_JOURNAL_LOCAL_ONLY | SD_JOURNAL_ALL_NAMESPACES);
	/* Before reading: what comes from now on wakes the one who follows. */
	if (r >= 0 && query->follow)
		r = sd_journal_get_fd(journal);
	if (r >= 0)
		r = journal_restrict(journal, query);
	if (r >= 0)
		r = seek(journal, query);
	if (r < 0) {
		complain("%s: %s",
			 query->directory ? query->directory : "the journal",
			 strerror(-r));
		sd_journal_close(journal);
		return r;
	}
	*ret_journal = journal;
	return 0;
}

/* A field's value, cut to size; empty if there is none. 0 or -errno. */
static int get_text(sd_journal *journal, const char *field, char *buf,
		    size_t size)
{
	const void *data;
	size_t len, skip = strlen(field) + 1;
	int r;

	*buf = '\0';
	r = sd_journal_get_data(journal, field, &data, &len);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (len < skip)
		return -EBADMSG;
	len -= skip;
	if (len >= size)
		len = size - 1;
	memcpy(buf, (const char *)data + skip, len);
	buf[len] = '\0';
	return 0;
}

/* UNKNOWN if the field is not there, or not a whole decimal number. */
static int get_number(sd_journal *journal, const char *field, uint64_t *ret)
{
	char text[32], *end;
	int r = get_text(journal, field, text, sizeof(text));

	*ret = UNKNOWN;
	if (r < 0 || !isdigit((unsigned char)*text))
		return r;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno || *end)
		*ret = UNKNOWN;
	return 0;
}

static int get_id(sd_journal *journal, const char *field, sd_id128_t *ret)
{
	char text[40];
	int r = get_text(journal, field, text, sizeof(text));

	*ret = SD_ID128_NULL;
	if (r == 0 && *text && sd_id128_from_string(text, ret) < 0)
		*ret = SD_ID128_NULL;
	return r;
}

static int get_kind(sd_journal *journal, const struct kind **ret)
{
	char text[40];
	int r = get_text(journal, "MESSAGE_ID", text, sizeof(text));

	*ret = NULL;
	for (const struct kind *kind = kinds; kind->message_id; kind++)
		if (strcmp(text, kind->message_id) == 0)
			*ret = kind;
	return r;
}

/* When it was sent, which is before the journal got to it. */
static int get_time(sd_journal *journal, struct record *record)
{
	sd_id128_t boot;
	int r = sd_journal_get_monotonic_usec(journal, &record->monotonic_us,
					      &boot);

	if (r == 0)
		r = get_number(journal, "_SOURCE_REALTIME_TIMESTAMP",
			       &record->realtime_us);
	if (r == 0 && record->realtime_us == UNKNOWN)
		r = sd_journal_get_realtime_usec(journal, &record->realtime_us);
	return r;
}

static const struct {
	const char *field;
	size_t offset;
} numbers[] = {
	{ "_PID", offsetof(struct record, key.pid) },
	{ KTVBLK_FIELD_INSTANCE_ID, offsetof(struct record, key.instance) },
	{ KTVBLK_FIELD_STOP_FD, offsetof(struct record, key.stop_fd) },
	{ KTVBLK_FIELD_QUEUE, offsetof(struct record, queue) },
	{ KTVBLK_FIELD_CAPACITY_SECTORS,
	  offsetof(struct record, capacity_sectors) },
	{ KTVBLK_FIELD_TIMEOUT_MS, offsetof(struct record, timeout_ms) },
	{ KTVBLK_FIELD_SECTOR, offsetof(struct record, sector) },
	{ KTVBLK_FIELD_LENGTH, offsetof(struct record, length) },
	{ KTVBLK_FIELD_AGE_MS, offsetof(struct record, age_ms) },
	{ KTVBLK_FIELD_IN_FLIGHT, offsetof(struct record, in_flight) },
	{ KTVBLK_FIELD_STUCK_THREADS, offsetof(struct record, stuck_threads) },
	{ KTVBLK_FIELD_STUCK_TID, offsetof(struct record, stuck_tid) },
	{ KTVBLK_FIELD_STUCK_MS, offsetof(struct record, stuck_ms) },
};

#define TEXT(field, member)                                                    \
	{                                                                      \
		field, offsetof(struct record, member),                        \
			sizeof(((struct record *)NULL)->member)                \
	}

static const struct {
	const char *field;
	size_t offset;
	size_t size;
} texts[] = {
	TEXT("_COMM", command),
	TEXT(KTVBLK_FIELD_DISK, disk),
	TEXT(KTVBLK_FIELD_FENCED, fenced),
	TEXT(KTVBLK_FIELD_REQ_TYPE, req_type),
	TEXT(KTVBLK_FIELD_STUCK_STATE, stuck_state),
	TEXT(KTVBLK_FIELD_STUCK_SYSCALL, stuck_syscall),
	TEXT(KTVBLK_FIELD_STUCK_WCHAN, stuck_wchan),
};

static int read_record(sd_journal *journal, struct record *record)
{
	char *bytes = (char *)record;
	int r;

	memset(record, 0, sizeof(*record));
	r = get_kind(journal, &record->kind);
	if (r == 0)
		r = get_time(journal, record);
	if (r == 0)
		r = get_id(journal, "_MACHINE_ID", &record->key.machine);
	if (r == 0)
		r = get_id(journal, "_BOOT_ID", &record->key.boot);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(numbers); i++)
		r = get_number(journal, numbers[i].field,
			       (uint64_t *)(void *)(bytes + numbers[i].offset));
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(texts); i++)
		r = get_text(journal, texts[i].field, bytes + texts[i].offset,
			     texts[i].size);
	/* The journal's own word is missing if the process had ended by then. */
	if (r == 0 && !*record->command)
		r = get_text(journal, "SYSLOG_IDENTIFIER", record->command,
			     sizeof(record->command));
	return r;
}

static void tell_once(bool *trouble, const char *what)
{
	if (!*trouble)
		complain("some records are left out: %s", what);
	*trouble = true;
}

int journal_next(sd_journal *journal, struct record *ret_record, bool *trouble)
{
	int r;

	while ((r = sd_journal_next(journal)) > 0) {
		r = read_record(journal, ret_record);
		if (r < 0)
			tell_once(trouble, strerror(-r));
		else if (ret_record->key.instance == UNKNOWN ||
			 ret_record->key.stop_fd == UNKNOWN)
			tell_once(trouble, "they do not name their device");
		else if (ret_record->kind)
			return 1;
	}
	if (r < 0)
		complain("reading the journal failed: %s", strerror(-r));
	return r;
}
