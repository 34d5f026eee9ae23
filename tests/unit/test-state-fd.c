/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who sleeps on the state eventfd and then asks for the state misses none that
 * lasts; and anybody may ask, whatever the device's own thread does meanwhile.
 */

#include <errno.h>
#include <fcntl.h>

#include "journal.h"
#include "wedge.h"

#define BUDGET 20

static const struct rig_options options = {
	.config = { .reset_timeout_ms = BUDGET,
		    .destroy_timeout_ms = WAIT_MS,
		    .stall_warn_ms = 10 },
};

/* As a VMM's event loop does it: sleep, take, ask. */
static void expect_told(struct rig *rig, enum ktvblk_state state)
{
	struct pollfd told = { .fd = ktvblk_state_fd(rig->dev),
			       .events = POLLIN };
	uint64_t n;
	int now;

	do {
		ck_assert_msg(poll(&told, 1, WAIT_MS) == 1,
			      "not told of %s, but it is %s",
			      ktvblk_state_name((int)state),
			      ktvblk_state_name(ktvblk_get_state(rig->dev)));
		ck_assert_int_eq(read(told.fd, &n, sizeof(n)), sizeof(n));
		ck_assert_uint_ge(n, 1);
		now = ktvblk_get_state(rig->dev);
	} while (now != (int)state);
}

/* What was told of so far is no news: what comes next is. */
static void forget(struct rig *rig)
{
	uint64_t n;

	if (read(ktvblk_state_fd(rig->dev), &n, sizeof(n)) < 0)
		ck_assert_int_eq(errno, EAGAIN);
}

static void let_go(struct rig *rig)
{
	forget(rig);
	storage_let_go(rig->storage);
}

static void start(struct rig *rig)
{
	forget(rig);
	rig_start(rig);
	expect_told(rig, KTVBLK_STATE_RUNNING);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	forget(rig);
}

static void reset(struct rig *rig, enum ktvblk_state state)
{
	rig_reset(rig);
	expect_told(rig, state);
	forget(rig);
}

static void open_all(struct rig *rig, struct recorder *rec)
{
	wedge_record(rec);
	rig_open(rig, &options);
}

static void close_all(struct rig *rig, struct recorder *rec)
{
	wedge_close(rig);
	recorder_stop(rec);
}

START_TEST(start_and_reset_are_told)
{
	struct recorder rec;
	struct rig rig;

	open_all(&rig, &rec);
	for (int i = 0; i < 3; i++) {
		start(&rig);
		reset(&rig, KTVBLK_STATE_IDLE);
	}
	close_all(&rig, &rec);
}
END_TEST

START_TEST(a_stall_and_its_end_are_told)
{
	struct recorder rec;
	struct rig rig;

	open_all(&rig, &rec);
	start(&rig);
	for (int i = 0; i < 3; i++) {
		forget(&rig);
		wedge(&rig, VIRTIO_BLK_T_IN, 0);
		expect_told(&rig, KTVBLK_STATE_STALLED);
		let_go(&rig);
		expect_told(&rig, KTVBLK_STATE_RUNNING);
		rig_wait_used(&rig, (uint16_t)(i + 2));
	}
	close_all(&rig, &rec);
}
END_TEST

/*
 * The log thread hangs, and finds nothing; but who asked was told of the stall,
 * so he is told of its end.
 */
START_TEST(the_end_of_a_stall_is_told_though_the_log_hangs)
{
	struct recorder rec;
	struct rig rig;

	open_all(&rig, &rec);
	start(&rig);
	/* That may have stalled as well, on a busy machine. */
	recorder_clear(&rec);
	recorder_hold(&rec);
	log_event(NULL, STOP_GAVE_UP, 1);
	recorder_wait_held(&rec);
	for (int i = 0; i < 3; i++) {
		wedge(&rig, VIRTIO_BLK_T_IN, 0);
		ck_assert(eventually(ktvblk_get_state(rig.dev) ==
				     KTVBLK_STATE_STALLED));
		let_go(&rig);
		expect_told(&rig, KTVBLK_STATE_RUNNING);
		rig_wait_used(&rig, (uint16_t)(i + 2));
	}
	recorder_go_on(&rec);
	/* That nobody recorded, and its end neither. */
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_REQUEST_STALLED),
			 0);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_REQUEST_RESUMED),
			 0);
	close_all(&rig, &rec);
}
END_TEST

START_TEST(pause_and_resume_are_told)
{
	struct recorder rec;
	struct rig rig;

	open_all(&rig, &rec);
	start(&rig);
	for (int i = 0; i < 3; i++) {
		forget(&rig);
		ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
		expect_told(&rig, KTVBLK_STATE_PAUSED);
		forget(&rig);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		expect_told(&rig, KTVBLK_STATE_RUNNING);
	}
	close_all(&rig, &rec);
}
END_TEST

START_TEST(a_wedge_and_its_end_are_told)
{
	struct recorder rec;
	struct rig rig;

	open_all(&rig, &rec);
	for (int i = 0; i < 3; i++) {
		start(&rig);
		wedge(&rig, VIRTIO_BLK_T_IN, 0);
		reset(&rig, KTVBLK_STATE_WEDGED);
		let_go(&rig);
		expect_told(&rig, KTVBLK_STATE_IDLE);
	}
	close_all(&rig, &rec);
}
END_TEST

