/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The table of events, made from the list. */

#include "events.h"

#define EVENT_INFO(name, level, bits, words, ...)                              \
	[EVENT_##name] = { .message_id = KTVBLK_MESSAGE_##name,                \
			   .text = words,                                      \
			   .priority = level,                                  \
			   .flags = bits,                                      \
			   .fields = { __VA_ARGS__ } },

const struct event_info event_table[EVENT_COUNT] = { EVENT_LIST(EVENT_INFO) };
