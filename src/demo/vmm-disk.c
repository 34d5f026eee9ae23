/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See vmm-disk.h. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm-disk.h"

enum suboption {
	OPT_NAME,
	OPT_SERIAL,
	OPT_RO,
	OPT_ZERO_COPY,
	OPT_IOPS,
	OPT_BPS,
	OPT_QUEUE,
	OPT_MASK,
	OPT_BUDGET,
	OPT_STALL,
	OPT_COUNT
};

static char *const suboptions[OPT_COUNT + 1] = {
	[OPT_NAME] = "name",	 [OPT_SERIAL] = "serial",
	[OPT_RO] = "ro",	 [OPT_ZERO_COPY] = "zero-copy",
	[OPT_IOPS] = "iops",	 [OPT_BPS] = "bps",
	[OPT_QUEUE] = "queue",	 [OPT_MASK] = "mask",
	[OPT_BUDGET] = "budget", [OPT_STALL] = "stall",
	[OPT_COUNT] = NULL,
};

/* Where a suboption's value goes: a text, a number, or a yes. */
static bool store(struct disk_options *options, int option, char *value)
{
	uint64_t *const numbers[OPT_COUNT] = {
		[OPT_IOPS] = &options->iops,
		[OPT_BPS] = &options->bytes_per_sec,
		[OPT_QUEUE] = &options->queue_size,
		[OPT_MASK] = &options->features_masked,
		[OPT_BUDGET] = &options->budget_ms,
		[OPT_STALL] = &options->stall_ms,
	};
	char *end;

	switch (option) {
	case OPT_RO:
		options->read_only = true;
		return !value;
	case OPT_ZERO_COPY:
		options->zero_copy = true;
		return !value;
	case OPT_NAME:
		options->name = value;
		return value;
	case OPT_SERIAL:
		options->serial = value;
		return value;
	}
	if (option < 0 || !value || !*value)
		return false;
	*numbers[option] = strtoull(value, &end, 0);
	return *end == '\0';
}

int disk_parse(char *text, struct disk_options *ret_options,
	       const char **ret_what)
{
	struct disk_options options = { .path = text };
	char *rest = strchr(text, ',');

	if (rest)
		*rest++ = '\0';
	*ret_what = "no file";
	if (!*text)
		return -EINVAL;
	while (rest && *rest) {
		char *value = NULL;
		int option;

		*ret_what = rest;
		option = getsubopt(&rest, suboptions, &value);
		if (!store(&options, option, value))
			return -EINVAL;
	}
	*ret_options = options;
	return 0;
}

int disk_open_file(const struct disk_options *options,
		   struct ktvblk_backend **ret_storage)
{
	const int mode = options->read_only ? O_RDONLY : O_RDWR;
	const int fd = open(options->path, mode | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = ktvblk_backend_new_fd(fd, NULL, NULL, ret_storage);
	close(fd); /* the storage has a duplicate */
	return r;
}

int disk_new(const struct disk_options *options, struct ktvblk_backend *storage,
	     struct ktvblk_mem *mem, struct ktvblk_dev **ret_dev)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	int r;

	config.backend = storage;
	config.name = options->name ? options->name : options->path;
	config.serial = options->serial;
	if (options->read_only)
		config.flags |= KTVBLK_READ_ONLY;
	if (options->zero_copy)
		config.flags |= KTVBLK_ZERO_COPY;
	config.features_masked = options->features_masked;
	config.throttle.iops = options->iops;
	config.throttle.bytes_per_sec = options->bytes_per_sec;
	config.reset_timeout_ms = (uint32_t)options->budget_ms;
	config.destroy_timeout_ms = (uint32_t)options->budget_ms;
	config.stall_warn_ms = (uint32_t)options->stall_ms;
	config.queue_size_max = (uint16_t)options->queue_size;
	r = ktvblk_new(&config, ret_dev);
	if (r < 0)
		return r;
	/* It cannot fail: nothing is bound yet. */
	ktvblk_set_memory(*ret_dev, mem);
	return 0;
}
