/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * In whatever order a device is told to stop, reset and destroyed, and whatever
 * became of its worker, what it held is let go once; and the outcome says
 * whether that is so already.
 */

/* wrap: pthread_create pthread_join */

#include <string.h>

#include "device.h"
#include "faults.h"
#include "wedge.h"

#define BUDGET 30

WRAP_PTHREAD_CREATE

int __real_pthread_join(pthread_t thread, void **ret);
int __wrap_pthread_join(pthread_t thread, void **ret);

static _Atomic unsigned int joins;

int __wrap_pthread_join(pthread_t thread, void **ret)
{
	const int r = __real_pthread_join(thread, ret);

	joins++;
	return r;
}

/* What became of the worker before. */
enum worker_end {
	NEVER_STARTED,
	RUNS,
	ENDED_BY_ITSELF,
	WEDGED, /* and the storage still hangs */
	WEDGE_ENDED,
	END_COUNT
};

struct scene {
	struct traces before;
	struct recorder rec;
	struct rig rig;
	enum worker_end end;
	bool reset_since; /* the guest did, since the worker ended */
};

static void exit_thread(struct storage *storage, enum storage_op op)
{
	(void)op;
	storage->hook = NULL;
	pthread_exit(NULL);
}

static void end_by_itself(struct scene *scene)
{
	struct rig *rig = &scene->rig;
	const pid_t tid = worker_tid(rig);

	rig->storage->hook = exit_thread;
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	rig_kick(rig);
	recorder_wait(&scene->rec, KTVBLK_MESSAGE_WORKER_PANICKED);
	ck_assert(eventually(thread_state(tid) == '?'));
}

/* No end but that of a wedge may be due to a budget. */
static void scene_open(struct scene *scene, enum worker_end end)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = end >= WEDGED ? BUDGET
							      : WAIT_MS,
			    .destroy_timeout_ms = WAIT_MS },
	};
	struct rig *rig = &scene->rig;

	memset(scene, 0, sizeof(*scene));
	scene->before = traces_now();
	scene->end = end;
	wedge_record(&scene->rec);
	rig_open(rig, &options);
	if (end == NEVER_STARTED)
		return;
	rig_start(rig);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	if (end == ENDED_BY_ITSELF)
		end_by_itself(scene);
	if (end < WEDGED)
		return;
	wedge(rig, VIRTIO_BLK_T_OUT, 1);
	rig_reset(rig);
	rig->dev->reset_timeout_ms = WAIT_MS; /* of those that follow */
	recorder_wait(&scene->rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	if (end == WEDGE_ENDED) {
		storage_let_go(rig->storage);
		recorder_wait(&scene->rec, KTVBLK_MESSAGE_RECLAIMED);
	}
}

static void expect_released(struct scene *scene, unsigned int times)
{
	ck_assert_uint_eq(scene->rig.storage->released, times);
	ck_assert_uint_eq(scene->rig.ram_released, times);
}

static void scene_close(struct scene *scene)
{
	storage_let_go(scene->rig.storage);
	storage_wait_released(scene->rig.storage);
	/* Nobody is there any more who could do it again. */
	ck_assert(eventually(count_threads("ktvblk") == 0));
	expect_released(scene, 1);
	rig_free(&scene->rig);
	recorder_stop(&scene->rec);
	traces_expect_gone(&scene->before);
}

static void step(struct scene *scene, char what)
{
	struct rig *rig = &scene->rig;

	switch (what) {
	case 's':
		ck_assert_int_eq(ktvblk_request_stop(rig->dev), 0);
		break;
	case 'q':
		ck_assert_int_eq(ktvblk_request_reset(rig->dev), 0);
		break;
	case 'r':
		rig_reset(rig);
		ck_assert_uint_eq(rig_status(rig), 0);
		scene->reset_since = true;
		break;
	case 'g': /* the driver goes on */
		rig_start(rig);
		break;
	}
}

static enum ktvblk_outcome expected(const struct scene *scene)
{
	if (scene->end == WEDGED)
		return KTVBLK_TIMED_OUT;
	return scene->end == ENDED_BY_ITSELF && !scene->reset_since
		       ? KTVBLK_PANICKED
		       : KTVBLK_JOINED;
}

static void check_order(enum worker_end end, const char *order, bool no_thread)
{
	enum ktvblk_outcome outcome;
	struct scene scene;
	uint64_t start;

	scene_open(&scene, end);
	if (no_thread)
		fault_set(&pthread_create_fault,
			  &(struct fault_when){ .error = EAGAIN,
						.times = 1000,
						.here = true });
	for (const char *what = order; *what; what++)
		step(&scene, *what);
	start = clock_start();
	outcome = ktvblk_destroy(scene.rig.dev);
	ck_assert_uint_lt(ms_since(start), bound_ms(WAIT_MS / 2));
	fault_clear(&pthread_create_fault);
	ck_assert_msg(outcome == expected(&scene), "%s after %s of %d, %d",
		      ktvblk_outcome_name(outcome), order, (int)end, no_thread);
	expect_released(&scene, outcome != KTVBLK_TIMED_OUT);
	if (end == WEDGED) {
		recorder_wait(&scene.rec, KTVBLK_MESSAGE_DESTROY_STILL_WEDGED);
		storage_let_go(scene.rig.storage);
		recorder_wait(&scene.rec, KTVBLK_MESSAGE_RECLAIMED);
	}
	scene_close(&scene);
}

