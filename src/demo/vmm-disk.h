/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_DISK_H
#define VMM_DISK_H

/* A disk as the user describes it, and the device made from that. */

#include <ktvblk.h>
#include <stdbool.h>

#define DISK_SYNTAX                                                            \
	"FILE[,name=N][,serial=S][,ro][,zero-copy][,iops=N][,bps=N]"           \
	"[,queue=N][,mask=BITS][,budget=MS][,stall=MS]"

struct disk_options {
	const char *path;
	const char *name;
	const char *serial;
	bool read_only;
	bool zero_copy;
	uint64_t iops;
	uint64_t bytes_per_sec;
	uint64_t queue_size;
	uint64_t features_masked;
	uint64_t budget_ms; /* of reset, and of destroy */
	uint64_t stall_ms;
};

/*
 * Take text apart, which is written to and must live as long as the result.
 * -EINVAL: *ret_what is the part that is wrong.
 */
int disk_parse(char *text, struct disk_options *ret_options,
	       const char **ret_what);

/* Storage in the file of that name. */
int disk_open_file(const struct disk_options *options,
		   struct ktvblk_backend **ret_storage);

/* A device over this storage and this guest memory. */
int disk_new(const struct disk_options *options, struct ktvblk_backend *storage,
	     struct ktvblk_mem *mem, struct ktvblk_dev **ret_dev);

#endif
