/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The control disk is a small device of its own whose storage is callbacks: a
 * write to its first sector is a command, a read gives the state as text.
 *
 *   block, release   shut or open the gate before the gated disk's storage
 *   destroy NAME     the host destroys that disk under the running guest
 *
 * Records go to standard error, and are counted.
 */

#include <errno.h>
#include <fcntl.h>
#include <ktvblk-messages.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"

#define CONTROL_BYTES 4096

struct state {
	bool blocked;
	unsigned int waiting; /* storage calls at the gate */
	unsigned int stalled, resumed, reset_timed_out, destroy_timed_out;
	unsigned int waiting_for_orphan, reclaimed;
	uint64_t longest_reset_ms, destroy_ms;
	enum ktvblk_outcome outcome;
	bool destroyed;
	char to_destroy[64];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct state state;
static int main_loop_fd = -1;

static void pass_gate(void)
{
	pthread_mutex_lock(&lock);
	state.waiting++;
	while (state.blocked)
		pthread_cond_wait(&changed, &lock);
	state.waiting--;
	pthread_mutex_unlock(&lock);
}

static void set_blocked(bool blocked)
{
	pthread_mutex_lock(&lock);
	state.blocked = blocked;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* The gated file: userdata is its descriptor. */

static int gated_fd(void *userdata)
{
	return *(int *)userdata;
}

static ssize_t gated_preadv(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	ssize_t n;

	pass_gate();
	n = preadv(gated_fd(userdata), iov, n_iov, (off_t)offset);
	return n < 0 ? -errno : n;
}

static ssize_t gated_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			     uint64_t offset)
{
	ssize_t n;

	pass_gate();
	n = pwritev(gated_fd(userdata), iov, n_iov, (off_t)offset);
	return n < 0 ? -errno : n;
}

static int gated_flush(void *userdata)
{
	pass_gate();
	return fdatasync(gated_fd(userdata)) < 0 ? -errno : 0;
}

static int gated_capacity(void *userdata, uint64_t *ret_bytes)
{
	struct stat st;

	if (fstat(gated_fd(userdata), &st) < 0)
		return -errno;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

static void gated_release(void *userdata)
{
	close(gated_fd(userdata));
	free(userdata);
}

int control_gate(const char *path, struct ktvblk_backend **ret_storage)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = gated_preadv,
		.pwritev = gated_pwritev,
		.flush = gated_flush,
		.capacity = gated_capacity,
		.release = gated_release,
	};
	int *fd = malloc(sizeof(*fd));

	if (!fd)
		return -ENOMEM;
	*fd = open(path, O_RDWR | O_CLOEXEC);
	if (*fd < 0) {
		free(fd);
		return -errno;
	}
	return ktvblk_backend_new(&ops, fd, ret_storage);
}

/* The control disk. */

static size_t print_state(char *text, size_t size)
{
	int n;

	pthread_mutex_lock(&lock);
	n = snprintf(text, size,
		     "blocked=%d waiting=%u stalled=%u resumed=%u "
		     "reset_timed_out=%u longest_reset_ms=%llu "
		     "destroyed=%d destroy_ms=%llu destroy_timed_out=%u "
		     "waiting_for_orphan=%u reclaimed=%u\n",
		     state.blocked, state.waiting, state.stalled, state.resumed,
		     state.reset_timed_out,
		     (unsigned long long)state.longest_reset_ms,
		     state.destroyed, (unsigned long long)state.destroy_ms,
		     state.destroy_timed_out, state.waiting_for_orphan,
		     state.reclaimed);
	pthread_mutex_unlock(&lock);
	return (size_t)n;
}

static ssize_t control_preadv(void *userdata, const struct iovec *iov,
			      int n_iov, uint64_t offset)
{
	char text[CONTROL_BYTES];
	ssize_t done = 0;

	(void)userdata;
	memset(text, '\n', sizeof(text));
	text[print_state(text, sizeof(text))] = '\n';
	for (int i = 0; i < n_iov; i++) {
		size_t len = iov[i].iov_len;

		if (len > sizeof(text) - offset)
			len = sizeof(text) - offset;
		memcpy(iov[i].iov_base, text + offset, len);
		offset += len;
		done += (ssize_t)len;
	}
	return done;
}

