/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Five ways a worker can be seen to end, at reset and at destroy: each has its
 * own record, and whatever the outcome, all is released once the storage lets
 * go.
 */

/* wrap: pthread_create pthread_clockjoin_np pthread_detach watch_snapshot */

#include <string.h>
#include <syslog.h>

#include "device.h"
#include "faults.h"
#include "watch.h"
#include "wedge.h"

#define BUDGET 30 /* where the worker hangs */
#define PATIENT WAIT_MS /* where it ends, once it has a processor */
#define SECTOR 3

WRAP_PTHREAD_CREATE

int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until);

static struct fault join_fault;

/*
 * By another clock, as the thread sanitizer does not know this function; a
 * deadline is no more exact than that.
 */
int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until)
{
	struct timespec now, real;
	int64_t ns;

	if (fault_hits(&join_fault, 0))
		return join_fault.when.error;
	clock_gettime(clock, &now);
	clock_gettime(CLOCK_REALTIME, &real);
	ns = (until->tv_sec - now.tv_sec) * (int64_t)NSEC_PER_SEC +
	     until->tv_nsec - now.tv_nsec;
	if (ns > 0)
		real = ns_to_timespec((uint64_t)real.tv_sec * NSEC_PER_SEC +
				      (uint64_t)(real.tv_nsec + ns));
	return pthread_timedjoin_np(thread, ret, &real);
}

struct watch_snapshot __real_watch_snapshot(const struct watch *watch);
struct watch_snapshot __wrap_watch_snapshot(const struct watch *watch);
int __real_pthread_detach(pthread_t thread);
int __wrap_pthread_detach(pthread_t thread);

/* Whose worker makes it, just when it is given up, or left to itself. */
static struct rig *_Atomic makes_it, *_Atomic makes_it_late;

static void make_it(struct rig *_Atomic *whose)
{
	struct rig *rig = atomic_exchange(whose, NULL);
	pid_t tid;

	if (!rig)
		return;
	tid = worker_tid(rig);
	storage_let_go(rig->storage);
	ck_assert(eventually(thread_state(tid) == '?'));
}

struct watch_snapshot __wrap_watch_snapshot(const struct watch *watch)
{
	const struct watch_snapshot seen = __real_watch_snapshot(watch);

	make_it(&makes_it);
	return seen;
}

int __wrap_pthread_detach(pthread_t thread)
{
	const int r = __real_pthread_detach(thread);

	make_it(&makes_it_late);
	return r;
}

/* A scene: a recorder, a device, and what it was before all ended. */
struct scene {
	struct traces before;
	struct recorder rec;
	struct rig rig;
	struct ktvblk_identity identity;
	pid_t worker;
	enum ktvblk_outcome outcome;
	struct latch kicked, over; /* for what a callback does */
	bool destroying;
};

/* The budget of the end to come; no other one may run out. */
static void scene_open(struct scene *scene, uint64_t flags, bool destroying,
		       uint32_t budget_ms)
{
	const struct rig_options options = {
		.config = { .name = "vda",
			    .flags = flags,
			    .reset_timeout_ms = destroying ? PATIENT
							   : budget_ms,
			    .destroy_timeout_ms = destroying ? budget_ms
							     : PATIENT },
	};

	memset(scene, 0, sizeof(*scene));
	scene->before = traces_now();
	scene->destroying = destroying;
	latch_init(&scene->kicked);
	latch_init(&scene->over);
	wedge_record(&scene->rec);
	rig_open(&scene->rig, &options);
	rig_start(&scene->rig);
	ck_assert_int_eq(rig_request(&scene->rig, VIRTIO_BLK_T_IN, SECTOR, 512),
			 0);
	scene->identity = rig_identity(&scene->rig);
	scene->worker = worker_tid(&scene->rig);
	ck_assert_int_ne(scene->worker, 0);
}

static void scene_destroy(struct scene *scene)
{
	scene->outcome = ktvblk_destroy(scene->rig.dev);
	scene->rig.dev = NULL;
}

static void scene_end(struct scene *scene, bool destroying)
{
	if (destroying)
		scene_destroy(scene);
	else
		rig_reset(&scene->rig);
}

