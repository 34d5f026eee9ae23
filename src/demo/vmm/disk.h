/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_DISK_H
#define VMM_DISK_H

/* A disk as the user describes it, and the device made from that. */

#include <ktvblk.h>
#include <stdbool.h>

struct disk {
	const char *path;
	struct ktvblk_config config; /* no name: as much of the path as can be */
	struct ktvblk_dev *dev; /* NULL: not made yet, or gone */
};

/*
 * Take text apart, which is written to and must live as long as the disk: parts
 * are separated by commas, and two commas are one of a part itself.
 * -EINVAL: *ret_what is the part that is wrong.
 */
int disk_parse(char *text, struct disk *ret_disk, const char **ret_what);

/* Storage in the disk's file. */
int disk_open(const struct disk *disk, struct ktvblk_backend **ret_storage);

/* Make disk->dev, over this storage and this guest memory. */
int disk_start(struct disk *disk, struct ktvblk_backend *storage,
	       struct ktvblk_mem *mem);

/* A log handler: the records as lines on standard error. */
void disk_print_record(const struct ktvblk_record *record, void *userdata);

#endif