void control_command(const char *line)
{
	fprintf(stderr, "control: %s\n", line);
	if (!strcmp(line, "block") || !strcmp(line, "release"))
		set_blocked(*line == 'b');
	if (strncmp(line, "destroy ", 8) != 0)
		return;
	pthread_mutex_lock(&lock);
	snprintf(state.to_destroy, sizeof(state.to_destroy), "%s", line + 8);
	pthread_mutex_unlock(&lock);
	/* Not here: [device] calls need the lock of who has the devices. */
	eventfd_write(main_loop_fd, 1);
}

void control_count(unsigned int *ret_reset_timed_out,
		   unsigned int *ret_reclaimed)
{
	pthread_mutex_lock(&lock);
	*ret_reset_timed_out = state.reset_timed_out;
	*ret_reclaimed = state.reclaimed;
	pthread_mutex_unlock(&lock);
}

static ssize_t control_pwritev(void *userdata, const struct iovec *iov,
			       int n_iov, uint64_t offset)
{
	ssize_t done = 0;
	char line[64];

	(void)userdata;
	for (int i = 0; i < n_iov; i++)
		done += (ssize_t)iov[i].iov_len;
	if (offset == 0 && iov[0].iov_len >= sizeof(line)) {
		memcpy(line, iov[0].iov_base, sizeof(line));
		line[sizeof(line) - 1] = '\0';
		line[strcspn(line, "\n")] = '\0';
		control_command(line);
	}
	return done;
}

static int control_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = CONTROL_BYTES;
	return 0;
}

int control_storage(struct ktvblk_backend **ret_storage)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = control_preadv,
		.pwritev = control_pwritev,
		.capacity = control_capacity,
	};

	return ktvblk_backend_new(&ops, NULL, ret_storage);
}

int control_fd(void)
{
	return main_loop_fd;
}

void control_run(void *unused)
{
	char name[sizeof(state.to_destroy)];
	eventfd_t count;

	(void)unused;
	eventfd_read(main_loop_fd, &count);
	pthread_mutex_lock(&lock);
	memcpy(name, state.to_destroy, sizeof(name));
	pthread_mutex_unlock(&lock);
	host_destroy(name);
}

void control_note_reset(const char *name, uint64_t took_ms)
{
	pthread_mutex_lock(&lock);
	if (took_ms > state.longest_reset_ms)
		state.longest_reset_ms = took_ms;
	pthread_mutex_unlock(&lock);
	if (took_ms > 100)
		fprintf(stderr, "reset of %s took %llu ms\n", name,
			(unsigned long long)took_ms);
}

void control_note_destroy(const char *name, enum ktvblk_outcome outcome,
			  uint64_t took_ms)
{
	pthread_mutex_lock(&lock);
	state.destroyed = true;
	state.outcome = outcome;
	state.destroy_ms = took_ms;
	pthread_mutex_unlock(&lock);
	fprintf(stderr, "destroy of %s: %s, %llu ms\n", name,
		ktvblk_outcome_name(outcome), (unsigned long long)took_ms);
}

/* The records. */

static void on_record(const struct ktvblk_record *record, void *userdata)
{
	const struct {
		const char *id;
		unsigned int *count;
	} counted[] = {
		{ KTVBLK_MESSAGE_REQUEST_STALLED, &state.stalled },
		{ KTVBLK_MESSAGE_REQUEST_RESUMED, &state.resumed },
		{ KTVBLK_MESSAGE_RESET_TIMED_OUT, &state.reset_timed_out },
		{ KTVBLK_MESSAGE_DESTROY_TIMED_OUT, &state.destroy_timed_out },
		{ KTVBLK_MESSAGE_WAITING_FOR_ORPHAN,
		  &state.waiting_for_orphan },
		{ KTVBLK_MESSAGE_RECLAIMED, &state.reclaimed },
	};

	(void)userdata;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < sizeof(counted) / sizeof(*counted); i++)
		if (!strcmp(record->message_id, counted[i].id))
			++*counted[i].count;
	fputs("record:", stderr);
	for (size_t i = 0; i < record->n_fields; i++)
		fprintf(stderr, " [%s]", record->fields[i]);
	fputc('\n', stderr);
	pthread_mutex_unlock(&lock);
}

void control_start(void)
{
	ktvblk_set_log_handler(on_record, NULL, NULL);
	main_loop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}
