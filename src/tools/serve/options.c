/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One table for the command line and for a file. */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "file.h"
#include "numbers.h"
#include "options.h"
#include "say.h"

#define QUEUES_MOST "1 to 16"
#define DEPTH_MOST "1 to 1024"
#define TIME_MAX_MS (UINT64_C(3600) * 1000)

static const char usage[] =
	"Usage: " PROGRAM " [OPTION]... --blk-file=PATH|--nbd=URI\n"
	"Serve a disk to a virtual machine by vhost-user-blk.\n"
	"\n"
	"  --socket-path=PATH    listen there; an old socket nobody listens at "
	"is replaced\n"
	"  --fd=N                this socket, which listens or is connected\n"
	"                        (neither: the one systemd passes)\n"
	"  --blk-file=PATH       the disk is this file or block device, raw\n"
	"  --nbd=URI             ... an NBD server's export\n"
	"  --nbd-keeps-writes    ... which loses no write it has answered\n"
	"  --read-only           the disk can only be read\n"
	"  --direct              past the page cache (O_DIRECT)\n"
	"  --no-lock             do not lock the file\n"
	"  --wait                wait until nobody else has it locked\n"
	"  --incoming            ... and serve meanwhile: a migration's second end\n"
	"  --num-queues=N        queues a guest may use, 1 to 16 (16)\n"
	"  --depth=N             requests with the storage at once (64)\n"
	"  --zero-copy           the storage works on guest memory itself\n"
	"  --discard=auto|off    may the guest give space back (auto)\n"
	"  --serial=TEXT         what the guest sees, up to 20 bytes\n"
	"  --name=TEXT           of the disk, on records (the file's name)\n"
	"  --iops=N              at most so many requests a second\n"
	"  --iops-burst=N        ... and so many at once (as a second's)\n"
	"  --bps=N[K|M|G|T]      at most so many bytes a second\n"
	"  --bps-burst=N[K|M|G|T]\n"
	"  --timeout=MS          what a stop, a reset and the end may take "
	"(1000)\n"
	"  --stall-warn=MS       record a request that takes longer (5000)\n"
	"  --exit-on-disconnect  end with the first connection\n"
	"  --config=FILE         options, one on each line without the dashes\n"
	"  --print-capabilities  as management software asks for it\n"
	"  --help, --version\n"
	"\n"
	"MS: milliseconds, or 500ms, 2s, 1min.\n"
	"SIGHUP reads the disk's size again, SIGTERM ends it. Exit status: 0, 1 if something cannot be had, 2 if "
	"the options\n"
	"are wrong, 3 if the storage did not come back and something is left "
	"behind.\n"
	"The manual: man " PROGRAM "\n";

enum option_name {
	SOCKET_PATH,
	FD,
	BLK_FILE,
	NBD,
	NBD_KEEPS_WRITES,
	READ_ONLY,
	DIRECT,
	NO_LOCK,
	WAIT,
	INCOMING,
	NUM_QUEUES,
	DEPTH,
	ZERO_COPY,
	DISCARD,
	SERIAL,
	NAME,
	IOPS,
	IOPS_BURST,
	BPS,
	BPS_BURST,
	TIMEOUT,
	STALL_WARN,
	EXIT_ON_DISCONNECT,
	/* Of the command line only. */
	CONFIG,
	PRINT_CAPABILITIES,
	HELP,
	VERSION,
	END,
};

