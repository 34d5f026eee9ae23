/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Several queues: each has a worker and a life of its own, and what hangs in one
 * is nobody else's; all are stopped by one deadline.
 */

#include <poll.h>
#include <string.h>

#include "device.h"
#include "wedge.h"

#define BUDGET 100
#define BLK_CONFIG_NUM_QUEUES 0x122u

/* Flushes hang until they are let go; nothing else does. */
struct stuck {
	struct latch go;
	_Atomic unsigned int n;
};

static void hang_flush(struct storage *storage, enum storage_op op)
{
	struct stuck *stuck = (struct stuck *)storage->hook_data;

	if (op != OP_FLUSH)
		return;
	stuck->n++;
	while (!latch_wait(&stuck->go, WAIT_MS))
		;
}

struct scene {
	struct rig rig;
	struct stuck stuck;
	struct recorder rec;
	struct traces before;
};

static void open_with(struct scene *scene, const struct rig_options *options)
{
	memset(&scene->stuck, 0, sizeof(scene->stuck));
	latch_init(&scene->stuck.go);
	wedge_record(&scene->rec);
	scene->before = traces_now();
	rig_open(&scene->rig, options);
	scene->rig.storage->hook_data = &scene->stuck;
	scene->rig.storage->hook = hang_flush;
}

static void open_queues(struct scene *scene, uint32_t n)
{
	open_with(scene, &(struct rig_options){
				 .config = { .n_queues = n,
					     .reset_timeout_ms = BUDGET,
					     .destroy_timeout_ms = BUDGET },
				 .features = n > 1 ? RIG_MQ : 0,
			 });
	rig_start(&scene->rig);
}

static void close_scene(struct scene *scene)
{
	latch_set(&scene->stuck.go);
	if (scene->rig.dev)
		ktvblk_destroy(scene->rig.dev);
	rig_free(&scene->rig);
	traces_expect_gone(&scene->before);
	recorder_stop(&scene->rec);
	latch_destroy(&scene->stuck.go);
}

static int read_on(struct rig *rig, unsigned int queue)
{
	rig_select(rig, queue);
	return rig_request(rig, VIRTIO_BLK_T_IN, queue, 512);
}

/* A request that is made and not waited for. */
static void ask_on(struct rig *rig, unsigned int queue, uint32_t type)
{
	rig_select(rig, queue);
	rig_chain(rig, 0, type, 0, type == VIRTIO_BLK_T_FLUSH ? 0 : 512);
	rig_avail(rig, 0);
	rig_kick(rig);
}

/* Wait for it. */
static void await_on(struct rig *rig, unsigned int queue)
{
	rig_select(rig, queue);
	rig_wait_used(rig, rig->avail_idx);
	ck_assert_uint_eq(*rig_chain_status(rig, 0), VIRTIO_BLK_S_OK);
}

/* Hang the first n queues. */
static void hang(struct scene *scene, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		ask_on(&scene->rig, i, VIRTIO_BLK_T_FLUSH);
	ck_assert(eventually(scene->stuck.n == n));
}

static unsigned int workers(struct rig *rig)
{
	return ports_workers(rig->dev->ports);
}

static bool kicked(struct rig *rig, unsigned int queue)
{
	struct pollfd fd = {
		.fd = ktvblk_queue_kick_fd(rig->dev, queue),
		.events = POLLIN,
	};

	return poll(&fd, 1, 0) == 1;
}

/*
 * The registers
 */