/* The guest goes on after a reset: it is served, and destroyed in silence. */
static void scene_go_on(struct scene *scene)
{
	ck_assert_uint_eq(rig_status(&scene->rig), 0);
	rig_start(&scene->rig);
	ck_assert_int_eq(rig_request(&scene->rig, VIRTIO_BLK_T_IN, 1, 512), 0);
	recorder_clear(&scene->rec);
	scene_destroy(scene);
	ck_assert_int_eq(scene->outcome, KTVBLK_JOINED);
	ck_assert_uint_eq(scene->rig.storage->released, 1);
}

/* Everything was released, and the next device starts from nothing. */
static void scene_close(struct scene *scene)
{
	storage_let_go(scene->rig.storage);
	rig_free(&scene->rig);
	traces_expect_gone(&scene->before);
	recorder_stop(&scene->rec);
	latch_destroy(&scene->kicked);
	latch_destroy(&scene->over);
}

/* The one record of the end, with the identity of the session that ended. */
static const struct kept_record *expect_record(struct scene *scene,
					       const char *id, int priority)
{
	const struct kept_record *record = recorder_wait(&scene->rec, id);

	ck_assert_int_eq(recorder_count(&scene->rec, id), 1);
	ck_assert_int_eq(record->priority, priority);
	ck_assert_ptr_nonnull(strstr(record->message, "(vda): "));
	expect_text(record, "MESSAGE_ID", id);
	expect_number(record, "PRIORITY", priority);
	expect_number(record, "STOP_FD", scene->identity.stop_fd);
	expect_number(record, "INSTANCE_ID",
		      (int64_t)scene->identity.instance_id);
	expect_number(record, "CAPACITY_SECTORS", RIG_DISK_BYTES / 512);
	expect_text(record, "KTVBLK_DISK", "vda");
	return record;
}

static void expect_left_behind(const struct kept_record *record,
			       const char *type, const char *fenced)
{
	expect_number(record, "KTVBLK_TIMEOUT_MS", BUDGET);
	expect_text(record, "KTVBLK_FENCED", fenced);
	expect_text(record, "KTVBLK_REQ_TYPE", type);
	expect_number(record, "KTVBLK_SECTOR",
		      strcmp(type, "flush") == 0 ? 0 : SECTOR);
	expect_number(record, "KTVBLK_LENGTH",
		      strcmp(type, "flush") == 0 ? 0 : 512);
	ck_assert_ptr_nonnull(kept_field(record, "KTVBLK_AGE_MS"));
}

static void expect_stuck_in_a_futex(const struct scene *scene,
				    const struct kept_record *record)
{
	expect_number(record, "KTVBLK_STUCK_TID", scene->worker);
	expect_text(record, "KTVBLK_STUCK_STATE", "S");
	expect_text(record, "KTVBLK_STUCK_SYSCALL", "futex");
	ck_assert_ptr_nonnull(kept_field(record, "KTVBLK_STUCK_WCHAN"));
}

static void expect_reclaimed(struct scene *scene)
{
	const struct kept_record *record =
		expect_record(scene, KTVBLK_MESSAGE_RECLAIMED, LOG_NOTICE);

	ck_assert_ptr_nonnull(kept_field(record, "KTVBLK_STUCK_MS"));
}

/*
 * Joined
 */

static void check_joined(bool destroying)
{
	struct scene scene;

	scene_open(&scene, 0, destroying, PATIENT);
	pthread_create_fault.calls = 0;
	scene_end(&scene, destroying);
	ck_assert_int_eq(scene.outcome, KTVBLK_JOINED);
	ck_assert_uint_eq(pthread_create_fault.calls, 0);
	if (!destroying) {
		ck_assert_int_eq(recorder_count(&scene.rec, NULL), 0);
		scene_go_on(&scene);
	}
	ck_assert_uint_eq(scene.rig.storage->released, 1);
	ck_assert_uint_eq(scene.rig.ram_released, 1);
	ck_assert_ptr_null(scene.rec.first);
	scene_close(&scene);
}

START_TEST(reset_joined_is_silent_and_makes_no_thread)
{
	check_joined(false);
}
END_TEST

START_TEST(destroy_joined_is_silent_and_makes_no_thread)
{
	check_joined(true);
}
END_TEST

