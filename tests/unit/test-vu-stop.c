/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Whatever a front end stops a queue by, while the storage hangs: the answer comes
 * within the budget, its memory and eventfds are left alone from then on, nothing
 * of its memory stays mapped, and the disk serves again when the storage does.
 */

#include <string.h>

#include "device.h"
#include "front-end.h"
#include "wedge.h"

#define BUDGET 100

struct stop_scene {
	struct front_end front;
	struct recorder rec;
	struct traces before;
};

static void open_scene(struct stop_scene *scene, unsigned int n_queues,
		       uint64_t flags)
{
	scene->before = traces_now();
	wedge_record(&scene->rec);
	front_open(&scene->front,
		   &(struct rig_options){
			   .config = { .name = "vda",
				       .n_queues = n_queues,
				       .flags = flags,
				       .reset_timeout_ms = BUDGET,
				       .destroy_timeout_ms = WAIT_MS },
			   .features = n_queues > 1 ? RIG_MQ : 0 });
	front_start(&scene->front);
	ck_assert_int_eq(rig_read_sector(&scene->front.rig), 0);
}

static void close_scene(struct stop_scene *scene)
{
	front_close(&scene->front);
	traces_expect_gone(&scene->before);
	recorder_stop(&scene->rec);
}

/* The first request of the queue hangs. */
static void hang(struct front_end *front, uint32_t type)
{
	/* Else a flush has nothing to do. */
	if (type == VIRTIO_BLK_T_FLUSH)
		ck_assert_int_eq(
			rig_request(&front->rig, VIRTIO_BLK_T_OUT, 3, 512), 0);
	wedge(&front->rig, type, 1);
}

/* The ways to stop, each with an answer. */
static void by_get_vring_base(struct front_end *front)
{
	front_stop(front, 0);
}

static void by_enable(struct front_end *front)
{
	front_enable(front, 0, false);
}

static void by_reset_device(struct front_end *front)
{
	front_tell(front, VU_RESET_DEVICE, NULL, 0, -1);
}

static void by_reset_owner(struct front_end *front)
{
	front_tell(front, VU_RESET_OWNER, NULL, 0, -1);
}

static void by_status(struct front_end *front)
{
	front_tell_u64(front, VU_SET_STATUS, 0, -1);
}

static void by_disconnect(struct front_end *front)
{
	front_disconnect(front);
	ck_assert(eventually(!ktvblk_vhost_user_is_connected(front->rig.dev)));
}

static void by_no_memory(struct front_end *front)
{
	const uint64_t none = 0;

	front_tell(front, VU_SET_MEM_TABLE, &none, sizeof(none), -1);
}

static void by_removed_memory(struct front_end *front)
{
	const struct vu_slot slot = { .region = { .size = RIG_RAM_BYTES,
						  .user_addr = FRONT_USER } };

	front_tell(front, VU_REM_MEM_REG, &slot, sizeof(slot), -1);
}

static const struct {
	void (*stop)(struct front_end *front);
	bool unmaps; /* by itself */
} ways[] = {
	{ by_get_vring_base, false }, { by_enable, false },
	{ by_reset_device, false },   { by_reset_owner, false },
	{ by_status, false },	      { by_disconnect, true },
	{ by_no_memory, true },	      { by_removed_memory, true },
};

static const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
				  VIRTIO_BLK_T_FLUSH };

/* As far as it was not one itself. */
static void unmap(struct front_end *front, bool done)
{
	if (!done)
		by_no_memory(front);
	ck_assert_uint_eq(front_mapped(front), 0);
}

static void start_anew(struct front_end *front)
{
	if (front->fd < 0)
		front_connect(front);
	else
		front_stop(front, 0);
	front_start(front);
}