START_TEST(each_queue_is_set_up_and_serves_by_itself)
{
	static const uint32_t counts[] = { 0, 1, 2, 3, 16 };
	struct scene scene;
	struct rig *rig = &scene.rig;

	for (size_t row = 0; row < ARRAY_SIZE(counts); row++) {
		const uint32_t n = counts[row] ? counts[row] : 1;
		uint16_t told = 0xffff;

		open_queues(&scene, counts[row]);
		rig_write(rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
		ck_assert(!(rig_read(rig, VIRTIO_MMIO_DEVICE_FEATURES) &
			    RIG_MQ) == (n == 1));
		ktvblk_mmio_read(rig->dev, BLK_CONFIG_NUM_QUEUES, &told, 2);
		ck_assert_uint_eq(told, n > 1 ? n : 0);
		ck_assert_uint_eq(workers(rig), n);
		for (unsigned int i = 0; i < n; i++) {
			rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, i);
			ck_assert_uint_eq(
				rig_read(rig, VIRTIO_MMIO_QUEUE_NUM_MAX), 256);
			ck_assert_uint_eq(
				rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 1);
			ck_assert_int_eq(read_on(rig, i), VIRTIO_BLK_S_OK);
			ck_assert_uint_eq(rig_used_idx(rig), 1);
		}
		ck_assert_uint_eq(rig_counters(rig).reads_completed, n);
		ck_assert_int_eq(ktvblk_get_state(rig->dev),
				 KTVBLK_STATE_RUNNING);
		/* One worker each, with names that can be told apart. */
		ck_assert(eventually(count_threads("ktvblk-") == n + 1));
		ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
		ck_assert_int_eq(recorder_count(&scene.rec, NULL), 0);
		close_scene(&scene);
	}
}
END_TEST

START_TEST(each_queue_has_its_kick_eventfd)
{
	struct scene scene;
	struct rig *rig = &scene.rig;

	open_queues(&scene, 4);
	ck_assert_int_eq(ktvblk_queue_kick_fd(NULL, 0), -EINVAL);
	ck_assert_int_eq(ktvblk_queue_kick_fd(rig->dev, 4), -EINVAL);
	ck_assert_int_eq(ktvblk_queue_kick_fd(rig->dev, UINT32_MAX), -EINVAL);
	ck_assert_int_eq(ktvblk_queue_kick_fd(rig->dev, 0),
			 ktvblk_kick_fd(rig->dev));
	for (unsigned int i = 0; i < 4; i++)
		for (unsigned int k = 0; k < i; k++)
			ck_assert_int_ne(ktvblk_queue_kick_fd(rig->dev, i),
					 ktvblk_queue_kick_fd(rig->dev, k));
	/* As an ioeventfd would. */
	rig_select(rig, 3);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	ck_assert_int_eq(eventfd_signal(ktvblk_queue_kick_fd(rig->dev, 3)), 0);
	await_on(rig, 3);
	close_scene(&scene);
}
END_TEST

START_TEST(a_queue_that_is_not_there_takes_nothing)
{
	static const uint32_t none[] = { 2, 16, 0x10000, UINT32_MAX };
	struct scene scene;
	struct rig *rig = &scene.rig;

	open_with(&scene, &(struct rig_options){ .config.n_queues = 2 });
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, none[i]);
		ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
		rig_write(rig, VIRTIO_MMIO_QUEUE_NUM, 8);
		rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
		rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
		ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 0);
		rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, none[i]);
	}
	for (unsigned int i = 0; i < 2; i++) {
		ck_assert_uint_eq(rig->dev->queues[i].config.size, 256);
		ck_assert_uint_eq(rig->dev->queues[i].config.desc_addr, 0);
		ck_assert(!rig->dev->queues[i].config.ready);
		ck_assert(!kicked(rig, i));
	}
	/* And the kick of one is no kick of the other. */
	rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
	ck_assert(!kicked(rig, 0) && kicked(rig, 1));
	rig_start(rig);
	ck_assert_int_eq(read_on(rig, 0), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(read_on(rig, 1), VIRTIO_BLK_S_OK);
	close_scene(&scene);
}
END_TEST

