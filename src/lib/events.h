/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_EVENTS_H
#define KTVBLK_EVENTS_H

/*
 * The one list of events: name (its MESSAGE_ID is KTVBLK_MESSAGE_<name>),
 * priority, flags, text, and the fields. From it are made the table, and for
 * each event a function that takes an argument of the right type for each
 * field, in their order; see log_event().
 */

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

#include "bounds.h"
#include "ktvblk-messages.h"

/*
 * What a guest can provoke must not hide what it cannot, neither in our queue
 * nor in the journal, which counts by priority: LOG_CRIT is for what does not
 * come back, and nothing that is EV_LIMITED is above LOG_WARNING.
 */
enum event_flags {
	EV_LIMITED = 1, /* a guest can provoke it: rate-limited */
	EV_REPEATED = 2, /* it can have the host's fault again: likewise */
	EV_STUCK = 4, /* say who is stuck, and where */
	EV_RETIRED = 8, /* made by earlier versions only, and still explained */
};

enum field_format {
	FMT_END,
	FMT_DEC,
	FMT_HEX,
	FMT_ERRNO, /* positive errno, as the standard field ERRNO */
	FMT_TEXT, /* a constant string */
	FMT_REQ, /* a virtio-blk request type */
};

/* What a field has that may be left out. */
struct maybe {
	bool has;
	uint64_t value;
};

#define NOTHING ((struct maybe){ 0 })

static inline struct maybe only_if(bool has, uint64_t value)
{
	return (struct maybe){ has, has ? value : 0 };
}

/* One argument on its way; without `has` its field is left out. */
struct log_arg {
	bool has;
	union {
		uint64_t number;
		const char *text; /* a constant */
	};
};

struct log_args {
	struct log_arg of[LOG_ARGS_MAX];
};

/*
 * A field: how it is given, its key, how it is written, and a name for the
 * argument. Those with MAYBE_ may be left out, no other.
 */
/* clang-format off */
#define DEC(name) (NUMBER, KTVBLK_FIELD_##name, FMT_DEC, name)
#define HEX(name) (NUMBER, KTVBLK_FIELD_##name, FMT_HEX, name)
#define REQ(name) (NUMBER, KTVBLK_FIELD_##name, FMT_REQ, name)
#define TEXT(name) (STRING, KTVBLK_FIELD_##name, FMT_TEXT, name)
#define ERRNO (ERROR, "ERRNO", FMT_ERRNO, error)
#define MAYBE_DEC(name) (MAYBE, KTVBLK_FIELD_##name, FMT_DEC, name)
#define MAYBE_HEX(name) (MAYBE, KTVBLK_FIELD_##name, FMT_HEX, name)
#define MAYBE_REQ(name) (MAYBE, KTVBLK_FIELD_##name, FMT_REQ, name)

/* The type of an argument of each kind, and what becomes of it. */
#define FIELD_TYPE_NUMBER uint64_t
#define FIELD_TYPE_STRING const char *
#define FIELD_TYPE_ERROR int
#define FIELD_TYPE_MAYBE struct maybe
#define FIELD_ARG_NUMBER(x) { .has = true, .number = x }
#define FIELD_ARG_STRING(x) { .has = true, .text = x }
#define FIELD_ARG_ERROR(x) { .has = true, .number = (uint64_t)x }
#define FIELD_ARG_MAYBE(x) { .has = x.has, .number = x.value }

/* m applied to each field of a list of up to 8. */
#define EACH_FIELD(m, ...) \
	EACH_PICK(0 __VA_OPT__(,) __VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1, 0) \
	(m __VA_OPT__(,) __VA_ARGS__)
#define EACH_PICK(a, b, c, d, e, f, g, h, i, n, ...) EACH_##n
#define EACH_0(m)
#define EACH_1(m, field) m field
#define EACH_2(m, field, ...) m field EACH_1(m, __VA_ARGS__)
#define EACH_3(m, field, ...) m field EACH_2(m, __VA_ARGS__)
#define EACH_4(m, field, ...) m field EACH_3(m, __VA_ARGS__)
#define EACH_5(m, field, ...) m field EACH_4(m, __VA_ARGS__)
#define EACH_6(m, field, ...) m field EACH_5(m, __VA_ARGS__)
#define EACH_7(m, field, ...) m field EACH_6(m, __VA_ARGS__)
#define EACH_8(m, field, ...) m field EACH_7(m, __VA_ARGS__)