/* The budget is over, and the worker gone before it is left behind. */
static void check_joined_after_all(bool destroying)
{
	struct scene scene;

	scene_open(&scene, 0, destroying, BUDGET);
	wedge(&scene.rig, VIRTIO_BLK_T_IN, SECTOR);
	makes_it = &scene.rig;
	scene_end(&scene, destroying);
	ck_assert_ptr_null(makes_it);
	ck_assert_int_eq(scene.outcome, KTVBLK_JOINED);
	ck_assert_int_eq(recorder_count(&scene.rec, NULL), 0);
	if (!destroying)
		scene_go_on(&scene);
	ck_assert_uint_eq(scene.rig.ram_released, 1);
	scene_close(&scene);
}

START_TEST(reset_joins_a_worker_that_makes_it_after_all)
{
	check_joined_after_all(false);
}
END_TEST

START_TEST(destroy_joins_a_worker_that_makes_it_after_all)
{
	check_joined_after_all(true);
}
END_TEST

/*
 * Panicked
 */

static void exit_thread(struct storage *storage, enum storage_op op)
{
	(void)op;
	storage->hook = NULL;
	pthread_exit(NULL);
}

static void check_panicked(bool destroying)
{
	const struct kept_record *record;
	struct scene scene;
	struct rig *rig = &scene.rig;

	scene_open(&scene, 0, destroying, PATIENT);
	rig->storage->hook = exit_thread;
	rig_irqs(rig);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, SECTOR, 512);
	rig_avail(rig, 0);
	rig_kick(rig);

	/* At once, and to the driver as well. */
	record = expect_record(&scene, KTVBLK_MESSAGE_WORKER_PANICKED, LOG_ERR);
	expect_text(record, "KTVBLK_PANIC", "<no reason given>");
	ck_assert_uint_eq(rig_status(rig), S_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert(rig_read(rig, VIRTIO_MMIO_INTERRUPT_STATUS) &
		  VIRTIO_MMIO_INT_CONFIG);
	ck_assert_uint_ge(rig_irqs(rig), 1);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_NEEDS_RESET);
	ck_assert_uint_eq(rig_used_idx(rig), 1);

	scene_end(&scene, destroying);
	if (destroying) {
		ck_assert_int_eq(scene.outcome, KTVBLK_PANICKED);
		ck_assert_uint_eq(rig->storage->released, 1);
		ck_assert_uint_eq(rig->ram_released, 1);
	}
	record = expect_record(&scene,
			       destroying ? KTVBLK_MESSAGE_DESTROY_PANICKED
					  : KTVBLK_MESSAGE_RESET_PANICKED,
			       LOG_ERR);
	expect_text(record, "KTVBLK_PANIC", "<no reason given>");
	ck_assert_int_eq(recorder_count(&scene.rec, NULL), 2);
	if (!destroying)
		scene_go_on(&scene);
	scene_close(&scene);
}

START_TEST(reset_panicked_is_told_at_once_and_at_the_join)
{
	check_panicked(false);
}
END_TEST

START_TEST(destroy_panicked_is_told_at_once_and_at_the_join)
{
	check_panicked(true);
}
END_TEST

/*
 * Timed out
 */

static void check_timed_out(bool destroying, uint32_t type, uint64_t flags,
			    const char *fenced)
{
	static const char *const names[] = { [VIRTIO_BLK_T_IN] = "in",
					     [VIRTIO_BLK_T_OUT] = "out",
					     [VIRTIO_BLK_T_FLUSH] = "flush" };
	const struct kept_record *record;
	struct scene scene;

	scene_open(&scene, flags, destroying, BUDGET);
	wedge(&scene.rig, type, type == VIRTIO_BLK_T_FLUSH ? 0 : SECTOR);
	scene_end(&scene, destroying);
	if (destroying)
		ck_assert_int_eq(scene.outcome, KTVBLK_TIMED_OUT);
	ck_assert_uint_eq(scene.rig.storage->released, 0);
	ck_assert_uint_eq(scene.rig.ram_released, 0);
	record = expect_record(&scene,
			       destroying ? KTVBLK_MESSAGE_DESTROY_TIMED_OUT
					  : KTVBLK_MESSAGE_RESET_TIMED_OUT,
			       LOG_CRIT);
	expect_left_behind(record, names[type], fenced);
	ck_assert_uint_ge(kept_number(record, "KTVBLK_AGE_MS"), BUDGET);
	expect_stuck_in_a_futex(&scene, record);
	ck_assert(eventually(count_threads("ktvblk-drop") == 1));
	storage_let_go(scene.rig.storage);
	expect_reclaimed(&scene);
	if (!destroying)
		scene_go_on(&scene);
	scene_close(&scene);
}