START_TEST(a_driver_may_use_fewer_and_take_more_later)
{
	struct scene scene;
	struct rig *rig = &scene.rig;

	open_with(&scene, &(struct rig_options){ .config.n_queues = 4,
						 .features = RIG_MQ,
						 .queues_used = 2 });
	rig_start(rig);
	ck_assert_uint_eq(workers(rig), 2);
	ck_assert_int_eq(read_on(rig, 1), VIRTIO_BLK_S_OK);
	rig_select(rig, 3);
	rig_set_up_queue(rig);
	ck_assert_uint_eq(workers(rig), 3);
	ck_assert_int_eq(read_on(rig, 3), VIRTIO_BLK_S_OK);
	/* A reset forgets it. */
	rig_reset(rig);
	ck_assert_uint_eq(workers(rig), 0);
	rig_start(rig);
	ck_assert_uint_eq(workers(rig), 2);
	close_scene(&scene);
}
END_TEST

/* Section 5.2.3: it must not, and if it does there is nothing to fear. */
START_TEST(a_driver_that_did_not_take_mq_is_served_all_the_same)
{
	struct scene scene;

	open_with(&scene, &(struct rig_options){ .config.n_queues = 2 });
	rig_start(&scene.rig);
	ck_assert_int_eq(read_on(&scene.rig, 0), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(read_on(&scene.rig, 1), VIRTIO_BLK_S_OK);
	close_scene(&scene);
}
END_TEST

/*
 * All queues in the same memory: a guest's own loss, and nobody else's. The
 * thread sanitizer sees what this guest makes of its memory, and is right.
 */
START_TEST(queues_that_share_their_rings_harm_nobody)
{
	struct scene scene;
	struct rig *rig = &scene.rig;

#ifdef __SANITIZE_THREAD__
	return;
#endif
	open_with(&scene, &(struct rig_options){ .config.n_queues = 16,
						 .features = RIG_MQ });
	rig_prepare(rig);
	for (uint32_t i = 0; i < 16; i++) {
		rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, i);
		rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 0);
		rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, RIG_DESC);
		rig_write(rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW, RIG_AVAIL);
		rig_write(rig, VIRTIO_MMIO_QUEUE_USED_LOW, RIG_USED);
		rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_select(rig, 0);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	/* Each serves all that is there, once. */
	for (unsigned int round = 1; round < 20; round++) {
		rig_avail(rig, 0);
		for (uint32_t i = 0; i < 16; i++)
			rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, i);
		ck_assert(eventually(rig_counters(rig).reads_completed ==
				     16 * round));
	}
	rig_reset(rig);
	rig_start(rig);
	ck_assert_int_eq(read_on(rig, 7), VIRTIO_BLK_S_OK);
	close_scene(&scene);
}
END_TEST

/* Buffers take address space, and memory only for what was moved. */
START_TEST(sixteen_queues_take_no_more_memory_than_is_used)
{
	const pid_t self = getpid();
	struct scene scene;
	uint64_t before_kib;

	open_queues(&scene, 1);
	ck_assert_int_eq(read_on(&scene.rig, 0), VIRTIO_BLK_S_OK);
	close_scene(&scene);
	before_kib = thread_status(self, "VmRSS");
	open_queues(&scene, 16);
	for (unsigned int i = 0; i < 16; i++)
		ck_assert_int_eq(read_on(&scene.rig, i), VIRTIO_BLK_S_OK);
	/* Of what they could use: a buffer of 1 MiB each, and chains. */
	ck_assert(runs_slowly() ||
		  thread_status(self, "VmRSS") < before_kib + 16 * 256);
	close_scene(&scene);
}
END_TEST

/*
 * What hangs in one
 */

