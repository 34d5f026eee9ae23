/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A process that was stopped, as a debugger, a freezer or a suspended host does,
 * for longer than the budget of what it was about: the storage is healthy, so
 * that is no wedge.
 */

/* wrap: pthread_clockjoin_np */

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "clockjoin.h"
#include "device.h"
#include "wedge.h"

#define BUDGET 1000
#define FROZEN_MS (BUDGET + BUDGET / 2)

/*
 * What a call still needs once time goes on, and so what a look behind the
 * deadline has to be worth; less for the many that come behind the first.
 */
#define REST_MS 5
#define LATE_REST_MS 1

/* The stop itself may come too late, where others have the processor. */
#define ATTEMPTS 5

#define N_DEVICES 8

struct actor {
	struct recorder rec;
	struct rig rigs[N_DEVICES];
	unsigned int n; /* that have a call in their storage */
	int ready; /* a byte: stop me now */
	_Atomic bool begun; /* what is to be stopped in */
	_Atomic unsigned int inside, watching;
};

/* In the process that is stopped. */
#define need(condition)                                                        \
	({                                                                     \
		if (!(condition))                                              \
			_exit(3);                                              \
	})

/*
 * How long a look is, is the library's; how soon the worker has a processor is
 * nobody's. So the second join of a thread ends when the thread does, if it is
 * long enough, and else at once.
 */
int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until)
{
	static _Thread_local struct {
		pthread_t thread;
		uint64_t left_ns, rest_ns; /* when it was left */
	} last;
	const uint64_t now = now_ns();
	const uint64_t end = (uint64_t)until->tv_sec * NSEC_PER_SEC +
			     (uint64_t)until->tv_nsec;
	struct timespec wide = *until;
	int error;

	if (last.thread == thread) {
		if (end < last.left_ns + last.rest_ns)
			return ETIMEDOUT;
		wide = ns_to_timespec(now + WAIT_MS * NSEC_PER_MSEC);
	}
	last.rest_ns = (now < end ? REST_MS : LATE_REST_MS) * NSEC_PER_MSEC;
	error = real_clockjoin(thread, ret, clock, &wide);
	last.thread = error ? thread : 0;
	last.left_ns = now_ns();
	return error;
}

/* Back in time, but for the one gap that the clock makes. */
static void outlast_the_stop(struct storage *storage, enum storage_op op)
{
	struct actor *actor = (struct actor *)storage->hook_data;
	uint64_t last;

	(void)op;
	atomic_fetch_add(&actor->inside, 1);
	need(eventually(atomic_load(&actor->begun)));
	poll(NULL, 0, REST_MS);
	last = now_ns();
	/* Not before each would see it. */
	if (atomic_fetch_add(&actor->watching, 1) + 1 == actor->n)
		need(write(actor->ready, "r", 1) == 1);
	for (uint64_t now = last; now - last < BUDGET * NSEC_PER_MSEC / 2;) {
		last = now;
		poll(NULL, 0, 1);
		now = now_ns();
	}
	poll(NULL, 0, REST_MS);
}

static void actor_open(struct actor *actor, unsigned int n)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = BUDGET,
			    .destroy_timeout_ms = BUDGET },
	};

	recorder_start(&actor->rec);
	actor->n = n;
	for (unsigned int i = 0; i < n; i++) {
		struct rig *rig = &actor->rigs[i];

		rig_open(rig, &options);
		rig->storage->hook_data = actor;
		rig->storage->hook = outlast_the_stop;
		rig_start(rig);
		rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
		rig_avail(rig, 0);
		rig_kick(rig);
	}
	need(eventually(atomic_load(&actor->inside) == n));
}

static bool act_reset(struct actor *actor)
{
	actor->begun = true;
	rig_reset(&actor->rigs[0]);
	return ktvblk_get_state(actor->rigs[0].dev) == KTVBLK_STATE_IDLE;
}

static bool act_destroy(struct actor *actor)
{
	bool all_joined = true;

	for (unsigned int i = 0; i < actor->n; i++) {
		actor->begun = true;
		if (ktvblk_destroy(actor->rigs[i].dev) != KTVBLK_JOINED)
			all_joined = false;
	}
	return all_joined;
}

static bool act_destroy_many(struct actor *actor)
{
	for (unsigned int i = 0; i < actor->n; i++)
		ktvblk_request_stop(actor->rigs[i].dev);
	return act_destroy(actor);
}

/* Exits with 0 where no wedge was seen, nor told of. */
static void be_stopped(int ready, bool (*act)(struct actor *), unsigned int n)
{
	static struct actor actor;
	bool is_clean;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	actor.ready = ready;
	actor_open(&actor, n);
	is_clean = act(&actor);
	need(ktvblk_log_flush(WAIT_MS) == 0);
	_exit(is_clean && !actor.rec.first ? 0 : 1);
}

static int stop_in(bool (*act)(struct actor *), unsigned int n)
{
	int ready[2], status;
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		be_stopped(ready[1], act, n);
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	ck_assert_int_eq(kill(pid, SIGSTOP), 0);
	ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
	ck_assert(WIFSTOPPED(status));
	/* Nothing happens meanwhile, which is what it is about. */
	poll(NULL, 0, FROZEN_MS);
	ck_assert_int_eq(kill(pid, SIGCONT), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) < 3,
		      "it ended with %#x", (unsigned int)status);
	return WEXITSTATUS(status);
}

static void check(bool (*act)(struct actor *), unsigned int n)
{
	for (int i = 0; i < ATTEMPTS; i++)
		if (stop_in(act, n) == 0)
			return;
	ck_abort_msg("a stop was taken for a wedge, %d times", ATTEMPTS);
}

START_TEST(a_process_stopped_in_a_reset_has_no_wedge)
{
	check(act_reset, 1);
}
END_TEST

START_TEST(a_process_stopped_in_a_destroy_has_no_wedge)
{
	check(act_destroy, 1);
}
END_TEST

START_TEST(a_process_stopped_while_many_are_destroyed_has_no_wedge)
{
	check(act_destroy_many, N_DEVICES);
}
END_TEST

TEST_PROGRAM("frozen", a_process_stopped_in_a_reset_has_no_wedge,
	     a_process_stopped_in_a_destroy_has_no_wedge,
	     a_process_stopped_while_many_are_destroyed_has_no_wedge)
