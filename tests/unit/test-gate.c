/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One holder at a time; whoever waits with a deadline is told in time; nobody
 * who waits is forgotten.
 */

#include "gate.h"
#include "wedge.h"

#define MSEC NSEC_PER_MSEC

START_TEST(a_free_gate_is_taken_and_given_back)
{
	struct gate gate = { 0 };

	gate_enter(&gate);
	ck_assert_uint_eq(gate.word, 1);
	gate_leave(&gate);
	ck_assert_uint_eq(gate.word, 0);
}
END_TEST

START_TEST(a_free_gate_is_taken_even_behind_the_deadline)
{
	struct gate gate = { 0 };

	ck_assert(gate_enter_until(&gate, 1));
	gate_leave(&gate);
}
END_TEST

START_TEST(a_held_gate_is_given_up_at_the_deadline_and_not_before)
{
	struct gate gate = { 0 };
	const uint64_t start = clock_start();

	gate_enter(&gate);
	ck_assert(!gate_enter_until(&gate, start + 20 * MSEC));
	ck_assert_uint_ge(ms_since(start), 20);
	ck_assert_uint_lt(ms_since(start), bound_ms(70));

	/* The one who gave up has spoilt nothing. */
	gate_leave(&gate);
	ck_assert_uint_eq(gate.word, 0);
	ck_assert(gate_enter_until(&gate, now_ns() + MSEC));
	gate_leave(&gate);
}
END_TEST

START_TEST(a_held_gate_behind_the_deadline_is_given_up_at_once)
{
	struct gate gate = { 0 };
	const uint64_t start = clock_start();

	gate_enter(&gate);
	ck_assert(!gate_enter_until(&gate, 1));
	ck_assert_uint_lt(ms_since(start), bound_ms(20));
	gate_leave(&gate);
}
END_TEST

struct visitor {
	struct gate *gate;
	uint64_t deadline_ns; /* 0: none */
	bool entered;
	_Atomic pid_t tid;
};

static void *visit(void *arg)
{
	struct visitor *visitor = (struct visitor *)arg;

	visitor->tid = gettid();
	if (visitor->deadline_ns) {
		visitor->entered =
			gate_enter_until(visitor->gate, visitor->deadline_ns);
	} else {
		gate_enter(visitor->gate);
		visitor->entered = true;
	}
	if (visitor->entered)
		gate_leave(visitor->gate);
	return NULL;
}

static bool sleeps(struct visitor *visitor)
{
	return visitor->tid && thread_state(visitor->tid) == 'S';
}

START_TEST(who_waits_gets_the_gate_when_it_is_left)
{
	struct gate gate = { 0 };
	struct visitor visitors[4] = { 0 };
	pthread_t threads[4];

	gate_enter(&gate);
	for (int i = 0; i < 4; i++) {
		visitors[i].gate = &gate;
		if (i % 2)
			visitors[i].deadline_ns = now_ns() + WAIT_MS * MSEC;
		ck_assert_int_eq(pthread_create(&threads[i], NULL, visit,
						&visitors[i]),
				 0);
	}
	for (int i = 0; i < 4; i++)
		ck_assert(eventually(sleeps(&visitors[i])));
	gate_leave(&gate);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		ck_assert(visitors[i].entered);
	}
	ck_assert_uint_eq(gate.word, 0);
}
END_TEST

/* Its deadline passes while others wait on: they must still be woken. */
START_TEST(one_who_gives_up_takes_no_wake_up_with_it)
{
	struct gate gate = { 0 };
	struct visitor patient = { .gate = &gate };
	pthread_t thread;

	gate_enter(&gate);
	ck_assert_int_eq(pthread_create(&thread, NULL, visit, &patient), 0);
	ck_assert(eventually(sleeps(&patient)));
	ck_assert(!gate_enter_until(&gate, now_ns() + 5 * MSEC));
	gate_leave(&gate);
	pthread_join(thread, NULL);
	ck_assert(patient.entered);
}
END_TEST

#define ADDERS 4

struct sum {
	struct gate gate;
	unsigned int turns;
	unsigned int total; /* no atomic: the gate is what protects it */
};

static void *add(void *arg)
{
	struct sum *sum = (struct sum *)arg;

	for (unsigned int i = 0; i < sum->turns; i++) {
		if (i % 2)
			gate_enter(&sum->gate);
		else
			while (!gate_enter_until(&sum->gate, now_ns() + 1000))
				;
		sum->total++;
		gate_leave(&sum->gate);
	}
	return NULL;
}

START_TEST(only_one_is_inside_at_a_time)
{
	struct sum sum = { .turns = runs_slowly() ? 500 : 20000 };
	pthread_t threads[ADDERS];

	for (int i = 0; i < ADDERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, add, &sum),
				 0);
	for (int i = 0; i < ADDERS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(sum.total, ADDERS * sum.turns);
	ck_assert_uint_eq(sum.gate.word, 0);
}
END_TEST

TEST_PROGRAM("gate", a_free_gate_is_taken_and_given_back,
	     a_free_gate_is_taken_even_behind_the_deadline,
	     a_held_gate_is_given_up_at_the_deadline_and_not_before,
	     a_held_gate_behind_the_deadline_is_given_up_at_once,
	     who_waits_gets_the_gate_when_it_is_left,
	     one_who_gives_up_takes_no_wake_up_with_it,
	     only_one_is_inside_at_a_time)
