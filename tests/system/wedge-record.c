/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a record says of who is stuck, beside what this process itself sees of
 * the threads that the kernel has made for io_uring.
 */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "wedge-cases.h"

void note_stuck(const char *outcome, const struct kept_record *record)
{
	const char *const keys[] = {
		KTVBLK_FIELD_STUCK_STATE,   KTVBLK_FIELD_STUCK_SYSCALL,
		KTVBLK_FIELD_STUCK_WCHAN,   KTVBLK_FIELD_FENCED,
		KTVBLK_FIELD_STUCK_THREADS, KTVBLK_FIELD_IN_FLIGHT
	};
	const char *values[ARRAY_SIZE(keys)];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		values[i] = kept_field(record, keys[i]);
		if (!values[i])
			values[i] = "-";
	}
	case_note("%-9s %s %-9s %-20s fenced=%s threads=%s in_flight=%s",
		  outcome, values[0], values[1], values[2], values[3],
		  values[4], values[5]);
}

void check_field(const struct kept_record *record, const char *key,
		 const char *value)
{
	const char *have = kept_field(record, key);

	ck_assert_msg(have && strcmp(have, value) == 0, "%s is %s, not %s", key,
		      have ? have : "missing", value);
}

static void read_thread_file(const char *tid, const char *file, char *text,
			     size_t size)
{
	char path[64];
	ssize_t n = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%.16s/%s", tid, file);
	__attribute__((cleanup(closep))) int fd =
		open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, text, size - 1);
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

static void name_of_helper(pid_t worker, char name[16])
{
	snprintf(name, 16, "iou-wrk-%d", (int)worker);
}

struct helpers helpers_of(pid_t worker)
{
	struct helpers helpers = { .all_sleep = true };
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	char wanted[16], text[64];

	ck_assert_ptr_nonnull(dir);
	name_of_helper(worker, wanted);
	while ((entry = readdir(dir))) {
		read_thread_file(entry->d_name, "comm", text, sizeof(text));
		if (strcmp(text, wanted) != 0)
			continue;
		if (!strchr("SD", thread_state(atoi(entry->d_name))))
			helpers.all_sleep = false;
		read_thread_file(entry->d_name, "wchan", text, sizeof(text));
		helpers.n_busy += strcmp(text, "io_wq_worker") != 0;
	}
	closedir(dir);
	return helpers;
}

bool worker_waits(pid_t worker)
{
	return thread_state(worker) == 'S' &&
	       thread_in_call(worker, SYS_io_uring_enter) &&
	       helpers_of(worker).all_sleep;
}

void check_helpers(const struct kept_record *record, pid_t worker)
{
	const uint64_t n = kept_number(record, KTVBLK_FIELD_STUCK_THREADS);
	const char *state = kept_field(record, KTVBLK_FIELD_STUCK_STATE);
	const char *wchan = kept_field(record, KTVBLK_FIELD_STUCK_WCHAN);
	const char *tid = kept_field(record, KTVBLK_FIELD_STUCK_TID);
	char wanted[16], name[64];

	/* They are stuck, so they are there still. */
	ck_assert_msg(helpers_of(worker).n_busy == n,
		      "%u threads of the kernel's are busy, not %u",
		      helpers_of(worker).n_busy, (unsigned int)n);
	if (!n) {
		ck_assert_ptr_null(tid);
		ck_assert_ptr_null(state);
		ck_assert_ptr_null(wchan);
		ck_assert_ptr_null(
			kept_field(record, KTVBLK_FIELD_STUCK_SYSCALL));
		return;
	}
	ck_assert(tid && state && wchan);
	name_of_helper(worker, wanted);
	read_thread_file(tid, "comm", name, sizeof(name));
	ck_assert_str_eq(name, wanted);
	ck_assert_int_eq(state[0], thread_state(atoi(tid)));
	ck_assert(strcmp(state, "S") == 0 || strcmp(state, "D") == 0);
	read_thread_file(tid, "wchan", name, sizeof(name));
	ck_assert_str_eq(wchan, name);
	ck_assert_str_ne(wchan, "io_wq_worker");
	check_field(record, KTVBLK_FIELD_STUCK_SYSCALL, "none");
}

/* Rings of io_uring that this process has in its memory. */
static unsigned int count_rings(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned int n = 0;

	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file))
		n += strstr(line, "[io_uring]") != NULL;
	fclose(file);
	return n;
}

void check_nothing_left(unsigned int n_fds)
{
	ck_assert(eventually(count_threads("ktvblk-") == 0));
	ck_assert(eventually(count_threads("iou-") == 0));
	ck_assert_uint_eq(count_rings(), 0);
	ck_assert_uint_le(count_fds(), n_fds);
}
