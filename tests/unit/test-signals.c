/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Signals in the middle of everything: a VMM that takes them, without
 * SA_RESTART, in the thread of its vCPU. No request is lost or wrong, no budget
 * is cut short, and no thread of the library's ever runs the handler.
 */

#include <stdio.h>

#include "life.h"
#include "thread.h"
#include "wedge.h"

#define BUDGET_MS 50u

static _Atomic unsigned int delivered, astray;
static pthread_t vcpu;

static void on_signal(int signo)
{
	(void)signo;
	delivered++;
	if (!pthread_equal(pthread_self(), vcpu))
		astray++;
}

struct sprayer {
	pthread_t thread;
	_Atomic bool stop;
};

/* At the process: the kernel picks a thread that does not block it. */
static void *spray(void *arg)
{
	const struct sprayer *sprayer = (const struct sprayer *)arg;

	while (!sprayer->stop) {
		kill(getpid(), SIGUSR1);
		kill(getpid(), SIGUSR2);
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
	return NULL;
}

static void start_spraying(struct sprayer *sprayer)
{
	const struct sigaction action = { .sa_handler = on_signal };

	vcpu = pthread_self();
	delivered = astray = 0;
	sprayer->stop = false;
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	/* With its signals blocked, as the library's threads have them. */
	ck_assert_int_eq(thread_start(&sprayer->thread, spray, sprayer), 0);
}

static void stop_spraying(struct sprayer *sprayer)
{
	sprayer->stop = true;
	pthread_join(sprayer->thread, NULL);
	signal(SIGUSR1, SIG_DFL);
	signal(SIGUSR2, SIG_DFL);
	ck_assert_uint_eq(astray, 0);
}

static void use(struct life *life)
{
	ck_assert(life_reset(life));
	ck_assert(life_start(life));
	ck_assert_int_eq(life_request(life, VIRTIO_BLK_T_OUT, 7, 65536), 0);
	ck_assert_int_eq(life_request(life, VIRTIO_BLK_T_OUT, 0, 4096), 0);
	ck_assert_int_eq(life_request(life, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
	ck_assert_int_eq(ktvblk_pause(life->rig.dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_resume(life->rig.dev), 1);
	ck_assert_int_eq(life_request(life, VIRTIO_BLK_T_IN, 0, 65536), 0);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
}

START_TEST(requests_pauses_and_resets_do_not_mind_signals)
{
	const unsigned int n = rounds("SIGNALS", 2000, 200);
	struct sprayer sprayer;
	unsigned int used = 0;
	struct life life;

	life_open(&life, _i % 2 ? KTVBLK_ZERO_COPY : 0, WAIT_MS);
	start_spraying(&sprayer);
	do {
		ck_assert_int_eq(life_create(&life), 0);
		for (int i = 0; i < 10; i++, used++)
			use(&life);
		ck_assert_int_eq(life_destroy(&life), KTVBLK_JOINED);
		life_wait_released(&life);
	} while (delivered < n);
	fprintf(stderr, "%u signals in %u rounds\n", delivered, used);
	stop_spraying(&sprayer);
	life_check_disk(&life);
	life_close(&life);
}
END_TEST

START_TEST(a_signal_does_not_cut_a_budget_short)
{
	const struct traces before = traces_now();
	struct sprayer sprayer;
	struct recorder rec;
	struct life life;
	uint64_t start;

	recorder_start(&rec);
	life_open(&life, 0, BUDGET_MS);
	start_spraying(&sprayer);
	ck_assert_int_eq(life_create(&life), 0);
	ck_assert(life_start(&life));
	for (int i = 0; i < 2; i++) {
		ck_assert(life_wedge(&life));
		start = clock_start();
		ck_assert_int_eq(ktvblk_pause(life.rig.dev, BUDGET_MS),
				 -ETIMEDOUT);
		ck_assert_uint_ge(ms_since(start), BUDGET_MS);
		start = clock_start();
		ck_assert(life_reset(&life));
		ck_assert_uint_ge(ms_since(start), BUDGET_MS);
		ck_assert_int_eq(ktvblk_get_state(life.rig.dev),
				 KTVBLK_STATE_WEDGED);
		ck_assert(life_start(&life));
		life_let_go(&life);
		ck_assert_int_eq(life_request(&life, VIRTIO_BLK_T_FLUSH, 0, 0),
				 0);
	}
	ck_assert(life_wedge(&life));
	start = clock_start();
	ck_assert_int_eq(life_destroy(&life), KTVBLK_TIMED_OUT);
	ck_assert_uint_ge(ms_since(start), BUDGET_MS);
	life_let_go(&life);
	life_wait_released(&life);
	stop_spraying(&sprayer);
	life_close(&life);
	/* First: the last record comes after the last release. */
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

LOOP_PROGRAM("signals", 2, requests_pauses_and_resets_do_not_mind_signals,
	     a_signal_does_not_cut_a_budget_short)
