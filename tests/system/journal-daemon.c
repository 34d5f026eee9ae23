/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * journald stopped with its socket full, absent, dead, restarted; and a process
 * that ends right after its disk hung. Each case leaves a journald that works.
 *
 * A record is made by asking an idle device to pause: one for each call, and
 * none is held back by a rate.
 */

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-journal.h>

#include "device.h"
#include "front-end.h"
#include "harness.h"
#include "journal-daemon.h"
#include "journal-events.h"
#include "journald.h"
#include "wedge.h"

/* More than the queue and the socket's buffer take. */
#define MANY 2000u
#define BUDGET_MS 60u
/* Calls that wait for nothing: all of them within the grace. */
#define AT_ONCE_MS 0u
/* No record is of a stall, unless one is to be. */
#define UNWARNED_MS 3600000u

#define PAUSED KTVBLK_MESSAGE_PAUSE_NO_WORKER

static struct rig rig;

static uint32_t stall_warn_ms = UNWARNED_MS;

static void open_disk(const char *name)
{
	const struct rig_options options = {
		.config = { .name = name,
			    .reset_timeout_ms = BUDGET_MS,
			    .destroy_timeout_ms = BUDGET_MS,
			    .stall_warn_ms = stall_warn_ms },
	};

	ck_assert_int_eq(ktvblk_set_log_level(LOG_DEBUG), 0);
	rig_open(&rig, &options);
}

static void make_records(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	}
}

static void flush(void)
{
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
}

static const char *of_process(const char *id, pid_t pid)
{
	static char text[128];

	snprintf(text, sizeof(text), "MESSAGE_ID=%s _PID=%d", id, (int)pid);
	return text;
}

static size_t count(const char *id)
{
	return journal_count(of_process(id, getpid()));
}

/* All that the records of an overflow tell of. */
static size_t count_dropped(void)
{
	const struct entry *e = journal_query(
		of_process(KTVBLK_MESSAGE_LOG_OVERFLOW, getpid()));
	size_t n = 0;

	for (; e; e = e->next) {
		ck_assert_ptr_null(entry_field(e, "INSTANCE_ID"));
		n += strtoul(entry_field(e, KTVBLK_FIELD_DROPPED), NULL, 10);
	}
	return n;
}

static void hang_and_reset(void)
{
	hang(&rig);
	case_call_begins();
	rig_reset(&rig);
	case_call_ended(BUDGET_MS);
}

/*
 * Stopped. Calls that make records take no longer; what found no place is
 * counted, and told once journald reads again; what a guest cannot provoke has
 * places of its own.
 */
static void stopped(const void *arg)
{
	size_t kept, dropped;

	(void)arg;
	open_disk("stopped");
	journald_signal(SIGSTOP);
	case_call_begins();
	make_records(MANY);
	case_call_ended(AT_ONCE_MS);
	hang_and_reset();
	case_call_begins();
	ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_TIMED_OUT);
	case_call_ended(AT_ONCE_MS);
	journald_signal(SIGCONT);
	storage_let_go(rig.storage);
	rig_free(&rig);
	ck_assert(eventually(count(KTVBLK_MESSAGE_RECLAIMED) == 1));
	ck_assert(eventually(count_threads("ktvblk-") == 0));
	kept = count(PAUSED);
	dropped = count_dropped();
	case_note("%zu of %u in the journal, %zu told as lost", kept, MANY,
		  dropped);
	ck_assert_uint_gt(dropped, 0);
	ck_assert_uint_eq(kept + dropped, MANY);
	ck_assert_uint_eq(count(KTVBLK_MESSAGE_RESET_TIMED_OUT), 1);
}

/* No socket: libsystemd takes this for "no journal here", and drops. */
static void absent(const void *arg)
{
	(void)arg;
	journald_end(SIGTERM);
	journald_remove_socket();
	open_disk("absent");
	case_call_begins();
	make_records(100);
	case_call_ended(AT_ONCE_MS);
	hang_and_reset();
	flush();
	journald_start();
	/* It came later, and the next record finds it. */
	storage_let_go(rig.storage);
	ck_assert(eventually(count(KTVBLK_MESSAGE_RECLAIMED) == 1));
	ck_assert_uint_eq(count(KTVBLK_MESSAGE_RESET_TIMED_OUT), 0);
}

/* A socket nobody reads: each record is refused, counted, and told later. */
static void dead(const void *arg)
{
	(void)arg;
	open_disk("dead");
	journald_end(SIGKILL);
	case_call_begins();
	make_records(100);
	case_call_ended(AT_ONCE_MS);
	hang_and_reset();
	flush();
	journald_start();
	storage_let_go(rig.storage);
	ck_assert(eventually(count(KTVBLK_MESSAGE_RECLAIMED) == 1));
	case_note("%zu told as lost", count_dropped());
	/* And the one of the reset. */
	ck_assert_uint_eq(count_dropped(), 101);
}

