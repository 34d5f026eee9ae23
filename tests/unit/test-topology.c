/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Blocks: what the storage has, or what the VMM says, is what the guest is told;
 * and requests are whole ones.
 */

/* wrap: fstat ioctl fcntl */

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "ranges.h"

#define CONFIG VIRTIO_MMIO_CONFIG
#define MIB (1u << 20)
#define BLK_SIZE (UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE)

/* What a file or a block device says; a member of 0: it fails. */
static struct {
	bool is_block, direct;
	int logical, physical, min_io, opt_io, offset;
	blksize_t blksize;
} says;

int __real_fcntl(int fd, int op, ...);
int __wrap_fcntl(int fd, int op, ...);
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_fcntl(int fd, int op, ...)
{
	va_list ap;
	int arg = 0;

	va_start(ap, op);
	if (op == F_DUPFD_CLOEXEC)
		arg = va_arg(ap, int);
	va_end(ap);
	return __real_fcntl(fd, op, arg) |
	       (op == F_GETFL && says.direct ? O_DIRECT : 0);
}

int __wrap_fstat(int fd, struct stat *st)
{
	const int r = __real_fstat(fd, st);

	if (says.is_block)
		st->st_mode = S_IFBLK | 0600;
	if (says.blksize)
		st->st_blksize = says.blksize;
	return r;
}

static int answer(int *to, int value)
{
	errno = ENOTTY;
	if (!value)
		return -1;
	*to = value;
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list ap;

	va_start(ap, request);
	int *to = va_arg(ap, int *);
	va_end(ap);
	(void)fd;
	switch (request) {
	case BLKGETSIZE64:
		*(uint64_t *)(void *)to = MIB;
		return 0;
	case BLKROGET:
		*to = 0;
		return 0;
	case BLKSSZGET:
		return answer(to, says.logical);
	case BLKPBSZGET:
		return answer(to, says.physical);
	case BLKIOMIN:
		return answer(to, says.min_io);
	case BLKIOOPT:
		return answer(to, says.opt_io);
	case BLKALIGNOFF:
		return answer(to, says.offset);
	default:
		errno = EINVAL; /* BLKDISCARD: it could, elsewhere */
		return -1;
	}
}

/* What the guest reads. */
struct told {
	uint32_t blk_size;
	unsigned int physical_exp, offset, min_io, opt_io;
};

static struct told told_by(struct rig *rig)
{
	struct virtio_blk_config config;

	ktvblk_mmio_read(rig->dev, CONFIG, &config, sizeof(config));
	return (struct told){ le32toh(config.blk_size),
			      config.physical_block_exp,
			      config.alignment_offset,
			      le16toh(config.min_io_size),
			      le32toh(config.opt_io_size) };
}

#define check_told(rig, ...)                                                   \
	do {                                                                   \
		const struct told want_ = { __VA_ARGS__ };                     \
		const struct told have_ = told_by(rig);                        \
                                                                               \
		ck_assert_uint_eq(have_.blk_size, want_.blk_size);             \
		ck_assert_uint_eq(have_.physical_exp, want_.physical_exp);     \
		ck_assert_uint_eq(have_.offset, want_.offset);                 \
		ck_assert_uint_eq(have_.min_io, want_.min_io);                 \
		ck_assert_uint_eq(have_.opt_io, want_.opt_io);                 \
	} while (0)

static void open_on_file(struct rig *rig, const struct ktvblk_config *config)
{
	struct rig_options options = { 0 };
	int fd = memfd_create("disk", MFD_CLOEXEC);

	if (config)
		options.config = *config;
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, MIB), 0);
	options.disk_fd = fd;
	options.disk_bytes = MIB;
	options.features = RIG_RANGES;
	rig_open(rig, &options);
}

#define check_file(...)                                                        \
	do {                                                                   \
		struct rig rig_;                                               \
                                                                               \
		open_on_file(&rig_, NULL);                                     \
		check_told(&rig_, __VA_ARGS__);                                \
		rig_close(&rig_);                                              \
	} while (0)

