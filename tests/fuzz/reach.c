/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See reach.h. */

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "journal.h"
#include "reach.h"
#include "util.h"

/* Of CHAIN_MALFORMED and CHAIN_REFUSED. */
static const char *const reasons[] = {
	"descriptor index out of range",
	"descriptor loop",
	"descriptor not in guest memory",
	"total length above 4 GiB",
	"readable descriptor after a writable one",
	"indirect descriptor, not negotiated",
	"nested indirect descriptor",
	"indirect descriptor with a next",
	"indirect table of a bad length",
};

#define EVENT_NAME(name, ...) #name,
static const char *const names[] = { EVENT_LIST(EVENT_NAME) };

static _Atomic bool events[EVENT_COUNT], malformed[ARRAY_SIZE(reasons)];
static struct ktvblk_counters sums;

void __real_log_emit(enum event event, const struct identity *id,
		     struct watch *watch, struct log_site site,
		     const struct log_args *args);
void __wrap_log_emit(enum event event, const struct identity *id,
		     struct watch *watch, struct log_site site,
		     const struct log_args *args);

static void see_reason(const char *reason)
{
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (strcmp(reason, reasons[i]) == 0) {
			malformed[i] = true;
			return;
		}
	fprintf(stderr, "a reason not in tests/fuzz/reach.c: %s\n", reason);
	abort();
}

void __wrap_log_emit(enum event event, const struct identity *id,
		     struct watch *watch, struct log_site site,
		     const struct log_args *args)
{
	events[event] = true;
	if (event == EVENT_CHAIN_MALFORMED || event == EVENT_CHAIN_REFUSED)
		see_reason(args->of[1].text);
	/* One for each request would be a lot. */
	if (event_table[event].priority < LOG_DEBUG)
		__real_log_emit(event, id, watch, site, args);
}

void reach_count(struct ktvblk_stats *stats)
{
	struct ktvblk_counters now;

	if (ktvblk_stats_read(stats, &now, sizeof(now)) < 0)
		abort();
	sums.reads_completed += now.reads_completed;
	sums.writes_completed += now.writes_completed;
	sums.flushes_completed += now.flushes_completed;
	sums.bytes_read += now.bytes_read;
	sums.bytes_written += now.bytes_written;
	sums.throttled_count += now.throttled_count;
	sums.io_errors += now.io_errors;
	sums.invalid_avail_idx_count += now.invalid_avail_idx_count;
	sums.discards_completed += now.discards_completed;
	sums.write_zeroes_completed += now.write_zeroes_completed;
	if (now.currently_throttled)
		abort(); /* the device is gone */
}

static bool is_for(enum event event)
{
	for (const enum event *e = reach.but; *e != EVENT_COUNT; e++)
		if (*e == event)
			return false;
	return event >= reach.first && event <= reach.last;
}

static unsigned int check(const char *kind, const char *name, uint64_t n)
{
	if (!n)
		printf("not reached by the corpus: %s %s\n", kind, name);
	return !n;
}

unsigned int reach_missing(void)
{
	unsigned int n = 0;

	for (int i = 0; i < EVENT_COUNT; i++)
		if (is_for((enum event)i))
			n += check("event", names[i], events[i]);
	for (size_t i = 0; !reach.no_chains && i < ARRAY_SIZE(reasons); i++)
		n += check("reason", reasons[i], malformed[i]);
	if (!reach.counters)
		return n;
	n += check("counter", "reads_completed", sums.reads_completed);
	n += check("counter", "writes_completed", sums.writes_completed);
	n += check("counter", "flushes_completed", sums.flushes_completed);
	n += check("counter", "bytes_read", sums.bytes_read);
	n += check("counter", "bytes_written", sums.bytes_written);
	n += check("counter", "throttled_count", sums.throttled_count);
	n += check("counter", "io_errors", sums.io_errors);
	n += check("counter", "invalid_avail_idx_count",
		   sums.invalid_avail_idx_count);
	n += check("counter", "discards_completed", sums.discards_completed);
	n += check("counter", "write_zeroes_completed",
		   sums.write_zeroes_completed);
	return n;
}
