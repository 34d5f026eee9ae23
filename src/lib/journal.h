/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_JOURNAL_H
#define KTVBLK_JOURNAL_H

/*
 * Records on their way out. log_event() never blocks: it puts an entry into a
 * bounded queue that the thread ktvblk-log empties into the journal or the
 * VMM's handler, either of which may hang. Knows nothing of the device.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "record.h"

/* The thread lives from the first reference to the last. 0 or -errno. */
int log_ref(void);

/* The last one waits for the thread, until deadline_ns. */
void log_unref(uint64_t deadline_ns);

/*
 * Something that may block, run later on the log thread because no thread of
 * its own could be had. The caller holds a reference to the log for it.
 */
struct log_job {
	struct log_job *next;
	void (*run)(struct log_job *job);
};

void log_run_later(struct log_job *job);

/* watch_begin() said so: look for stalled requests, and when to look next. */
void log_watch_requests(void);

/* Tell now what was held back of this device's records. */
void log_suppressed(const struct identity *id);

extern _Atomic int log_level;

static inline bool log_wants(enum event event)
{
	return event_table[event].priority <=
	       atomic_load_explicit(&log_level, memory_order_relaxed);
}

void log_emit(enum event event, const struct identity *id, struct watch *watch,
	      struct log_site site, const uint64_t *args, size_t n_args);

#define LOG_SITE ((struct log_site){ __FILE__, __func__, __LINE__ })

/*
 * Make a record about the device of id (NULL: of none). The arguments are
 * uint64_t, or what U64() makes of others, in the order of the event's fields.
 */
#define log_event(id, name, ...) log_stuck_event(id, NULL, name, ##__VA_ARGS__)

/* The same, with where the thread of watch is stuck. */
#define log_stuck_event(id, watch, name, ...)                                  \
	do {                                                                   \
		const uint64_t args_[] = { __VA_ARGS__ };                      \
                                                                               \
		if (log_wants(EVENT_##name))                                   \
			log_emit(EVENT_##name, id, watch, LOG_SITE, args_,     \
				 sizeof(args_) / sizeof(uint64_t));            \
	} while (0)

#define U64(x) ((uint64_t)(x))
#define TEXT_ARG(s) ((uint64_t)(uintptr_t)(s))

#endif