static void say_nothing(void)
{
	memset(&says, 0, sizeof(says));
}

START_TEST(a_file_has_the_blocks_of_its_file_system)
{
	say_nothing();
	says.blksize = 4096;
	check_file(512, 3, 0, 8, 0);
	says.blksize = 1024;
	check_file(512, 1, 0, 2, 0);
	says.blksize = 512;
	check_file(512, 0, 0, 1, 0);
	/* Of a network: what is good to ask for is no block. */
	says.blksize = MIB;
	check_file(512, 3, 0, 8, MIB / 512);
	/* What makes no sense. */
	says.blksize = 1;
	check_file(512, 0, 0, 1, 0);
	says.blksize = 5000;
	check_file(512, 0, 0, 1, 0);
	says.blksize = 1 << 30;
	check_file(512, 0, 0, 1, 0);
}
END_TEST

START_TEST(a_block_device_is_told_as_it_is)
{
	say_nothing();
	says.is_block = true;
	says.logical = 512;
	says.physical = 4096;
	check_file(512, 3, 0, 8, 0);
	says.min_io = 65536;
	says.opt_io = 131072;
	says.offset = 3584;
	check_file(512, 3, 7, 128, 256);
	says.logical = 4096;
	says.offset = 0;
	check_file(4096, 0, 0, 16, 32);
	says.physical = 16384;
	says.offset = 4096;
	check_file(4096, 2, 1, 16, 32);
}
END_TEST

/* What cannot be is left out, whatever a driver says of its device. */
START_TEST(what_makes_no_sense_is_not_told)
{
	say_nothing();
	says.is_block = true;
	check_file(512, 0, 0, 1, 0); /* it says nothing */
	says.logical = 512;
	says.physical = 3000;
	check_file(512, 0, 0, 1, 0);
	says.physical = 1 << 30;
	check_file(512, 0, 0, 1, 0);
	says.physical = 256;
	check_file(512, 0, 0, 1, 0);
	says.physical = 4096;
	says.min_io = 5000;
	says.opt_io = 100;
	says.offset = -1; /* misaligned for good */
	check_file(512, 3, 0, 8, 0);
	says.offset = 100;
	check_file(512, 3, 0, 8, 0);
	says.offset = 8192;
	check_file(512, 3, 0, 8, 0);
	says.offset = 0;
	says.min_io = 65536 * 512;
	check_file(512, 3, 0, 8, 0); /* more than the field can hold */
}
END_TEST

START_TEST(a_disk_of_4_kib_sectors_is_one)
{
	const struct ktvblk_config configs[] = {
		{ 0 }, { .logical_block_bytes = 4096 }
	};

	for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
		struct rig rig;

		say_nothing();
		says.is_block = i == 0;
		says.logical = 4096;
		open_on_file(&rig, &configs[i]);
		rig_start(&rig);
		ck_assert_uint_eq(told_by(&rig).blk_size, 4096);
		ck_assert_int_eq(rig_request(&rig, T_OUT, 8, 4096), OK);
		ck_assert_int_eq(rig_request(&rig, T_IN, 8, 4096), OK);
		ck_assert_int_eq(rig_request(&rig, T_IN, 8, 512), IOERR);
		ck_assert_int_eq(rig_request(&rig, T_IN, 1, 4096), IOERR);
		ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 512), IOERR);
		ck_assert_int_eq(request(&rig, T_DISCARD, { 8, 8, 0 }), OK);
		ck_assert_int_eq(request(&rig, T_DISCARD, { 8, 1, 0 }), IOERR);
		rig_close(&rig);
	}
	say_nothing();
}
END_TEST

