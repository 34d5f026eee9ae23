/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ktvblk-wedged(1): options, and what is printed when. */

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "ktvblk.h"
#include "wedged.h"

#define NAME "ktvblk-wedged"

enum status {
	STATUS_NONE = 0,
	STATUS_SOME = 1,
	STATUS_TROUBLE = 2,
};

static const char usage[] =
	"Usage: " NAME " [OPTION]...\n"
	"List virtio-blk devices that are wedged or stalled, from the journal.\n"
	"\n"
	"  -D, --directory=DIR  read the journal in DIR, not this machine's\n"
	"  -S, --since=TIME     only records from TIME on: \"2026-01-31 12:00\",\n"
	"                       -90s, -30m, -2h, -7d, @SECONDS\n"
	"  -b, --boot[=ID]      only of this boot, or of the one with that ID\n"
	"  -r, --running        leave out processes that are gone\n"
	"  -j, --json           a JSON object on each line\n"
	"  -f, --follow         go on, a line for each change\n"
	"  -h, --help           this text\n"
	"  -V, --version        the version\n"
	"\n"
	"Exit status: 0 there is none, 1 there are some, 2 trouble.\n"
	"The manual: man " NAME "\n";

void complain(const char *format, ...)
{
	va_list ap;

	fputs(NAME ": ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

struct view {
	const struct query *query;
	const struct printer *printer;
	struct list list;
	bool trouble; /* a record was left out, told once */
	bool headed;
};

static void print(struct view *view, const struct record *record,
		  const char *what, enum presence presence)
{
	if (!view->headed && view->printer->head)
		view->printer->head();
	view->headed = true;
	view->printer->row(record, what, presence);
}

/* Print all there is now; how many that are. */
static size_t print_all(struct view *view, bool silent)
{
	const struct device *device;
	size_t n = 0;

	TAILQ_FOREACH(device, &view->list.devices, link)
	{
		enum presence presence = process_look(&device->record);

		if (device->replaced) {
			/* The same process: only the record of its end is lost. */
			if (presence == PROCESS_RUNNING)
				continue;
			presence = PROCESS_GONE;
		}
		if (view->query->running && presence == PROCESS_GONE)
			continue;
		n++;
		if (!silent)
			print(view, &device->record,
			      device->wedged ? "wedged" : "stalled", presence);
	}
	return n;
}

/* Take in all records up to the end; with `tell`, print what changes. */
static int take(struct view *view, sd_journal *journal, bool tell)
{
	struct record record;
	const char *what;
	int r;

	while ((r = journal_next(journal, &record, &view->trouble)) > 0) {
		r = list_add(&view->list, &record, &what);
		if (r < 0) {
			complain("%s", strerror(-r));
			return r;
		}
		if (r > 0 && tell)
			print(view, &record, what, process_look(&record));
	}
	return r;
}

/* What is on its way to stdout must get there. */
static int flush(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	complain("standard output: %s", strerror(errno));
	return -EIO;
}

static int timeout_ms(sd_journal *journal)
{
	struct timespec ts;
	uint64_t until_us, now_us;

	if (sd_journal_get_timeout(journal, &until_us) < 0 ||
	    until_us == UINT64_MAX)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now_us = (uint64_t)ts.tv_sec * USEC_PER_SEC +
		 (uint64_t)ts.tv_nsec / 1000;
	if (until_us <= now_us)
		return 0;
	until_us = (until_us - now_us) / 1000 + 1;
	return until_us > 60000 ? 60000 : (int)until_us;
}

/* Wait for the journal: 1, or 0 to end, or -errno. */
static int await(sd_journal *journal, int signal_fd)
{
	struct pollfd fds[] = {
		{ .fd = sd_journal_get_fd(journal),
		  .events = (short)sd_journal_get_events(journal) },
		{ .fd = signal_fd, .events = POLLIN },
		/* For its errors: a reader who left. */
		{ .fd = STDOUT_FILENO },
	};
	int r;

	if (poll(fds, ARRAY_SIZE(fds), timeout_ms(journal)) < 0 &&
	    errno != EINTR) {
		complain("poll: %s", strerror(errno));
		return -EIO;
	}
	if (fds[1].revents)
		return 0;
	if (fds[2].revents & (POLLERR | POLLHUP)) {
		complain("standard output: %s", strerror(EPIPE));
		return -EPIPE;
	}
	r = sd_journal_process(journal);
	if (r < 0) {
		complain("waiting for the journal failed: %s", strerror(-r));
		return r;
	}
	return 1;
}

static int follow(struct view *view, sd_journal *journal, int signal_fd)
{
	int r;

	do {
		r = flush();
		if (r == 0)
			r = await(journal, signal_fd);
		if (r > 0 && take(view, journal, true) < 0)
			return -EIO;
	} while (r > 0);
	return r;
}

/* SIGINT and SIGTERM end --follow in order. */
static int signals_to_fd(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (fd < 0)
		complain("signalfd: %s", strerror(errno));
	return fd;
}

static int run(const struct query *query)
{
	struct view view = {
		.query = query,
		.printer = query->json ? &json_printer : &table_printer,
	};
	sd_journal *journal = NULL;
	int r, checked, signal_fd = -1;
	size_t n;

	checked = files_check(query);
	if (checked == -ENOTDIR)
		return STATUS_TROUBLE;
	list_init(&view.list);
	if (query->follow) {
		signal_fd = signals_to_fd();
		if (signal_fd < 0)
			return STATUS_TROUBLE;
	}
	r = journal_open(query, &journal);
	if (r == 0)
		r = take(&view, journal, false);
	n = print_all(&view, false);
	if (r == 0 && query->follow)
		r = follow(&view, journal, signal_fd);
	if (r == 0 && query->follow)
		n = print_all(&view, true);
	if (r == 0)
		r = flush();
	sd_journal_close(journal);
	list_free(&view.list);
	if (signal_fd >= 0)
		close(signal_fd);
	if (r < 0 || checked < 0 || view.trouble)
		return STATUS_TROUBLE;
	return n ? STATUS_SOME : STATUS_NONE;
}

static int parse_boot(const char *text, struct query *query)
{
	int r = text ? sd_id128_from_string(text, &query->boot)
		     : sd_id128_get_boot(&query->boot);

	query->has_boot = true;
	if (r < 0 && text)
		complain("'%s' is no boot ID: 32 hexadecimal digits, as "
			 "journalctl --list-boots shows them",
			 text);
	else if (r < 0)
		complain("which boot this is: %s", strerror(-r));
	return r < 0 ? r : 0;
}

static int parse_since(const char *text, struct query *query)
{
	struct timespec now;
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	r = since_parse(text, (uint64_t)now.tv_sec * USEC_PER_SEC,
			&query->since_us);
	if (r < 0)
		complain("'%s' is no time: give YYYY-MM-DD, YYYY-MM-DD HH:MM "
			 "or YYYY-MM-DD HH:MM:SS, with a Z for UTC, or -90s, "
			 "-30m, -2h, -7d, -1w, or @SECONDS",
			 text);
	return r;
}

/* 0; or 1 to end well; or -errno. */
static int parse_options(int argc, char **argv, struct query *query)
{
	static const struct option options[] = {
		{ "directory", required_argument, NULL, 'D' },
		{ "since", required_argument, NULL, 'S' },
		{ "boot", optional_argument, NULL, 'b' },
		{ "running", no_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' },
		{ "follow", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "D:S:b::rjfhV", options,
					  NULL)) >= 0) {
		switch (c) {
		case 'D':
			query->directory = optarg;
			break;
		case 'S':
			r = parse_since(optarg, query);
			break;
		case 'b':
			r = parse_boot(optarg, query);
			break;
		case 'r':
			query->running = true;
			break;
		case 'j':
			query->json = true;
			break;
		case 'f':
			query->follow = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case 'V':
			puts(NAME " " KTVBLK_VERSION);
			return 1;
		default: /* getopt_long() has told */
			r = -EINVAL;
		}
	}
	if (r == 0 && optind < argc) {
		complain("unexpected argument '%s'", argv[optind]);
		r = -EINVAL;
	}
	return r;
}

int main(int argc, char **argv)
{
	static char name[] = NAME;
	struct query query = { 0 };
	int r;

	/* A reader who left is told like any other trouble with stdout. */
	signal(SIGPIPE, SIG_IGN);
	if (argc > 0)
		argv[0] = name; /* for getopt_long() */
	r = parse_options(argc, argv, &query);
	if (r > 0)
		return flush() < 0 ? STATUS_TROUBLE : STATUS_NONE;
	if (r < 0) {
		fputs("Try '" NAME " --help'.\n", stderr);
		return STATUS_TROUBLE;
	}
	return run(&query);
}
