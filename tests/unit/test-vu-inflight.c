/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Requests that are still out when their queue is stopped: marked in the front
 * end's region they are taken up again, once, in their order, when what hung has
 * ended; without a region they are put back, or told to be lost.
 */

#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "front-end.h"
#include "later.h"
#include "wedge.h"

#define BUDGET 100
#define OUT 8u

struct scene {
	struct front_end front;
	struct later later;
	struct recorder rec;
	struct traces before;
};

static uint16_t head_of(unsigned int i)
{
	return (uint16_t)(3 * i);
}

/* So many reads of the first sectors, in this order, are with the storage. */
static void submit(struct scene *scene, unsigned int n)
{
	struct rig *rig = &scene->front.rig;
	uint16_t heads[OUT];

	for (unsigned int i = 0; i < n; i++) {
		heads[i] = head_of(i);
		rig_chain(rig, heads[i], VIRTIO_BLK_T_IN, i, 512);
	}
	rig_avail_all(rig, heads, n);
	rig_kick(rig);
	later_wait(&scene->later, n);
}

static void open_scene(struct scene *scene, bool region)
{
	scene->before = traces_now();
	wedge_record(&scene->rec);
	later_init(&scene->later);
	front_open(&scene->front,
		   &(struct rig_options){
			   .config = { .reset_timeout_ms = BUDGET,
				       .destroy_timeout_ms = WAIT_MS },
			   .queue_size = 32,
			   .later = &scene->later });
	if (region)
		front_get_inflight(&scene->front);
	front_start(&scene->front);
}

static void close_scene(struct scene *scene)
{
	front_close(&scene->front);
	traces_expect_gone(&scene->before);
	recorder_stop(&scene->rec);
}

/* The used ring has each of these once. */
static void expect_used_once(struct scene *scene, unsigned int n)
{
	struct rig *rig = &scene->front.rig;
	unsigned int seen[3 * OUT] = { 0 };

	rig_wait_used(rig, (uint16_t)n);
	for (uint16_t i = 0; i < n; i++)
		seen[rig_used(rig, i).id]++;
	for (unsigned int i = 0; i < n; i++) {
		ck_assert_uint_eq(seen[head_of(i)], 1);
		ck_assert_uint_eq(*rig_chain_status(rig, head_of(i)),
				  VIRTIO_BLK_S_OK);
	}
}

