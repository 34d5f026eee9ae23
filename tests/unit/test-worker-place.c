/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Where a worker runs.
 */

/* wrap: pthread_setaffinity_np */

#include <syslog.h>

#include "faults.h"
#include "wedge.h"

WRAP(int, pthread_setaffinity_np,
     (pthread_t thread, size_t size, const cpu_set_t *set), (thread, size, set),
     0, pthread_setaffinity_np_fault.when.error)

static bool worker_mask(struct rig *rig, cpu_set_t *mask)
{
	const pid_t tid = worker_tid(rig);

	return tid && sched_getaffinity(tid, sizeof(*mask), mask) == 0;
}

/* The last CPU this process may use. */
static uint32_t some_cpu(void)
{
	cpu_set_t mine;
	uint32_t cpu = 0;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(mine), &mine), 0);
	for (uint32_t i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &mine))
			cpu = i;
	return cpu;
}

START_TEST(the_worker_runs_where_it_is_put_from_its_next_start)
{
	const uint32_t cpu = some_cpu();
	cpu_set_t mask;
	struct rig rig;

	wedge_open_idle(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_set_worker_cpus(rig.dev, &cpu, 1), 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert(worker_mask(&rig, &mask));
	ck_assert_int_eq(CPU_COUNT(&mask), 1);
	ck_assert(CPU_ISSET(cpu, &mask));

	/* Taken back: as the thread that starts it, from the next start. */
	ck_assert_int_eq(ktvblk_set_worker_cpus(rig.dev, NULL, 0), 0);
	ck_assert(worker_mask(&rig, &mask));
	ck_assert_int_eq(CPU_COUNT(&mask), 1);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	cpu_set_t mine;
	ck_assert_int_eq(sched_getaffinity(0, sizeof(mine), &mine), 0);
	ck_assert(worker_mask(&rig, &mask));
	ck_assert(CPU_EQUAL(&mask, &mine));
	rig_close(&rig);
}
END_TEST

START_TEST(cpus_no_mask_can_hold_are_left_out_and_recorded)
{
	const uint32_t cpus[] = { 1024, some_cpu(), UINT32_MAX };
	const struct kept_record *record;
	struct recorder rec;
	cpu_set_t mask;
	struct rig rig;

	wedge_record(&rec);
	wedge_open_idle(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_set_worker_cpus(rig.dev, cpus, 3), 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert(worker_mask(&rig, &mask));
	ck_assert_int_eq(CPU_COUNT(&mask), 1);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_PLACEMENT_FAILED),
			 2);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_PLACEMENT_FAILED);
	expect_number(record, "KTVBLK_CPU", 1024);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(with_all_cpus_left_out_the_worker_inherits)
{
	const uint32_t cpus[] = { 1024, 4000 };
	cpu_set_t mask, mine;
	struct rig rig;

	wedge_open_idle(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_set_worker_cpus(rig.dev, cpus, 2), 0);
	pthread_setaffinity_np_fault.calls = 0;
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_uint_eq(pthread_setaffinity_np_fault.calls, 0);
	ck_assert_int_eq(sched_getaffinity(0, sizeof(mine), &mine), 0);
	ck_assert(worker_mask(&rig, &mask));
	ck_assert(CPU_EQUAL(&mask, &mine));
	rig_close(&rig);
}
END_TEST

START_TEST(a_placement_the_kernel_refuses_is_recorded_and_not_fatal)
{
	const uint32_t cpu = some_cpu();
	const struct kept_record *record;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open_idle(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_set_worker_cpus(rig.dev, &cpu, 1), 0);
	fault_set(&pthread_setaffinity_np_fault,
		  &(struct fault_when){ .error = EINVAL });
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_PLACEMENT_FAILED);
	expect_number(record, "ERRNO", EINVAL);
	ck_assert_ptr_null(kept_field(record, "KTVBLK_CPU"));
	ck_assert_int_eq(record->priority, LOG_WARNING);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

TEST_PROGRAM("worker-place",
	     the_worker_runs_where_it_is_put_from_its_next_start,
	     cpus_no_mask_can_hold_are_left_out_and_recorded,
	     with_all_cpus_left_out_the_worker_inherits,
	     a_placement_the_kernel_refuses_is_recorded_and_not_fatal)