START_TEST(one_queue_that_hangs_is_nobody_elses)
{
	struct scene scene;
	struct rig *rig = &scene.rig;

	open_with(&scene,
		  &(struct rig_options){
			  .config = { .n_queues = 4, .stall_warn_ms = 20 },
			  .features = RIG_MQ });
	rig_start(rig);
	hang(&scene, 1);
	for (int round = 0; round < 10; round++)
		for (unsigned int i = 1; i < 4; i++)
			ck_assert_int_eq(read_on(rig, i), VIRTIO_BLK_S_OK);
	ck_assert(
		eventually(ktvblk_get_state(rig->dev) == KTVBLK_STATE_STALLED));
	expect_number(recorder_wait(&scene.rec, KTVBLK_MESSAGE_REQUEST_STALLED),
		      "KTVBLK_QUEUE", 0);
	latch_set(&scene.stuck.go);
	await_on(rig, 0);
	ck_assert(
		eventually(ktvblk_get_state(rig->dev) == KTVBLK_STATE_RUNNING));
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	close_scene(&scene);
}
END_TEST

/* Each of the stuck is told of by its own STOP_FD and queue, once. */
static void expect_left(struct scene *scene, const char *id, unsigned int n)
{
	bool queues[KTVBLK_QUEUES_MAX] = { false };
	uint64_t stop_fds[KTVBLK_QUEUES_MAX];

	for (unsigned int i = 0; i < n; i++) {
		const struct kept_record *record =
			recorder_wait_n(&scene->rec, id, (int)i + 1);
		const uint64_t queue = kept_number(record, "KTVBLK_QUEUE");

		ck_assert_uint_lt(queue, n);
		ck_assert(!queues[queue]);
		queues[queue] = true;
		stop_fds[i] = kept_number(record, "STOP_FD");
		for (unsigned int k = 0; k < i; k++)
			ck_assert_uint_ne(stop_fds[i], stop_fds[k]);
		expect_text(record, "KTVBLK_FENCED", "yes");
		expect_text(record, "KTVBLK_REQ_TYPE", "flush");
	}
	ck_assert_int_eq(recorder_count(&scene->rec, id), (int)n);
}

static void check_reset(unsigned int n_queues, unsigned int n_stuck)
{
	struct scene scene;
	struct rig *rig = &scene.rig;
	uint64_t start, sum;

	open_queues(&scene, n_queues);
	hang(&scene, n_stuck);
	start = clock_start();
	rig_reset(rig);
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	sum = wedge_ram_sum(rig);
	ck_assert_uint_eq(rig_status(rig), 0);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_WEDGED);
	expect_left(&scene, KTVBLK_MESSAGE_RESET_TIMED_OUT, n_stuck);
	ck_assert_uint_eq(wedge_ram_sum(rig), sum);

	/* None of the next life is served before the last one has ended. */
	rig_start(rig);
	for (unsigned int i = 0; i < n_queues; i++)
		ask_on(rig, i, VIRTIO_BLK_T_IN);
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 0);
	start = clock_start();
	rig_reset(rig);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET));
	rig_start(rig);
	for (unsigned int i = 0; i < n_queues; i++)
		ask_on(rig, i, VIRTIO_BLK_T_IN);
	sum = wedge_ram_sum(rig);
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 0);
	ck_assert_uint_eq(wedge_ram_sum(rig), sum);
	latch_set(&scene.stuck.go);
	for (unsigned int i = 0; i < n_queues; i++)
		await_on(rig, i);
	recorder_wait_n(&scene.rec, KTVBLK_MESSAGE_RECLAIMED, (int)n_stuck);
	/* The late ones have not touched what is the driver's now. */
	ck_assert_uint_eq(rig_status(rig), S_OK);
	ck_assert_uint_eq(rig_counters(rig).flushes_completed, 0);
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	close_scene(&scene);
}

START_TEST(a_reset_with_some_stuck_takes_one_budget)
{
	check_reset(4, 1);
	check_reset(4, 4);
	check_reset(16, 16);
}
END_TEST

static void check_destroy(unsigned int n_queues, unsigned int n_stuck)
{
	struct scene scene;
	uint64_t start;

	open_queues(&scene, n_queues);
	hang(&scene, n_stuck);
	start = clock_start();
	ck_assert_int_eq(ktvblk_destroy(scene.rig.dev), KTVBLK_TIMED_OUT);
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	scene.rig.dev = NULL;
	expect_left(&scene, KTVBLK_MESSAGE_DESTROY_TIMED_OUT, n_stuck);
	ck_assert_uint_eq(scene.rig.ram_released, 0);
	close_scene(&scene);
}

