/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A program for UEFI, of 4 MiB and more, so that loading it takes large reads.
 * It looks whether all of it came, then copies the first half of the data disk
 * to the second in pieces of 512 bytes to 8 MiB, each one request if the
 * firmware so wishes, reads them back and compares. Then the machine is off.
 *
 * What is used of the UEFI specification, version 2.10, is declared here.
 */

#include <stddef.h>
#include <stdint.h>

#define DATA_BYTES (32u << 20) /* the size by which the disk is known */
#define HALF (DATA_BYTES / 2)
#define BALLAST_BYTES (2u << 20) /* twice the same, by chance */

struct guid {
	uint32_t a;
	uint16_t b, c;
	uint8_t d[8];
};

struct block_media {
	uint32_t id;
	uint8_t removable, present, partition, read_only, write_caching;
	uint32_t block_bytes, io_align;
	uint64_t last_block;
};

struct block_io {
	uint64_t revision;
	const struct block_media *media;
	void *reset;
	uint64_t (*read)(struct block_io *io, uint32_t media_id, uint64_t block,
			 uint64_t bytes, void *to);
	uint64_t (*write)(struct block_io *io, uint32_t media_id,
			  uint64_t block, uint64_t bytes, const void *from);
	uint64_t (*flush)(struct block_io *io);
};

struct text_output {
	void *reset;
	uint64_t (*print)(struct text_output *output, const uint16_t *text);
};

struct boot_services {
	char header[24];
	void *before_allocate[2];
	uint64_t (*allocate_pages)(int how, int type, uint64_t pages,
				   uint64_t *ret);
	void *before_handle[13];
	uint64_t (*handle_protocol)(void *handle, const struct guid *protocol,
				    void **ret);
	void *before_locate[19];
	uint64_t (*locate_handles)(int how, const struct guid *protocol,
				   void *key, uint64_t *ret_n, void ***ret);
};

struct runtime_services {
	char header[24];
	void *before_reset[10];
	void (*reset)(int how, uint64_t status, uint64_t bytes, void *data);
};

struct system_table {
	char header[24];
	const uint16_t *vendor;
	uint32_t revision;
	void *console_in_handle, *console_in, *console_out_handle;
	struct text_output *console_out;
	void *error_handle, *error;
	struct runtime_services *runtime;
	struct boot_services *boot;
};

#define ANY_PAGES 0
#define LOADER_DATA 2
#define BY_PROTOCOL 2
#define SHUTDOWN 2

static const struct guid block_io_protocol = { 0x964e5b21,
					       0x6459,
					       0x11d2,
					       { 0x8e, 0x39, 0x00, 0xa0, 0xc9,
						 0x69, 0x72, 0x3b } };

/* clang-format off */
__asm__(".section .rdata,\"dr\"\n"
	".balign 16\n"
	"ballast:\n"
	".incbin \"" BALLAST "\"\n"
	".incbin \"" BALLAST "\"\n"
	".text\n");
/* clang-format on */
extern const unsigned char ballast[2 * BALLAST_BYTES];

static struct system_table *table;

static void say(const char *text)
{
	uint16_t wide[80];
	size_t n = 0;

	for (; *text && n < 77; text++)
		wide[n++] = (uint16_t)*text;
	wide[n++] = '\r';
	wide[n++] = '\n';
	wide[n] = 0;
	table->console_out->print(table->console_out, wide);
}

static _Bool same(const unsigned char *a, const unsigned char *b, uint64_t n)
{
	/* The compiler may make a call of it that is not there. */
	for (const volatile unsigned char *at = a; n; at++, b++, n--)
		if (*at != *b)
			return 0;
	return 1;
}

/* The compiler's. */
void *memset(void *to, int value, size_t n);
void *memset(void *to, int value, size_t n)
{
	for (volatile unsigned char *at = to; n; n--)
		*at++ = (unsigned char)value;
	return to;
}

static struct block_io *find_disk(void)
{
	struct block_io *io;
	void **handles;
	uint64_t n = 0;

	if (table->boot->locate_handles(BY_PROTOCOL, &block_io_protocol, NULL,
					&n, &handles))
		return NULL;
	for (uint64_t i = 0; i < n; i++)
		if (!table->boot->handle_protocol(
			    handles[i], &block_io_protocol, (void **)&io) &&
		    io->media->present && !io->media->partition &&
		    io->media->block_bytes == 512 &&
		    io->media->last_block + 1 == DATA_BYTES / 512)
			return io;
	return NULL;
}

static const char *copy_piece(struct block_io *io, uint64_t at, uint64_t n,
			      unsigned char *from, unsigned char *back)
{
	const uint32_t id = io->media->id;

	if (io->read(io, id, at / 512, n, from))
		return "@@ | a read failed";
	if (io->write(io, id, (HALF + at) / 512, n, from))
		return "@@ | a write failed";
	if (io->flush(io))
		return "@@ | a flush failed";
	back[0] = (unsigned char)~from[0];
	if (io->read(io, id, (HALF + at) / 512, n, back))
		return "@@ | a read of what was written failed";
	return same(from, back, n) ? NULL : "@@ | not what was written";
}

/* Room for HALF, where any firmware takes it: whole pages. */
static unsigned char *allocate(void)
{
	uint64_t addr = 0;

	return table->boot->allocate_pages(ANY_PAGES, LOADER_DATA, HALF / 4096,
					   &addr)
		       ? NULL
		       : (unsigned char *)addr;
}

static const char *copy(void)
{
	static const uint32_t sizes[] = { 512,	    8u << 20,  4096,
					  1u << 20, 64u << 10, 5u << 20 };
	struct block_io *io = find_disk();
	unsigned char *from, *back;
	uint64_t n;

	if (!io)
		return "@@ | no data disk";
	from = allocate();
	back = allocate();
	if (!from || !back)
		return "@@ | no memory";
	for (uint64_t at = 0, i = 0; at < HALF; at += n, i++) {
		const char *error;

		n = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];
		if (n > HALF - at)
			n = HALF - at;
		error = copy_piece(io, at, n, from, back);
		if (error)
			return error;
	}
	return NULL;
}

uint64_t efi_main(void *image, struct system_table *system_table);
uint64_t efi_main(void *image, struct system_table *system_table)
{
	const char *error;

	(void)image;
	table = system_table;
	say("");
	say(same(ballast, ballast + BALLAST_BYTES, BALLAST_BYTES)
		    ? "@@ ok 0 EFI-program"
		    : "@@ FAIL 0 EFI-program");
	error = copy();
	if (error)
		say(error);
	say(error ? "@@ FAIL 0 EFI-copy" : "@@ ok 0 EFI-copy");
	table->runtime->reset(SHUTDOWN, 0, 0, NULL);
	return 0;
}