/* Those of this mask are answered before the stop, the others too late. */
static uint16_t stop_with_some_out(struct scene *scene, unsigned int answered)
{
	unsigned int n = 0;
	uint16_t base;

	for (unsigned int i = OUT; i-- > 0;)
		if (answered >> i & 1) {
			later_complete(&scene->later, i);
			n++;
		}
	rig_wait_used(&scene->front.rig, (uint16_t)n);
	base = front_stop(&scene->front, 0);
	recorder_wait(&scene->rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	return base;
}

/* The late answers, and not those of the next session, which comes behind. */
static void let_go(struct scene *scene)
{
	for (unsigned int n = later_count(&scene->later); n > 0; n--)
		later_complete(&scene->later, 0);
	recorder_wait(&scene->rec, KTVBLK_MESSAGE_RECLAIMED);
}

/* With the storage, in this order. */
static void expect_out(struct scene *scene, const unsigned int *sectors,
		       unsigned int n)
{
	later_wait(&scene->later, n);
	for (unsigned int i = 0; i < n; i++)
		ck_assert_uint_eq(later_look(&scene->later, i).offset,
				  512 * sectors[i]);
}

/* Those that are taken up again wait for tokens as others do, and stay in order. */
START_TEST(what_is_taken_up_again_waits_for_tokens)
{
	const struct ktvblk_throttle one = { .iops = 1, .iops_burst = 1 };
	struct scene scene;

	open_scene(&scene, true);
	submit(&scene, 3);
	ck_assert_uint_eq(front_stop(&scene.front, 0), 3);
	ck_assert_int_eq(ktvblk_set_throttle(scene.front.rig.dev, &one), 0);
	let_go(&scene);
	front_start_again(&scene.front, 3);
	for (unsigned int i = 0; i < 3; i++) {
		/* The next may have got its token meanwhile. */
		ck_assert(eventually(later_count(&scene.later) >= 1));
		ck_assert_uint_eq(later_look(&scene.later, 0).offset, 512 * i);
		later_complete(&scene.later, 0);
		rig_wait_used(&scene.front.rig, (uint16_t)(i + 1));
	}
	expect_used_once(&scene, 3);
	ck_assert_uint_ge(rig_counters(&scene.front.rig).throttled_count, 1);
	close_scene(&scene);
}
END_TEST

/* Is it marked in the front end's region? */
static bool is_marked(const struct front_end *front, uint16_t head)
{
	const size_t size = (size_t)front->inflight.mmap_size;
	void *bytes =
		mmap(NULL, size, PROT_READ, MAP_SHARED, front->inflight_fd, 0);
	bool marked;

	ck_assert_ptr_ne(bytes, MAP_FAILED);
	marked = __atomic_load_n(
		&((struct taken_region *)bytes)->desc[head].inflight,
		__ATOMIC_ACQUIRE);
	munmap(bytes, size);
	return marked;
}

/* Neither is one that was dropped, whatever its head is. */
START_TEST(what_waits_for_tokens_is_not_out)
{
	static const uint16_t heads[] = { 40, 20, 0, 3 };
	const struct ktvblk_throttle none = { 0 };
	/* For one, and then for half a minute none. */
	const struct ktvblk_throttle one = { .bytes_per_sec = 16,
					     .bytes_burst = 512 };
	struct scene scene;
	struct rig *rig = &scene.front.rig;

	open_scene(&scene, true);
	ck_assert_int_eq(ktvblk_set_throttle(rig->dev, &one), 0);
	rig_desc(rig, 20, RIG_HEADER, 16, 0, 0);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_chain(rig, 3, VIRTIO_BLK_T_IN, 1, 512);
	rig_avail_all(rig, heads, ARRAY_SIZE(heads));
	rig_kick(rig);
	later_wait(&scene.later, 1);
	ck_assert(eventually(rig_counters(rig).currently_throttled == 1));
	ck_assert(is_marked(&scene.front, 0));
	/* It is counted first, and put back then. */
	ck_assert(eventually(!is_marked(&scene.front, 3)));
	ck_assert(!is_marked(&scene.front, 20));
	ck_assert(eventually(ktvblk_set_throttle(rig->dev, &none) == 0));
	later_complete(&scene.later, 0);
	rig_wait_used(rig, 1);
	later_wait(&scene.later, 1);
	later_complete(&scene.later, 0);
	rig_wait_used(rig, 2);
	ck_assert_uint_eq(front_stop(&scene.front, 0), ARRAY_SIZE(heads));
	ck_assert(!is_marked(&scene.front, 0));
	ck_assert(!is_marked(&scene.front, 3));
	close_scene(&scene);
}
END_TEST

START_TEST(what_is_out_stays_marked_and_is_taken_up_again_in_order)
{
	static const unsigned int left[] = { 0, 1, 3, 4, 6, 7 };
	struct scene scene;

	open_scene(&scene, true);
	submit(&scene, OUT);
	ck_assert_uint_eq(stop_with_some_out(&scene, 0x24), OUT);
	front_start_again(&scene.front, OUT);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN);
	ck_assert_uint_eq(later_ever(&scene.later, OP_READ), OUT);
	let_go(&scene);
	expect_out(&scene, left, ARRAY_SIZE(left));
	later_complete_all(&scene.later);
	expect_used_once(&scene, OUT);
	ck_assert_int_eq(
		recorder_count(&scene.rec, KTVBLK_MESSAGE_VHOST_USER_LOST), 0);
	close_scene(&scene);
}
END_TEST

