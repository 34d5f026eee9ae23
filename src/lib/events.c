/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The table of events, made from the list. */

#include "events.h"

#define MAY_BE_ABSENT_NUMBER false
#define MAY_BE_ABSENT_STRING false
#define MAY_BE_ABSENT_ERROR false
#define MAY_BE_ABSENT_MAYBE true

#define FIELD_INFO(kind, name, how, arg) { name, how, MAY_BE_ABSENT_##kind },

#define EVENT_INFO(name, level, bits, words, ...)                              \
	[EVENT_##                                                              \
		name] = { .message_id = KTVBLK_MESSAGE_##name,                 \
			  .text = words,                                       \
			  .priority = level,                                   \
			  .flags = bits,                                       \
			  .fields = { EACH_FIELD(FIELD_INFO, __VA_ARGS__) } },

const struct event_info event_table[EVENT_COUNT] = { EVENT_LIST(EVENT_INFO) };
