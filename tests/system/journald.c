/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See journald.h. */

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "harness.h"
#include "journald.h"

#define SOCKET "/run/systemd/journal/socket"
#define DAEMON "/lib/systemd/systemd-journald"
#define START_NS (120 * NSEC_PER_SEC)

/* Whichever case started it last, the next ones want to know. */
static _Atomic pid_t *pid;

void journald_init(void)
{
	void *map = mmap(NULL, sizeof(*pid), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		abort();
	pid = (_Atomic pid_t *)map;
}

/* A socket that a dead one left behind takes no connection. */
static bool listens(void)
{
	const struct sockaddr_un address = { .sun_family = AF_UNIX,
					     .sun_path = SOCKET };
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const int r =
		connect(fd, (const struct sockaddr *)&address, sizeof(address));

	close(fd);
	return r == 0;
}

void journald_start(void)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const uint64_t until_ns = now_ns() + START_NS;
	const pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		sigset_t none;

		/* It lives on after the case, and takes its signals. */
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		/* Without /dev/kmsg it talks to its standard error. */
		dup2(null, STDERR_FILENO);
		execl(DAEMON, DAEMON, NULL);
		_exit(1);
	}
	close(null);
	*pid = child;
	ck_assert_msg(eventually(listens()), "journald does not start");
	/*
	 * From /run to the disk, where queries look. It is asked at another
	 * socket, which comes later.
	 */
	while (system("journalctl --flush") != 0)
		ck_assert(now_ns() < until_ns);
}

void journald_signal(int signal)
{
	ck_assert_int_eq(kill(*pid, signal), 0);
}

void journald_end(int signal)
{
	/* It may be another case's child. */
	const int process = (int)syscall(SYS_pidfd_open, *pid, 0);
	struct pollfd ended = { .fd = process, .events = POLLIN };

	ck_assert_int_ge(process, 0);
	journald_signal(signal);
	ck_assert_int_eq(poll(&ended, 1, WAIT_MS), 1);
	close(process);
	waitpid(*pid, NULL, WNOHANG);
}

void journald_remove_socket(void)
{
	ck_assert_int_eq(unlink(SOCKET), 0);
}

/*
 * JSON: a flat object on each line. What is no string (a binary value, or one
 * that came twice) is none of ours, and is kept as it is written.
 */

static char *copy(const char *from, size_t len)
{
	char *text = strndup(from, len);

	ck_assert_ptr_nonnull(text);
	return text;
}

/* From behind the opening quote; *ret_end: behind the closing one. */
static char *parse_string(const char *at, const char **ret_end)
{
	char *text = copy(at, strlen(at)), *to = text;

	for (; *at && *at != '"'; at++) {
		if (*at != '\\') {
			*to++ = *at;
			continue;
		}
		at++;
		if (*at == 'n')
			*to++ = '\n';
		else if (*at == 't')
			*to++ = '\t';
		else if (*at != 'u')
			*to++ = *at;
		else /* only control characters are written so */
			*to++ = (char)strtol(copy(at + 1, 4), NULL, 16),
			at += 4;
	}
	*to = '\0';
	*ret_end = at + (*at == '"');
	return text;
}

static char *parse_value(const char *at, const char **ret_end)
{
	const char *start = at;
	int depth = 0;

	if (*at == '"')
		return parse_string(at + 1, ret_end);
	for (; *at && (depth || (*at != ',' && *at != '}')); at++)
		depth += (*at == '[') - (*at == ']');
	*ret_end = at;
	return copy(start, (size_t)(at - start));
}

static struct entry *parse_entry(const char *at)
{
	struct entry *entry = calloc(1, sizeof(*entry));

	ck_assert_ptr_nonnull(entry);
	for (at++; *at == '"' && entry->n_fields < ARRAY_SIZE(entry->fields);
	     entry->n_fields++) {
		entry->fields[entry->n_fields].key = parse_string(at + 1, &at);
		while (*at == ':' || *at == ' ')
			at++;
		entry->fields[entry->n_fields].value = parse_value(at, &at);
		while (*at == ',' || *at == ' ')
			at++;
	}
	return entry;
}

struct entry *journal_query(const char *matches)
{
	struct entry *first = NULL, **last = &first;
	char command[512], *line = NULL;
	size_t size = 0;
	FILE *out;

	snprintf(command, sizeof(command),
		 "journalctl --sync; journalctl -q --no-pager -o json %s",
		 matches);
	out = popen(command, "re");
	ck_assert_ptr_nonnull(out);
	while (getline(&line, &size, out) > 0) {
		if (*line != '{')
			continue;
		*last = parse_entry(line);
		last = &(*last)->next;
	}
	free(line);
	pclose(out);
	return first;
}

size_t journal_count(const char *matches)
{
	size_t n = 0;

	for (const struct entry *e = journal_query(matches); e; e = e->next)
		n++;
	return n;
}

const char *entry_field(const struct entry *entry, const char *key)
{
	for (size_t i = 0; i < entry->n_fields; i++)
		if (strcmp(entry->fields[i].key, key) == 0)
			return entry->fields[i].value;
	return NULL;
}
