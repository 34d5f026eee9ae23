/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See sink.h. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "say.h"
#include "sink.h"

#define KEPT 64

static struct {
	pthread_mutex_t lock;
	char *texts[KEPT]; /* the last ones */
	unsigned int n;
	int more; /* event: one came */
} sink = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void forget(void)
{
	for (unsigned int i = 0; i < KEPT; i++)
		free(sink.texts[i]);
}

void sink_open(void)
{
	sink.more = event_new();
	atexit(forget);
}

/* On the thread ktvblk-log. The record is ours only until we return. */
void sink_take(const struct ktvblk_record *record, void *userdata)
{
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);

	(void)userdata;
	if (!file)
		return;
	for (size_t i = 0; i < record->n_fields; i++)
		fprintf(file, "    %s\n", record->fields[i]);
	if (fclose(file) != 0)
		return;
	pthread_mutex_lock(&sink.lock);
	free(sink.texts[sink.n % KEPT]);
	sink.texts[sink.n++ % KEPT] = text;
	pthread_mutex_unlock(&sink.lock);
	event_signal(sink.more);
}

static char *find(const char *field, const char *other)
{
	char *found = NULL;

	pthread_mutex_lock(&sink.lock);
	for (unsigned int i = 0; i < KEPT && i < sink.n && !found; i++) {
		const char *text = sink.texts[(sink.n - 1 - i) % KEPT];

		if (strstr(text, field) && strstr(text, other))
			found = strdup(text);
	}
	pthread_mutex_unlock(&sink.lock);
	return found;
}

char *sink_wait(const char *field, const char *other, int timeout_ms)
{
	const double until = now_s() + timeout_ms / 1000.0;
	char *found, a[128], b[128];

	/* Whole lines: INSTANCE_ID=1 is not INSTANCE_ID=10. */
	snprintf(a, sizeof(a), " %s\n", field);
	snprintf(b, sizeof(b), " %s\n", other);
	while (!(found = find(a, b))) {
		const double left = until - now_s();

		if (left <= 0 || !event_await(sink.more, (int)(left * 1000)))
			break;
	}
	return found;
}