START_TEST(reset_timed_out_says_what_it_is_stuck_in)
{
	check_timed_out(false, VIRTIO_BLK_T_IN, 0, "yes");
	check_timed_out(false, VIRTIO_BLK_T_OUT, 0, "yes");
	check_timed_out(false, VIRTIO_BLK_T_FLUSH, 0, "yes");
}
END_TEST

START_TEST(destroy_timed_out_says_what_it_is_stuck_in)
{
	check_timed_out(true, VIRTIO_BLK_T_IN, 0, "yes");
	check_timed_out(true, VIRTIO_BLK_T_OUT, 0, "yes");
	check_timed_out(true, VIRTIO_BLK_T_FLUSH, 0, "yes");
}
END_TEST

START_TEST(zero_copy_is_not_fenced_but_where_no_memory_is_in_play)
{
	for (int destroying = 0; destroying < 2; destroying++) {
		check_timed_out(destroying, VIRTIO_BLK_T_IN, KTVBLK_ZERO_COPY,
				"no");
		check_timed_out(destroying, VIRTIO_BLK_T_OUT, KTVBLK_ZERO_COPY,
				"no");
		check_timed_out(destroying, VIRTIO_BLK_T_FLUSH,
				KTVBLK_ZERO_COPY, "yes");
	}
}
END_TEST

/*
 * Helper spawn failed
 */

static void check_spawn_failed(bool destroying, bool late)
{
	const struct kept_record *record;
	struct scene scene;

	scene_open(&scene, 0, destroying, BUDGET);
	wedge(&scene.rig, VIRTIO_BLK_T_OUT, SECTOR);
	fault_set(&pthread_create_fault,
		  &(struct fault_when){ .error = EAGAIN, .here = true });
	makes_it_late = late ? &scene.rig : NULL;
	scene_end(&scene, destroying);
	ck_assert_ptr_null(makes_it_late);
	ck_assert(fault_over(&pthread_create_fault));
	if (destroying)
		ck_assert_int_eq(scene.outcome, KTVBLK_HELPER_SPAWN_FAILED);
	record = expect_record(
		&scene,
		destroying ? KTVBLK_MESSAGE_DESTROY_HELPER_SPAWN_FAILED
			   : KTVBLK_MESSAGE_RESET_HELPER_SPAWN_FAILED,
		LOG_CRIT);
	expect_left_behind(record, "out", "yes");
	expect_number(record, "ERRNO", EAGAIN);
	if (!late)
		expect_stuck_in_a_futex(&scene, record);
	ck_assert_uint_eq(count_threads("ktvblk-drop"), 0);
	/* At a reset the device has it, too. */
	ck_assert_uint_eq(scene.rig.storage->released, late && destroying);
	storage_let_go(scene.rig.storage);
	expect_reclaimed(&scene);
	if (!destroying)
		scene_go_on(&scene);
	scene_close(&scene);
}

START_TEST(reset_helper_spawn_failed_leaves_the_worker_to_itself)
{
	check_spawn_failed(false, false);
}
END_TEST

START_TEST(destroy_helper_spawn_failed_leaves_the_worker_to_itself)
{
	check_spawn_failed(true, false);
}
END_TEST

START_TEST(a_worker_left_to_itself_that_was_quicker_is_cleaned_up)
{
	check_spawn_failed(false, true);
	check_spawn_failed(true, true);
}
END_TEST

/*
 * Helper disconnected
 */

static void end_from_callback(struct storage *storage, enum storage_op op)
{
	struct scene *scene = (struct scene *)storage->hook_data;

	(void)op;
	storage->hook = NULL;
	/* The kick needs the device, and the worker may not need the kick. */
	ck_assert(latch_wait(&scene->kicked, WAIT_MS));
	scene_end(scene, scene->destroying);
	latch_set(&scene->over);
}

