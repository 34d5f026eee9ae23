/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A thread that is through with everything of ours has not ended: destructors of
 * thread-local data come behind, and the kernel's own work for a thread that
 * exits, and either can wait for the storage. Reset and destroy do not, the
 * record says which thread it is, and the next worker waits for its end.
 */

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <syslog.h>

#include "device.h"
#include "wedge.h"

#define BUDGET 500

/* What an op, or a release callback, leaves in its thread. */
static struct {
	pthread_key_t key;
	struct latch may_end;
	_Atomic unsigned int ran;
	_Atomic pid_t tid;
} local;

static void destroy_local(void *arg)
{
	(void)arg;
	local.tid = gettid();
	local.ran++;
	latch_wait(&local.may_end, WAIT_MS);
}

static void leave_local(struct storage *storage, enum storage_op op)
{
	(void)op;
	storage->hook = NULL;
	pthread_setspecific(local.key, &local);
}

static void release_and_leave_local(void *arg)
{
	atomic_fetch_add((_Atomic unsigned int *)arg, 1);
	pthread_setspecific(local.key, &local);
}

/* A tracer stops the thread in the midst of its exit: in the kernel. */
struct tracer {
	pid_t pid;
	int to, from;
};

static void be_tracer(pid_t tid, int in, int out)
{
	const int at_exit = SIGTRAP | PTRACE_EVENT_EXIT << 8;
	int status;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_TRACEEXIT) < 0)
		_exit(0);
	if (write(out, "s", 1) != 1)
		_exit(1);
	while (waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status)) {
		if (status >> 8 != at_exit) {
			ptrace(PTRACE_CONT, tid, NULL, WSTOPSIG(status));
			continue;
		}
		if (write(out, "x", 1) != 1 || read(in, &c, 1) < 0)
			_exit(1);
		ptrace(PTRACE_CONT, tid, NULL, NULL);
	}
	_exit(0);
}

/* False: not permitted here. */
static bool tracer_start(struct tracer *tracer, pid_t tid)
{
	int to[2], from[2];
	char c;

	ck_assert_int_eq(pipe(to) | pipe(from), 0);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	tracer->pid = fork();
	ck_assert_int_ge(tracer->pid, 0);
	if (tracer->pid == 0) {
		close(to[1]);
		close(from[0]);
		be_tracer(tid, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	tracer->to = to[1];
	tracer->from = from[0];
	return read(tracer->from, &c, 1) == 1 && c == 's';
}

static void tracer_wait_held(struct tracer *tracer)
{
	char c;

	ck_assert_int_eq(read(tracer->from, &c, 1), 1);
	ck_assert_int_eq(c, 'x');
}

static void tracer_let_go(struct tracer *tracer)
{
	close(tracer->to);
	close(tracer->from);
	waitpid(tracer->pid, NULL, 0);
}

/*
 * A device whose worker will not end
 */

struct scene {
	struct traces before;
	struct recorder rec;
	struct rig rig;
	struct tracer tracer;
	bool traced;
	pid_t worker;
};

static void set_up_local(void)
{
	latch_init(&local.may_end);
	local.ran = 0;
	local.tid = 0;
	ck_assert_int_eq(pthread_key_create(&local.key, destroy_local), 0);
}

static void tear_down_local(void)
{
	pthread_key_delete(local.key);
	latch_destroy(&local.may_end);
}

static void open_quiet(struct scene *scene)
{
	memset(scene, 0, sizeof(*scene));
	scene->before = traces_now();
	wedge_record(&scene->rec);
	set_up_local();
}

static void close_quiet(struct scene *scene)
{
	traces_expect_gone(&scene->before);
	recorder_stop(&scene->rec);
	tear_down_local();
}

static void scene_close(struct scene *scene)
{
	rig_free(&scene->rig);
	close_quiet(scene);
}

/* False: it cannot be had here, and nothing is left. */
static bool scene_open(struct scene *scene, bool traced)
{
	struct rig *rig = &scene->rig;

	open_quiet(scene);
	scene->traced = traced;
	wedge_open(rig, BUDGET, 0);
	if (!traced)
		rig->storage->hook = leave_local;
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	scene->worker = worker_tid(rig);
	ck_assert_int_ne(scene->worker, 0);
	/* Not in its gate, so that it will be fenced. */
	ck_assert(eventually(worker_sleeps(rig)));
	if (!traced || tracer_start(&scene->tracer, scene->worker))
		return true;
	puts("no thread can be traced here: not tried");
	tracer_let_go(&scene->tracer);
	rig_destroy(rig);
	scene_close(scene);
	return false;
}

static void scene_wait_held(struct scene *scene)
{
	if (scene->traced)
		tracer_wait_held(&scene->tracer);
	else
		ck_assert(eventually(local.ran == 1));
}

static void scene_let_go(struct scene *scene)
{
	if (scene->traced)
		tracer_let_go(&scene->tracer);
	else
		latch_set(&local.may_end);
}

static void expect_stuck(struct scene *scene, const char *id, pid_t tid)
{
	const struct kept_record *record = recorder_wait(&scene->rec, id);

	ck_assert_int_eq(record->priority, LOG_CRIT);
	expect_number(record, "KTVBLK_TIMEOUT_MS", BUDGET);
	expect_text(record, "KTVBLK_FENCED", "yes");
	expect_number(record, "KTVBLK_STUCK_TID", tid);
	/* It is not in a request any more. */
	ck_assert_ptr_null(kept_field(record, "KTVBLK_REQ_TYPE"));
}

static void expect_budget(uint64_t start)
{
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
}

static void check_reset(bool traced)
{
	struct scene scene;
	struct rig *rig = &scene.rig;
	uint64_t start;

	if (!scene_open(&scene, traced))
		return;
	start = clock_start();
	rig_reset(rig);
	expect_budget(start);
	scene_wait_held(&scene);
	expect_stuck(&scene, KTVBLK_MESSAGE_RESET_TIMED_OUT, scene.worker);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_WEDGED);

	/* The guest goes on, and is served when it can be. */
	rig_prepare(rig);
	rig_chain(rig, 3, VIRTIO_BLK_T_IN, 5, 512);
	rig_avail(rig, 3);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_kick(rig);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN);
	ck_assert(eventually(count_threads("ktvblk-") == 4));
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 1);
	ck_assert_int_eq(recorder_count(&scene.rec, KTVBLK_MESSAGE_RECLAIMED),
			 0);
	scene_let_go(&scene);
	rig_wait_used(rig, 1);
	ck_assert_uint_eq(*rig_chain_status(rig, 3), 0);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_RUNNING);
	ck_assert_int_eq(recorder_count(&scene.rec, NULL), 3);
	rig->dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	scene_close(&scene);
}

