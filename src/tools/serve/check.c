/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "../text.h"
#include "check.h"
#include "say.h"

static int check_text(const char *option, const char *text, size_t max)
{
	const char *rest = text;
	int32_t c = 1;

	if (text && strlen(text) > max) {
		complain("%s=%s: give at most %zu bytes", option, text, max);
		return -EINVAL;
	}
	while (text && c) {
		c = utf8_next(&rest);
		if (c < 0 || (c && c < 0x20) || (c >= 0x7f && c < 0xa0)) {
			complain("%s=%s: give UTF-8 that can be printed",
				 option, text);
			return -EINVAL;
		}
	}
	return 0;
}

/* As ktvblk_throttle_check() does, in our words. */
static int check_burst(const char *option, uint64_t rate, uint64_t burst)
{
	if (!burst || (rate && burst >= rate))
		return 0;
	complain("--%s-burst: give --%s too, and not less than that", option,
		 option);
	return -EINVAL;
}

static int refuse(const char *why)
{
	complain("%s", why);
	return -EINVAL;
}

static int check_storage(const struct options *options)
{
	const bool file = options->blk_file, nbd = options->nbd_uri;
	const int n_of_lock =
		options->no_lock + options->wait + options->incoming;

	if (file == nbd)
		return refuse(file ? "--blk-file and --nbd: give one of them"
				   : "no disk: give --blk-file or --nbd");
	if (nbd && options->direct)
		return refuse("--direct is for --blk-file");
	if (nbd && n_of_lock)
		return refuse("--wait, --incoming and --no-lock are for "
			      "--blk-file");
	if (n_of_lock > 1)
		return refuse("--wait, --incoming and --no-lock: give one of "
			      "them");
	if (file && options->nbd_keeps_writes)
		return refuse("--nbd-keeps-writes is for --nbd");
	return 0;
}

static int check_socket(const struct options *options)
{
	const struct sockaddr_un *address = NULL;

	if (options->socket_path && options->fd >= 0)
		return refuse("--socket-path and --fd: give one of them");
	if (options->socket_path &&
	    strlen(options->socket_path) >= sizeof(address->sun_path)) {
		complain("--socket-path=%s: give at most %zu bytes",
			 options->socket_path, sizeof(address->sun_path) - 1);
		return -EINVAL;
	}
	return 0;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* A file's name need not be one that can be on records. */
static void choose_name(struct options *options)
{
	const char *name = options->blk_file ? base_name(options->blk_file)
					     : "nbd";
	const char *rest = name;
	int32_t c;

	while ((c = utf8_next(&rest)) > 0x20 && c != 0x7f)
		;
	options->config.name = c == 0 && strlen(name) <= KTVBLK_NAME_MAX ? name
									 : NULL;
}

int options_check(struct options *options)
{
	struct ktvblk_config *config = &options->config;
	const struct ktvblk_throttle *throttle = &config->throttle;

	if (check_storage(options) < 0 || check_socket(options) < 0 ||
	    check_text("--serial", config->serial, KTVBLK_SERIAL_MAX) < 0 ||
	    check_text("--name", config->name, KTVBLK_NAME_MAX) < 0 ||
	    check_burst("iops", throttle->iops, throttle->iops_burst) < 0 ||
	    check_burst("bps", throttle->bytes_per_sec, throttle->bytes_burst) <
		    0)
		return -EINVAL;
	if (!config->name)
		choose_name(options);
	return 0;
}
