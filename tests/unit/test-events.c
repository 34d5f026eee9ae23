/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The list of events, and the table that is made of it.
 */

#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "journal.h"
#include "ktvblk.h"

#define EVENT_NAME(name, ...) #name,
#define EVENT_ID(name, ...) KTVBLK_MESSAGE_##name,
static const char *const names[] = { EVENT_LIST(EVENT_NAME) };
static const char *const ids[] = { EVENT_LIST(EVENT_ID) };

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

START_TEST(message_ids_are_those_of_the_header)
{
	ck_assert_uint_eq(ARRAY_SIZE(names), EVENT_COUNT);
	for (int i = 0; i < EVENT_COUNT; i++) {
		ck_assert_str_eq(event_table[i].message_id, ids[i]);
		ck_assert_uint_eq(strlen(ids[i]), 32);
		for (int j = 0; j < 32; j++)
			ck_assert_msg(is_hex(ids[i][j]), "%s", names[i]);
		/* As systemd-id128 makes them: random, version 4. */
		ck_assert_int_eq(ids[i][12], '4');
	}
}
END_TEST

START_TEST(message_ids_are_unique)
{
	for (int i = 0; i < EVENT_COUNT; i++)
		for (int j = 0; j < i; j++)
			ck_assert_msg(strcmp(ids[i], ids[j]) != 0, "%s and %s",
				      names[i], names[j]);
}
END_TEST

/* Found where the tests are run from: the top of the tree. */
START_TEST(each_message_id_of_the_header_has_an_event)
{
	FILE *header = fopen("include/ktvblk-messages.h", "re");
	char line[256], name[128];
	int n = 0;

	ck_assert_msg(header, "run this at the top of the tree");
	while (fgets(line, sizeof(line), header)) {
		int i = 0;

		if (sscanf(line, "#define KTVBLK_MESSAGE_%127[A-Z0-9_]",
			   name) != 1)
			continue;
		while (i < EVENT_COUNT && strcmp(name, names[i]) != 0)
			i++;
		ck_assert_msg(i < EVENT_COUNT, "%s has no event", name);
		n++;
	}
	fclose(header);
	ck_assert_int_eq(n, EVENT_COUNT);
}
END_TEST

/*
 * As journald has it: each of its five counts records of some priorities, and
 * what is beyond the rate is lost, whichever disk it is about.
 */
static int journald_bucket(int priority)
{
	if (priority <= LOG_CRIT)
		return 0;
	if (priority <= LOG_WARNING)
		return priority - LOG_CRIT;
	return priority == LOG_DEBUG ? 4 : 3;
}

static const enum event panics[] = {
	EVENT_RESET_PANICKED,
	EVENT_DESTROY_PANICKED,
	EVENT_WORKER_PANICKED,
};

static bool is_wedge(enum event event)
{
	switch (event) {
	case EVENT_RESET_TIMED_OUT:
	case EVENT_RESET_HELPER_SPAWN_FAILED:
	case EVENT_RESET_HELPER_DISCONNECTED:
	case EVENT_DESTROY_TIMED_OUT:
	case EVENT_DESTROY_HELPER_SPAWN_FAILED:
	case EVENT_DESTROY_HELPER_DISCONNECTED:
	case EVENT_DESTROY_STILL_WEDGED:
	case EVENT_REQUEST_STALLED:
		return true;
	default:
		return event_table[event].flags & EV_STUCK;
	}
}

/* Those have a bucket of their own, those of workers that end the next. */
START_TEST(what_a_guest_provokes_is_less_urgent_than_any_wedge)
{
	for (int i = 0; i < EVENT_COUNT; i++) {
		const struct event_info *info = &event_table[i];
		const int bucket = journald_bucket(info->priority);

		ck_assert_msg(is_wedge((enum event)i) == (bucket == 0), "%s",
			      names[i]);
		ck_assert_msg(bucket > 0 || !(info->flags &
					      (EV_LIMITED | EV_REPEATED)),
			      "%s", names[i]);
		for (size_t j = 0; j < ARRAY_SIZE(panics); j++)
			ck_assert_msg(
				!(info->flags & EV_LIMITED) ||
					bucket > journald_bucket(
							 event_table[panics[j]]
								 .priority),
				"%s", names[i]);
	}
}
END_TEST

TEST_PROGRAM("events", message_ids_are_those_of_the_header,
	     message_ids_are_unique, each_message_id_of_the_header_has_an_event,
	     what_a_guest_provokes_is_less_urgent_than_any_wedge)