#define REQUEST_FIELDS REQ(REQ_TYPE), DEC(SECTOR), DEC(LENGTH), DEC(AGE_MS)
/* The same for each way to leave a worker behind, busy or not. */
#define LEFT_FIELDS DEC(TIMEOUT_MS), TEXT(FENCED), MAYBE_REQ(REQ_TYPE),        \
		    MAYBE_DEC(SECTOR), MAYBE_DEC(LENGTH), MAYBE_DEC(AGE_MS),   \
		    DEC(IN_FLIGHT)

#define EVENT_LIST(X)                                                          \
/* teardown */                                                                 \
X(STOP_RETRIED, LOG_WARNING, 0,                                                \
  "the stop eventfd is full, writing again", DEC(ATTEMPT))                     \
X(STOP_WRITE_FAILED, LOG_ERR, 0,                                               \
  "the stop eventfd cannot be written", DEC(ATTEMPT), ERRNO)                   \
X(STOP_GAVE_UP, LOG_ERR, 0,                                                    \
  "the stop eventfd stays full, going on without it", DEC(RETRIES))            \
X(DESTROY_PANICKED, LOG_ERR, 0,                                                \
  "destroyed; its worker had ended by itself", TEXT(PANIC))                    \
X(DESTROY_TIMED_OUT, LOG_CRIT, EV_STUCK,                                       \
  "destroyed, but a thread of it did not come back and was left behind; "      \
  "memory and descriptors it uses stay until it does; "                        \
  "look at the storage and at the kernel log", LEFT_FIELDS)                    \
X(DESTROY_HELPER_SPAWN_FAILED, LOG_CRIT, EV_STUCK,                             \
  "destroyed, but its worker did not come back and no thread could be had "    \
  "to wait for it; it cleans up by itself", LEFT_FIELDS, ERRNO)                \
X(DESTROY_HELPER_DISCONNECTED, LOG_CRIT, 0,                                    \
  "destroyed, but its worker could not be waited for; it cleans up by itself", \
  LEFT_FIELDS, ERRNO)                                                          \
X(DESTROY_STILL_WEDGED, LOG_CRIT, 0,                                           \
  "destroyed, while a thread that it left behind or sent out before is still " \
  "in a call; memory and descriptors it uses stay until that ends")            \
X(RESET_PANICKED, LOG_ERR, EV_REPEATED,                                        \
  "reset; its worker had ended by itself", TEXT(PANIC))                        \
X(RESET_TIMED_OUT, LOG_CRIT, EV_STUCK,                                         \
  "reset, or its queue stopped, but its worker did not come back and was "     \
  "left behind; the disk serves again when it does", LEFT_FIELDS)              \
X(RESET_HELPER_SPAWN_FAILED, LOG_CRIT, EV_STUCK,                               \
  "reset, or its queue stopped, but its worker did not come back and no "      \
  "thread could be had to wait for it; the disk serves again when it does",    \
  LEFT_FIELDS, ERRNO)                                                          \
X(RESET_HELPER_DISCONNECTED, LOG_CRIT, 0,                                      \
  "reset, or its queue stopped, but its worker could not be waited for; "      \
  "the disk serves again when it ends", LEFT_FIELDS, ERRNO)                    \
X(RECLAIMED, LOG_NOTICE, 0,                                                    \
  "the worker left behind has ended and all it held is free", DEC(STUCK_MS))   \
X(RESET_FAILED, LOG_WARNING, EV_RETIRED,                                       \
  "reset without what a new start needs; reset again", TEXT(STEP), ERRNO)      \
/* a worker's life */                                                          \
X(START_FAILED, LOG_WARNING, EV_LIMITED,                                       \
  "no worker could be started; reset and start again", TEXT(STEP), ERRNO)      \
X(PLACEMENT_FAILED, LOG_WARNING, EV_LIMITED,                                   \
  "the worker does not run on the CPUs asked for", MAYBE_DEC(CPU), ERRNO)      \
X(WAITING_FOR_ORPHAN, LOG_WARNING, EV_LIMITED,                                 \
  "waiting for the worker left behind before the disk is served")              \
X(WORKER_PANICKED, LOG_ERR, EV_REPEATED,                                       \
  "the worker ended by itself", TEXT(PANIC))                                   \
X(REQUEST_STALLED, LOG_CRIT, EV_STUCK,                                         \
  "a request has been in service for too long", REQUEST_FIELDS,                \
  DEC(IN_FLIGHT))                                                              \
X(REQUEST_RESUMED, LOG_NOTICE, 0,                                              \
  "the request that took too long has ended", REQUEST_FIELDS)                  \
X(MEMORY_UNSET, LOG_WARNING, EV_LIMITED,                                       \
  "the guest asks for service, but guest memory was never bound")              \
