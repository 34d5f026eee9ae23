/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Each event of the library on a line: name, MESSAGE_ID, priority, l if it is
 * rate-limited and else -, and its own fields.
 */

#include <stdio.h>

#include "events.c"

int main(void)
{
#define EVENT_NAME(name, ...) #name,
	static const char *const names[] = { EVENT_LIST(EVENT_NAME) };

	for (int i = 0; i < EVENT_COUNT; i++) {
		const struct event_info *info = &event_table[i];

		printf("%s %s %d %s", names[i], info->message_id,
		       info->priority,
		       info->flags & (EV_LIMITED | EV_REPEATED) ? "l" : "-");
		for (int f = 0; info->fields[f].format != FMT_END; f++)
			printf(" %s", info->fields[f].key);
		if (info->flags & EV_STUCK)
			fputs(" " KTVBLK_FIELD_STUCK_THREADS
			      " " KTVBLK_FIELD_STUCK_TID
			      " " KTVBLK_FIELD_STUCK_STATE
			      " " KTVBLK_FIELD_STUCK_SYSCALL
			      " " KTVBLK_FIELD_STUCK_WCHAN,
			      stdout);
		putchar('\n');
	}
	return 0;
}
