/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_LOG_SCENE_H
#define TEST_LOG_SCENE_H

/*
 * The log in the hands of a test: a sink, a device to speak of, and no other
 * user of the log.
 */

#include "harness.h"
#include "journal.h"
#include "recorder.h"

static struct recorder rec;
static struct identity id;

__attribute__((unused)) static uint64_t far_away(void)
{
	return now_ns() + WAIT_MS * NSEC_PER_MSEC;
}

__attribute__((unused)) static bool log_thread_gone(void)
{
	return eventually(count_threads("ktvblk-log") == 0);
}

/* The sink hangs in one record; whatever follows stays in the queue. */
__attribute__((unused)) static void hang(void)
{
	recorder_hold(&rec);
	log_event(&id, RECLAIMED, 0);
	recorder_wait_held(&rec);
}

#endif