static void exit_thread(struct storage *storage, enum storage_op op)
{
	(void)op;
	storage->hook = NULL;
	pthread_exit(NULL);
}

START_TEST(what_only_a_reset_helps_is_told)
{
	struct recorder rec;
	struct rig rig;

	open_all(&rig, &rec);
	start(&rig);
	rig_set_avail_idx(&rig, 1000);
	rig_kick(&rig);
	expect_told(&rig, KTVBLK_STATE_NEEDS_RESET);
	reset(&rig, KTVBLK_STATE_IDLE);
	start(&rig);
	rig.storage->hook = exit_thread;
	rig_avail(&rig, 0);
	rig_kick(&rig);
	expect_told(&rig, KTVBLK_STATE_NEEDS_RESET);
	reset(&rig, KTVBLK_STATE_IDLE);
	close_all(&rig, &rec);
}
END_TEST

START_TEST(a_stop_that_is_asked_for_is_told)
{
	struct recorder rec;
	struct rig rig;

	open_all(&rig, &rec);
	start(&rig);
	ck_assert_int_eq(ktvblk_request_reset(rig.dev), 0);
	expect_told(&rig, KTVBLK_STATE_STOPPING);
	reset(&rig, KTVBLK_STATE_IDLE);
	start(&rig);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	expect_told(&rig, KTVBLK_STATE_STOPPING);
	close_all(&rig, &rec);
}
END_TEST

START_TEST(the_state_eventfd_is_one_for_life)
{
	struct recorder rec;
	struct rig rig;
	int fd;

	ck_assert_int_eq(ktvblk_state_fd(NULL), -EINVAL);
	open_all(&rig, &rec);
	fd = ktvblk_state_fd(rig.dev);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_ne(fd, ktvblk_kick_fd(rig.dev));
	ck_assert_int_ne(fd, ktvblk_irq_fd(rig.dev));
	ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	start(&rig);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	reset(&rig, KTVBLK_STATE_WEDGED);
	ck_assert_int_eq(ktvblk_state_fd(rig.dev), fd);
	rig_start(&rig);
	ck_assert_int_eq(ktvblk_state_fd(rig.dev), fd);
	close_all(&rig, &rec);
	ck_assert(eventually(fcntl(fd, F_GETFD) < 0));
}
END_TEST

/*
 * From any thread
 */

struct asker {
	struct rig *rig;
	pthread_t thread;
	_Atomic bool *stop;
	uint64_t instance_id;
	_Atomic unsigned int asked;
	unsigned int wrong;
};

static void *ask(void *arg)
{
	struct asker *asker = (struct asker *)arg;
	struct ktvblk_dev *dev = asker->rig->dev;
	struct ktvblk_identity identity;
	int state;

	while (!atomic_load(asker->stop)) {
		state = ktvblk_get_state(dev);
		asker->wrong += state < KTVBLK_STATE_IDLE ||
				state > KTVBLK_STATE_STOPPING;
		asker->wrong += ktvblk_get_identity(dev, &identity,
						    sizeof(identity)) != 0;
		asker->wrong += identity.instance_id != asker->instance_id ||
				identity.stop_fd < 0;
		asker->asked++;
		sched_yield(); /* the lock is not all theirs */
	}
	return NULL;
}

static void live(struct rig *rig, bool hang)
{
	rig_start(rig);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	if (hang)
		wedge(rig, VIRTIO_BLK_T_IN, 0);
	ck_assert_int_eq(ktvblk_request_reset(rig->dev), 0);
	rig_reset(rig);
	storage_let_go(rig->storage);
}

START_TEST(state_and_identity_may_be_asked_for_by_anybody_at_any_time)
{
	const unsigned int n = rounds("CYCLES", 200, 40);
	_Atomic bool stop = false;
	struct asker askers[4];
	struct recorder rec;
	struct rig rig;

	open_all(&rig, &rec);
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++) {
		askers[i] = (struct asker){
			.rig = &rig,
			.stop = &stop,
			.instance_id = rig_identity(&rig).instance_id,
		};
		ck_assert_int_eq(pthread_create(&askers[i].thread, NULL, ask,
						&askers[i]),
				 0);
	}
	for (unsigned int i = 0; i < n; i++)
		live(&rig, i % 8 == 0);
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++)
		ck_assert(eventually(atomic_load(&askers[i].asked) > 0));
	atomic_store(&stop, true);
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++) {
		pthread_join(askers[i].thread, NULL);
		ck_assert_uint_eq(askers[i].wrong, 0);
	}
	close_all(&rig, &rec);
}
END_TEST

TEST_PROGRAM("state-fd", start_and_reset_are_told, a_stall_and_its_end_are_told,
	     the_end_of_a_stall_is_told_though_the_log_hangs,
	     pause_and_resume_are_told, a_wedge_and_its_end_are_told,
	     what_only_a_reset_helps_is_told, a_stop_that_is_asked_for_is_told,
	     the_state_eventfd_is_one_for_life,
	     state_and_identity_may_be_asked_for_by_anybody_at_any_time)