static const struct option names[] = {
	{ "socket-path", required_argument, NULL, SOCKET_PATH },
	{ "fd", required_argument, NULL, FD },
	{ "blk-file", required_argument, NULL, BLK_FILE },
	{ "nbd", required_argument, NULL, NBD },
	{ "nbd-keeps-writes", no_argument, NULL, NBD_KEEPS_WRITES },
	{ "read-only", no_argument, NULL, READ_ONLY },
	{ "direct", no_argument, NULL, DIRECT },
	{ "no-lock", no_argument, NULL, NO_LOCK },
	{ "wait", no_argument, NULL, WAIT },
	{ "incoming", no_argument, NULL, INCOMING },
	{ "num-queues", required_argument, NULL, NUM_QUEUES },
	{ "depth", required_argument, NULL, DEPTH },
	{ "zero-copy", no_argument, NULL, ZERO_COPY },
	{ "discard", required_argument, NULL, DISCARD },
	{ "serial", required_argument, NULL, SERIAL },
	{ "name", required_argument, NULL, NAME },
	{ "iops", required_argument, NULL, IOPS },
	{ "iops-burst", required_argument, NULL, IOPS_BURST },
	{ "bps", required_argument, NULL, BPS },
	{ "bps-burst", required_argument, NULL, BPS_BURST },
	{ "timeout", required_argument, NULL, TIMEOUT },
	{ "stall-warn", required_argument, NULL, STALL_WARN },
	{ "exit-on-disconnect", no_argument, NULL, EXIT_ON_DISCONNECT },
	{ "config", required_argument, NULL, CONFIG },
	{ "print-capabilities", no_argument, NULL, PRINT_CAPABILITIES },
	{ "help", no_argument, NULL, HELP },
	{ "version", no_argument, NULL, VERSION },
	{ NULL, 0, NULL, 0 },
};

/* Where it was said: "--depth", or "FILE:3: depth". */
static int refuse(const char *where, const char *value, const char *want)
{
	complain("%s=%s: give %s", where, value, want);
	return -EINVAL;
}

static int set_number(const char *where, const char *value, uint64_t min,
		      uint64_t max, const char *want, uint64_t *ret)
{
	return number_parse(value, min, max, ret) ? 0
						  : refuse(where, value, want);
}

static int set_u32(const char *where, const char *value, uint32_t min,
		   uint32_t max, const char *want, uint32_t *ret)
{
	uint64_t n;
	const int r = set_number(where, value, min, max, want, &n);

	if (r == 0)
		*ret = (uint32_t)n;
	return r;
}

static int set_ms(const char *where, const char *value, uint32_t *ret)
{
	uint64_t ms;

	if (!time_parse_ms(value, TIME_MAX_MS, &ms) || ms == 0)
		return refuse(where, value,
			      "milliseconds, or 500ms, 2s, 1min, up to an "
			      "hour");
	*ret = (uint32_t)ms;
	return 0;
}

static int set_bytes(const char *where, const char *value, uint64_t *ret)
{
	if (bytes_parse(value, ret) && *ret)
		return 0;
	return refuse(where, value, "bytes, as 4096, 64K, 100M, 1G");
}

static int set_discard(const char *where, const char *value, uint32_t *ret)
{
	if (!strcmp(value, "auto"))
		*ret = KTVBLK_DISCARD_AUTO;
	else if (!strcmp(value, "off"))
		*ret = KTVBLK_DISCARD_OFF;
	else
		return refuse(where, value, "auto or off");
	return 0;
}

static int set_text(const char *where, const char *value, const char **ret)
{
	if (!*value)
		return refuse(where, value, "something");
	*ret = value;
	return 0;
}

static int set_throttle(struct ktvblk_throttle *throttle, enum option_name name,
			const char *where, const char *value)
{
	if (name == BPS || name == BPS_BURST)
		return set_bytes(where, value,
				 name == BPS ? &throttle->bytes_per_sec
					     : &throttle->bytes_burst);
	return set_number(where, value, 1, UINT64_MAX, "requests, 1 or more",
			  name == IOPS ? &throttle->iops
				       : &throttle->iops_burst);
}

static int set_timeout(struct ktvblk_config *config, const char *where,
		       const char *value)
{
	const int r = set_ms(where, value, &config->reset_timeout_ms);

	config->destroy_timeout_ms = config->reset_timeout_ms;
	return r;
}

static int set_fd(struct options *options, const char *where, const char *value)
{
	uint64_t fd;
	const int r = set_number(where, value, 0, INT32_MAX,
				 "the number of a descriptor", &fd);

	if (r == 0)
		options->fd = (int)fd;
	return r;
}

