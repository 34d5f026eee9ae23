/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_DISK_H
#define TEST_DISK_H

/*
 * A rig whose storage is a real file or block device, and what a test needs to
 * see that guest memory is left alone. All but the opening and closing is done
 * by rig_*(), except what concerns rig.storage: there is none.
 */

#include <stdbool.h>
#include <stdint.h>

#include "recorder.h"
#include "rig.h"

struct disk_options {
	const char *path;
	int open_flags; /* beside O_RDWR */
	struct ktvblk_config config; /* size and backend are filled in */
	uint64_t ram_bytes; /* 0: RIG_RAM_BYTES */
	uint16_t queue_size; /* 0: 16 */
	bool lock; /* the image is nobody else's */
	uint64_t features; /* as those of a rig */
};

struct disk {
	struct rig rig;
	uint64_t ram_bytes;
	enum ktvblk_engine engine;
	unsigned int storage_released; /* calls of its release callback */
	unsigned char *seen; /* guest memory at disk_look() */
};

/* At reset; the file is open only in the library. */
void disk_open(struct disk *disk, const struct disk_options *options);

/* Where the outcome is JOINED, all has been released. */
enum ktvblk_outcome disk_destroy(struct disk *disk);
/* Have the release callbacks run so often? Exactly, at this moment. */
bool disk_released(const struct disk *disk, unsigned int storage,
		   unsigned int ram);
/* Behind a destroy, once both have run: that was once; free all. */
void disk_free(struct disk *disk);

/* Both, of one that is well, however long the machine takes for it. */
void disk_close(struct disk *disk);
/* The same for a reset. */
void disk_reset(struct disk *disk);

/*
 * A request over two segments of len/2 with a hole of HOLE between them, the
 * first at addr; at descriptors head..head+3. Not kicked.
 */
#define HOLE 0x1000u
void disk_submit(struct disk *disk, uint16_t head, uint32_t type,
		 uint64_t sector, uint64_t addr, uint32_t len);

/* Such a request's one range, of DISK_RANGE_BYTES, in both its segments. */
#define DISK_RANGE_BYTES 16u
void disk_put_range(struct disk *disk, uint64_t addr, uint64_t sector,
		    uint32_t bytes);

/* The segments' bytes of such a request: pattern n. */
void disk_fill(struct disk *disk, uint64_t addr, uint32_t len, unsigned int n);
bool disk_is_filled(struct disk *disk, uint64_t addr, uint32_t len,
		    unsigned int n);
/* They are these. */
bool disk_holds(struct disk *disk, uint64_t addr, uint32_t len,
		const unsigned char *bytes);
unsigned char disk_pattern(unsigned int n, uint64_t i);

/* Write, flush, read back, compare, at that sector. */
void disk_check_works(struct disk *disk, uint64_t sector);
/* Write, so that the next flush has something to do: then it is a call. */
void disk_write(struct disk *disk, uint64_t sector);

/* Parts of guest memory to leave out. */
struct span {
	uint64_t start;
	uint64_t len;
};

/*
 * Take a copy of guest memory (all but one span, which may not be touched), and
 * see that it still is the same (all but two).
 */
void disk_look(struct disk *disk, struct span but);
void disk_check_untouched(const struct disk *disk, struct span a,
			  struct span b);
bool in_span(struct span span, uint64_t at);

/* FNV-1a. */
uint64_t checksum(const void *bytes, uint64_t len);

#endif
