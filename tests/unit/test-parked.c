/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The eventfd that is told of a pause is the VMM's, who may have made it so that
 * a write blocks: that is nobody's trouble but its own. And what it is told is
 * true, however quickly pauses follow each other.
 */

/* wrap: poll */

#include <sys/eventfd.h>
#include <syslog.h>

#include "bounds.h"
#include "device.h"
#include "faults.h"
#include "wedge.h"

WRAP(int, poll, (struct pollfd * fds, nfds_t n, int timeout), (fds, n, timeout),
     n ? fds[0].fd : 0, -1)

#define BUDGET 20
#define FULL (UINT64_MAX - 1)

/*
 * A full eventfd that blocks
 */

/* Who finds that the device is paused, and would tell. */
enum teller { THE_CALLER, THE_WORKER, THE_ONE_LEFT_BEHIND, TELLER_COUNT };

static int full_eventfd(void)
{
	const uint64_t full = FULL;
	const int fd = eventfd(0, EFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, &full, sizeof(full)), sizeof(full));
	return fd;
}

static void pause_with(struct rig *rig, enum teller teller, int fd)
{
	if (teller != THE_CALLER) {
		rig_start(rig);
		wedge(rig, VIRTIO_BLK_T_IN, 0);
	}
	if (teller == THE_ONE_LEFT_BEHIND) {
		rig_reset(rig);
		rig_start(rig);
	}
	ck_assert_int_eq(ktvblk_pause_begin(rig->dev, fd), 0);
	storage_let_go(rig->storage);
	ck_assert(eventually(ktvblk_is_paused(rig->dev) == 1));
}

static void reset_quickly(struct rig *rig)
{
	const uint64_t start = clock_start();

	rig_reset(rig);
	ck_assert_uint_lt(ms_since(start), bound_ms(WAIT_MS / 4));
	ck_assert_int_ne(ktvblk_get_state(rig->dev), KTVBLK_STATE_WEDGED);
}

START_TEST(a_full_parked_eventfd_that_blocks_holds_nobody_up)
{
	const enum teller teller = (enum teller)_i;
	const struct rig_options options = {
		.config = { .reset_timeout_ms = teller == THE_ONE_LEFT_BEHIND
							? BUDGET
							: WAIT_MS,
			    .destroy_timeout_ms = WAIT_MS },
	};
	const struct kept_record *record;
	const int fd = full_eventfd();
	uint64_t count = 0;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	ktvblk_set_log_level(LOG_DEBUG);
	rig_open(&rig, &options);
	pause_with(&rig, teller, fd);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_PARKED_FD_FAILED);
	ck_assert_int_eq(record->priority, LOG_DEBUG);
	expect_number(record, "ERRNO", EAGAIN);
	ktvblk_set_log_level(LOG_INFO);
	if (teller != THE_ONE_LEFT_BEHIND)
		reset_quickly(&rig);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	rig_close(&rig);
	/* Nobody waits for room to write it either. */
	ck_assert_int_eq(read(fd, &count, sizeof(count)), sizeof(count));
	ck_assert_uint_eq(count, FULL);
	ck_assert(eventually(count_threads("ktvblk") == 0));
	ck_assert_int_eq(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 0), 0);
	recorder_stop(&rec);
	close(fd);
}
END_TEST

/*
 * Pauses in a row
 */

static bool is_told(int fd)
{
	uint64_t n = 0;

	if (read(fd, &n, sizeof(n)) < 0)
		ck_assert_int_eq(errno, EAGAIN);
	ck_assert_uint_le(n, 1);
	return n == 1;
}

static void spin_ns(uint64_t ns)
{
	const uint64_t until = now_ns() + ns;

	while (now_ns() < until)
		cpu_relax();
}

static void take_a_while(struct storage *storage, enum storage_op op)
{
	(void)storage;
	(void)op;
	spin_ns(20000);
}

static struct latch telling;

