/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Paused means: nobody works, or each worker obeyed this very pause, and none is
 * left behind. Whoever asked is told once.
 */

/* wrap: calloc eventfd */

#include <fcntl.h>
#include <sys/eventfd.h>

#include "faults.h"
#include "ports.h"
#include "wedge.h"

WRAP_CALLOC
WRAP_EVENTFD

static struct ports *new_ports(void)
{
	struct ports *ports;

	ck_assert_int_eq(ports_new(1, &ports), 0);
	return ports;
}

static uint64_t take(int fd)
{
	uint64_t n = 0;

	if (read(fd, &n, sizeof(n)) < 0)
		ck_assert_int_eq(errno, EAGAIN);
	return n;
}

/* An eventfd that is to be told, and the test's end of it. */
static int ask_to_be_told(struct ports *ports)
{
	const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	ports->parked_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd;
}

START_TEST(the_eventfds_are_non_blocking_and_closed_with_the_last_reference)
{
	const unsigned int fds = count_fds();
	struct ports *ports = new_ports();
	const int all[] = { ports->kick_fds[0], ports->irq_fd,
			    ports->state_fd };

	ck_assert_int_ne(all[0], all[1]);
	ck_assert_int_ne(all[1], all[2]);
	for (int i = 0; i < 3; i++) {
		ck_assert(fcntl(all[i], F_GETFL) & O_NONBLOCK);
		ck_assert(fcntl(all[i], F_GETFD) & FD_CLOEXEC);
		ck_assert_uint_eq(take(all[i]), 0);
	}
	ports_unref(ports_ref(ports));
	ck_assert_uint_eq(count_fds(), fds + 3);
	ports_unref(ports);
	ck_assert_uint_eq(count_fds(), fds);
	ports_unref(NULL);
}
END_TEST

START_TEST(what_cannot_be_had_is_said_and_nothing_is_left)
{
	const unsigned int fds = count_fds();
	struct ports *ports = NULL;

	for (unsigned int i = 0; i < 3; i++) {
		fault_set(&eventfd_fault,
			  &(struct fault_when){ .error = EMFILE, .skip = i });
		ck_assert_int_eq(ports_new(1, &ports), -EMFILE);
	}
	fault_set(&calloc_fault,
		  &(struct fault_when){ .error = ENOMEM, .here = true });
	ck_assert_int_eq(ports_new(1, &ports), -ENOMEM);
	ck_assert_ptr_null(ports);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

START_TEST(paused_is_nobody_works_or_each_one_obeyed)
{
	static const struct {
		uint32_t pause;
		uint16_t workers, obeyed;
		uint32_t orphans;
		bool paused;
	} rows[] = {
		{ 0, 0, 0, 0, true }, /* no worker, asked for or not */
		{ 1, 0, 0, 0, true },
		{ 0, 1, 0, 0, false }, /* never asked for */
		{ 1, 1, 0, 0, false }, /* asked for, not obeyed */
		{ 1, 1, 1, 0, true },
		{ 2, 1, 1, 0, false }, /* resumed */
		{ 3, 1, 1, 0, true },
		{ 1, 0, 0, 1, false }, /* the one who works was left behind */
		{ 1, 1, 1, 1, false }, /* one parked, one left behind */
		{ 1, 2, 1, 0, false }, /* one of two */
		{ 1, 16, 15, 0, false },
		{ 1, 16, 16, 0, true },
		{ 1, 1, UINT16_MAX, 0, false }, /* one who left counts late */
	};
	struct ports *ports = new_ports();

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ports->account = (uint64_t)rows[i].pause << 32 |
				 (uint32_t)rows[i].workers << 16 |
				 rows[i].obeyed;
		ports->orphans = rows[i].orphans;
		ck_assert_msg(ports_are_paused(ports) == rows[i].paused,
			      "row %zu", i);
		ck_assert(ports_pause_wanted(ports) == (rows[i].pause & 1));
	}
	ports_unref(ports);
}
END_TEST

