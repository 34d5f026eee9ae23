/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Every event of the library, made to happen, and read back from the real
 * journal: all its fields and their values, by MESSAGE_ID and by each of the
 * fields that name a device. Then a journald that is slow, absent, or comes
 * and goes.
 */

/* wrap: _ck_assert_failed _mark_point */
/* wrap: pthread_create pthread_clockjoin_np epoll_wait read timerfd_settime */
/* wrap: throttle_take watch_scan io_uring_queue_init_params */

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "journal-daemon.h"
#include "journal-events.h"
#include "journald.h"
#include "runner.h"

#define EVENT_NAME(name, ...) #name,
static const char *const names[] = { EVENT_LIST(EVENT_NAME) };

/* A match as journalctl takes it, and with our pid. */
static const char *match(const char *key, const char *value)
{
	static char text[128];

	snprintf(text, sizeof(text), "%s=%s _PID=%d", key, value,
		 (int)getpid());
	return text;
}

static const char *match_number(const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return match(key, text);
}

static void check_value(const struct entry *entry, const char *key,
			const char *value)
{
	const char *have = entry_field(entry, key);

	if (strcmp(value, "-") == 0) {
		ck_assert_msg(!have, "%s is there: %s", key, have);
		return;
	}
	ck_assert_msg(have, "%s is missing", key);
	ck_assert_msg(*have, "%s is empty", key);
	ck_assert_msg(strcmp(value, "*") == 0 || strcmp(have, value) == 0,
		      "%s is %s, not %s", key, have, value);
}

static void check_number(const struct entry *entry, const char *key,
			 uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	check_value(entry, key, text);
}

/* Those of "KEY=value|...", and that none of the event's is missing there. */
static void check_values(const struct entry *entry, const struct provoked *test)
{
	const struct event_info *info = &event_table[test->event];
	char *values = strdup(test->values), *at = values, *field;
	size_t said = 0, known = 0;

	while (*values && (field = strsep(&at, "|"))) {
		char *value = strchr(field, '=');

		*value++ = '\0';
		check_value(entry, field, value);
		for (size_t i = 0; info->fields[i].format != FMT_END; i++)
			said += strcmp(info->fields[i].key, field) == 0;
	}
	while (info->fields[known].format != FMT_END)
		known++;
	ck_assert_msg(said == known, "the test compares %zu fields of %zu",
		      said, known);
	free(values);
}

static void check_common(const struct entry *entry, const struct provoked *test)
{
	const struct event_info *info = &event_table[test->event];
	const char *message = entry_field(entry, "MESSAGE");

	check_value(entry, "MESSAGE_ID", info->message_id);
	ck_assert_msg(message && strstr(message, info->text), "MESSAGE=%s",
		      message ? message : "(none)");
	check_number(entry, "PRIORITY", (uint64_t)info->priority);
	check_value(entry, "CODE_FILE", "*");
	check_value(entry, "CODE_LINE", "*");
	check_value(entry, "CODE_FUNC", "*");
	check_value(entry, "_TRANSPORT", "journal");
}

/* It is found by this, too. */
static void check_found(const struct entry *entry, const char *matches)
{
	const char *cursor = entry_field(entry, "__CURSOR");

	for (const struct entry *e = journal_query(matches); e; e = e->next)
		if (strcmp(entry_field(e, "__CURSOR"), cursor) == 0)
			return;
	ck_abort_msg("not found by %s", matches);
}

static int new_file(uint64_t bytes)
{
	const int fd = memfd_create("disk", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static void run_event(const void *arg)
{
	const struct provoked *test = (const struct provoked *)arg;
	struct rig_options options = test->options;
	struct ktvblk_identity identity;
	const struct entry *entry;
	static struct rig rig;
	static struct later later;

	ck_assert_int_eq(ktvblk_set_log_level(LOG_DEBUG), 0);
	options.config.name = names[test->event];
	options.config.reset_timeout_ms = 50;
	options.config.destroy_timeout_ms = 50;
	/* A capacity that no other case has. */
	options.disk_bytes = RIG_DISK_BYTES + test->event * 512u;
	if (test->event == EVENT_QUEUE_POISONED_HEAD ||
	    test->event == EVENT_VHOST_USER_LOST) {
		later_init(&later);
		options.later = &later;
	}
	if (test->event == EVENT_ENGINE_REFUSED)
		options.disk_fd = new_file(options.disk_bytes);
	rig_open(&rig, &options);
	identity = rig_identity(&rig);
	test->provoke(&rig);
	if (test->event == EVENT_WAITING_FOR_ORPHAN)
		identity = rig_identity(&rig); /* of the second session */
	ck_assert_msg(
		eventually((entry = journal_query(match(
				    "MESSAGE_ID",
				    event_table[test->event].message_id)))),
		"no such record in the journal");
	if (test->event == EVENT_DESTROY_STILL_WEDGED) /* it is gone by now */
		identity.stop_fd = atoi(entry_field(entry, "STOP_FD"));
	check_common(entry, test);
	check_values(entry, test);
	check_number(entry, "INSTANCE_ID", identity.instance_id);
	check_number(entry, "STOP_FD", (uint64_t)identity.stop_fd);
	check_number(entry, "CAPACITY_SECTORS", identity.capacity_sectors);
	check_value(entry, "KTVBLK_DISK", names[test->event]);
	check_found(entry, match_number("INSTANCE_ID", identity.instance_id));
	check_found(entry, match_number("STOP_FD", (uint64_t)identity.stop_fd));
	check_found(entry, match_number("CAPACITY_SECTORS",
					identity.capacity_sectors));
	check_found(entry, match("KTVBLK_DISK", names[test->event]));
	case_note("%s", test->values);
}

/* No event is left out; LOG_OVERFLOW has a case of its own. */
static void run_complete(const void *arg)
{
	bool seen[EVENT_COUNT] = { [EVENT_LOG_OVERFLOW] = true };

	(void)arg;
	for (const struct provoked *p = device_events; p->provoke; p++)
		seen[p->event] = true;
	for (const struct provoked *p = guest_events; p->provoke; p++)
		seen[p->event] = true;
	for (const struct provoked *p = front_events; p->provoke; p++)
		seen[p->event] = true;
	for (int i = 0; i < EVENT_COUNT; i++)
		ck_assert_msg(seen[i] != !!(event_table[i].flags & EV_RETIRED),
			      "%s is provoked by no case, or retired",
			      names[i]);
	case_note("%d events", EVENT_COUNT);
}

static struct system_case cases[EVENT_COUNT + 1 + ARRAY_SIZE(daemon_cases)];
static size_t n_cases;

static void add_events(const struct provoked *events)
{
	for (; events->provoke && n_cases < EVENT_COUNT; events++)
		cases[n_cases++] =
			(struct system_case){ .name = names[events->event],
					      .run = run_event,
					      .arg = events };
}

static void nothing_is_held(void)
{
}

int main(int argc, char **argv)
{
	journald_init();
	journald_start();
	add_events(device_events);
	add_events(guest_events);
	add_events(front_events);
	cases[n_cases++] = (struct system_case){ .name = "no event left out",
						 .run = run_complete };
	memcpy(cases + n_cases, daemon_cases, sizeof(daemon_cases));
	n_cases += ARRAY_SIZE(daemon_cases);
	return run_cases(cases, n_cases, nothing_is_held, argc, argv);
}