X(EPOLL_WAIT_FAILED, LOG_ERR, EV_REPEATED,                                     \
  "waiting for events failed, the worker ends", ERRNO)                         \
X(ENGINE_REFUSED, LOG_NOTICE, EV_LIMITED,                                      \
  "the kernel refuses io_uring, so there is one storage call at a time", ERRNO) \
X(EPOLL_ERROR, LOG_WARNING, EV_LIMITED,                                        \
  "an error event", HEX(EVENT_SET), DEC(TOKEN))                                \
X(EPOLL_HANGUP, LOG_WARNING, EV_LIMITED,                                       \
  "a hang-up event", HEX(EVENT_SET), DEC(TOKEN))                               \
X(EPOLL_UNKNOWN_TOKEN, LOG_WARNING, EV_LIMITED,                                \
  "an event of nothing we wait for", DEC(TOKEN))                               \
X(KICK_READ_FAILED, LOG_WARNING, EV_LIMITED,                                   \
  "the kick eventfd cannot be read", ERRNO)                                    \
X(TIMER_READ_FAILED, LOG_WARNING, EV_LIMITED,                                  \
  "the throttle's timer cannot be read", ERRNO)                                \
X(TIMER_SET_FAILED, LOG_WARNING, EV_LIMITED,                                   \
  "the throttle's timer cannot be set, using a coarser one", ERRNO)            \
X(PAUSE_NO_WORKER, LOG_DEBUG, 0,                                               \
  "paused without a worker")                                                   \
X(PAUSE_KICK_FAILED, LOG_WARNING, 0,                                           \
  "the worker could not be woken to pause", ERRNO)                             \
X(PARKED_FD_FAILED, LOG_DEBUG, 0,                                              \
  "the parked eventfd cannot be written", ERRNO)                               \
/* the driver's set-up */                                                      \
X(CAPACITY_BELOW_SECTOR, LOG_WARNING, 0,                                       \
  "the capacity is below one sector: no request can succeed",                  \
  DEC(CAPACITY_BYTES), DEC(SECTOR_SIZE))                                       \
X(MEMORY_ALREADY_SET, LOG_WARNING, 0,                                          \
  "guest memory is bound already, the binding is unchanged")                   \
X(CAPACITY_UNKNOWN, LOG_WARNING, EV_REPEATED,                                  \
  "the storage could not say how large it is, the capacity is unchanged",      \
  ERRNO)                                                                       \
X(STATUS_NEEDS_RESET, LOG_WARNING, EV_LIMITED,                                 \
  "status write refused: the device needs a reset",                            \
  HEX(DEVICE_STATUS), HEX(REQUESTED), MAYBE_HEX(NEW_BITS))                     \
X(STATUS_BIT_CLEARED, LOG_WARNING, EV_LIMITED,                                 \
  "status write refused: it would clear a bit",                                \
  HEX(DEVICE_STATUS), HEX(REQUESTED))                                          \
X(STATUS_ILLEGAL, LOG_WARNING, EV_LIMITED,                                     \
  "status write refused: not a step the driver may take",                      \
  HEX(DEVICE_STATUS), HEX(REQUESTED), HEX(NEW_BITS))                           \
X(STATUS_CONTENDED, LOG_WARNING, EV_LIMITED,                                   \
  "status write given up: the status kept changing",                           \
  HEX(DEVICE_STATUS), HEX(REQUESTED), DEC(RETRIES))                            \
X(STATUS_GUEST_FAILED, LOG_WARNING, EV_LIMITED,                                \
  "the guest's driver gave the device up", HEX(DEVICE_STATUS), HEX(REQUESTED)) \
X(STATUS_GUEST_FAILED_CONTENDED, LOG_WARNING, EV_LIMITED,                      \
  "the guest's FAILED was given up: the status kept changing",                 \
  HEX(DEVICE_STATUS), HEX(REQUESTED), DEC(RETRIES))                            \
X(FEATURES_NO_VERSION_1, LOG_WARNING, EV_LIMITED,                              \
  "features refused: VERSION_1 is missing", HEX(DRIVER_FEATURES))              \
X(FEATURES_NOT_OFFERED, LOG_WARNING, EV_LIMITED,                               \
  "features refused: some were not offered", HEX(DRIVER_FEATURES),             \
  HEX(DEVICE_FEATURES), HEX(NOT_OFFERED))                                      \
X(QUEUE_SIZE_INVALID, LOG_WARNING, EV_LIMITED,                                 \
  "queue size refused", DEC(VALUE))                                            \
X(QUEUE_ADDRESS_MISALIGNED, LOG_WARNING, EV_LIMITED,                           \
  "queue address refused: misaligned", HEX(VALUE))                             \