/* As behind a back end that was killed: nobody knows the base. */
START_TEST(a_front_end_that_knows_only_what_was_used_loses_nothing)
{
	static const unsigned int left[] = { 1, 2, 4, 5, 6, 7 };
	struct scene scene;

	open_scene(&scene, true);
	submit(&scene, OUT);
	later_complete(&scene.later, 3);
	later_complete(&scene.later, 0);
	rig_wait_used(&scene.front.rig, 2);
	front_disconnect(&scene.front);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	let_go(&scene);
	front_connect(&scene.front);
	front_negotiate(&scene.front);
	front_set_memory(&scene.front);
	front_start_again(&scene.front, 2);
	expect_out(&scene, left, ARRAY_SIZE(left));
	later_complete_all(&scene.later);
	expect_used_once(&scene, OUT);
	close_scene(&scene);
}
END_TEST

START_TEST(without_a_region_the_last_ones_are_put_back)
{
	static const unsigned int left[] = { 5, 6, 7 };
	struct scene scene;

	open_scene(&scene, false);
	submit(&scene, OUT);
	ck_assert_uint_eq(stop_with_some_out(&scene, 0x1f), 5);
	front_start_again(&scene.front, 5);
	let_go(&scene);
	expect_out(&scene, left, ARRAY_SIZE(left));
	later_complete_all(&scene.later);
	expect_used_once(&scene, OUT);
	ck_assert_int_eq(
		recorder_count(&scene.rec, KTVBLK_MESSAGE_VHOST_USER_LOST), 0);
	close_scene(&scene);
}
END_TEST

START_TEST(without_a_region_others_are_told_to_be_lost)
{
	struct scene scene;

	open_scene(&scene, false);
	submit(&scene, OUT);
	ck_assert_uint_eq(stop_with_some_out(&scene, 0x44), 7);
	expect_number(recorder_wait(&scene.rec, KTVBLK_MESSAGE_VHOST_USER_LOST),
		      "KTVBLK_IN_FLIGHT", 5);
	let_go(&scene);
	close_scene(&scene);
}
END_TEST

static void by_enable(struct front_end *front)
{
	front_enable(front, 0, false);
	front_enable(front, 0, true);
}

START_TEST(a_queue_that_is_disabled_and_enabled_goes_on_where_it_was)
{
	static const unsigned int left[] = { 0, 2, 3, 4, 5, 6, 7 };
	struct scene scene;

	open_scene(&scene, _i);
	submit(&scene, OUT);
	later_complete(&scene.later, 1);
	rig_wait_used(&scene.front.rig, 1);
	by_enable(&scene.front);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	let_go(&scene);
	expect_out(&scene, left, ARRAY_SIZE(left));
	later_complete_all(&scene.later);
	expect_used_once(&scene, OUT);
	close_scene(&scene);
}
END_TEST

/* QEMU 7.2 and 8.0 say so before they ask where it is. */
START_TEST(a_status_of_0_keeps_what_is_out)
{
	static const unsigned int left[] = { 5, 6, 7 };
	struct scene scene;
	uint16_t base;

	open_scene(&scene, _i);
	submit(&scene, OUT);
	for (unsigned int i = 5; i-- > 0;)
		later_complete(&scene.later, i);
	rig_wait_used(&scene.front.rig, 5);
	front_tell_u64(&scene.front, VU_SET_STATUS, 0, -1);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	base = front_stop(&scene.front, 0);
	/* Marked in the region, or put back. */
	ck_assert_uint_eq(base, _i ? OUT : 5);
	front_start_again(&scene.front, base);
	let_go(&scene);
	expect_out(&scene, left, ARRAY_SIZE(left));
	later_complete_all(&scene.later);
	expect_used_once(&scene, OUT);
	close_scene(&scene);
}
END_TEST

/* Where nothing hangs nothing is out behind a stop, whoever has a region. */
START_TEST(a_stop_of_healthy_storage_leaves_nothing_out)
{
	struct scene scene;
	union vu_payload answer;
	const struct vhost_vring_state state = { 0 };

	open_scene(&scene, _i);
	scene.front.rig.dev->reset_timeout_ms = WAIT_MS;
	submit(&scene, OUT);
	front_send(&scene.front, VU_GET_VRING_BASE, 0, &state, sizeof(state),
		   NULL, 0);
	later_complete_all(&scene.later);
	front_receive(&scene.front, VU_GET_VRING_BASE, &answer, NULL);
	ck_assert_uint_eq(answer.state.num, OUT);
	expect_used_once(&scene, OUT);
	close_scene(&scene);
}
END_TEST

