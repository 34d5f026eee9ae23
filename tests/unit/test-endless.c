/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A ring that never runs dry: the drain goes on as long as the guest likes, and
 * yet reset, destroy and pause have their way at once. And one that is used for
 * long: its indices wrap.
 */

#include <string.h>

#include "thread.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"
#include "wedge.h"

#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define OK VIRTIO_BLK_S_OK
#define SIZE 256
/* Far below the budget, far above what it takes. */
#define AT_ONCE_MS (WAIT_MS / 2)

struct guest {
	struct rig rig;
	struct recorder rec;
	int kick_fd; /* its own, which outlives the device's */
	pthread_t thread;
	_Atomic bool stop;
};

/* Keeps the ring full, for ever. Every entry is of head 0. */
static void *guest_main(void *arg)
{
	struct guest *guest = (struct guest *)arg;
	uint16_t last = 0;

	while (!atomic_load(&guest->stop)) {
		const uint16_t used = rig_used_idx(&guest->rig);

		rig_set_avail_idx(&guest->rig, (uint16_t)(used + SIZE));
		if (used == last)
			eventfd_signal(guest->kick_fd);
		last = used;
	}
	return NULL;
}

static void wait_progress(struct guest *guest, unsigned int n)
{
	unsigned int seen = 0;
	uint16_t last = rig_used_idx(&guest->rig);

	ck_assert(eventually(({
		const uint16_t now = rig_used_idx(&guest->rig);

		seen += (uint16_t)(now - last);
		last = now;
		seen >= n;
	})));
}

static void guest_start(struct guest *guest, uint32_t type, uint64_t features)
{
	memset(guest, 0, sizeof(*guest));
	recorder_start(&guest->rec);
	rig_open(&guest->rig,
		 &(struct rig_options){
			 .config = { .reset_timeout_ms = WAIT_MS,
				     .destroy_timeout_ms = WAIT_MS },
			 .features = features,
			 .queue_size = SIZE });
	rig_start(&guest->rig);
	guest->kick_fd = dup(ktvblk_kick_fd(guest->rig.dev));
	ck_assert_int_ge(guest->kick_fd, 0);
	rig_chain(&guest->rig, 0, type, 0, 0);
	ck_assert_int_eq(thread_start(&guest->thread, guest_main, guest), 0);
	wait_progress(guest, 1000);
}

static void guest_stop(struct guest *guest)
{
	atomic_store(&guest->stop, true);
	pthread_join(guest->thread, NULL);
	close(guest->kick_fd);
}

static void guest_close(struct guest *guest)
{
	ck_assert_int_eq(recorder_count(&guest->rec, NULL), 0);
	rig_free(&guest->rig);
	recorder_stop(&guest->rec);
}

/* What the guest floods with, by loop: an unknown type, or flushes. */
static const uint32_t types[] = { 0xbeef, T_FLUSH };

START_TEST(a_reset_is_quick_while_the_ring_never_runs_dry)
{
	struct guest guest;
	uint64_t start_ns;

	guest_start(&guest, types[_i], 0);
	start_ns = clock_start();
	rig_reset(&guest.rig);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(AT_ONCE_MS));
	ck_assert_uint_eq(rig_status(&guest.rig), 0);
	guest_stop(&guest);
	rig_start(&guest.rig);
	ck_assert_int_eq(rig_request(&guest.rig, T_FLUSH, 0, 0), OK);
	ck_assert_int_eq(rig_destroy(&guest.rig), KTVBLK_JOINED);
	guest_close(&guest);
}
END_TEST

START_TEST(a_destroy_is_quick_while_the_ring_never_runs_dry)
{
	struct guest guest;
	uint64_t start_ns;

	guest_start(&guest, types[_i], RIG_EVENT_IDX);
	start_ns = clock_start();
	ck_assert_int_eq(rig_destroy(&guest.rig), KTVBLK_JOINED);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(AT_ONCE_MS));
	guest_stop(&guest);
	guest_close(&guest);
}
END_TEST

START_TEST(a_pause_is_quick_while_the_ring_never_runs_dry)
{
	struct guest guest;
	uint64_t start_ns;
	uint16_t used;

	guest_start(&guest, types[_i], 0);
	for (int i = 0; i < 3; i++) {
		start_ns = clock_start();
		ck_assert_int_eq(ktvblk_pause(guest.rig.dev, WAIT_MS), 0);
		ck_assert_uint_lt(ms_since(start_ns), bound_ms(AT_ONCE_MS));
		used = rig_used_idx(&guest.rig);
		/* The guest is told of what was done up to here. */
		ck_assert_uint_ge(rig_irqs(&guest.rig), 1);
		ck_assert_int_eq(ktvblk_is_paused(guest.rig.dev), 1);
		ck_assert_uint_eq(rig_used_idx(&guest.rig), used);
		ck_assert_int_eq(ktvblk_resume(guest.rig.dev), 1);
		wait_progress(&guest, 1000);
	}
	ck_assert_int_eq(rig_destroy(&guest.rig), KTVBLK_JOINED);
	guest_stop(&guest);
	guest_close(&guest);
}
END_TEST

/* In each call one more chain comes: without a stop this would not end. */
static void one_more(struct storage *storage, enum storage_op op)
{
	(void)op;
	rig_avail((struct rig *)storage->hook_data, 0);
}

START_TEST(a_chain_that_breeds_another_does_not_keep_the_device)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig.storage->hook_data = &rig;
	rig.storage->hook = one_more;
	rig_start(&rig);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(rig_counters(&rig).reads_completed > 100));
	if (_i)
		ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_int_eq(rig_destroy(&rig), KTVBLK_JOINED);
	rig_free(&rig);
}
END_TEST

/* Heads of all descriptors, in an order that goes round with the ring. */
static void serve_full_ring(struct rig *rig, unsigned int round)
{
	const uint16_t first = rig->avail_idx;
	uint16_t heads[SIZE];

	for (unsigned int i = 0; i < SIZE; i++)
		heads[i] = (uint16_t)((i * 3 + round) % (SIZE / 2) * 2);
	rig_avail_all(rig, heads, SIZE);
	rig_kick(rig);
	rig_wait_used(rig, rig->avail_idx);
	for (unsigned int i = 0; i < SIZE; i++) {
		const struct vring_used_elem elem =
			rig_used(rig, (uint16_t)(first + i));

		if (elem.id != heads[i] || elem.len != 1)
			ck_abort_msg("round %u, entry %u: id %u", round, i,
				     elem.id);
	}
}

START_TEST(indices_wrap_after_65536_requests)
{
	const unsigned int rounds = 65536 / SIZE + 8;
	struct rig rig;

	rig_open(&rig,
		 &(struct rig_options){ .features = _i ? RIG_EVENT_IDX : 0,
					.queue_size = SIZE });
	rig_start(&rig);
	for (uint16_t head = 0; head < SIZE; head += 2)
		rig_chain(&rig, head, T_FLUSH, 0, 0);
	for (unsigned int i = 0; i < rounds; i++)
		serve_full_ring(&rig, i);
	ck_assert_uint_eq(rig_used_idx(&rig), 8 * SIZE);
	ck_assert_uint_eq(rig_counters(&rig).flushes_completed, rounds * SIZE);
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	rig_close(&rig);
}
END_TEST

LOOP_PROGRAM("endless", 2, a_reset_is_quick_while_the_ring_never_runs_dry,
	     a_destroy_is_quick_while_the_ring_never_runs_dry,
	     a_pause_is_quick_while_the_ring_never_runs_dry,
	     a_chain_that_breeds_another_does_not_keep_the_device,
	     indices_wrap_after_65536_requests)
