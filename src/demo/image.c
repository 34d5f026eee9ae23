/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See image.h. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ktvblk.h>

#include "image.h"
#include "say.h"

#define IMAGE_BYTES (UINT64_C(64) << 20)
#define WORDS (KTVBLK_SECTOR_SIZE / sizeof(uint64_t))

uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

int image_size(int fd, uint64_t *ret_bytes)
{
	const off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0)
		return -errno;
	*ret_bytes = (uint64_t)end;
	return 0;
}

/* It has no name any more when this returns: nothing can be left behind. */
static void make(struct image *image)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];

	if (!dir || !*dir)
		dir = "/tmp";
	snprintf(path, sizeof(path), "%s/ktvblk-demo.XXXXXX", dir);
	image->fd = mkostemp(path, O_CLOEXEC);
	if (image->fd < 0)
		die("cannot make an image in %s: %s", dir, strerror(errno));
	unlink(path);
	if (ftruncate(image->fd, (off_t)IMAGE_BYTES) < 0)
		die("cannot make %s large: %s", path, strerror(errno));
	image->text = say_text("%s, 64 MiB, sparse, and unlinked again", path);
}

static void refuse(const char *path, const char *why)
{
	fprintf(stderr, "ktvblk-demo: %s: %s\n", path, why);
	exit(2);
}

/* O_NONBLOCK: a FIFO is refused, not waited for. */
static void open_given(struct image *image, const char *path)
{
	struct stat st;

	image->read_only = true;
	image->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (image->fd < 0 || fstat(image->fd, &st) < 0)
		refuse(path, strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		refuse(path, "neither a regular file nor a block device");
	if (image_size(image->fd, &image->bytes) < 0)
		refuse(path, strerror(errno));
	if (image->bytes < KTVBLK_SECTOR_SIZE)
		refuse(path, "smaller than a sector of 512 bytes");
	image->text = say_text("%s, read-only", path);
}

void image_open(struct image *image, const char *path, uint64_t seed)
{
	*image = (struct image){ .seed = seed, .bytes = IMAGE_BYTES };
	if (path)
		open_given(image, path);
	else
		make(image);
	image->sectors = image->bytes / KTVBLK_SECTOR_SIZE;
	if (image->read_only)
		return;
	image->generations =
		calloc((size_t)image->sectors, sizeof(*image->generations));
	if (!image->generations)
		die("no memory");
}

void image_close(struct image *image)
{
	free(image->generations);
	free(image->text);
	close(image->fd);
}

static void fill(const struct image *image, uint64_t sector, uint64_t words[])
{
	const uint64_t generation = image->generations[sector];
	uint64_t state = image->seed ^ sector << 32 ^ generation;

	memset(words, 0, KTVBLK_SECTOR_SIZE);
	if (!generation)
		return;
	words[0] = sector;
	words[1] = generation;
	for (size_t i = 2; i < WORDS; i++)
		words[i] = next_random(&state);
}

void image_stamp(struct image *image, uint64_t sector, uint64_t n, void *data)
{
	unsigned char *at = data;
	uint64_t words[WORDS];

	for (uint64_t i = 0; i < n; i++, at += sizeof(words)) {
		image->generations[sector + i]++;
		fill(image, sector + i, words);
		memcpy(at, words, sizeof(words));
	}
}

static bool is_as_in_file(const struct image *image, uint64_t sector,
			  const void *data)
{
	unsigned char want[KTVBLK_SECTOR_SIZE];

	return pread(image->fd, want, sizeof(want),
		     (off_t)(sector * sizeof(want))) == sizeof(want) &&
	       memcmp(want, data, sizeof(want)) == 0;
}

uint64_t image_judge(const struct image *image, uint64_t sector, uint64_t n,
		     const void *data)
{
	const unsigned char *at = data;
	uint64_t words[WORDS], bad = 0;

	for (uint64_t i = 0; i < n; i++, at += sizeof(words)) {
		if (image->read_only) {
			bad += !is_as_in_file(image, sector + i, at);
			continue;
		}
		fill(image, sector + i, words);
		bad += memcmp(at, words, sizeof(words)) != 0;
	}
	return bad;
}