START_TEST(a_thread_local_destructor_does_not_hold_a_reset)
{
	check_reset(false);
}
END_TEST

START_TEST(a_thread_that_the_kernel_does_not_let_exit_does_not_hold_a_reset)
{
	check_reset(true);
}
END_TEST

static void check_destroy(bool traced)
{
	struct scene scene;
	uint64_t start;

	if (!scene_open(&scene, traced))
		return;
	start = clock_start();
	ck_assert_int_eq(rig_destroy(&scene.rig), KTVBLK_TIMED_OUT);
	expect_budget(start);
	scene_wait_held(&scene);
	/* It let go of what it had, before. */
	ck_assert_uint_eq(scene.rig.storage->released, 1);
	ck_assert_uint_eq(scene.rig.ram_released, 1);
	expect_stuck(&scene, KTVBLK_MESSAGE_DESTROY_TIMED_OUT, scene.worker);
	ck_assert_int_eq(recorder_count(&scene.rec, NULL), 1);
	scene_let_go(&scene);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RECLAIMED);
	scene_close(&scene);
}

START_TEST(a_thread_local_destructor_does_not_hold_a_destroy)
{
	check_destroy(false);
}
END_TEST

START_TEST(a_thread_that_the_kernel_does_not_let_exit_does_not_hold_a_destroy)
{
	check_destroy(true);
}
END_TEST

/*
 * Left there by a release callback
 */

static void open_with_release(struct rig *rig, _Atomic unsigned int *released,
			      bool started, uint32_t budget_ms)
{
	const struct rig_options options = {
		.config = { .destroy_timeout_ms = budget_ms },
		.no_memory = true,
	};
	struct ktvblk_mem *mem;

	rig_open(rig, &options);
	ck_assert_int_eq(ktvblk_mem_new(rig->regions, 1,
					release_and_leave_local, released,
					&mem),
			 0);
	ck_assert_int_eq(ktvblk_set_memory(rig->dev, mem), 0);
	ktvblk_mem_unref(mem);
	if (!started)
		return;
	rig_start(rig);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), 0);
}

static void check_release(bool started)
{
	_Atomic unsigned int released = 0;
	struct scene scene;
	uint64_t start;

	open_quiet(&scene);
	open_with_release(&scene.rig, &released, started, BUDGET);
	start = clock_start();
	ck_assert_int_eq(rig_destroy(&scene.rig), KTVBLK_TIMED_OUT);
	expect_budget(start);
	scene_wait_held(&scene);
	ck_assert_uint_eq(released, 1);
	expect_stuck(&scene, KTVBLK_MESSAGE_DESTROY_TIMED_OUT, local.tid);
	latch_set(&local.may_end);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_int_eq(recorder_count(&scene.rec, NULL), 2);
	ck_assert_uint_eq(released, 1);
	scene_close(&scene);
}

START_TEST(what_a_release_leaves_in_its_thread_does_not_hold_a_destroy)
{
	check_release(true);
	check_release(false);
}
END_TEST

START_TEST(of_a_destructor_that_is_quick_nothing_is_said)
{
	_Atomic unsigned int released;
	struct scene scene;

	for (int i = 0; i < 3; i++) {
		released = 0;
		open_quiet(&scene);
		latch_set(&local.may_end);
		if (i == 2)
			wedge_open(&scene.rig, WAIT_MS, 0);
		else
			open_with_release(&scene.rig, &released, i, WAIT_MS);
		if (i == 2) {
			scene.rig.storage->hook = leave_local;
			ck_assert_int_eq(rig_request(&scene.rig,
						     VIRTIO_BLK_T_IN, 0, 512),
					 0);
			rig_reset(&scene.rig);
			ck_assert_uint_eq(local.ran, 1);
		}
		ck_assert_int_eq(rig_destroy(&scene.rig), KTVBLK_JOINED);
		ck_assert_uint_eq(local.ran, 1);
		ck_assert_int_eq(recorder_count(&scene.rec, NULL), 0);
		scene_close(&scene);
	}
}
END_TEST

TEST_PROGRAM("thread-ends", a_thread_local_destructor_does_not_hold_a_reset,
	     a_thread_that_the_kernel_does_not_let_exit_does_not_hold_a_reset,
	     a_thread_local_destructor_does_not_hold_a_destroy,
	     a_thread_that_the_kernel_does_not_let_exit_does_not_hold_a_destroy,
	     what_a_release_leaves_in_its_thread_does_not_hold_a_destroy,
	     of_a_destructor_that_is_quick_nothing_is_said)
