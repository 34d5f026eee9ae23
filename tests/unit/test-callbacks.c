/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a callback finds in a thread of ours: the VMM's handler for its faults, a
 * stack with room, which costs little where all memory is locked, and, on the
 * worker, whatever the VMM's own beginning made of it.
 */

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "wedge.h"

#define BUDGET 50
#define STACK_BYTES (256u << 10) /* of which a callback may be sure */
#define LOCKED_KIB_MAX 4096u

/* What each callback does next, and how often one of each kind did. */
static void (*_Atomic act)(void);
static _Atomic unsigned int in_op, in_release, in_log;

static void act_in_op(struct storage *storage, enum storage_op op)
{
	(void)storage;
	(void)op;
	act();
	in_op++;
}

static void act_in_release(void *userdata)
{
	(void)userdata;
	act();
	in_release++;
}

static void act_in_log(const struct ktvblk_record *record, void *userdata)
{
	(void)record;
	(void)userdata;
	act();
	in_log++;
}

/*
 * An op on the worker; a release on ktvblk-drop, or on the worker; and the log
 * handler, which is given a record.
 */
static void act_everywhere(void (*what)(void))
{
	const struct rig_options options = { .no_memory = true };
	struct ktvblk_mem *mem;
	struct rig rig;

	act = what;
	in_op = in_release = in_log = 0;
	ck_assert(eventually(count_threads("ktvblk") == 0));
	ck_assert_int_eq(ktvblk_set_log_handler(act_in_log, NULL, NULL), 0);
	for (int started = 0; started < 2; started++) {
		rig_open(&rig, &options);
		ck_assert_int_eq(ktvblk_mem_new(rig.regions, 1, act_in_release,
						NULL, &mem),
				 0);
		ck_assert_int_eq(ktvblk_set_memory(rig.dev, mem), 0);
		/* Once bound it is bound, and there is a record of that. */
		ck_assert_int_eq(ktvblk_set_memory(rig.dev, mem), -EBUSY);
		ktvblk_mem_unref(mem);
		rig.storage->hook = act_in_op;
		if (started) {
			rig_start(&rig);
			ck_assert_int_eq(
				rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
		}
		ck_assert_int_eq(rig_destroy(&rig), KTVBLK_JOINED);
		ck_assert_uint_eq(in_release, (unsigned int)started + 1);
		rig_free(&rig);
	}
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	ck_assert(eventually(count_threads("ktvblk") == 0));
	ck_assert_int_eq(ktvblk_set_log_handler(NULL, NULL, NULL), 0);
	ck_assert_uint_eq(in_op, 1);
	ck_assert_uint_ge(in_log, 1);
}

/*
 * Faults
 */

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static unsigned char *on_demand; /* a page of this file */
static int file;
static _Atomic pid_t faulted;

static void on_fault(int signo)
{
	(void)signo;
	faulted = gettid();
	/* As a VMM does whose memory comes when it is wanted. */
	if (ftruncate(file, 4096) < 0)
		abort();
}

static void fault(void)
{
	SCOPED_LOCK(&one_at_a_time);
	ck_assert_int_eq(ftruncate(file, 0), 0);
	faulted = 0;
	*(volatile unsigned char *)on_demand = 1;
	ck_assert_int_eq(faulted, gettid());
}

START_TEST(a_fault_in_a_callback_is_the_vmms_to_handle)
{
	const struct sigaction action = { .sa_handler = on_fault };
	struct sigaction before;

	file = memfd_create("on demand", MFD_CLOEXEC);
	on_demand = (unsigned char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					  MAP_SHARED, file, 0);
	ck_assert_ptr_ne(on_demand, MAP_FAILED);
	sigaction(SIGBUS, &action, &before);
	act_everywhere(fault);
	sigaction(SIGBUS, &before, NULL);
	munmap(on_demand, 4096);
	close(file);
}
END_TEST

/*
 * Stacks
 */

static __attribute__((noinline)) void use_stack(void)
{
	volatile unsigned char bytes[STACK_BYTES];

	for (size_t i = sizeof(bytes); i; i -= 1024)
		bytes[i - 1] = 1;
}

START_TEST(a_callback_has_256_kib_of_stack_on_each_thread)
{
	if (runs_slowly())
		return; /* whose own data is on it */
	act_everywhere(use_stack);
}
END_TEST

static uint64_t locked_kib(void)
{
	return thread_status(gettid(), "VmLck");
}

START_TEST(a_started_device_locks_little_memory)
{
	struct rig rig;
	uint64_t before;

	if (runs_slowly())
		return; /* what those need is not ours */
	rig_open(&rig, NULL);
	before = locked_kib();
	if (mlockall(MCL_FUTURE) < 0) {
		puts("memory cannot be locked here: not tried");
	} else {
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
		ck_assert_uint_gt(locked_kib(), before);
		ck_assert_uint_lt(locked_kib() - before, LOCKED_KIB_MAX);
		munlockall();
	}
	rig_close(&rig);
}
END_TEST

/*
 * The beginning of a worker
 */

static struct {
	unsigned int calls;
	pid_t tid; /* of the last one */
	size_t cpu;
	struct latch begun, go;
} init;

static _Atomic unsigned int ops_seen, ops_wrong;

static size_t any_cpu(void)
{
	cpu_set_t cpus;
	size_t cpu = 0;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	while (!CPU_ISSET(cpu, &cpus))
		cpu++;
	return cpu;
}

static void make_it_ours(void *userdata)
{
	const struct sched_param param = { .sched_priority = 0 };
	cpu_set_t cpus;

	ck_assert_ptr_eq(userdata, &init);
	init.calls++;
	init.tid = gettid();
	CPU_ZERO(&cpus);
	CPU_SET(init.cpu, &cpus);
	pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
	pthread_setschedparam(pthread_self(), SCHED_BATCH, &param);
	pthread_setname_np(pthread_self(), "vmm-disk");
}

static void expect_ours(struct storage *storage, enum storage_op op)
{
	struct sched_param param;
	char name[16];
	cpu_set_t cpus;
	int policy;

	(void)storage;
	(void)op;
	pthread_getname_np(pthread_self(), name, sizeof(name));
	pthread_getaffinity_np(pthread_self(), sizeof(cpus), &cpus);
	pthread_getschedparam(pthread_self(), &policy, &param);
	if (init.tid != gettid() || strcmp(name, "vmm-disk") != 0 ||
	    CPU_COUNT(&cpus) != 1 || !CPU_ISSET(init.cpu, &cpus) ||
	    policy != SCHED_BATCH)
		ops_wrong++;
	ops_seen++;
}

START_TEST(each_worker_runs_what_the_vmm_wants_first)
{
	struct rig rig;

	memset(&init, 0, sizeof(init));
	init.cpu = any_cpu();
	ops_seen = ops_wrong = 0;
	rig_open(&rig, NULL);
	rig.storage->hook = expect_ours;
	ck_assert_int_eq(ktvblk_set_worker_init(NULL, make_it_ours, &init),
			 -EINVAL);
	ck_assert_int_eq(ktvblk_set_worker_init(rig.dev, make_it_ours, &init),
			 0);
	for (unsigned int i = 1; i <= 3; i++) {
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
		ck_assert_uint_eq(init.calls, i);
		ck_assert_uint_eq(ops_seen, i);
		ck_assert_uint_eq(ops_wrong, 0);
		rig_reset(&rig);
	}
	rig_close(&rig);
}
END_TEST

START_TEST(a_worker_runs_nothing_first_where_that_was_taken_back)
{
	struct rig rig;

	memset(&init, 0, sizeof(init));
	init.cpu = any_cpu();
	rig_open(&rig, NULL);
	ck_assert_int_eq(ktvblk_set_worker_init(rig.dev, make_it_ours, &init),
			 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	/* From the next start. */
	ck_assert_int_eq(ktvblk_set_worker_init(rig.dev, NULL, NULL), 0);
	ck_assert_uint_eq(init.calls, 1);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert_uint_eq(init.calls, 1);
	rig_close(&rig);
}
END_TEST

static void block(void *userdata)
{
	(void)userdata;
	latch_set(&init.begun);
	latch_wait(&init.go, WAIT_MS);
}

START_TEST(a_beginning_that_blocks_holds_no_reset_up)
{
	const struct kept_record *record;
	struct recorder rec;
	uint64_t start;
	struct rig rig;

	memset(&init, 0, sizeof(init));
	latch_init(&init.begun);
	latch_init(&init.go);
	wedge_record(&rec);
	wedge_open_idle(&rig, BUDGET, 0);
	ck_assert_int_eq(ktvblk_set_worker_init(rig.dev, block, NULL), 0);
	rig_start(&rig);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(latch_wait(&init.begun, WAIT_MS));
	start = clock_start();
	rig_reset(&rig);
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	record = recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	expect_text(record, "KTVBLK_FENCED", "yes");
	ck_assert_ptr_null(kept_field(record, "KTVBLK_REQ_TYPE"));
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	latch_set(&init.go);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	/* The one that was told to stop meanwhile served nothing. */
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	wedge_close(&rig);
	recorder_stop(&rec);
	latch_destroy(&init.begun);
	latch_destroy(&init.go);
}
END_TEST

TEST_PROGRAM("callbacks", a_fault_in_a_callback_is_the_vmms_to_handle,
	     a_callback_has_256_kib_of_stack_on_each_thread,
	     a_started_device_locks_little_memory,
	     each_worker_runs_what_the_vmm_wants_first,
	     a_worker_runs_nothing_first_where_that_was_taken_back,
	     a_beginning_that_blocks_holds_no_reset_up)