static void check_disconnected_by_callback(bool destroying)
{
	const struct kept_record *record;
	struct scene scene;
	struct rig *rig = &scene.rig;

	scene_open(&scene, 0, destroying, BUDGET);
	rig->storage->hook_data = &scene;
	rig->storage->hook = end_from_callback;
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, SECTOR, 512);
	rig_avail(rig, 0);
	rig_kick(rig);
	latch_set(&scene.kicked);
	ck_assert(latch_wait(&scene.over, WAIT_MS));
	if (destroying)
		ck_assert_int_eq(scene.outcome, KTVBLK_HELPER_DISCONNECTED);
	record = expect_record(
		&scene,
		destroying ? KTVBLK_MESSAGE_DESTROY_HELPER_DISCONNECTED
			   : KTVBLK_MESSAGE_RESET_HELPER_DISCONNECTED,
		LOG_CRIT);
	expect_left_behind(record, "in", "yes");
	expect_number(record, "ERRNO", EDEADLK);
	expect_reclaimed(&scene);
	ck_assert_uint_eq(*rig_chain_status(rig, 0), SENTINEL);
	ck_assert_uint_eq(rig_used_idx(rig), 1);
	if (!destroying)
		scene_go_on(&scene);
	scene_close(&scene);
}

START_TEST(reset_helper_disconnected_from_the_worker_itself)
{
	check_disconnected_by_callback(false);
}
END_TEST

START_TEST(destroy_helper_disconnected_from_the_worker_itself)
{
	check_disconnected_by_callback(true);
}
END_TEST

static void check_disconnected_by_error(bool destroying)
{
	const struct kept_record *record;
	struct scene scene;
	uint64_t start;

	scene_open(&scene, 0, destroying, BUDGET);
	wedge(&scene.rig, VIRTIO_BLK_T_IN, SECTOR);
	fault_set(&join_fault, &(struct fault_when){ .error = EINVAL });
	start = clock_start();
	scene_end(&scene, destroying);
	ck_assert_uint_lt(ms_since(start), bound_ms(1000));
	if (destroying)
		ck_assert_int_eq(scene.outcome, KTVBLK_HELPER_DISCONNECTED);
	record = expect_record(
		&scene,
		destroying ? KTVBLK_MESSAGE_DESTROY_HELPER_DISCONNECTED
			   : KTVBLK_MESSAGE_RESET_HELPER_DISCONNECTED,
		LOG_CRIT);
	expect_left_behind(record, "in", "yes");
	expect_number(record, "ERRNO", EINVAL);
	storage_let_go(scene.rig.storage);
	expect_reclaimed(&scene);
	if (!destroying)
		scene_go_on(&scene);
	scene_close(&scene);
}

START_TEST(reset_helper_disconnected_where_the_join_fails)
{
	check_disconnected_by_error(false);
}
END_TEST

START_TEST(destroy_helper_disconnected_where_the_join_fails)
{
	check_disconnected_by_error(true);
}
END_TEST

TEST_PROGRAM("teardown-outcomes", reset_joined_is_silent_and_makes_no_thread,
	     destroy_joined_is_silent_and_makes_no_thread,
	     reset_joins_a_worker_that_makes_it_after_all,
	     destroy_joins_a_worker_that_makes_it_after_all,
	     reset_panicked_is_told_at_once_and_at_the_join,
	     destroy_panicked_is_told_at_once_and_at_the_join,
	     reset_timed_out_says_what_it_is_stuck_in,
	     destroy_timed_out_says_what_it_is_stuck_in,
	     zero_copy_is_not_fenced_but_where_no_memory_is_in_play,
	     reset_helper_spawn_failed_leaves_the_worker_to_itself,
	     destroy_helper_spawn_failed_leaves_the_worker_to_itself,
	     a_worker_left_to_itself_that_was_quicker_is_cleaned_up,
	     reset_helper_disconnected_from_the_worker_itself,
	     destroy_helper_disconnected_from_the_worker_itself,
	     reset_helper_disconnected_where_the_join_fails,
	     destroy_helper_disconnected_where_the_join_fails)
