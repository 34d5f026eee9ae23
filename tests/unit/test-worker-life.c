/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The real thread: it comes at DRIVER_OK and goes at the reset, no kick is
 * lost, a throttled one is driven by its timer alone, and what fails around it
 * is recorded and survived.
 */

/* wrap: epoll_wait timerfd_settime read write */

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "device.h"
#include "faults.h"
#include "wedge.h"

WRAP_READ
WRAP_WRITE
WRAP(int, epoll_wait,
     (int fd, struct epoll_event *events, int max, int timeout),
     (fd, events, max, timeout), 0, -1)
WRAP(int, timerfd_settime,
     (int fd, int flags, const struct itimerspec *value,
      struct itimerspec *old),
     (fd, flags, value, old), 0, -1)

/*
 * Coming and going
 */

START_TEST(the_worker_lives_from_driver_ok_to_reset_or_destroy)
{
	const struct traces before = traces_now();
	char name[16];
	struct rig rig;

	wedge_open_idle(&rig, WAIT_MS, 0);
	/* The log's, which names itself. */
	ck_assert(eventually(count_threads("ktvblk") == 1));
	rig_prepare(&rig);
	ck_assert_uint_eq(count_threads("ktvblk"), 1);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	snprintf(name, sizeof(name), "ktvblk-%u",
		 (unsigned int)rig_identity(&rig).instance_id);
	ck_assert(eventually(count_threads(name) == 1));

	/* The same status again starts no second one. */
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_uint_eq(count_threads("ktvblk"), 2);
	rig_reset(&rig);
	ck_assert(eventually(count_threads("ktvblk") == 1));
	rig_start(&rig);
	ck_assert(eventually(count_threads(name) == 1));
	rig_close(&rig);
	traces_expect_gone(&before);
}
END_TEST

static uint64_t blocked_signals(pid_t tid)
{
	char path[64], line[128];
	uint64_t mask = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)tid);
	file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, "SigBlk:", 7) == 0)
			mask = strtoull(line + 7, NULL, 16);
	fclose(file);
	return mask;
}

static uint64_t signal_bit(int signal)
{
	return UINT64_C(1) << (signal - 1);
}

START_TEST(all_signals_but_those_of_faults_are_blocked_in_our_threads)
{
	const uint64_t faults = signal_bit(SIGSEGV) | signal_bit(SIGBUS) |
				signal_bit(SIGILL) | signal_bit(SIGFPE) |
				signal_bit(SIGTRAP) | signal_bit(SIGSYS);
	/*
	 * Those the kernel or the C library let nobody block, and the one
	 * valgrind keeps.
	 */
	const uint64_t never = signal_bit(SIGKILL) | signal_bit(SIGSTOP) |
			       3ull << 31 | 1ull << 63;
	char worker[16];
	const char *const names[] = { "ktvblk-log", worker };
	sigset_t mine;
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	snprintf(worker, sizeof(worker), "ktvblk-%u",
		 (unsigned int)rig_identity(&rig).instance_id);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		ck_assert(eventually(find_thread(names[i])));
		ck_assert_uint_eq(blocked_signals(find_thread(names[i])) |
					  never,
				  ~faults);
	}
	/* And in nobody else's. */
	pthread_sigmask(SIG_SETMASK, NULL, &mine);
	ck_assert(!sigismember(&mine, SIGUSR1));
	rig_close(&rig);
}
END_TEST

/*
 * Kicks
 */

START_TEST(a_kick_leads_to_a_completion_and_an_interrupt)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	for (uint16_t i = 1; i <= 20; i++) {
		ck_assert_int_eq(rig_read_sector(&rig), 0);
		ck_assert_uint_eq(rig_used_idx(&rig), i);
	}
	ck_assert(eventually(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS) ==
			     VIRTIO_MMIO_INT_VRING));
	ck_assert(eventually(rig_irqs(&rig) > 0));
	rig_close(&rig);
}
END_TEST

START_TEST(a_kick_by_the_eventfd_is_as_good_as_one_by_the_register)
{
	const uint64_t one = 1;
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 1, 512);
	rig_avail(&rig, 0);
	ck_assert_int_eq(write(ktvblk_kick_fd(rig.dev), &one, sizeof(one)),
			 sizeof(one));
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

/* 13.3.13 */
START_TEST(a_kick_before_driver_ok_is_not_lost)
{
	struct rig rig;

	wedge_open_idle(&rig, WAIT_MS, 0);
	rig_prepare(&rig);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_wait_used(&rig, 1);
	rig_close(&rig);
}
END_TEST

