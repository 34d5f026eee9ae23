/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One object a line (RFC 8259). All members are always there; what is not known
 * is null.
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "printer.h"
#include "../text.h"
#include "util.h"

static void print_string(const char *text)
{
	int32_t c;

	putchar('"');
	for (;;) {
		const char *start = text;

		c = utf8_next(&text);
		if (c == 0)
			break;
		if (c < 0)
			fputs("\\ufffd", stdout);
		else if (c == '"' || c == '\\')
			printf("\\%c", (char)c);
		else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
			printf("\\u%04x", (unsigned int)c);
		else
			fwrite(start, 1, (size_t)(text - start), stdout);
	}
	putchar('"');
}

static void print_key(const char *key)
{
	printf(",\"%s\":", key);
}

static void member_text(const char *key, const char *text)
{
	print_key(key);
	if (*text)
		print_string(text);
	else
		fputs("null", stdout);
}

static void member_number(const char *key, uint64_t n)
{
	print_key(key);
	if (n == UNKNOWN)
		fputs("null", stdout);
	else
		printf("%" PRIu64, n);
}

static void member_id(const char *key, sd_id128_t id)
{
	char text[SD_ID128_STRING_MAX];

	member_text(key,
		    sd_id128_is_null(id) ? "" : sd_id128_to_string(id, text));
}

/* "2026-01-31T12:00:00.123456Z" */
static void member_time(const char *key, uint64_t us)
{
	const time_t seconds = (time_t)(us / USEC_PER_SEC);
	char text[32];
	struct tm tm;

	print_key(key);
	if (gmtime_r(&seconds, &tm) &&
	    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm))
		printf("\"%s.%06uZ\"", text, (unsigned int)(us % USEC_PER_SEC));
	else
		fputs("null", stdout);
}

static void member_yes_no(const char *key, const char *text)
{
	print_key(key);
	fputs(!strcmp(text, "yes")  ? "true"
	      : !strcmp(text, "no") ? "false"
				    : "null",
	      stdout);
}

static void member_request(const struct record *record)
{
	print_key("request");
	if (!*record->req_type) {
		fputs("null", stdout);
		return;
	}
	fputs("{\"type\":", stdout);
	print_string(record->req_type);
	member_number("sector", record->sector);
	member_number("length", record->length);
	member_number("age_ms", record->age_ms);
	putchar('}');
}

static void row(const struct record *record, const char *what,
		enum presence presence)
{
	const uint64_t sectors = record->capacity_sectors;

	printf("{\"state\":\"%s\"", what);
	member_time("since", record->realtime_us);
	member_number("since_usec", record->realtime_us);
	member_text("event", record->kind->name);
	member_text("disk", record->disk);
	member_number("instance_id", record->key.instance);
	member_number("queue", record->queue);
	member_number("stop_fd", record->key.stop_fd);
	member_number("capacity_sectors", sectors);
	member_number("capacity_bytes",
		      sectors > UINT64_MAX / 512 ? UNKNOWN : sectors * 512);
	member_text("process", presence_name(presence));
	member_number("pid", record->key.pid);
	member_text("command", record->command);
	member_number("timeout_ms", record->timeout_ms);
	member_yes_no("fenced", record->fenced);
	member_number("stuck_threads", record->stuck_threads);
	member_number("stuck_tid", record->stuck_tid);
	member_text("stuck_state", record->stuck_state);
	member_text("stuck_syscall", record->stuck_syscall);
	member_text("stuck_wchan", record->stuck_wchan);
	member_number("stuck_ms", record->stuck_ms);
	member_number("in_flight", record->in_flight);
	member_request(record);
	member_id("machine_id", record->key.machine);
	member_id("boot_id", record->key.boot);
	puts("}");
}

const struct printer json_printer = { .row = row };
