/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_IMAGE_H
#define DEMO_IMAGE_H

/*
 * The disk image. Ours is made for the tour, and every sector written to it
 * says which one it is and how often it was written, so that what is read can
 * be judged. One that is given is never written: the file itself is the judge.
 */

#include <stdbool.h>
#include <stdint.h>

struct image {
	int fd;
	bool read_only; /* given with --disk */
	uint64_t bytes;
	uint64_t sectors;
	uint64_t seed;
	char *text; /* which it is */
	uint32_t *generations; /* of each sector; 0: never written */
};

/* Open the file given, or make one if path is NULL; a bad one: exit 2. */
void image_open(struct image *image, const char *path, uint64_t seed);
void image_close(struct image *image);

/* Size in bytes of a file or block device: 0, or -errno. */
int image_size(int fd, uint64_t *ret_bytes);

/* Fill data with the next generation of these sectors. */
void image_stamp(struct image *image, uint64_t sector, uint64_t n, void *data);

/* How many of these sectors are not what they must be. */
uint64_t image_judge(const struct image *image, uint64_t sector, uint64_t n,
		     const void *data);

/* The next number of a sequence: splitmix64. */
uint64_t next_random(uint64_t *state);

#endif