static const char *const orders[] = {
	"",   "s",   "r",   "sr",  "rs",  "rr",	  "srr",
	"qr", "qsr", "sqr", "rsr", "rqs", "qrsr", "srsr",
};

START_TEST(in_each_order_what_a_device_held_is_let_go_once)
{
	const enum worker_end end = (enum worker_end)_i;

	for (size_t i = 0; i < ARRAY_SIZE(orders); i++)
		check_order(end, orders[i], false);
	/* A driver that goes on meanwhile. */
	check_order(end, end == RUNS || end == ENDED_BY_ITSELF ? "rg" : "g",
		    false);
}
END_TEST

START_TEST(without_a_thread_to_be_had_it_is_let_go_once_as_well)
{
	for (size_t i = 0; i < ARRAY_SIZE(orders); i++)
		check_order((enum worker_end)_i, orders[i], true);
}
END_TEST

/*
 * Destroy just as a worker that was left behind ends: either it is still out, and
 * that is said, or nothing of it is left. Each round the two come closer to
 * each other.
 */

struct racer {
	struct storage *storage;
	uint64_t at_ns;
	pthread_t thread;
};

static void wait_until(uint64_t at_ns)
{
	while (now_ns() < at_ns)
		cpu_relax();
}

static void *let_go_at(void *arg)
{
	const struct racer *racer = (const struct racer *)arg;

	wait_until(racer->at_ns);
	storage_let_go(racer->storage);
	return NULL;
}

/* How much later than the destroy begins the storage is let go, or earlier. */
static enum ktvblk_outcome race(struct rig *rig, int64_t later_ns)
{
	const uint64_t at_ns = now_ns() + 2 * NSEC_PER_MSEC;
	struct racer racer = { .storage = rig->storage,
			       .at_ns = at_ns + (uint64_t)later_ns };
	enum ktvblk_outcome outcome;

	ck_assert_int_eq(pthread_create(&racer.thread, NULL, let_go_at, &racer),
			 0);
	wait_until(at_ns);
	outcome = ktvblk_destroy(rig->dev);
	if (outcome == KTVBLK_JOINED) {
		ck_assert_uint_eq(rig->storage->released, 1);
		ck_assert_uint_eq(rig->ram_released, 1);
		/* The one left behind, and ktvblk-drop. */
		ck_assert_uint_ge(joins, 2);
	} else {
		ck_assert_int_eq(outcome, KTVBLK_TIMED_OUT);
	}
	pthread_join(racer.thread, NULL);
	return outcome;
}

START_TEST(a_destroy_as_the_one_left_behind_ends_is_joined_or_is_not)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = 1,
			    .destroy_timeout_ms = WAIT_MS },
		.no_flush = true,
	};
	const unsigned int n = rounds("RACE_ROUNDS", 300, 30);
	const struct traces before = traces_now();
	int64_t later_ns = 0, by_ns = 200000;
	bool was_joined = false;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	for (unsigned int i = 0; i < n; i++) {
		bool is_joined;

		rig_open(&rig, &options);
		rig_start(&rig);
		wedge(&rig, VIRTIO_BLK_T_IN, 0);
		rig_reset(&rig);
		if (i % 2)
			rig_start(&rig);
		is_joined = race(&rig, later_ns) == KTVBLK_JOINED;
		if (is_joined != was_joined)
			by_ns = MAX(by_ns / 2, 1000);
		later_ns += is_joined ? by_ns : -by_ns;
		later_ns = MAX(later_ns, -(int64_t)NSEC_PER_MSEC);
		was_joined = is_joined;
		rig_free(&rig);
	}
	/* The last record before there is nobody to take it. */
	ck_assert(eventually(count_threads("ktvblk") == 0));
	recorder_stop(&rec);
	traces_expect_gone(&before);
}
END_TEST

int main(void)
{
	const TTest *const in_each[] = {
		in_each_order_what_a_device_held_is_let_go_once,
		without_a_thread_to_be_had_it_is_let_go_once_as_well,
	};
	const TTest *const races[] = {
		a_destroy_as_the_one_left_behind_ends_is_joined_or_is_not,
	};

	return run_loops("ends", END_COUNT, in_each, ARRAY_SIZE(in_each)) |
	       run_tests("ends", races, ARRAY_SIZE(races));
}
