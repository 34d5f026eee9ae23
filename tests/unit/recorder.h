/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_RECORDER_H
#define TEST_RECORDER_H

/*
 * A log handler that keeps a copy of every record for a test to look at, in
 * their order, and that can be told to hang.
 *
 *	struct recorder rec;
 *
 *	recorder_start(&rec);
 *	...
 *	r = recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
 *	ck_assert_str_eq(kept_field(r, "KTVBLK_FENCED"), "yes");
 *	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
 *	recorder_stop(&rec);
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ktvblk-messages.h"
#include "ktvblk.h"

struct kept_record {
	struct kept_record *next;
	const char *message_id;
	const char *message;
	int priority;
	size_t n_fields;
	const char *fields[]; /* "KEY=value" */
};

struct recorder {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct kept_record *first, **last;
	bool hold;
	bool held; /* the handler hangs just now */
	unsigned int released; /* calls of the release callback */
};

/* Take the records of this process. */
void recorder_start(struct recorder *rec);

/* Let go what it holds, give them to the journal again, forget them. */
void recorder_stop(struct recorder *rec);

/*
 * The first, or the nth (from 1), record with this MESSAGE_ID, once it is
 * there; the test fails if it does not come. It is good until recorder_clear()
 * or recorder_stop().
 */
const struct kept_record *recorder_wait(struct recorder *rec, const char *id);
const struct kept_record *recorder_wait_n(struct recorder *rec, const char *id,
					  int n);

/*
 * Flush, then: how many came with this MESSAGE_ID (NULL: with any), and the
 * first of them or NULL. Not while records are held.
 */
int recorder_count(struct recorder *rec, const char *id);
const struct kept_record *recorder_find(struct recorder *rec, const char *id);

/* Flush, then forget what came so far. */
void recorder_clear(struct recorder *rec);

/*
 * Hang in the next record, as a sink on wedged storage does; wait until it
 * does; go on. The record it hangs in is kept already.
 */
void recorder_hold(struct recorder *rec);
void recorder_wait_held(struct recorder *rec);
void recorder_go_on(struct recorder *rec);

/* The field's value; NULL: not there. The test fails if it is there twice. */
const char *kept_field(const struct kept_record *record, const char *key);

/* The field as a number, decimal or 0x; the test fails if it is not there. */
uint64_t kept_number(const struct kept_record *record, const char *key);

/* The handler and its release, for tests that install it themselves. */
void recorder_init(struct recorder *rec);
void recorder_handle(const struct ktvblk_record *record, void *userdata);
void recorder_release(void *userdata);
void recorder_wait_released(struct recorder *rec);
void recorder_destroy(struct recorder *rec);

#endif