START_TEST(a_destroy_with_some_stuck_takes_one_budget)
{
	check_destroy(4, 3);
	check_destroy(16, 16);
}
END_TEST

static void end_worker(struct storage *storage, enum storage_op op)
{
	(void)storage;
	if (op == OP_FLUSH)
		pthread_exit(NULL);
}

START_TEST(the_worst_of_all_queues_is_the_outcome)
{
	struct scene scene;

	open_queues(&scene, 4);
	scene.rig.storage->hook = end_worker;
	ask_on(&scene.rig, 2, VIRTIO_BLK_T_FLUSH);
	expect_number(recorder_wait(&scene.rec, KTVBLK_MESSAGE_WORKER_PANICKED),
		      "KTVBLK_QUEUE", 2);
	ck_assert_int_eq(ktvblk_get_state(scene.rig.dev),
			 KTVBLK_STATE_NEEDS_RESET);
	ck_assert_int_eq(rig_destroy(&scene.rig), KTVBLK_PANICKED);
	close_scene(&scene);

	/* One has ended by itself, and another one hangs. */
	open_queues(&scene, 4);
	scene.rig.storage->hook = end_worker;
	ask_on(&scene.rig, 2, VIRTIO_BLK_T_FLUSH);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_WORKER_PANICKED);
	scene.rig.storage->hook = hang_flush;
	hang(&scene, 1);
	ck_assert_int_eq(ktvblk_destroy(scene.rig.dev), KTVBLK_TIMED_OUT);
	scene.rig.dev = NULL;
	close_scene(&scene);
}
END_TEST

START_TEST(a_request_to_stop_or_reset_reaches_all)
{
	struct scene scene;
	struct rig *rig = &scene.rig;

	open_queues(&scene, 4);
	ck_assert_int_eq(ktvblk_request_reset(rig->dev), 0);
	ck_assert(eventually(workers(rig) == 0));
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_STOPPING);
	/* Nothing is served until the reset, whatever is made ready. */
	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, 1);
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 0);
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(workers(rig), 0);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_STOPPING);
	rig_reset(rig);
	rig_start(rig);
	for (unsigned int i = 0; i < 4; i++)
		ck_assert_int_eq(read_on(rig, i), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(ktvblk_request_stop(rig->dev), 0);
	ck_assert(eventually(workers(rig) == 0));
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	close_scene(&scene);
}
END_TEST

static void count_init(void *userdata)
{
	(*(_Atomic unsigned int *)userdata)++;
}

static struct ktvblk_dev *paused_by_worker;
static _Atomic int pause_answer;

static void pause_own(struct storage *storage, enum storage_op op)
{
	(void)storage;
	if (op == OP_READ)
		pause_answer = ktvblk_pause(paused_by_worker, 0);
}

START_TEST(each_worker_is_the_devices_own)
{
	_Atomic unsigned int inits = 0;
	struct scene scene;
	struct rig *rig = &scene.rig;

	open_with(&scene, &(struct rig_options){ .config.n_queues = 3,
						 .features = RIG_MQ });
	ck_assert_int_eq(ktvblk_set_worker_init(rig->dev, count_init, &inits),
			 0);
	rig_start(rig);
	ck_assert(eventually(inits == 3));
	paused_by_worker = rig->dev;
	rig->storage->hook = pause_own;
	for (unsigned int i = 0; i < 3; i++) {
		pause_answer = 0;
		ask_on(rig, i, VIRTIO_BLK_T_IN);
		await_on(rig, i);
		ck_assert_int_eq(pause_answer, -EDEADLK);
	}
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	close_scene(&scene);
}
END_TEST

/*
 * One queue's stop
 */

