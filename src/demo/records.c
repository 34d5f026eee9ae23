/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See records.h. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ktvblk.h>

#include "event.h"
#include "journalctl.h"
#include "journald.h"
#include "records.h"
#include "say.h"
#include "sink.h"

#define SOCKET "/run/systemd/journal/socket"
#define PROBE "KTVBLK_DEMO=probe"
#define PROBE_MS 1500 /* the host's may be one we cannot read */

static enum { HOST, PRIVATE, SINK } place;

/* In journald's own protocol; it must not block us if journald hangs. */
static bool send_probe(void)
{
	static const char text[] = "MESSAGE=ktvblk-demo looks for a journal\n"
				   "PRIORITY=5\n" PROBE "\n";
	const struct sockaddr_un addr = { .sun_family = AF_UNIX,
					  .sun_path = SOCKET };
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ssize_t n;

	if (fd < 0)
		return false;
	n = sendto(fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL,
		   (const struct sockaddr *)&addr, sizeof(addr));
	close(fd);
	return n > 0;
}

/* A journal is one only if what goes in can be found there. */
static bool journal_works(const char *dir)
{
	char *found;

	journalctl_open(dir);
	if (!send_probe())
		return false;
	found = journalctl_wait((const char *[]){ PROBE, NULL },
				dir ? A_WHILE_MS : PROBE_MS);
	free(found);
	return found != NULL;
}

static const char *choose(bool journal)
{
	const char *why;

	place = SINK;
	if (!journal)
		return "the callback sink (--no-journal)";
	if (journal_works(NULL)) {
		place = HOST;
		return "the journal of this host";
	}
	why = journald_start();
	if (why)
		return why;
	if (!journal_works(JOURNALD_DIR))
		return "its records cannot be read";
	place = PRIVATE;
	return "a systemd-journald of our own, in a mount namespace of our "
	       "own: the host has none, or none we may read";
}

void records_open(bool journal)
{
	const char *text = choose(journal);

	if (place == SINK && journal)
		say("records",
		    "in the callback sink: the host has no journal "
		    "we may read, and a private one cannot be had: "
		    "%s",
		    text);
	else
		say("records", "in %s", text);
	if (place == SINK)
		sink_open();
	records_resume();
}

void records_close(void)
{
	journald_stop();
}

void records_resume(void)
{
	ktvblk_set_log_handler(place == SINK ? sink_take : NULL, NULL, NULL);
}

char *records_wait(const char *message_id, uint64_t instance_id)
{
	char message[64], instance[64];

	snprintf(message, sizeof(message), "MESSAGE_ID=%s", message_id);
	snprintf(instance, sizeof(instance), "INSTANCE_ID=%" PRIu64,
		 instance_id);
	if (place == SINK)
		return sink_wait(message, instance, A_WHILE_MS);
	ktvblk_log_flush(A_WHILE_MS);
	return journalctl_wait((const char *[]){ message, instance, NULL },
			       A_WHILE_MS);
}

void records_show(const char *message_id, uint64_t instance_id,
		  const char *record)
{
	if (place == SINK)
		printf("\nAs the callback got it; journalctl would find it by\n"
		       "MESSAGE_ID=%s INSTANCE_ID=%" PRIu64 ":\n\n",
		       message_id, instance_id);
	else
		printf("\n$ journalctl -o verbose%s _PID=%d \\\n"
		       "    INSTANCE_ID=%" PRIu64 " MESSAGE_ID=%s\n",
		       place == PRIVATE ? " --directory=" JOURNALD_DIR : "",
		       (int)getpid(), instance_id, message_id);
	printf("%s\n", record);
	fflush(stdout);
}

bool record_has(const char *record, const char *field, uint64_t value)
{
	char line[128];

	snprintf(line, sizeof(line), " %s=%" PRIu64 "\n", field, value);
	return record && strstr(record, line);
}

void records_tell(const char *what, const char *message_id,
		  uint64_t instance_id)
{
	char *record = records_wait(message_id, instance_id);
	const char *message = record ? strstr(record, " MESSAGE=") : NULL;

	if (message) {
		message += strlen(" MESSAGE=");
		say("record", "%.*s", (int)strcspn(message, "\n"), message);
	} else {
		promise(false, "a record says that %s", what);
	}
	free(record);
}
