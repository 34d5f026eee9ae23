/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ktvblk-wedged(1): from what is asked to the exit status. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "follow.h"
#include "options.h"
#include "say.h"

enum status {
	STATUS_NONE = 0,
	STATUS_SOME = 1,
	STATUS_TROUBLE = 2,
};

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
	n = view_print_all(&view, false);
	if (r == 0 && query->follow)
		r = follow(&view, journal);
	if (r == 0 && query->follow)
		n = view_print_all(&view, true);
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