static void set_flag(struct options *options, enum option_name name)
{
	if (name == NBD_KEEPS_WRITES)
		options->nbd_keeps_writes = true;
	else if (name == READ_ONLY)
		options->config.flags |= KTVBLK_READ_ONLY;
	else if (name == ZERO_COPY)
		options->config.flags |= KTVBLK_ZERO_COPY;
	else if (name == DIRECT)
		options->direct = true;
	else if (name == NO_LOCK)
		options->no_lock = true;
	else if (name == WAIT)
		options->wait = true;
	else if (name == INCOMING)
		options->incoming = true;
	else if (name == EXIT_ON_DISCONNECT)
		options->once = true;
	else if (name == PRINT_CAPABILITIES)
		options->capabilities = true;
}

static int set(struct options *options, enum option_name name,
	       const char *where, const char *value)
{
	struct ktvblk_config *config = &options->config;

	switch (name) {
	case SOCKET_PATH:
		return set_text(where, value, &options->socket_path);
	case FD:
		return set_fd(options, where, value);
	case BLK_FILE:
		return set_text(where, value, &options->blk_file);
	case NBD:
		return set_text(where, value, &options->nbd_uri);
	case NUM_QUEUES:
		return set_u32(where, value, 1, KTVBLK_QUEUES_MAX, QUEUES_MOST,
			       &config->n_queues);
	case DEPTH:
		return set_u32(where, value, 1, KTVBLK_QUEUE_SIZE_MAX,
			       DEPTH_MOST, &config->depth);
	case DISCARD:
		return set_discard(where, value, &config->discard);
	case SERIAL:
		return set_text(where, value, &config->serial);
	case NAME:
		return set_text(where, value, &config->name);
	case IOPS:
	case IOPS_BURST:
	case BPS:
	case BPS_BURST:
		return set_throttle(&config->throttle, name, where, value);
	case TIMEOUT:
		return set_timeout(config, where, value);
	case STALL_WARN:
		return set_ms(where, value, &config->stall_warn_ms);
	case CONFIG:
		return file_read(value, options);
	default:
		set_flag(options, name);
		return 0;
	}
}

int options_set(struct options *options, const char *name, const char *value,
		const char *where)
{
	const struct option *option = names;

	while (option->name && strcmp(option->name, name))
		option++;
	if (!option->name || option->val >= CONFIG) {
		complain("%s: there is no such option", where);
		return -EINVAL;
	}
	if (!value && option->has_arg == required_argument) {
		complain("%s: give a value", where);
		return -EINVAL;
	}
	if (value && option->has_arg == no_argument) {
		complain("%s: takes no value", where);
		return -EINVAL;
	}
	return set(options, (enum option_name)option->val, where, value);
}

/* By convention all else is not looked at then. */
static bool wants_capabilities(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--print-capabilities"))
			return true;
	return false;
}

static int parse_all(int argc, char **argv, struct options *options)
{
	int c, i = 0, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "", names, &i)) >= 0) {
		char where[64];

		if (c >= END)
			return -EINVAL; /* getopt_long() has told */
		if (c == HELP || c == VERSION) {
			fputs(c == HELP ? usage
					: PROGRAM " " KTVBLK_VERSION "\n",
			      stdout);
			return 1;
		}
		snprintf(where, sizeof(where), "--%s", names[c].name);
		r = set(options, (enum option_name)c, where, optarg);
	}
	if (r == 0 && optind < argc) {
		complain("unexpected argument '%s'", argv[optind]);
		r = -EINVAL;
	}
	return r;
}

int options_parse(int argc, char **argv, struct options *options)
{
	static char program[] = PROGRAM;
	int r;

	*options = (struct options){ .fd = -1, .config = KTVBLK_CONFIG_INIT };
	options->config.n_queues = KTVBLK_QUEUES_MAX;
	if (wants_capabilities(argc, argv)) {
		options->capabilities = true;
		return 0;
	}
	if (argc > 0)
		argv[0] = program; /* for getopt_long() */
	r = parse_all(argc, argv, options);
	return r == 0 ? options_check(options) : r;
}