/* Ended and started again while records come. None is lost unsaid. */
static void restarted(const void *arg)
{
	(void)arg;
	open_disk("restarted");
	make_records(50);
	flush();
	journald_end(SIGTERM);
	make_records(50);
	flush();
	journald_start();
	make_records(50);
	flush();
	case_note("%zu in the journal, %zu told as lost", count(PAUSED),
		  count_dropped());
	ck_assert_uint_eq(count(PAUSED), 100);
	ck_assert_uint_eq(count_dropped(), 50);
}

/*
 * Behind the library's own, which flushes: those with a priority are the last.
 */
static bool exit_is_timed;

__attribute__((destructor(101))) static void exit_ends(void)
{
	/* The destroy, and half a second for the flush. */
	if (exit_is_timed)
		case_call_ended(BUDGET_MS + 500);
}

/*
 * In a process of its own, once it is told to: a destroy that times out, and
 * exit(). To be made before there is a device.
 */
static pid_t exit_behind_destroy(int go)
{
	const pid_t pid = fork();
	uint64_t told;

	ck_assert_int_ge(pid, 0);
	if (pid)
		return pid;
	ck_assert_int_eq(read(go, &told, sizeof(told)), sizeof(told));
	open_disk("exit");
	hang(&rig);
	case_call_begins();
	exit_is_timed = true;
	ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_TIMED_OUT);
	exit(7);
}

static void wait_exit(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 7);
}

/*
 * Its record, or NULL where it took so long that exit() may have given up: the
 * log thread had no processor for half a second.
 */
static const struct entry *try_exit(void)
{
	const int go = eventfd(1, EFD_CLOEXEC);
	const uint64_t start_ns = now_ns();
	const pid_t pid = exit_behind_destroy(go);
	const struct entry *entry;
	uint64_t took_ns;

	wait_exit(pid);
	took_ns = now_ns() - start_ns;
	close(go);
	entry = journal_query(
		of_process(KTVBLK_MESSAGE_DESTROY_TIMED_OUT, pid));
	ck_assert(entry || took_ns >= (BUDGET_MS + 500) * NSEC_PER_MSEC);
	return entry;
}

static void exits(const void *arg)
{
	const struct entry *entry = NULL;

	(void)arg;
	for (int i = 0; i < 5 && !entry; i++)
		entry = try_exit();
	ck_assert_ptr_nonnull(entry);
	ck_assert_str_eq(entry_field(entry, "KTVBLK_DISK"), "exit");
	ck_assert_str_eq(entry_field(entry, KTVBLK_FIELD_STUCK_STATE), "S");
}

static bool socket_is_full(void)
{
	const pid_t log = find_thread("ktvblk-log");

	return thread_in_call(log, SYS_sendmsg) && thread_state(log) == 'S';
}

/* The transport waits for journald no more than a VMM's thread does. */
static void front_end_while_stopped(const void *arg)
{
	const struct rig_options options = {
		.config = { .name = "of a front end",
			    .reset_timeout_ms = BUDGET_MS,
			    .destroy_timeout_ms = WAIT_MS },
	};
	struct front_end front;

	(void)arg;
	open_disk("fills the socket");
	front_open(&front, &options);
	front_start(&front);
	journald_signal(SIGSTOP);
	make_records(MANY);
	ck_assert(eventually(socket_is_full()));
	for (unsigned int i = 0; i < 20; i++) {
		uint64_t start_ns, sum;
		uint16_t base;

		wedge(&front.rig, VIRTIO_BLK_T_IN, 1);
		start_ns = front_clock_start(&front);
		base = front_stop(&front, 0);
		ck_assert_uint_ge(ms_since(start_ns), BUDGET_MS);
		ck_assert_uint_lt(ms_since(start_ns),
				  front_bound_ms(&front, BUDGET_MS + GRACE_MS));
		sum = front_ram_sum(&front);
		storage_let_go(front.rig.storage);
		ck_assert(eventually(ktvblk_get_state(front.rig.dev) ==
				     KTVBLK_STATE_IDLE));
		ck_assert_uint_eq(front_ram_sum(&front), sum);
		front_start_again(&front, base);
		rig_wait_used(&front.rig, front.rig.avail_idx);
	}
	journald_signal(SIGCONT);
	front_close(&front);
	flush();
	ck_assert_uint_ge(count(KTVBLK_MESSAGE_RESET_TIMED_OUT), 1);
}

/*
 * The same with journald stopped, its socket full: exit() is bounded, too, and
 * did try.
 */