START_TEST(each_way_to_stop_is_bounded_fenced_and_heals)
{
	const unsigned int way = (unsigned int)_i % ARRAY_SIZE(ways);
	const uint32_t type = types[(unsigned int)_i / ARRAY_SIZE(ways)];
	struct stop_scene scene;
	struct front_end *front = &scene.front;
	uint64_t start, sum;

	open_scene(&scene, 1, 0);
	hang(front, type);
	front_take_calls(front, 0);
	start = front_clock_start(front);
	ways[way].stop(front);
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), front_bound_ms(front, BUDGET + 50));
	sum = front_ram_sum(front);
	front_take_calls(front, 0);
	expect_text(recorder_wait(&scene.rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
		    "KTVBLK_FENCED", "yes");
	unmap(front, ways[way].unmaps);
	ck_assert_int_eq(ktvblk_get_state(front->rig.dev), KTVBLK_STATE_WEDGED);
	storage_let_go(front->rig.storage);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(front_ram_sum(front), sum);
	ck_assert_uint_eq(front_take_calls(front, 0), 0);
	start_anew(front);
	ck_assert_int_eq(rig_read_sector(&front->rig), 0);
	close_scene(&scene);
}
END_TEST

/* What the front end takes up meanwhile waits, and is then served. */
START_TEST(a_queue_that_is_started_meanwhile_waits_and_serves)
{
	struct stop_scene scene;
	struct front_end *front = &scene.front;
	uint64_t sum;

	open_scene(&scene, 1, 0);
	hang(front, VIRTIO_BLK_T_OUT);
	by_disconnect(front);
	front_connect(front);
	front_start(front);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN);
	rig_chain(&front->rig, 0, VIRTIO_BLK_T_IN, 1, 512);
	rig_avail(&front->rig, 0);
	sum = front_ram_sum(front);
	rig_kick(&front->rig);
	ck_assert_uint_eq(storage_calls(front->rig.storage, OP_READ), 1);
	ck_assert_uint_eq(front_ram_sum(front), sum);
	storage_let_go(front->rig.storage);
	rig_wait_used(&front->rig, 1);
	ck_assert_int_eq(*rig_chain_status(&front->rig, 0), VIRTIO_BLK_S_OK);
	close_scene(&scene);
}
END_TEST

/* A front end stops each by a message of its own. */
START_TEST(queues_that_hang_share_one_budget)
{
	struct stop_scene scene;
	struct front_end *front = &scene.front;
	uint64_t start;

	open_scene(&scene, 4, 0);
	storage_hold(front->rig.storage);
	for (unsigned int i = 0; i < 4; i++) {
		rig_select(&front->rig, i);
		rig_chain(&front->rig, 0, VIRTIO_BLK_T_IN, i, 512);
		rig_avail(&front->rig, 0);
		rig_kick(&front->rig);
	}
	storage_wait_held(front->rig.storage, 4);
	start = front_clock_start(front);
	for (unsigned int i = 0; i < 4; i++)
		front_stop(front, i);
	ck_assert_uint_lt(ms_since(start), front_bound_ms(front, 2 * BUDGET));
	ck_assert_int_eq(
		recorder_count(&scene.rec, KTVBLK_MESSAGE_RESET_TIMED_OUT), 4);
	unmap(front, false);
	storage_let_go(front->rig.storage);
	recorder_wait_n(&scene.rec, KTVBLK_MESSAGE_RECLAIMED, 4);
	close_scene(&scene);
}
END_TEST

