/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See disk.h. */

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"

#define BIT(n) (UINT64_C(1) << (n))

static bool set_flag(struct ktvblk_config *config, const char *key)
{
	if (!strcmp(key, "ro"))
		config->flags |= KTVBLK_READ_ONLY;
	else if (!strcmp(key, "zero-copy"))
		config->flags |= KTVBLK_ZERO_COPY;
	else if (!strcmp(key, "no-event-idx"))
		config->features_masked |= BIT(VIRTIO_RING_F_EVENT_IDX);
	else if (!strcmp(key, "no-discard"))
		config->discard = KTVBLK_DISCARD_OFF;
	else if (!strcmp(key, "no-cache"))
		config->write_cache = KTVBLK_WRITE_CACHE_OFF;
	else if (!strcmp(key, "no-indirect"))
		config->features_masked |= BIT(VIRTIO_RING_F_INDIRECT_DESC);
	else
		return false;
	return true;
}

static bool set_number(struct ktvblk_config *config, const char *key,
		       uint64_t value)
{
	if (!strcmp(key, "iops"))
		config->throttle.iops = value;
	else if (!strcmp(key, "bps"))
		config->throttle.bytes_per_sec = value;
	else if (!strcmp(key, "queue") && value <= UINT16_MAX)
		config->queue_size_max = (uint16_t)value;
	else if (!strcmp(key, "queues") && value <= UINT32_MAX)
		config->n_queues = (uint32_t)value;
	else if (!strcmp(key, "block") && value <= UINT32_MAX)
		config->logical_block_bytes = (uint32_t)value;
	else if (!strcmp(key, "physical") && value <= UINT32_MAX)
		config->physical_block_bytes = (uint32_t)value;
	else if (!strcmp(key, "opt-io") && value <= UINT32_MAX)
		config->opt_io_bytes = (uint32_t)value;
	else if (!strcmp(key, "budget") && value <= UINT32_MAX)
		config->reset_timeout_ms = config->destroy_timeout_ms =
			(uint32_t)value;
	else if (!strcmp(key, "stall") && value <= UINT32_MAX)
		config->stall_warn_ms = (uint32_t)value;
	else
		return false;
	return true;
}

static bool set_value(struct ktvblk_config *config, const char *key,
		      const char *value)
{
	unsigned long long number;
	char *end;

	if (!strcmp(key, "name"))
		config->name = value;
	else if (!strcmp(key, "serial"))
		config->serial = value;
	else {
		errno = 0;
		number = strtoull(value, &end, 0);
		return *value >= '0' && *value <= '9' && !*end && !errno &&
		       set_number(config, key, number);
	}
	return true;
}

/* The next part of *text, NULL if there is none; see disk_parse(). */
static char *next_part(char **text)
{
	char *const part = *text, *from = part, *to = part;

	if (!part)
		return NULL;
	while (*from && (*from != ',' || from[1] == ',')) {
		from += *from == ',';
		*to++ = *from++;
	}
	*text = *from ? from + 1 : NULL;
	*to = '\0';
	return part;
}

int disk_parse(char *text, struct disk *ret_disk, const char **ret_what)
{
	struct disk disk = { .config = KTVBLK_CONFIG_INIT };
	char *key, *value;

	disk.path = next_part(&text);
	*ret_what = "no file";
	if (!*disk.path)
		return -EINVAL;
	while ((key = next_part(&text))) {
		value = strchr(key, '=');
		*ret_what = key;
		if (value)
			*value++ = '\0';
		if (!(value ? set_value(&disk.config, key, value)
			    : set_flag(&disk.config, key)))
			return -EINVAL;
	}
	*ret_disk = disk;
	return 0;
}

int disk_open(const struct disk *disk, struct ktvblk_backend **ret_storage)
{
	const int mode = disk->config.flags & KTVBLK_READ_ONLY ? O_RDONLY
							       : O_RDWR;
	const int fd = open(disk->path, mode | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = ktvblk_backend_new_fd(fd, NULL, NULL, ret_storage);
	close(fd); /* the storage has a duplicate */
	return r;
}

/* A path may be longer than a name, and have bytes that no name may have. */
static void make_plain_name(const char *from, char *to)
{
	const size_t len = strlen(from);

	if (len > KTVBLK_NAME_MAX)
		from += len - KTVBLK_NAME_MAX; /* its end says most */
	for (; *from; from++)
		*to++ = *from > ' ' && *from < 0x7f ? *from : '?';
	*to = '\0';
}

static int new_device(const struct disk *disk, struct ktvblk_backend *storage,
		      struct ktvblk_dev **ret_dev)
{
	struct ktvblk_config config = disk->config;
	char plain_name[KTVBLK_NAME_MAX + 1];
	int r;

	config.backend = storage;
	if (!config.name)
		config.name = disk->path;
	r = ktvblk_new(&config, ret_dev);
	if (disk->config.name || (r != -ENAMETOOLONG && r != -EINVAL))
		return r;
	make_plain_name(disk->path, plain_name);
	config.name = plain_name;
	return ktvblk_new(&config, ret_dev);
}

int disk_start(struct disk *disk, struct ktvblk_backend *storage,
	       struct ktvblk_mem *mem)
{
	struct ktvblk_dev *dev;
	int r = new_device(disk, storage, &dev);

	if (r < 0)
		return r;
	r = ktvblk_set_memory(dev, mem);
	if (r < 0)
		ktvblk_destroy(dev);
	else
		disk->dev = dev;
	return r;
}

void disk_print_record(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	fprintf(stderr, "<%d>", record->priority);
	for (size_t i = 0; i < record->n_fields; i++)
		fprintf(stderr, " [%s]", record->fields[i]);
	fputc('\n', stderr);
}
