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

/*
 * The thread lives from the first reference to the last, and another one
 * follows it where a handler ended it. 0 or -errno.
 */
int log_ref(void);

/* The last one waits for the thread to end, until deadline_ns at most. */
void log_unref(uint64_t deadline_ns);

/*
 * Something that may block, run later on the log thread because no thread of
 * its own could be had. The caller holds a reference to the log for it.
 */
struct log_job {
	void (*run)(struct log_job *job);
	/* The log's own: */
	struct log_job *next;
	uint64_t after; /* so many records */
};

void log_run_later(struct log_job *job);

/* How many records were made so far: for watch_close(). */
uint64_t log_position(void);

/* watch_begin() said so, or a stall ended: look for stalled requests, and when to look next. */
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
	      struct log_site site, const struct log_args *args);

#define LOG_SITE ((struct log_site){ __FILE__, __func__, __LINE__ })

/*
 * For each event fill_<name>(), which takes what its fields want, and
 * log_<name>(), which makes the record where the level wants it.
 */
/* clang-format off */
#define FIELD_PARAM(kind, key, format, name) , FIELD_TYPE_##kind arg_##name
#define FIELD_VALUE(kind, key, format, name) FIELD_ARG_##kind(arg_##name),
#define FIELD_PASS(kind, key, format, name) , arg_##name
#define EVENT_FUNCTIONS(name, level, bits, words, ...)                         \
static inline void fill_##name(struct log_args *args                           \
			       EACH_FIELD(FIELD_PARAM, __VA_ARGS__))           \
{                                                                              \
	*args = (struct log_args){ { EACH_FIELD(FIELD_VALUE, __VA_ARGS__) } }; \
}                                                                              \
									       \
static inline void log_##name(const struct identity *id, struct watch *watch,  \
			      struct log_site site                             \
			      EACH_FIELD(FIELD_PARAM, __VA_ARGS__))            \
{                                                                              \
	struct log_args args;                                                  \
									       \
	if (!log_wants(EVENT_##name))                                          \
		return;                                                        \
	fill_##name(&args EACH_FIELD(FIELD_PASS, __VA_ARGS__));                \
	log_emit(EVENT_##name, id, watch, site, &args);                        \
}
/* clang-format on */

EVENT_LIST(EVENT_FUNCTIONS)

/*
 * Make a record about the device of id (NULL: of none), with an argument for
 * each field of the event: uint64_t, for a text const char *, for ERRNO a
 * positive int, for what may be left out struct maybe.
 */
#define log_event(id, name, ...) log_##name(id, NULL, LOG_SITE, ##__VA_ARGS__)

/*
 * The same with the log_<name>() of one of several events that have the same
 * fields, and with where the thread of watch is stuck.
 */
#define log_event_by(log_name, id, watch, ...)                                 \
	(log_name)(id, watch, LOG_SITE, ##__VA_ARGS__)

#endif
