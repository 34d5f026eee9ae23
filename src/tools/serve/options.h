/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_OPTIONS_H
#define SERVE_OPTIONS_H

/* What is asked for, on the command line and in a file. */

#include <stdbool.h>

#include <ktvblk.h>

struct options {
	/* Where front ends come from; neither: from systemd. */
	const char *socket_path;
	int fd; /* -1 */

	/* The storage, one of these. */
	const char *blk_file;
	const char *nbd_uri;
	bool direct, wait, incoming, no_lock; /* of a file */
	bool nbd_keeps_writes;

	bool once; /* the end of a connection is the end */
	bool capabilities; /* they are all that is wanted */
	struct ktvblk_config config; /* all but the backend */
};

/* 0; or 1 to end well; or -EINVAL, told on stderr. */
int options_parse(int argc, char **argv, struct options *options);

/* One option by its name, of a file's line; -EINVAL, told as where's. */
int options_set(struct options *options, const char *name, const char *value,
		const char *where);

#endif