START_TEST(who_asked_is_told_once_and_only_when_it_is_true)
{
	const unsigned int fds = count_fds();
	struct ports *ports = new_ports();
	const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct seat seats[2];

	ports_worker_comes(ports, &seats[0]);
	ports_worker_comes(ports, &seats[1]);
	ck_assert_int_eq(ports_pause(ports, fcntl(fd, F_DUPFD_CLOEXEC, 0)), 0);
	ck_assert_uint_eq(take(fd), 0);
	ck_assert(ports_obey(ports, &seats[0], 1));
	ck_assert(!ports_obey(ports, &seats[0], 1));
	ck_assert_int_eq(ports_tell_parked(ports), 0);
	ck_assert_uint_eq(take(fd), 0);
	ck_assert(ports_obey(ports, &seats[1], 1));
	ck_assert_int_eq(ports_tell_parked(ports), 0);
	ck_assert_uint_eq(take(fd), 1);
	ck_assert_int_eq(ports->parked_fd, -1);
	ck_assert_int_eq(ports_tell_parked(ports), 0);
	ck_assert_uint_eq(take(fd), 0);
	ports_unref(ports);
	close(fd);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

START_TEST(a_told_eventfd_that_is_full_is_an_error_and_not_told_again)
{
	struct ports *ports = new_ports();
	const int fd = ask_to_be_told(ports);
	const uint64_t full = UINT64_MAX - 1;

	ck_assert_int_eq(write(fd, &full, sizeof(full)), sizeof(full));
	ck_assert_int_eq(ports_tell_parked(ports), -EAGAIN);
	ck_assert_int_eq(ports_tell_parked(ports), 0);
	ports_unref(ports);
	close(fd);
}
END_TEST

START_TEST(one_who_was_never_told_costs_no_descriptor)
{
	const unsigned int fds = count_fds();
	struct ports *ports = new_ports();
	const int fd = ask_to_be_told(ports);

	ports_unref(ports);
	ck_assert_uint_eq(take(fd), 0);
	close(fd);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

START_TEST(a_worker_that_comes_during_a_pause_is_born_parked)
{
	struct ports *ports = new_ports();
	struct seat seats[2];

	ports_worker_comes(ports, &seats[0]);
	ck_assert(!ports_are_paused(ports));
	ports_worker_gone(ports, seats[0].obeyed);
	ck_assert(ports_are_paused(ports));
	ck_assert_int_eq(ports_pause(ports, -1), 0);
	ports_worker_comes(ports, &seats[0]);
	ports_worker_comes(ports, &seats[1]);
	ck_assert(ports_are_paused(ports));
	ports_worker_gone(ports, seats[1].obeyed);
	ck_assert(ports_are_paused(ports));
	ck_assert_uint_eq(ports_workers(ports), 1);
	ports_unref(ports);
}
END_TEST

START_TEST(only_this_very_pause_is_obeyed_and_not_by_who_is_left_behind)
{
	struct ports *ports = new_ports();
	struct seat seats[3];

	for (int i = 0; i < 3; i++)
		ports_worker_comes(ports, &seats[i]);
	ck_assert_int_eq(ports_pause(ports, -1), 0);
	ck_assert(ports_obey(ports, &seats[0], 1));
	ports_resume(ports);
	ck_assert_int_eq(ports_pause(ports, -1), 0);
	ck_assert_uint_eq(ports_pause_number(ports), 3);
	/* Late, for the one before: it counts for nothing. */
	ports_obey(ports, &seats[1], 1);
	ck_assert(ports_obey(ports, &seats[0], 3));
	ports_obey(ports, &seats[2], 3);
	ck_assert(!ports_are_paused(ports));
	/* One that has obeyed is left behind, and obeys no more. */
	ports_orphan_comes(ports);
	ports_worker_left(ports, &seats[2]);
	ck_assert(!ports_obey(ports, &seats[2], 3));
	ports_orphan_gone(ports);
	ck_assert(!ports_are_paused(ports));
	ck_assert(ports_obey(ports, &seats[1], 3));
	ck_assert(ports_are_paused(ports));
	ck_assert_uint_eq(ports_workers(ports), 2);
	ports_unref(ports);
}
END_TEST

START_TEST(the_last_to_go_tells_and_so_does_one_left_behind)
{
	struct ports *ports = new_ports();
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct seat seat;

	ports_worker_comes(ports, &seat);
	ck_assert_int_eq(ports_pause(ports, fcntl(fd, F_DUPFD_CLOEXEC, 0)), 0);
	ck_assert_uint_eq(take(fd), 0);
	ports_worker_gone(ports, seat.obeyed);
	ck_assert_uint_eq(take(fd), 1);
	ports_resume(ports);

	ports_worker_comes(ports, &seat);
	ports_orphan_comes(ports);
	ports_worker_left(ports, &seat);
	ck_assert_int_eq(ports_pause(ports, fcntl(fd, F_DUPFD_CLOEXEC, 0)), 0);
	ck_assert_uint_eq(take(fd), 0);
	ports_orphan_gone(ports);
	ck_assert_uint_eq(ports->orphans, 0);
	ck_assert_uint_eq(ports_workers(ports), 0);
	ck_assert_uint_eq(take(fd), 1);
	close(fd);
	ports_unref(ports);
}
END_TEST

START_TEST(each_queue_has_a_kick_eventfd_and_all_are_kicked)
{
	const unsigned int fds = count_fds();
	struct ports *ports;

	ck_assert_int_eq(ports_new(16, &ports), 0);
	ck_assert_uint_eq(count_fds(), fds + 18);
	ck_assert_int_eq(ports_kick_all(ports), 0);
	for (int i = 0; i < 16; i++)
		ck_assert_uint_eq(take(ports->kick_fds[i]), 1);
	ports_unref(ports);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

static void *wait_for_change(void *arg)
{
	struct ports *ports = (struct ports *)arg;

	while (atomic_load(&ports->changes) == 0)
		ports_wait(ports, 0, 0);
	return NULL;
}

START_TEST(a_change_wakes_all_who_wait_for_one)
{
	struct ports *ports = new_ports();
	const uint64_t start = clock_start();
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
						wait_for_change, ports),
				 0);
	ports_changed(ports);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);

	/* Nobody sleeps on what has changed already, or past a deadline. */
	ports_wait(ports, 0, 0);
	ports_wait(ports, 1, now_ns() + NSEC_PER_MSEC);
	ck_assert_uint_lt(ms_since(start), WAIT_MS);
	ports_unref(ports);
}
END_TEST

