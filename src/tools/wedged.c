/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ktvblk-wedged(1): what is printed when. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "wedged.h"

enum status {
	STATUS_NONE = 0,
	STATUS_SOME = 1,
	STATUS_TROUBLE = 2,
};

void complain(const char *format, ...)
{
	static char raw[5000], text[5000];
	va_list ap;

	va_start(ap, format);
	vsnprintf(raw, sizeof(raw), format, ap);
	va_end(ap);
	/* The names of files are strings of strangers, too. */
	text_clean(text, sizeof(text), raw);
	fprintf(stderr, PROGRAM ": %s\n", text);
}

void view_print(struct view *view, const struct record *record,
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
	struct device *device;
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
		device->told_gone = presence == PROCESS_GONE;
		if (view->query->running && presence == PROCESS_GONE)
			continue;
		n++;
		if (!silent)
			view_print(view, &device->record,
				   device->wedged ? "wedged" : "stalled",
				   presence);
	}
	return n;
}

int view_take(struct view *view, sd_journal *journal, bool tell)
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
			view_print(view, &record, what, process_look(&record));
	}
	return r;
}

int flush(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	complain("standard output: %s", strerror(errno));
	return -EIO;
}

static int run(const struct query *query)
{
	struct view view = {
		.query = query,
		.printer = query->json ? &json_printer : &table_printer,
	};
	sd_journal *journal = NULL;
	int r, checked;
	size_t n;

	checked = files_check(query);
	if (checked == -ENOTDIR)
		return STATUS_TROUBLE;
	list_init(&view.list);
	r = journal_open(query, &journal);
	if (r == 0)
		r = view_take(&view, journal, false);
	n = print_all(&view, false);
	if (r == 0 && query->follow)
		r = follow(&view, journal);
	if (r == 0 && query->follow)
		n = print_all(&view, true);
	if (r == 0)
		r = flush();
	sd_journal_close(journal);
	list_free(&view.list);
	if (r < 0 || checked < 0 || view.trouble)
		return STATUS_TROUBLE;
	return n ? STATUS_SOME : STATUS_NONE;
}

int main(int argc, char **argv)
{
	struct query query = { 0 };
	int r;

	/* A reader who left is told like any other trouble with stdout. */
	signal(SIGPIPE, SIG_IGN);
	/* Or a file of the journal would be opened in its place. */
	if (fcntl(STDOUT_FILENO, F_GETFD) < 0) {
		complain("standard output: %s", strerror(errno));
		return STATUS_TROUBLE;
	}
	r = options_parse(argc, argv, &query);
	if (r > 0)
		return flush() < 0 ? STATUS_TROUBLE : STATUS_NONE;
	return r < 0 ? STATUS_TROUBLE : run(&query);
}