/* What the VMM says goes before what the storage says. */
START_TEST(the_vmm_has_the_last_word)
{
	struct ktvblk_config config = { .physical_block_bytes = 8192,
					.opt_io_bytes = 65536 };
	struct rig rig;

	say_nothing();
	says.is_block = true;
	says.logical = 4096;
	says.physical = 4096;
	says.offset = 512;
	open_on_file(&rig, &config);
	check_told(&rig, 4096, 1, 0, 2, 16);
	rig_close(&rig);
	/* Through the page cache it takes smaller ones. */
	config.logical_block_bytes = 512;
	open_on_file(&rig, &config);
	check_told(&rig, 512, 4, 0, 16, 128);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, T_IN, 1, 512), OK);
	rig_close(&rig);
	say_nothing();
}
END_TEST

START_TEST(a_capacity_is_whole_blocks)
{
	uint64_t sectors;
	struct rig rig;

	rig_open(&rig, &(struct rig_options){
			       .config.logical_block_bytes = 4096,
			       .disk_bytes = 64 * 4096 + 7 * 512 + 3 });
	ktvblk_mmio_read(rig.dev, CONFIG, &sectors, sizeof(sectors));
	ck_assert_uint_eq(le64toh(sectors), 64 * 8);
	rig_close(&rig);
}
END_TEST

START_TEST(a_masked_topology_is_not_told)
{
	struct ktvblk_config config = {
		.features_masked = UINT64_C(1) << VIRTIO_BLK_F_TOPOLOGY
	};
	struct rig rig;

	say_nothing();
	says.blksize = 4096;
	open_on_file(&rig, &config);
	check_told(&rig, 512, 0, 0, 0, 0);
	rig_close(&rig);
	/* Where its blocks cannot be told they are sectors, if they can be. */
	config.features_masked = BLK_SIZE;
	says.is_block = true;
	says.logical = 4096;
	open_on_file(&rig, &config);
	ck_assert_uint_eq(told_by(&rig).blk_size, 512);
	rig_close(&rig);
	say_nothing();
}
END_TEST

static void refuse(struct ktvblk_backend *backend, uint32_t logical,
		   uint32_t physical, uint32_t opt_io, uint64_t masked)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev = NULL;

	config.backend = backend;
	config.logical_block_bytes = logical;
	config.physical_block_bytes = physical;
	config.opt_io_bytes = opt_io;
	config.features_masked = masked;
	ck_assert_int_eq(ktvblk_new(&config, &dev), -EINVAL);
	ck_assert_ptr_null(dev);
}

START_TEST(blocks_that_cannot_be_are_refused)
{
	struct ktvblk_backend *backend = NULL;
	int fd = memfd_create("disk", MFD_CLOEXEC);

	say_nothing();
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
	refuse(backend, 1, 0, 0, 0);
	refuse(backend, 256, 0, 0, 0);
	refuse(backend, 513, 0, 0, 0);
	refuse(backend, 1536, 0, 0, 0);
	refuse(backend, 8192, 0, 0, 0);
	refuse(backend, UINT32_MAX, 0, 0, 0);
	refuse(backend, 4096, 0, 0, BLK_SIZE);
	refuse(backend, 0, 256, 0, 0);
	refuse(backend, 4096, 512, 0, 0);
	refuse(backend, 0, 3072, 0, 0);
	refuse(backend, 0, 2 * MIB, 0, 0);
	refuse(backend, 0, 0, 100, 0);
	refuse(backend, 4096, 0, 512, 0);
	ktvblk_backend_unref(backend);
	/* What O_DIRECT must have it must have. */
	says.is_block = says.direct = true;
	says.logical = 4096;
	ck_assert_int_eq(ktvblk_backend_new_fd(fd, NULL, NULL, &backend), 0);
	refuse(backend, 512, 0, 0, 0);
	refuse(backend, 0, 0, 0, BLK_SIZE);
	ktvblk_backend_unref(backend);
	close(fd);
	say_nothing();
}
END_TEST

TEST_PROGRAM("topology", a_file_has_the_blocks_of_its_file_system,
	     a_block_device_is_told_as_it_is, what_makes_no_sense_is_not_told,
	     a_disk_of_4_kib_sectors_is_one, the_vmm_has_the_last_word,
	     a_capacity_is_whole_blocks, a_masked_topology_is_not_told,
	     blocks_that_cannot_be_are_refused)