/* A while that is shorter than a resume would wait. */
static void be_slow(void *arg)
{
	const struct timespec ts = ns_to_timespec(TELLING_NS / 8);

	(void)arg;
	latch_set(&telling);
	clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

/* False: the worker had no processor for too long, so it is no proof. */
static bool check_resume_while_telling(void)
{
	const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t start, took;
	struct rig rig;
	bool told;

	latch_init(&telling);
	wedge_open(&rig, WAIT_MS, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, fd), 0);
	fault_set(&poll_fault,
		  &(struct fault_when){ .before = be_slow,
					.fd = rig.dev->ports->parked_fd });
	storage_let_go(rig.storage);
	ck_assert(latch_wait(&telling, WAIT_MS));
	start = now_ns();
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	took = now_ns() - start;
	told = is_told(fd);
	rig_wait_used(&rig, 1);
	/* Served by the worker when it was through with that. */
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	if (took < TELLING_NS) {
		ck_assert(told);
		ck_assert(!is_told(fd));
	}
	rig_close(&rig);
	latch_destroy(&telling);
	close(fd);
	return took < TELLING_NS;
}

START_TEST(behind_a_resume_nobody_is_told_of_what_it_ended)
{
	for (int i = 0; i < 20; i++)
		if (check_resume_while_telling())
			return;
	ck_abort_msg("no resume was quick enough to tell");
}
END_TEST

struct pauser {
	struct rig *rig;
	int last_fd; /* of the pause before */
	unsigned int seed;
	unsigned int told;
};

/* The device is paused from when that is told until it is resumed. */
static void expect_true(struct pauser *pauser, int fd)
{
	if (!is_told(fd))
		return;
	ck_assert_int_eq(ktvblk_is_paused(pauser->rig->dev), 1);
	pauser->told++;
}

static void pause_once(struct pauser *pauser)
{
	struct rig *rig = pauser->rig;
	const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig->dev, fd), 0);
	expect_true(pauser, fd);
	spin_ns((uint64_t)rand_r(&pauser->seed) % 60000);
	expect_true(pauser, fd);
	/* Something to do, so that the next pause takes its time. */
	rig_avail(rig, 0);
	rig_kick(rig);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
	/* Told before that; from now on, never. */
	is_told(fd);
	ck_assert(!is_told(pauser->last_fd));
	close(pauser->last_fd);
	pauser->last_fd = fd;
}

static void *let_go_soon(void *arg)
{
	poll(NULL, 0, 1);
	storage_let_go((struct storage *)arg);
	return NULL;
}

/* A worker is left behind, and ends while pauses come and go. */
static void pause_around_an_end(struct pauser *pauser, unsigned int n)
{
	struct rig *rig = pauser->rig;
	pthread_t thread;

	wedge(rig, VIRTIO_BLK_T_IN, 0);
	rig_reset(rig);
	rig_start(rig);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	ck_assert_int_eq(
		pthread_create(&thread, NULL, let_go_soon, rig->storage), 0);
	for (unsigned int i = 0; i < n; i++) {
		pause_once(pauser);
		/* Not more of them than the queue holds. */
		if (i % 8 == 7)
			ck_assert(eventually(rig_used_idx(rig) ==
					     rig->avail_idx));
	}
	pthread_join(thread, NULL);
}

START_TEST(nobody_is_told_of_a_pause_that_is_not)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = 1,
			    .destroy_timeout_ms = WAIT_MS },
	};
	const unsigned int n = rounds("CYCLES", 1000, 100) / 10;
	struct pauser pauser = { .seed = 1 };
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, &options);
	rig.storage->hook = take_a_while;
	rig_start(&rig);
	pauser.rig = &rig;
	pauser.last_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned int i = 0; i < n; i++)
		pause_around_an_end(&pauser, 40);
	ck_assert_uint_gt(pauser.told, 0);
	close(pauser.last_fd);
	wedge_close(&rig);
	recorder_stop(&rec);
}
END_TEST

int main(void)
{
	const TTest *const each[] = {
		a_full_parked_eventfd_that_blocks_holds_nobody_up,
	};
	const TTest *const once[] = {
		behind_a_resume_nobody_is_told_of_what_it_ended,
		nobody_is_told_of_a_pause_that_is_not,
	};

	return run_loops("parked", TELLER_COUNT, each, ARRAY_SIZE(each)) |
	       run_tests("parked", once, ARRAY_SIZE(once));
}