START_TEST(the_first_drain_needs_no_kick_at_all)
{
	uint64_t n;
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	for (int i = 0; i < 3; i++) {
		rig_reset(&rig);
		rig_prepare(&rig);
		rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
		rig_avail(&rig, 0);
		/* As if the worker before had taken the kick. */
		rig_kick(&rig);
		ck_assert_int_eq(read(ktvblk_kick_fd(rig.dev), &n, sizeof(n)),
				 sizeof(n));
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
		rig_wait_used(&rig, 1);
	}
	rig_close(&rig);
}
END_TEST

static void kick_for_3(void *arg)
{
	struct rig *rig = (struct rig *)arg;

	rig_avail(rig, 3);
	rig_kick(rig);
}

/* The kick comes when the worker has looked at the ring for the last time. */
START_TEST(a_kick_read_together_with_the_one_before_is_not_lost)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert(eventually(worker_sleeps(&rig)));
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_chain(&rig, 3, VIRTIO_BLK_T_IN, 1, 512);
	fault_set(&read_fault,
		  &(struct fault_when){ .before = kick_for_3,
					.arg = &rig,
					.fd = ktvblk_kick_fd(rig.dev) });
	rig_avail(&rig, 0);
	rig_kick(&rig);
	rig_wait_used(&rig, 3);
	ck_assert(fault_over(&read_fault));
	rig_close(&rig);
}
END_TEST

START_TEST(a_kick_of_another_queue_is_none)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert(eventually(worker_sleeps(&rig)));
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NOTIFY, UINT32_MAX);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NOTIFY, 0x10000);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	ck_assert_int_eq(
		poll(&(struct pollfd){ ktvblk_kick_fd(rig.dev), POLLIN, 0 }, 1,
		     0),
		0);
	rig_kick(&rig);
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

/*
 * While a request waits for tokens
 */

/* There are no tokens for 2 s, and then so many a second. */
static void open_throttled(struct rig *rig, uint64_t iops)
{
	const struct rig_options options = {
		.config = { .throttle = { .iops = iops } },
	};

	rig_open(rig, &options);
	rig_prepare(rig);
	rig_drain_throttle(rig, now_ns() + 2 * NSEC_PER_SEC);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	rig_kick(rig);
	ck_assert(eventually(rig_counters(rig).throttled_count == 1));
}

static bool kick_is_taken(struct rig *rig)
{
	return poll(&(struct pollfd){ ktvblk_kick_fd(rig->dev), POLLIN, 0 }, 1,
		    0) == 0;
}

START_TEST(kicks_are_swallowed_while_throttled_and_the_timer_retries)
{
	struct rig rig;

	open_throttled(&rig, 1);
	for (int i = 0; i < 20; i++) {
		rig_kick(&rig);
		ck_assert(eventually(kick_is_taken(&rig)));
	}
	/* At most the timer's own retry came in between. */
	ck_assert_uint_le(rig_counters(&rig).throttled_count, 2);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), 0);
	ck_assert_uint_le(rig_counters(&rig).throttled_count, 3);
	ck_assert_uint_eq(rig_counters(&rig).currently_throttled, 0);
	rig_close(&rig);
}
END_TEST

/* False: when the worker had a processor the tokens were there, so no proof. */
static bool timer_brought_the_retry(void)
{
	const uint64_t start_ns = now_ns();
	struct rig rig;
	bool was_throttled;

	rig_open(&rig, &(struct rig_options){ .config.throttle.iops = 4 });
	rig_prepare(&rig);
	rig_drain_throttle(&rig, start_ns);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_uint_ge(now_ns() - start_ns, 250 * NSEC_PER_MSEC);
	was_throttled = rig_counters(&rig).throttled_count >= 1;
	ck_assert_uint_eq(rig_counters(&rig).currently_throttled, 0);
	rig_close(&rig);
	return was_throttled;
}

/* By the timer alone, and not before the tokens are there. */
START_TEST(the_timer_brings_the_retry)
{
	ck_assert(eventually(timer_brought_the_retry()));
}
END_TEST

START_TEST(a_timer_that_cannot_be_set_is_replaced_by_a_coarser_one)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	fault_set(&timerfd_settime_fault,
		  &(struct fault_when){ .error = EINVAL, .times = 1000 });
	open_throttled(&rig, 5);
	rig_wait_used(&rig, 1);
	fault_clear(&timerfd_settime_fault);
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_TIMER_SET_FAILED),
		      "ERRNO", EINVAL);
	/* It waits for kicks again, and the timer is good again. */
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(kicks_do_not_put_off_what_a_timer_that_cannot_be_set_would_bring)
{
	const uint64_t until = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	struct rig rig;

	fault_set(&timerfd_settime_fault,
		  &(struct fault_when){ .error = EINVAL, .times = 1000 });
	open_throttled(&rig, 5);
	while (rig_used_idx(&rig) != 1 && now_ns() < until) {
		rig_kick(&rig);
		poll(NULL, 0, 1);
	}
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	fault_clear(&timerfd_settime_fault);
	rig_close(&rig);
}
END_TEST

