/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Errands where no thread is to be had for them, or no memory: what has to be
 * let go is let go all the same, and what was asked for is said to have failed.
 */

/* wrap: calloc pthread_create */

#include <sys/mman.h>

#include "faults.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"
#include "wedge.h"

WRAP_CALLOC
WRAP_PTHREAD_CREATE

#define OK VIRTIO_BLK_S_OK

/* Guest memory in the place of the rig's, which is the same. */
static struct ktvblk_mem *same_memory(struct rig *rig)
{
	struct ktvblk_mem *mem;

	ck_assert_int_eq(ktvblk_mem_new(rig->regions, rig->n_regions, NULL,
					NULL, &mem),
			 0);
	return mem;
}

/* The errand's first thread fails, or its second. */
static void fail_thread(unsigned int skip)
{
	fault_set(&pthread_create_fault,
		  &(struct fault_when){ .error = EAGAIN, .skip = skip });
}

START_TEST(what_was_replaced_is_let_go_without_a_thread)
{
	for (unsigned int skip = 0; skip < 2; skip++) {
		struct traces traces = traces_now();
		struct ktvblk_mem *mem;
		struct rig rig;

		rig_open(&rig, NULL);
		rig_start(&rig);
		mem = same_memory(&rig);
		fail_thread(skip);
		ck_assert_int_eq(ktvblk_replace_memory(rig.dev, mem, WAIT_MS),
				 0);
		ktvblk_mem_unref(mem);
		ck_assert(eventually(__atomic_load_n(&rig.ram_released,
						     __ATOMIC_SEQ_CST) == 1));
		ck_assert(fault_over(&pthread_create_fault));
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512),
				 OK);
		rig_close(&rig);
		traces_expect_gone(&traces);
	}
}
END_TEST

START_TEST(a_size_that_no_thread_could_ask_for_is_not_known)
{
	for (unsigned int skip = 0; skip < 2; skip++) {
		struct traces traces = traces_now();
		struct recorder rec;
		struct rig rig;

		recorder_start(&rec);
		rig_open(&rig, NULL);
		rig.storage->capacity = 4096;
		fail_thread(skip);
		ck_assert_int_eq(ktvblk_refresh_capacity(rig.dev), 0);
		expect_number(recorder_wait(&rec,
					    KTVBLK_MESSAGE_CAPACITY_UNKNOWN),
			      "ERRNO", EAGAIN);
		ck_assert(fault_over(&pthread_create_fault));
		ck_assert_uint_eq(rig_identity(&rig).capacity_sectors,
				  RIG_DISK_BYTES / 512);
		ck_assert(eventually(ktvblk_refresh_capacity(rig.dev) == 0));
		ck_assert(eventually(rig_identity(&rig).capacity_sectors == 8));
		rig_close(&rig);
		recorder_stop(&rec);
		traces_expect_gone(&traces);
	}
}
END_TEST

START_TEST(without_memory_nothing_changes)
{
	struct ktvblk_mem *mem;
	unsigned int n = 0;
	struct rig rig;
	int r;

	rig_open(&rig, NULL);
	rig_start(&rig);
	mem = same_memory(&rig);
	do {
		fault_set(&calloc_fault, &(struct fault_when){ .error = ENOMEM,
							       .skip = n++,
							       .here = true });
		r = ktvblk_replace_memory(rig.dev, mem, WAIT_MS);
		if (!fault_over(&calloc_fault))
			break;
		ck_assert_int_eq(r, -ENOMEM);
		ck_assert_uint_eq(rig.ram_released, 0);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512),
				 OK);
	} while (n < 100);
	ck_assert_int_eq(r, 0);
	ck_assert_uint_ge(n, 3);
	fault_set(&calloc_fault,
		  &(struct fault_when){ .error = ENOMEM, .here = true });
	ck_assert_int_eq(ktvblk_refresh_capacity(rig.dev), -ENOMEM);
	fault_clear(&calloc_fault);
	ck_assert_int_eq(ktvblk_refresh_capacity(rig.dev), 0);
	ktvblk_mem_unref(mem);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("errand", what_was_replaced_is_let_go_without_a_thread,
	     a_size_that_no_thread_could_ask_for_is_not_known,
	     without_memory_nothing_changes)