/* Its call is in guest memory itself: that, and no more, stays. */
START_TEST(zero_copy_keeps_what_it_must_and_says_so)
{
	struct stop_scene scene;
	struct front_end *front = &scene.front;

	open_scene(&scene, 1, KTVBLK_ZERO_COPY);
	hang(front, VIRTIO_BLK_T_IN);
	by_disconnect(front);
	expect_text(recorder_wait(&scene.rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
		    "KTVBLK_FENCED", "no");
	ck_assert_uint_gt(front_mapped(front), 0);
	storage_let_go(front->rig.storage);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert(eventually(front_mapped(front) == 0));
	close_scene(&scene);
}
END_TEST

/* A stop lets what is under way end, as far as the budget goes. */
START_TEST(what_ends_in_time_is_answered_before_the_stop_is)
{
	struct stop_scene scene;
	struct front_end *front = &scene.front;
	struct rig *rig = &front->rig;
	const struct vhost_vring_state state = { 0 };
	union vu_payload answer;
	uint16_t used;

	open_scene(&scene, 1, 0);
	rig->dev->reset_timeout_ms = WAIT_MS;
	hang(front, VIRTIO_BLK_T_OUT);
	used = rig_used_idx(rig);
	front_send(front, VU_GET_VRING_BASE, 0, &state, sizeof(state), NULL, 0);
	storage_let_go(rig->storage);
	front_receive(front, VU_GET_VRING_BASE, &answer, NULL);
	ck_assert_uint_eq(rig_used_idx(rig), used + 1u);
	ck_assert_uint_eq(answer.state.num, rig->avail_idx);
	close_scene(&scene);
}
END_TEST

/* The storage lets go just when the budget ends. */
START_TEST(a_call_that_ends_with_the_budget_of_a_stop)
{
	const unsigned int n = rounds("VU_RACES", 150, 20);
	struct stop_scene scene;
	struct front_end *front = &scene.front;
	struct rig *rig = &front->rig;

	open_scene(&scene, 1, 0);
	rig->dev->reset_timeout_ms = 10;
	for (unsigned int i = 0; i < n; i++) {
		const struct vhost_vring_state state = { 0 };
		union vu_payload answer;
		uint64_t sum;

		hang(front, VIRTIO_BLK_T_IN);
		front_send(front, VU_GET_VRING_BASE, 0, &state, sizeof(state),
			   NULL, 0);
		usleep(9500 + i % 20 * 50);
		storage_let_go(rig->storage);
		front_receive(front, VU_GET_VRING_BASE, &answer, NULL);
		/* From here on all is as it is. */
		sum = front_ram_sum(front);
		front_take_calls(front, 0);
		ck_assert(eventually(ktvblk_get_state(rig->dev) ==
				     KTVBLK_STATE_IDLE));
		ck_assert_uint_eq(front_ram_sum(front), sum);
		ck_assert_uint_eq(front_take_calls(front, 0), 0);
		/* Whether it was answered or is put back, it is so once. */
		ck_assert(answer.state.num == rig_used_idx(rig));
		front_start_again(front, (uint16_t)answer.state.num);
		rig_wait_used(rig, rig->avail_idx);
	}
	close_scene(&scene);
}
END_TEST

START_TEST(a_destroy_meets_a_stop_under_way)
{
	struct stop_scene scene;
	struct front_end *front = &scene.front;

	open_scene(&scene, 1, 0);
	hang(front, VIRTIO_BLK_T_IN);
	front->rig.dev->destroy_timeout_ms = BUDGET;
	front_disconnect(front);
	ck_assert_int_eq(rig_destroy(&front->rig), KTVBLK_TIMED_OUT);
	/* By its own thread, if that had no processor until now. */
	ck_assert(eventually(front_mapped(front) == 0));
	storage_let_go(front->rig.storage);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RECLAIMED);
	front_free(front);
	traces_expect_gone(&scene.before);
	recorder_stop(&scene.rec);
}
END_TEST

int main(void)
{
	const TTest *const loops[] = {
		each_way_to_stop_is_bounded_fenced_and_heals,
	};
	const TTest *const tests[] = {
		a_queue_that_is_started_meanwhile_waits_and_serves,
		queues_that_hang_share_one_budget,
		zero_copy_keeps_what_it_must_and_says_so,
		what_ends_in_time_is_answered_before_the_stop_is,
		a_call_that_ends_with_the_budget_of_a_stop,
		a_destroy_meets_a_stop_under_way,
	};
	const int r = run_loops("vu-stop: ways",
				ARRAY_SIZE(ways) * ARRAY_SIZE(types), loops,
				ARRAY_SIZE(loops));

	return run_tests("vu-stop", tests, ARRAY_SIZE(tests)) || r;
}