/* the ring */                                                                 \
X(QUEUE_POISONED_INDEX, LOG_WARNING, EV_LIMITED,                               \
  "the avail index jumped beyond the queue; it is served no more until reset", \
  DEC(AVAIL_IDX), DEC(NEXT_AVAIL))                                             \
X(QUEUE_POISONED_ACCESS, LOG_WARNING, EV_LIMITED,                              \
  "the avail ring is not in guest memory; it is served no more until reset",   \
  DEC(NEXT_AVAIL))                                                             \
X(QUEUE_POISONED_HEAD, LOG_WARNING, EV_LIMITED,                                \
  "a chain in service was made available again; the queue is served no more "  \
  "until reset", DEC(HEAD))                                                    \
X(QUEUE_POISONED_MEMORY, LOG_WARNING, 0,                                       \
  "guest memory was replaced by such as has not its rings; the queue is "      \
  "served no more until reset")                                                \
X(NOTIFY_DISABLE_FAILED, LOG_WARNING, EV_LIMITED,                              \
  "the used ring's flags are not in guest memory")                             \
X(NOTIFY_ENABLE_FAILED, LOG_WARNING, EV_LIMITED,                               \
  "notifications could not be asked for")                                      \
X(NOTIFY_CHECK_FAILED, LOG_WARNING, EV_LIMITED,                                \
  "the used event is not in guest memory, interrupting to be safe")            \
X(IRQ_WRITE_FAILED, LOG_WARNING, EV_LIMITED,                                   \
  "the irq eventfd cannot be written", ERRNO)                                  \
X(USED_WRITE_FAILED, LOG_WARNING, EV_LIMITED,                                  \
  "the used ring is not in guest memory", DEC(HEAD), TEXT(REASON))             \
/* requests */                                                                 \
X(CHAIN_TOO_LONG, LOG_WARNING, EV_LIMITED | EV_RETIRED,                        \
  "chain dropped: too many descriptors", DEC(HEAD), DEC(DESC_COUNT))           \
X(CHAIN_MALFORMED, LOG_WARNING, EV_LIMITED,                                    \
  "chain dropped: malformed", DEC(HEAD), TEXT(REASON))                         \
X(CHAIN_REFUSED, LOG_WARNING, EV_LIMITED,                                      \
  "request refused: its chain is no request", DEC(HEAD), TEXT(REASON))         \
X(CHAIN_NO_STATUS, LOG_WARNING, EV_LIMITED,                                    \
  "chain dropped: no place for the status", DEC(HEAD))                         \
X(HEADER_INVALID, LOG_WARNING, EV_LIMITED,                                     \
  "request refused: no whole header", DEC(HEAD))                               \
X(HEADER_UNREADABLE, LOG_WARNING, EV_LIMITED,                                  \
  "request refused: the header is not in guest memory", DEC(HEAD))             \
X(SEGMENT_TOO_LARGE, LOG_WARNING, EV_LIMITED | EV_RETIRED,                     \
  "request refused: a segment above size_max", DEC(HEAD))                      \
X(DATA_MISSING, LOG_WARNING, EV_LIMITED,                                       \
  "request refused: no data segment", DEC(HEAD), REQ(REQ_TYPE))                \
X(FLUSH_WITH_DATA, LOG_WARNING, EV_LIMITED,                                    \
  "request refused: a flush with data", DEC(HEAD), DEC(SEG_COUNT))             \
X(DATA_NOT_SECTORS, LOG_WARNING, EV_LIMITED,                                   \
  "request refused: not whole sectors", DEC(HEAD), REQ(REQ_TYPE), DEC(LENGTH)) \
X(DATA_DIRECTION, LOG_WARNING, EV_LIMITED,                                     \
  "request refused: data in the wrong direction", DEC(HEAD), REQ(REQ_TYPE))    \
X(RANGES_INVALID, LOG_WARNING, EV_LIMITED,                                     \
  "request refused: no ranges, not whole ones, or too many", DEC(HEAD),        \
  REQ(REQ_TYPE), DEC(LENGTH))                                                  \
X(RANGE_REFUSED, LOG_WARNING, EV_LIMITED,                                      \
  "request refused: one of its ranges will not do", REQ(REQ_TYPE),             \
  DEC(SECTOR), DEC(SECTOR_COUNT), TEXT(REASON))                                \
X(DATA_NOT_BLOCKS, LOG_WARNING, EV_LIMITED,                                    \
  "request refused: not whole blocks of the storage", DEC(SECTOR),             \
  DEC(LENGTH), DEC(BLOCK_SIZE))                                                \
