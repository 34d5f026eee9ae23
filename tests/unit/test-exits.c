/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A callback that ends its thread with pthread_exit(): an op, the release of the
 * storage, that of guest memory, or several of them, on whatever thread they
 * run. Each still runs once, nothing of the thread is left, and other devices
 * do not notice.
 */

/* wrap: pthread_create */

#include <string.h>

#include "device.h"
#include "faults.h"
#include "memory.h"
#include "ranges.h"
#include "wedge.h"

WRAP_PTHREAD_CREATE

#define NO_OP OP_COUNT

/* What ends its thread. */
struct exits {
	enum storage_op op; /* or NO_OP */
	bool storage, memory; /* the release of it */
};

struct scene {
	struct traces before;
	struct recorder rec;
	struct rig rig;
	struct rig other; /* is there all the while */
	struct exits exits;
	void (*storage_release)(void *userdata);
	void (*mem_release)(void *userdata);
	char comm[16]; /* of the thread that let the memory go */
};

static struct scene *on_stage;

static void exit_in_op(struct storage *storage, enum storage_op op)
{
	if (op != on_stage->exits.op)
		return;
	storage->hook = NULL;
	pthread_exit(NULL);
}

static void release_storage(void *userdata)
{
	on_stage->storage_release(userdata);
	if (on_stage->exits.storage)
		pthread_exit(NULL);
}

static void release_memory(void *userdata)
{
	pthread_getname_np(pthread_self(), on_stage->comm,
			   sizeof(on_stage->comm));
	on_stage->mem_release(userdata);
	if (on_stage->exits.memory)
		pthread_exit(NULL);
}

static void serve_one(struct rig *rig)
{
	rig_start(rig);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_OUT, 0, 512), 0);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
}

static void scene_open(struct scene *scene, const struct exits *exits)
{
	/* Nothing hangs here, so no budget may run out. */
	const struct rig_options patient = {
		.config = { .reset_timeout_ms = WAIT_MS,
			    .destroy_timeout_ms = WAIT_MS },
		.features = RIG_RANGES,
	};
	struct holdings *holdings;

	memset(scene, 0, sizeof(*scene));
	on_stage = scene;
	scene->before = traces_now();
	scene->exits = *exits;
	wedge_record(&scene->rec);
	rig_open(&scene->other, &patient);
	serve_one(&scene->other);
	rig_open(&scene->rig, &patient);
	holdings = scene->rig.dev->holdings;
	scene->storage_release = holdings->backend->ops.release;
	scene->mem_release = holdings->mem->release;
	holdings->backend->ops.release = release_storage;
	holdings->mem->release = release_memory;
}

/* Up to the op that ends the worker, if one does. */
static void scene_play(struct scene *scene)
{
	static const uint32_t types[] = { [OP_READ] = VIRTIO_BLK_T_IN,
					  [OP_WRITE] = VIRTIO_BLK_T_OUT,
					  [OP_FLUSH] = VIRTIO_BLK_T_FLUSH,
					  [OP_DISCARD] = T_DISCARD,
					  [OP_WRITE_ZEROES] = T_ZEROES };
	static const struct test_range range = { 1, 1, 0 };
	const enum storage_op op = scene->exits.op;
	struct rig *rig = &scene->rig;

	serve_one(rig);
	if (op == NO_OP)
		return;
	/* Without it there would be nothing to flush. */
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_OUT, 0, 512), 0);
	rig->storage->hook = exit_in_op;
	if (op > OP_FLUSH)
		ranges_chain(rig, types[op], &range, 1);
	else
		rig_chain(rig, 0, types[op], 1, op == OP_FLUSH ? 0 : 512);
	rig_avail(rig, 0);
	rig_kick(rig);
	recorder_wait(&scene->rec, KTVBLK_MESSAGE_WORKER_PANICKED);
	ck_assert_uint_eq(rig_status(rig), S_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(*rig_chain_status(rig, 0), SENTINEL);
}

static void scene_close(struct scene *scene, enum ktvblk_outcome outcome,
			const char *comm)
{
	ck_assert_int_eq(rig_destroy(&scene->rig), outcome);
	ck_assert_uint_eq(scene->rig.storage->released, 1);
	ck_assert_uint_eq(scene->rig.ram_released, 1);
	ck_assert_msg(strncmp(scene->comm, comm, strlen(comm)) == 0,
		      "memory was let go by %s, not %s", scene->comm, comm);
	rig_reset(&scene->other);
	serve_one(&scene->other);
	rig_close(&scene->other);
	ck_assert(eventually(count_threads("ktvblk") == 0));
	ck_assert_uint_eq(scene->rig.storage->released, 1);
	ck_assert_uint_eq(scene->rig.ram_released, 1);
	rig_free(&scene->rig);
	recorder_stop(&scene->rec);
	traces_expect_gone(&scene->before);
}

static void check_on_worker(const struct exits *exits)
{
	struct scene scene;

	scene_open(&scene, exits);
	scene_play(&scene);
	scene_close(&scene,
		    exits->op == NO_OP ? KTVBLK_JOINED : KTVBLK_PANICKED,
		    "ktvblk-");
}

START_TEST(a_thread_ended_by_callbacks_of_a_running_device_leaves_nothing)
{
	for (int i = 0; i < 4; i++)
		check_on_worker(&(struct exits){ .op = (enum storage_op)_i,
						 .storage = i & 1,
						 .memory = i & 2 });
}
END_TEST

/* The worker is gone, by a reset, or never was. */
static void check_without_worker(const struct exits *exits, bool started,
				 bool no_thread)
{
	struct scene scene;

	scene_open(&scene, exits);
	if (started) {
		scene_play(&scene);
		rig_reset(&scene.rig);
	}
	if (no_thread)
		fault_set(&pthread_create_fault,
			  &(struct fault_when){ .error = EAGAIN,
						.here = true });
	scene_close(&scene, KTVBLK_JOINED,
		    no_thread ? "ktvblk-log" : "ktvblk-drop");
	ck_assert(fault_over(&pthread_create_fault));
}

START_TEST(a_thread_ended_by_releases_without_a_worker_leaves_nothing)
{
	for (int i = 0; i < 4; i++) {
		const struct exits exits = { .op = (enum storage_op)_i,
					     .storage = i & 1,
					     .memory = i & 2 };

		for (int no_thread = 0; no_thread < 2; no_thread++) {
			check_without_worker(&exits, true, no_thread);
			check_without_worker(&exits, false, no_thread);
		}
	}
}
END_TEST

LOOP_PROGRAM("exits", NO_OP + 1,
	     a_thread_ended_by_callbacks_of_a_running_device_leaves_nothing,
	     a_thread_ended_by_releases_without_a_worker_leaves_nothing)
