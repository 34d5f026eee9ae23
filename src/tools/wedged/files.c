/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libsystemd leaves out what it cannot read without a word, and "nothing is
 * wedged" must not be said of a journal that nobody could read. So each file is
 * opened by itself, and its records are walked through: one that turns out to
 * be damaged is taken out of the sd_journal, which then has no files left.
 */

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "journal.h"
#include "say.h"

/* How long it takes until a file counts as cut short. */
#define HEAD_MS 1000

struct census {
	const struct query *query;
	unsigned int n_files;
	unsigned int n_forbidden;
	int error; /* the last, negative */
};

static int walk(sd_journal *journal, const struct query *query)
{
	uint64_t bytes;
	int r = journal_restrict(journal, query);

	if (r == 0 && query->since_us)
		r = sd_journal_seek_realtime_usec(journal, query->since_us);
	else if (r == 0)
		r = sd_journal_seek_head(journal);
	if (r < 0)
		return r;
	while ((r = sd_journal_next(journal)) > 0)
		;
	if (r == 0)
		r = sd_journal_get_usage(journal, &bytes);
	if (r < 0)
		return r;
	return bytes ? 0 : -EBADMSG;
}

static const char *explain(int r)
{
	switch (r) {
	case -EBADMSG:
		return "The file is damaged";
	case -ENODATA:
		return "The file is cut short";
	default:
		return strerror(-r);
	}
}

/* journald makes a file and writes its head next, and may be held up between. */
static int open_file(int fd, sd_journal **ret_journal)
{
	int r;

	for (int ms = 0;; ms += 10) {
		r = sd_journal_open_files_fd(ret_journal, &fd, 1, 0);
		if (r != -ENODATA || ms >= HEAD_MS)
			return r;
		poll(NULL, 0, 10);
	}
}

static void check_file(struct census *census, const char *path)
{
	sd_journal *journal = NULL;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int r = fd < 0 ? -errno : 0;

	census->n_files++;
	if (r == -ENOENT) /* vacuumed meanwhile */
		return;
	if (r == 0)
		r = open_file(fd, &journal);
	if (r >= 0)
		r = walk(journal, census->query);
	/* Vacuuming takes the blocks away under the one who reads. */
	if (r < 0 && fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0)
		r = 0;
	sd_journal_close(journal);
	if (fd >= 0)
		close(fd);
	if (r >= 0)
		return;
	census->error = r;
	if (r == -EACCES || r == -EPERM)
		census->n_forbidden++;
	else
		complain("%s: %s", path, explain(r));
}

static bool has_suffix(const char *name, const char *suffix)
{
	const size_t len = strlen(name), suffix_len = strlen(suffix);

	return len > suffix_len && !strcmp(name + len - suffix_len, suffix);
}

/* A directory of one machine: its id, and a dot and a namespace or nothing. */
static bool is_machine_directory(const struct query *query, const char *name)
{
	char text[SD_ID128_STRING_MAX];
	sd_id128_t machine;

	if (query->directory)
		return strlen(name) == SD_ID128_STRING_MAX - 1 &&
		       sd_id128_from_string(name, &machine) >= 0;
	if (sd_id128_get_machine(&machine) < 0)
		return false;
	sd_id128_to_string(machine, text);
	return !strncmp(name, text, sizeof(text) - 1) &&
	       (name[sizeof(text) - 1] == '\0' ||
		name[sizeof(text) - 1] == '.');
}

static int check_directory(struct census *census, const char *path, bool top)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char child[4096];

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		const char *name = entry->d_name;
		int r;

		if ((size_t)snprintf(child, sizeof(child), "%s/%s", path,
				     name) >= sizeof(child))
			continue;
		if (has_suffix(name, ".journal") ||
		    has_suffix(name, ".journal~")) {
			/* At the top, another machine's may lie. */
			if (!top || census->query->directory)
				check_file(census, child);
		} else if (top && is_machine_directory(census->query, name)) {
			r = check_directory(census, child, false);
			if (r < 0 && r != -ENOENT && r != -ENOTDIR) {
				complain("%s: %s", child, strerror(-r));
				census->error = r;
			}
		}
	}
	closedir(dir);
	return 0;
}

/* -ENOTDIR: the directory asked for cannot be read, and that has been told. */
static int check_tree(struct census *census, const char *path)
{
	const int r = check_directory(census, path, true);

	if (r == 0 || (r == -ENOENT && !census->query->directory))
		return 0;
	complain("%s: %s", path, strerror(-r));
	census->error = r;
	return census->query->directory ? -ENOTDIR : 0;
}

int files_check(const struct query *query)
{
	struct census census = { .query = query };
	const char *where = query->directory;

	if (where) {
		if (check_tree(&census, where) < 0)
			return -ENOTDIR;
	} else {
		where = "/var/log/journal, /run/log/journal";
		check_tree(&census, "/var/log/journal");
		check_tree(&census, "/run/log/journal");
	}
	if (census.n_forbidden)
		complain("%u of %u journal files cannot be read: %s; "
			 "be root, or in the group systemd-journal",
			 census.n_forbidden, census.n_files, strerror(EACCES));
	if (!census.n_files && !census.error) {
		complain("%s: no journal files", where);
		census.error = -ENOENT;
	}
	return census.error;
}