X(READ_FAILED, LOG_WARNING, EV_LIMITED,                                        \
  "reading the storage failed", DEC(SECTOR), ERRNO)                            \
X(READ_NO_PROGRESS, LOG_WARNING, EV_LIMITED,                                   \
  "the storage has fewer bytes than it said", DEC(SECTOR), DEC(TOTAL_READ),    \
  DEC(LENGTH))                                                                 \
X(WRITE_FAILED, LOG_WARNING, EV_LIMITED,                                       \
  "writing the storage failed", DEC(SECTOR), ERRNO)                            \
X(WRITE_NO_PROGRESS, LOG_WARNING, EV_LIMITED,                                  \
  "the storage takes no more bytes", DEC(SECTOR), DEC(TOTAL_WRITTEN),          \
  DEC(LENGTH))                                                                 \
X(DISCARD_FAILED, LOG_WARNING, EV_LIMITED,                                     \
  "discarding a range of the storage failed", DEC(SECTOR), ERRNO)              \
X(WRITE_ZEROES_FAILED, LOG_WARNING, EV_LIMITED,                                \
  "having the storage write zeros failed", DEC(SECTOR), ERRNO)                 \
X(FLUSH_FAILED, LOG_WARNING, EV_LIMITED,                                       \
  "flushing the storage failed", ERRNO)                                        \
X(FLUSH_FAILED_BEFORE, LOG_WARNING, EV_LIMITED,                                \
  "refused: a flush has failed, and nothing is durable until reset",           \
  REQ(REQ_TYPE), DEC(SECTOR))                                                  \
X(INTERRUPTED_TOO_OFTEN, LOG_WARNING, EV_LIMITED,                              \
  "the storage call was interrupted too often", DEC(SECTOR))                   \
X(THROTTLE_STALLED, LOG_DEBUG, 0,                                              \
  "a request waits for tokens", DEC(HEAD), DEC(OPS_OK), DEC(BYTES_OK),         \
  DEC(WAIT_NS))                                                                \
X(THROTTLE_REDRAINED, LOG_DEBUG, 0,                                            \
  "tokens came at once, draining again")                                       \
X(REQUEST_DONE, LOG_DEBUG, 0,                                                  \
  "request done", REQ(REQ_TYPE), DEC(REQ_TYPE_RAW), DEC(SECTOR), DEC(HEAD),    \
  DEC(STATUS), DEC(USED_LEN))                                                  \
/* vhost-user */                                                                \
X(VHOST_USER_CONNECTED, LOG_INFO, EV_LIMITED,                                  \
  "a front end has connected", DEC(PEER_PID))                                  \
X(VHOST_USER_DISCONNECTED, LOG_INFO, EV_LIMITED,                               \
  "the front end has gone")                                                    \
X(VHOST_USER_REFUSED, LOG_WARNING, EV_LIMITED,                                 \
  "a second front end was refused, as one is connected", DEC(PEER_PID))        \
X(VHOST_USER_CLOSED, LOG_WARNING, EV_LIMITED,                                  \
  "the front end's connection was closed, for what it has sent",               \
  MAYBE_DEC(FRONT_REQUEST), TEXT(REASON))                                      \
X(VHOST_USER_LOST, LOG_WARNING, EV_LIMITED,                                    \
  "a queue was stopped with requests that did not end, and the front end has " \
  "no place to note them: its driver waits for them in vain",                  \
  DEC(IN_FLIGHT))                                                              \
X(VHOST_USER_ACCEPT_FAILED, LOG_ERR, EV_REPEATED,                              \
  "a connection of a front end cannot be accepted", ERRNO)                     \
/* the records themselves */                                                   \
X(LOG_OVERFLOW, LOG_WARNING, 0,                                                \
  "records were lost, the sink was too slow or away", DEC(DROPPED))            \
X(LOG_SUPPRESSED, LOG_NOTICE, EV_LIMITED,                                      \
  "more of one kind of record were held back", DEC(SUPPRESSED),                \
  TEXT(SUPPRESSED_ID))
/* clang-format on */

#define EVENT_ENUM(name, ...) EVENT_##name,
enum event { EVENT_LIST(EVENT_ENUM) EVENT_COUNT };
#undef EVENT_ENUM

struct event_field {
	const char *key;
	enum field_format format;
	bool may_be_absent;
};

struct event_info {
	const char *message_id;
	const char *text;
	int priority;
	int flags;
	struct event_field fields[LOG_ARGS_MAX + 1]; /* ends with FMT_END */
};

extern const struct event_info event_table[EVENT_COUNT];

#endif