START_TEST(every_coming_and_going_that_matters_is_a_change)
{
	struct ports *ports = new_ports();
	struct seat seat;

	ports_worker_comes(ports, &seat);
	ports_orphan_comes(ports);
	ports_worker_left(ports, &seat);
	ck_assert_uint_eq(ports->changes, 0);
	ports_orphan_gone(ports);
	ck_assert_uint_eq(ports->changes, 1);
	ports_remains_gone(ports);
	ck_assert_uint_eq(ports->changes, 2);
	ck_assert_uint_eq(ports->remains, 0);
	ports_worker_comes(ports, &seat);
	ports_worker_gone(ports, seat.obeyed);
	ck_assert_uint_eq(ports->changes, 3);
	ports_unref(ports);
}
END_TEST

TEST_PROGRAM("ports",
	     the_eventfds_are_non_blocking_and_closed_with_the_last_reference,
	     what_cannot_be_had_is_said_and_nothing_is_left,
	     paused_is_nobody_works_or_each_one_obeyed,
	     who_asked_is_told_once_and_only_when_it_is_true,
	     a_told_eventfd_that_is_full_is_an_error_and_not_told_again,
	     one_who_was_never_told_costs_no_descriptor,
	     a_worker_that_comes_during_a_pause_is_born_parked,
	     only_this_very_pause_is_obeyed_and_not_by_who_is_left_behind,
	     each_queue_has_a_kick_eventfd_and_all_are_kicked,
	     the_last_to_go_tells_and_so_does_one_left_behind,
	     a_change_wakes_all_who_wait_for_one,
	     every_coming_and_going_that_matters_is_a_change)
