/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * For people. The columns have fixed widths, so that lines that come later,
 * with --follow, stand under the same head; a long name moves its own line.
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "printer.h"
#include "../text.h"
#include "util.h"

static int n_characters(const char *text)
{
	int n = 0;

	while (utf8_next(&text))
		n++;
	return n;
}

static void column(int width, const char *text)
{
	const int n = n_characters(text);

	printf("%s%*s  ", text, n < width ? width - n : 0, "");
}

static void column_time(uint64_t us)
{
	const time_t seconds = (time_t)(us / USEC_PER_SEC);
	char text[32] = "-";
	struct tm tm;

	if (localtime_r(&seconds, &tm))
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	column(19, text);
}

/* "1.5G", as ls -h does it; whole numbers have no fraction. */
static void format_size(char *text, size_t size, uint64_t sectors)
{
	static const char units[] = "KMGTPE";
	uint64_t n = sectors, unit = 2; /* sectors in a unit */
	int i = 0;

	if (n == UNKNOWN) {
		snprintf(text, size, "-");
		return;
	}
	if (n < unit) {
		snprintf(text, size, "%" PRIu64 "B", n * 512);
		return;
	}
	while (units[i + 1] && n / unit >= 1024) {
		unit *= 1024;
		i++;
	}
	if (n % unit == 0 || n / unit >= 10)
		snprintf(text, size, "%" PRIu64 "%c", n / unit, units[i]);
	else
		snprintf(text, size, "%" PRIu64 ".%" PRIu64 "%c", n / unit,
			 n % unit * 10 / unit, units[i]);
}

static void column_size(uint64_t sectors)
{
	char text[32];

	format_size(text, sizeof(text), sectors);
	column(5, text);
}

/* As the worker's thread is called: "3.1" is queue 1 of device 3. */
static void column_id(const struct record *record)
{
	char text[48];
	int n;

	n = snprintf(text, sizeof(text), "%" PRIu64, record->key.instance);
	if (record->queue != UNKNOWN)
		snprintf(text + n, sizeof(text) - (size_t)n, ".%" PRIu64,
			 record->queue);
	column(4, text);
}

static void column_process(const struct record *record, enum presence presence)
{
	char command[sizeof(record->command)], text[128];

	text_clean(command, sizeof(command), record->command);
	if (record->key.pid == UNKNOWN)
		snprintf(text, sizeof(text), "-");
	else
		snprintf(text, sizeof(text), "%s %" PRIu64, command,
			 record->key.pid);
	column(22, text);
	column(7, presence_name(presence));
}

static void column_stuck(const struct record *record)
{
	char syscall[sizeof(record->stuck_syscall)];
	char wchan[sizeof(record->stuck_wchan)];
	char text[sizeof(syscall) + sizeof(wchan) + 32];
	int n;

	text_clean(syscall, sizeof(syscall), record->stuck_syscall);
	text_clean(wchan, sizeof(wchan), record->stuck_wchan);
	/* The kernel says 0 where it does not say. */
	if (record->stuck_threads == 0)
		n = snprintf(text, sizeof(text), "no thread");
	else if (*wchan && strcmp(wchan, "0"))
		n = snprintf(text, sizeof(text), "%s (%s)", syscall, wchan);
	else
		n = snprintf(text, sizeof(text), "%s",
			     *syscall ? syscall : "-");
	if (record->stuck_threads != UNKNOWN && record->stuck_threads > 1)
		snprintf(text + n, sizeof(text) - (size_t)n, " x%" PRIu64,
			 record->stuck_threads);
	column(24, text);
}

static void print_request(const struct record *record)
{
	const char *type = record->req_type;
	char text[sizeof(record->req_type)];

	if (!*type) {
		fputs("-", stdout);
		return;
	}
	if (!strcmp(type, "in"))
		type = "read";
	else if (!strcmp(type, "out"))
		type = "write";
	text_clean(text, sizeof(text), type);
	fputs(text, stdout);
	if (record->length != UNKNOWN && record->length)
		printf(" %" PRIu64, record->length);
	if (record->sector != UNKNOWN && record->length)
		printf(" at %" PRIu64, record->sector);
	if (record->age_ms != UNKNOWN)
		printf(", %" PRIu64 ".%" PRIu64 "s old", record->age_ms / 1000,
		       record->age_ms % 1000 / 100);
	if (record->in_flight != UNKNOWN && record->in_flight > 1)
		printf(", of %" PRIu64, record->in_flight);
}

static void head(void)
{
	column(9, "STATE");
	column(19, "SINCE");
	column(8, "DISK");
	column(4, "ID");
	column(5, "SIZE");
	column(22, "PROCESS");
	column(7, "IS");
	column(24, "SYSCALL");
	puts("REQUEST");
}

static void row(const struct record *record, const char *what,
		enum presence presence)
{
	char disk[sizeof(record->disk)];

	text_clean(disk, sizeof(disk), record->disk);
	column(9, what);
	column_time(record->realtime_us);
	column(8, *disk ? disk : "-");
	column_id(record);
	column_size(record->capacity_sectors);
	column_process(record, presence);
	column_stuck(record);
	print_request(record);
	putchar('\n');
}

const struct printer table_printer = { .head = head, .row = row };