/*
 * What fails around it
 */

START_TEST(a_kick_that_cannot_be_read_is_recorded_and_served)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	fault_set(&read_fault,
		  &(struct fault_when){ .error = EIO,
					.fd = ktvblk_kick_fd(rig.dev) });
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_KICK_READ_FAILED),
		      "ERRNO", EIO);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_timer_that_cannot_be_read_is_recorded_and_served)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	open_throttled(&rig, 5);
	fault_set(&read_fault,
		  &(struct fault_when){
			  .error = EIO,
			  .fd = rig.dev->queues[0].session->timer_fd });
	rig_wait_used(&rig, 1);
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_TIMER_READ_FAILED),
		      "ERRNO", EIO);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(an_interrupt_that_cannot_be_written_is_recorded_and_its_bit_set)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	fault_set(&write_fault,
		  &(struct fault_when){ .error = EIO,
					.fd = ktvblk_irq_fd(rig.dev) });
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_IRQ_WRITE_FAILED),
		      "ERRNO", EIO);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_kick_that_cannot_be_written_is_ignored)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	fault_set(&write_fault,
		  &(struct fault_when){ .error = EAGAIN,
					.fd = ktvblk_kick_fd(rig.dev) });
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(fault_over(&write_fault));
	rig_kick(&rig);
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

START_TEST(an_interrupted_wait_is_waited_again)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	fault_set(&epoll_wait_fault,
		  &(struct fault_when){ .error = EINTR, .times = 5 });
	wedge_open(&rig, WAIT_MS, 0);
	ck_assert(eventually(fault_over(&epoll_wait_fault)));
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_wait_that_fails_ends_the_worker_and_says_so_to_the_driver)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert(eventually(worker_sleeps(&rig)));
	rig_irqs(&rig);
	fault_set(&epoll_wait_fault, &(struct fault_when){ .error = EBADF });
	rig_kick(&rig); /* out of the wait it is in */
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_EPOLL_WAIT_FAILED),
		      "ERRNO", EBADF);
	ck_assert(eventually(rig_status(&rig) ==
			     (S_OK | VIRTIO_CONFIG_S_NEEDS_RESET)));
	ck_assert(eventually(rig_irqs(&rig) == 1));
	ck_assert(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS) &
		  VIRTIO_MMIO_INT_CONFIG);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_NEEDS_RESET);
	ck_assert(eventually(worker_tid(&rig) == 0));
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* 12.1.11: told once, and again after a reset. */
START_TEST(reset_clears_mem_unset_warned_latch)
{
	const struct rig_options options = { .no_memory = true };
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, &options);
	for (int i = 1; i <= 2; i++) {
		rig_start(&rig);
		recorder_wait_n(&rec, KTVBLK_MESSAGE_MEMORY_UNSET, i);
		rig_kick(&rig);
		ck_assert(eventually(kick_is_taken(&rig)));
		rig_kick(&rig);
		ck_assert(eventually(kick_is_taken(&rig)));
		rig_reset(&rig);
		ck_assert_int_eq(
			recorder_count(&rec, KTVBLK_MESSAGE_MEMORY_UNSET), i);
	}
	rig.dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_JOINED);
	rig.dev = NULL;
	rig_free(&rig);
	recorder_stop(&rec);
}
END_TEST

TEST_PROGRAM("worker-life", the_worker_lives_from_driver_ok_to_reset_or_destroy,
	     all_signals_but_those_of_faults_are_blocked_in_our_threads,
	     a_kick_leads_to_a_completion_and_an_interrupt,
	     a_kick_by_the_eventfd_is_as_good_as_one_by_the_register,
	     a_kick_before_driver_ok_is_not_lost,
	     the_first_drain_needs_no_kick_at_all,
	     a_kick_read_together_with_the_one_before_is_not_lost,
	     a_kick_of_another_queue_is_none,
	     kicks_are_swallowed_while_throttled_and_the_timer_retries,
	     the_timer_brings_the_retry,
	     a_timer_that_cannot_be_set_is_replaced_by_a_coarser_one,
	     kicks_do_not_put_off_what_a_timer_that_cannot_be_set_would_bring,
	     a_kick_that_cannot_be_read_is_recorded_and_served,
	     a_timer_that_cannot_be_read_is_recorded_and_served,
	     an_interrupt_that_cannot_be_written_is_recorded_and_its_bit_set,
	     a_kick_that_cannot_be_written_is_ignored,
	     an_interrupted_wait_is_waited_again,
	     a_wait_that_fails_ends_the_worker_and_says_so_to_the_driver,
	     reset_clears_mem_unset_warned_latch)