static void stop_queue(struct rig *rig, unsigned int queue)
{
	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, queue);
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 0);
}

START_TEST(a_queue_is_stopped_and_started_among_others)
{
	struct scene scene;
	struct rig *rig = &scene.rig;

	open_queues(&scene, 3);
	for (unsigned int i = 0; i < 3; i++) {
		stop_queue(rig, i);
		ck_assert_uint_eq(workers(rig), 2);
		for (unsigned int k = 0; k < 3; k++)
			if (k != i)
				ck_assert_int_eq(read_on(rig, k),
						 VIRTIO_BLK_S_OK);
		ck_assert_int_eq(ktvblk_get_state(rig->dev),
				 KTVBLK_STATE_RUNNING);
		ck_assert_uint_eq(rig_status(rig), S_OK);
		rig_select(rig, i);
		rig_set_up_queue(rig);
		ck_assert_int_eq(read_on(rig, i), VIRTIO_BLK_S_OK);
	}
	close_scene(&scene);
}
END_TEST

/*
 * What the driver asks of the others after the stop must not be done before what
 * the stuck one is at.
 */
START_TEST(a_queue_that_is_stopped_stuck_holds_up_the_others)
{
	struct scene scene;
	struct rig *rig = &scene.rig;
	uint64_t start;

	open_queues(&scene, 3);
	hang(&scene, 1);
	ck_assert_int_eq(read_on(rig, 1), VIRTIO_BLK_S_OK);
	start = clock_start();
	stop_queue(rig, 0);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	expect_left(&scene, KTVBLK_MESSAGE_RESET_TIMED_OUT, 1);
	ck_assert_uint_eq(rig_status(rig), S_OK);
	ask_on(rig, 1, VIRTIO_BLK_T_IN);
	ask_on(rig, 2, VIRTIO_BLK_T_IN);
	recorder_wait_n(&scene.rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN, 2);
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 1);
	ck_assert_int_eq(ktvblk_pause(rig->dev, 1), -ETIMEDOUT);
	latch_set(&scene.stuck.go);
	await_on(rig, 1);
	await_on(rig, 2);
	/* A failure of the late flush would be nobody's either. */
	ck_assert_uint_eq(rig_status(rig), S_OK);
	rig_select(rig, 0);
	rig_set_up_queue(rig);
	ck_assert_int_eq(read_on(rig, 0), VIRTIO_BLK_S_OK);
	rig_reset(rig);
	rig_start(rig);
	ck_assert_int_eq(read_on(rig, 0), VIRTIO_BLK_S_OK);
	close_scene(&scene);
}
END_TEST

/*
 * Pause
 */

START_TEST(a_pause_is_one_of_all_queues_or_none)
{
	struct scene scene;
	struct rig *rig = &scene.rig;

	open_queues(&scene, 4);
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_PAUSED);
	for (unsigned int i = 0; i < 4; i++)
		ask_on(rig, i, VIRTIO_BLK_T_IN);
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 0);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
	for (unsigned int i = 0; i < 4; i++)
		await_on(rig, i);

	hang(&scene, 1);
	ck_assert_int_eq(ktvblk_pause(rig->dev, 30), -ETIMEDOUT);
	ck_assert_int_eq(ktvblk_is_paused(rig->dev), 0);
	for (unsigned int i = 1; i < 4; i++)
		ck_assert_int_eq(read_on(rig, i), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(ktvblk_pause_begin(rig->dev, -1), 0);
	latch_set(&scene.stuck.go);
	ck_assert(eventually(ktvblk_is_paused(rig->dev) == 1));
	await_on(rig, 0);
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	close_scene(&scene);
}
END_TEST

/*
 * One throttle
 */