static void exits_while_stopped(const void *arg)
{
	const int go = eventfd(0, EFD_CLOEXEC);
	const pid_t pid = exit_behind_destroy(go);
	uint64_t start_ns;

	(void)arg;
	open_disk("fills the socket");
	journald_signal(SIGSTOP);
	make_records(MANY);
	ck_assert(eventually(socket_is_full()));
	start_ns = now_ns();
	eventfd_signal(go);
	wait_exit(pid);
	ck_assert_uint_ge(now_ns() - start_ns,
			  (BUDGET_MS + 500) * NSEC_PER_MSEC);
	journald_signal(SIGCONT);
	flush();
	ck_assert_uint_eq(count(PAUSED) + count_dropped(), MANY);
}

/*
 * journald loses what is above the rate of a unit, by priority.
 */

#define DISKS 8
#define RATE_CONF_DIR "/run/systemd/journald.conf.d"
#define RATE_CONF RATE_CONF_DIR "/rate.conf"

static bool write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	if (!file)
		return false;
	fputs(text, file);
	return fclose(file) == 0;
}

/* In a cgroup named as a service's, wherever journald looks for that. */
static bool become_unit(const char *name)
{
	static const char *const trees[] = { "/sys/fs/cgroup/systemd",
					     "/sys/fs/cgroup/unified",
					     "/sys/fs/cgroup" };
	bool moved = false;
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(trees); i++) {
		snprintf(path, sizeof(path), "%s/%s", trees[i], name);
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			continue;
		snprintf(path, sizeof(path), "%s/%s/cgroup.procs", trees[i],
			 name);
		moved |= write_text(path, "0");
	}
	return moved;
}

static void limit_rate(const char *conf)
{
	journald_end(SIGTERM);
	if (conf) {
		mkdir(RATE_CONF_DIR, 0755);
		ck_assert(write_text(RATE_CONF, conf));
	} else {
		unlink(RATE_CONF);
	}
	journald_start();
}

static const char *warning(const char *what)
{
	static char text[128];

	snprintf(text, sizeof(text), "MESSAGE=%s _PID=%d", what, (int)getpid());
	return text;
}

/* All that guest has, again and again. */
static void be_hostile(struct rig *guest)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = WAIT_MS,
			    .stall_warn_ms = UNWARNED_MS },
		.no_memory = true,
	};
	const uint32_t no_cpu = CPU_SETSIZE - 1;

	rig_open(guest, &options);
	ck_assert_int_eq(ktvblk_set_worker_cpus(guest->dev, &no_cpu, 1), 0);
	for (int i = 0; i < 100; i++) {
		rig_write(guest, VIRTIO_MMIO_STATUS, S_FEAT);
		rig_write(guest, VIRTIO_MMIO_QUEUE_NUM, 3);
		rig_write(guest, VIRTIO_MMIO_QUEUE_DESC_LOW, 1);
		rig_write(guest, VIRTIO_MMIO_STATUS, 0);
		rig_start(guest);
		rig_write(guest, VIRTIO_MMIO_STATUS, 0);
	}
}

/*
 * Eight hostile disks, and a unit whose warnings are lost by now: the wedge of
 * another disk is in the journal.
 */
static void crowded(const void *arg)
{
	static struct rig guests[DISKS];
	const unsigned int many = 5000;
	size_t kept;

	(void)arg;
	if (!become_unit("ktvblk-crowded.service"))
		case_skip("no unit of our own");
	limit_rate("[Journal]\nRateLimitIntervalSec=1h\nRateLimitBurst=500\n");
	for (size_t i = 0; i < ARRAY_SIZE(guests); i++)
		be_hostile(&guests[i]);
	flush();
	for (unsigned int i = 0; i < many; i++)
		sd_journal_print(LOG_WARNING, "crowd");
	kept = journal_count(warning("crowd"));
	ck_assert_uint_lt(kept, many);
	stall_warn_ms = 20;
	open_disk("crowded");
	hang(&rig);
	ck_assert(eventually(count(KTVBLK_MESSAGE_REQUEST_STALLED) == 1));
	rig_reset(&rig);
	ck_assert(eventually(count(KTVBLK_MESSAGE_RESET_TIMED_OUT) == 1));
	case_note("%zu of %u other warnings in the journal", kept, many);
	storage_let_go(rig.storage);
	limit_rate(NULL);
}

const struct system_case daemon_cases[8] = {
	{ "journald stopped, its socket full", stopped, NULL, 0 },
	{ "journald absent, started later", absent, NULL, 0 },
	{ "journald dead, started later", dead, NULL, 0 },
	{ "journald restarted", restarted, NULL, 0 },
	{ "a front end's stops with journald stopped", front_end_while_stopped,
	  NULL, 60 },
	{ "exit() behind a destroy that timed out", exits, NULL, 0 },
	{ "the same with journald stopped", exits_while_stopped, NULL, 0 },
	{ "a wedge among eight hostile disks, rates limited", crowded, NULL,
	  60 },
};
