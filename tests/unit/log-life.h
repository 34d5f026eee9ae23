/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_LOG_LIFE_H
#define TEST_LOG_LIFE_H

/*
 * The log thread's whole life in the hands of a test: nobody else has a reference.
 */

#include "log-scene.h"

/* Without a reference to the log. */
__attribute__((unused)) static void set_up(void)
{
	id = (struct identity){ disk_id_new("vda", 2048), 23, 0 };
	recorder_start(&rec);
	ck_assert(log_thread_gone());
}

__attribute__((unused)) static void tear_down(void)
{
	ck_assert(log_thread_gone());
	recorder_stop(&rec);
	/* No record and no watch has kept it. */
	ck_assert_uint_eq(id.disk->refs, 1);
	disk_id_unref(id.disk);
}

/* Its thread's id, once it has its name. */
__attribute__((unused)) static pid_t log_thread(void)
{
	ck_assert(eventually(count_threads("ktvblk-log") == 1));
	return find_thread("ktvblk-log");
}

#endif