START_TEST(all_queues_together_have_one_throttle)
{
	struct scene scene;
	struct rig *rig = &scene.rig;
	uint64_t start;

	open_with(&scene,
		  &(struct rig_options){
			  .config = { .n_queues = 4, .throttle.iops = 40 },
			  .features = RIG_MQ });
	rig_prepare(rig);
	start = now_ns();
	rig_drain_throttle(rig, start);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	for (int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < 4; i++)
			ask_on(rig, i, VIRTIO_BLK_T_IN);
		for (unsigned int i = 0; i < 4; i++)
			await_on(rig, i);
	}
	/* 16 requests of 25 ms each, whatever their queues. */
	ck_assert_uint_ge(now_ns() - start, 400 * NSEC_PER_MSEC);
	ck_assert_uint_eq(rig_counters(rig).reads_completed, 16);
	ck_assert_uint_eq(rig_counters(rig).currently_throttled, 0);
	close_scene(&scene);
}
END_TEST

START_TEST(who_is_first_in_line_is_not_passed_by)
{
	const struct ktvblk_throttle config = { .bytes_per_sec = 1000 };
	struct disk_throttle *shared = disk_throttle_new(&config, 1);
	_Atomic bool large = false, small = false;
	struct throttle_verdict verdict;
	uint64_t now = 1;

	ck_assert_ptr_nonnull(shared);
	ck_assert(disk_throttle_take(shared, &large, 600, now, &verdict));
	ck_assert(verdict.bytes_ok);
	ck_assert(disk_throttle_take(shared, &large, 600, now, &verdict));
	ck_assert(!verdict.bytes_ok);
	ck_assert_uint_eq(verdict.wait_ns, NSEC_PER_SEC / 5);
	/* There is enough for this one, but it is not its turn. */
	ck_assert(disk_throttle_take(shared, &small, 100, now, &verdict));
	ck_assert(!verdict.bytes_ok);
	ck_assert_uint_ge(verdict.wait_ns, NSEC_PER_SEC / 5);
	now += NSEC_PER_SEC / 5;
	ck_assert(disk_throttle_take(shared, &small, 100, now, &verdict));
	ck_assert(!verdict.bytes_ok && verdict.wait_ns);
	ck_assert(disk_throttle_take(shared, &large, 600, now, &verdict));
	ck_assert(verdict.bytes_ok);
	ck_assert_int_eq(shared->throttle.bytes.available, 0);
	now += NSEC_PER_SEC;
	ck_assert(disk_throttle_take(shared, &small, 100, now, &verdict));
	ck_assert(verdict.bytes_ok);

	/* Who is revoked gets nothing, and is in nobody's way. */
	ck_assert(disk_throttle_take(shared, &large, 1000, now, &verdict));
	ck_assert(!verdict.bytes_ok);
	large = true;
	disk_throttle_leave(shared, &large);
	ck_assert(!disk_throttle_take(shared, &large, 1, now, &verdict));
	ck_assert(disk_throttle_take(shared, &small, 100, now, &verdict));
	ck_assert(verdict.bytes_ok);
	disk_throttle_unref(shared);
}
END_TEST

TEST_PROGRAM("queues", each_queue_is_set_up_and_serves_by_itself,
	     each_queue_has_its_kick_eventfd,
	     a_queue_that_is_not_there_takes_nothing,
	     a_driver_may_use_fewer_and_take_more_later,
	     a_driver_that_did_not_take_mq_is_served_all_the_same,
	     queues_that_share_their_rings_harm_nobody,
	     sixteen_queues_take_no_more_memory_than_is_used,
	     one_queue_that_hangs_is_nobody_elses,
	     a_reset_with_some_stuck_takes_one_budget,
	     a_destroy_with_some_stuck_takes_one_budget,
	     the_worst_of_all_queues_is_the_outcome,
	     a_request_to_stop_or_reset_reaches_all,
	     each_worker_is_the_devices_own,
	     a_queue_is_stopped_and_started_among_others,
	     a_queue_that_is_stopped_stuck_holds_up_the_others,
	     a_pause_is_one_of_all_queues_or_none,
	     all_queues_together_have_one_throttle,
	     who_is_first_in_line_is_not_passed_by)