/* What another process wrote there is not believed. */
START_TEST(a_region_of_nonsense_harms_nobody)
{
	struct scene scene;
	struct front_end *front = &scene.front;
	struct taken_region *region;
	unsigned char *bytes;
	size_t size;

	open_scene(&scene, true);
	submit(&scene, 1);
	later_complete_all(&scene.later);
	rig_wait_used(&front->rig, 1);
	front_stop(front, 0);
	size = (size_t)front->inflight.mmap_size;
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
		     front->inflight_fd, 0);
	ck_assert_ptr_ne(bytes, MAP_FAILED);
	memset(bytes, 0xff, size);
	region = (struct taken_region *)(void *)bytes;
	region->version = TAKEN_VERSION;
	front_start_again(front, 1);
	/* It may well be served no more, but that is all. */
	front_stop(front, 0);
	memset(bytes, 0, size);
	scene.later.at_once = true;
	later_complete_all(&scene.later);
	front_tell(front, VU_RESET_DEVICE, NULL, 0, -1);
	front->rig.avail_idx = 1;
	rig_set_avail_idx(&front->rig, 1);
	front_start_again(front, 1);
	ck_assert_int_eq(rig_read_sector(&front->rig), 0);
	munmap(bytes, size);
	close_scene(&scene);
}
END_TEST

/*
 * Over virtio-mmio QEMU lets the driver choose, and asks for a region of what it
 * was told on the command line; it gives back the size of that, too.
 */
START_TEST(a_queue_may_be_larger_than_what_the_region_was_asked_for)
{
	struct scene scene;
	struct front_end *front = &scene.front;

	open_scene(&scene, false);
	front->rig.options.queue_size = 16;
	front_get_inflight(front);
	ck_assert_uint_eq(front->inflight.queue_size, 16);
	front->rig.options.queue_size = 32;
	front_stop(front, 0);
	front_start_again(front, 0);
	submit(&scene, OUT);
	ck_assert_uint_eq(stop_with_some_out(&scene, 0), OUT);
	front_start_again(front, OUT);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN);
	let_go(&scene);
	later_wait(&scene.later, OUT);
	later_complete_all(&scene.later);
	expect_used_once(&scene, OUT);
	close_scene(&scene);
}
END_TEST

START_TEST(a_region_that_is_too_small_is_refused)
{
	struct scene scene;
	struct front_end *front = &scene.front;

	open_scene(&scene, true);
	front_stop(front, 0);
	front->inflight.mmap_size =
		taken_bytes(front->inflight.queue_size) - 64;
	front_send(front, VU_SET_INFLIGHT_FD, 0, &front->inflight,
		   VU_INFLIGHT_BYTES, &front->inflight_fd, 1);
	front_expect_closed(front);
	recorder_wait(&scene.rec, KTVBLK_MESSAGE_VHOST_USER_CLOSED);
	close_scene(&scene);
}
END_TEST

int main(void)
{
	const TTest *const both[] = {
		a_queue_that_is_disabled_and_enabled_goes_on_where_it_was,
		a_status_of_0_keeps_what_is_out,
		a_stop_of_healthy_storage_leaves_nothing_out,
	};
	const TTest *const tests[] = {
		what_is_out_stays_marked_and_is_taken_up_again_in_order,
		what_is_taken_up_again_waits_for_tokens,
		what_waits_for_tokens_is_not_out,
		a_front_end_that_knows_only_what_was_used_loses_nothing,
		without_a_region_the_last_ones_are_put_back,
		without_a_region_others_are_told_to_be_lost,
		a_region_of_nonsense_harms_nobody,
		a_queue_may_be_larger_than_what_the_region_was_asked_for,
		a_region_that_is_too_small_is_refused,
	};
	const int r = run_loops("vu-inflight: with a region, and without", 2,
				both, ARRAY_SIZE(both));

	return run_tests("vu-inflight", tests, ARRAY_SIZE(tests)) || r;
}
