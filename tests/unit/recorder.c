/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The handler runs on the thread ktvblk-log, where a test cannot fail: it only
 * copies, and the test looks.
 */

#include <string.h>

#include "harness.h"
#include "recorder.h"

void recorder_init(struct recorder *rec)
{
	*rec = (struct recorder){ .last = &rec->first };
	pthread_mutex_init(&rec->lock, NULL);
	cond_init(&rec->changed);
}

void recorder_start(struct recorder *rec)
{
	recorder_init(rec);
	ck_assert_int_eq(ktvblk_set_log_handler(recorder_handle,
						recorder_release, rec),
			 0);
}

static void forget(struct recorder *rec)
{
	struct kept_record *next;

	for (struct kept_record *r = rec->first; r; r = next) {
		next = r->next;
		free(r);
	}
	rec->first = NULL;
	rec->last = &rec->first;
}

void recorder_destroy(struct recorder *rec)
{
	forget(rec);
	pthread_cond_destroy(&rec->changed);
	pthread_mutex_destroy(&rec->lock);
}

void recorder_stop(struct recorder *rec)
{
	recorder_go_on(rec);
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	recorder_wait_released(rec);
	recorder_destroy(rec);
}

/* One block of memory: the record, its pointers, their strings. */
static struct kept_record *copy_record(const struct ktvblk_record *from)
{
	size_t text_len = strlen(from->message_id) + strlen(from->message) + 2;
	struct kept_record *copy;
	char *text;

	for (size_t i = 0; i < from->n_fields; i++)
		text_len += strlen(from->fields[i]) + 1;
	copy = malloc(sizeof(*copy) + from->n_fields * sizeof(char *) +
		      text_len);
	if (!copy)
		abort();
	copy->next = NULL;
	copy->priority = from->priority;
	copy->n_fields = from->n_fields;
	text = (char *)&copy->fields[from->n_fields];
	copy->message_id = text;
	text = stpcpy(text, from->message_id) + 1;
	copy->message = text;
	text = stpcpy(text, from->message) + 1;
	for (size_t i = 0; i < from->n_fields; i++) {
		copy->fields[i] = text;
		text = stpcpy(text, from->fields[i]) + 1;
	}
	return copy;
}

void recorder_handle(const struct ktvblk_record *record, void *userdata)
{
	struct recorder *rec = (struct recorder *)userdata;
	struct kept_record *copy = copy_record(record);

	SCOPED_LOCK(&rec->lock);
	*rec->last = copy;
	rec->last = &copy->next;
	rec->held = rec->hold;
	pthread_cond_broadcast(&rec->changed);
	while (rec->hold)
		pthread_cond_wait(&rec->changed, &rec->lock);
	rec->held = false;
}

void recorder_release(void *userdata)
{
	struct recorder *rec = (struct recorder *)userdata;

	SCOPED_LOCK(&rec->lock);
	rec->released++;
	pthread_cond_broadcast(&rec->changed);
}

/* With the lock held: wait for a change; false: there was none in time. */
static bool wait_change(struct recorder *rec, const struct timespec *until)
{
	return pthread_cond_timedwait(&rec->changed, &rec->lock, until) !=
	       ETIMEDOUT;
}

static struct timespec wait_until(void)
{
	return ns_to_timespec(now_ns() + WAIT_MS * NSEC_PER_MSEC);
}

/* With the lock held: the nth with this id, or NULL. */
static const struct kept_record *nth(const struct recorder *rec, const char *id,
				     int n)
{
	for (const struct kept_record *r = rec->first; r; r = r->next)
		if (strcmp(r->message_id, id) == 0 && --n == 0)
			return r;
	return NULL;
}

const struct kept_record *recorder_wait_n(struct recorder *rec, const char *id,
					  int n)
{
	const struct timespec until = wait_until();
	const struct kept_record *r;

	pthread_mutex_lock(&rec->lock);
	while (!(r = nth(rec, id, n)) && wait_change(rec, &until))
		;
	pthread_mutex_unlock(&rec->lock);
	ck_assert_msg(r, "no record %d with MESSAGE_ID=%s", n, id);
	return r;
}

const struct kept_record *recorder_wait(struct recorder *rec, const char *id)
{
	return recorder_wait_n(rec, id, 1);
}

int recorder_count(struct recorder *rec, const char *id)
{
	int n = 0;

	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	SCOPED_LOCK(&rec->lock);
	for (const struct kept_record *r = rec->first; r; r = r->next)
		n += !id || strcmp(r->message_id, id) == 0;
	return n;
}

const struct kept_record *recorder_find(struct recorder *rec, const char *id)
{
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	SCOPED_LOCK(&rec->lock);
	return nth(rec, id, 1);
}

void recorder_clear(struct recorder *rec)
{
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	SCOPED_LOCK(&rec->lock);
	forget(rec);
}

void recorder_hold(struct recorder *rec)
{
	SCOPED_LOCK(&rec->lock);
	rec->hold = true;
}

void recorder_wait_held(struct recorder *rec)
{
	const struct timespec until = wait_until();
	bool held;

	pthread_mutex_lock(&rec->lock);
	while (!rec->held && wait_change(rec, &until))
		;
	held = rec->held;
	pthread_mutex_unlock(&rec->lock);
	ck_assert_msg(held, "no record came to hang in");
}

void recorder_go_on(struct recorder *rec)
{
	SCOPED_LOCK(&rec->lock);
	rec->hold = false;
	pthread_cond_broadcast(&rec->changed);
}

void recorder_wait_released(struct recorder *rec)
{
	const struct timespec until = wait_until();
	unsigned int released;

	pthread_mutex_lock(&rec->lock);
	while (!rec->released && wait_change(rec, &until))
		;
	released = rec->released;
	pthread_mutex_unlock(&rec->lock);
	ck_assert_uint_eq(released, 1);
}

const char *kept_field(const struct kept_record *record, const char *key)
{
	const size_t len = strlen(key);
	const char *value = NULL;

	for (size_t i = 0; i < record->n_fields; i++) {
		const char *field = record->fields[i];

		if (strncmp(field, key, len) != 0 || field[len] != '=')
			continue;
		ck_assert_msg(!value, "two fields %s", key);
		value = field + len + 1;
	}
	return value;
}

uint64_t kept_number(const struct kept_record *record, const char *key)
{
	const char *value = kept_field(record, key);
	char *end;
	uint64_t number;

	ck_assert_msg(value, "no field %s in: %s", key, record->message);
	number = strtoull(value, &end, 0);
	ck_assert_msg(*value && !*end, "%s=%s is no number", key, value);
	return number;
}
