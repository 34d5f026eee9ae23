/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See life.h. */

#include <string.h>
#include <sys/mman.h>

#include "backend.h"
#include "life.h"
#include "ranges.h"
#include "transfers.h"

/* How long a driver waits before it looks again and kicks again. */
#define PATIENCE_NS (20 * NSEC_PER_MSEC)

#define NAP_NS_MAX 1000000L

#define expect_documented(call, r, ...)                                        \
	do {                                                                   \
		static const int errors_[] = { 0, __VA_ARGS__ };               \
		bool known_ = false;                                           \
                                                                               \
		for (size_t i_ = 0; i_ < ARRAY_SIZE(errors_); i_++)            \
			known_ |= (r) == -errors_[i_];                         \
		ck_assert_msg(known_, "%s: %s is not documented", call,        \
			      strerror(-(r)));                                 \
	} while (0)

/*
 * Storage: the library's own for a file, behind a gate.
 */

static void pass_gate(struct life *life)
{
	SCOPED_LOCK(&life->lock);
	life->held++;
	pthread_cond_broadcast(&life->changed);
	while (life->hold)
		pthread_cond_wait(&life->changed, &life->lock);
	life->held--;
}

static ssize_t gated_preadv(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	struct life *life = (struct life *)userdata;

	pass_gate(life);
	return life->file->ops.preadv(life->file->userdata, iov, n_iov, offset);
}

static ssize_t gated_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			     uint64_t offset)
{
	struct life *life = (struct life *)userdata;

	pass_gate(life);
	return life->file->ops.pwritev(life->file->userdata, iov, n_iov,
				       offset);
}

static int file_flush(void *userdata)
{
	const struct life *life = (const struct life *)userdata;

	return life->file->ops.flush(life->file->userdata);
}

static int file_write_zeroes(void *userdata, uint64_t offset, uint64_t length,
			     uint32_t flags)
{
	const struct life *life = (const struct life *)userdata;

	return life->file->ops.write_zeroes(life->file->userdata, offset,
					    length, flags);
}

static ssize_t perform(const struct life *life, const struct ktvblk_io *io)
{
	const struct ktvblk_backend_ops *ops = &life->file->ops;
	void *userdata = life->file->userdata;

	switch (io->op) {
	case KTVBLK_IO_READ:
		return ops->preadv(userdata, io->iov, io->n_iov, io->offset);
	case KTVBLK_IO_WRITE:
		return ops->pwritev(userdata, io->iov, io->n_iov, io->offset);
	case KTVBLK_IO_WRITE_ZEROES:
		return ops->write_zeroes(userdata, io->offset, io->length,
					 io->flags);
	default:
		return ops->flush(userdata);
	}
}

/* Is it kept for later? */
static bool keep(struct life *life, struct ktvblk_io *io)
{
	SCOPED_LOCK(&life->lock);
	if (!life->hold)
		return false;
	ck_assert_ptr_null(life->kept);
	life->kept = io;
	life->held++;
	return true;
}

static int submit_later(void *userdata, struct ktvblk_io *io)
{
	struct life *life = (struct life *)userdata;

	if (!keep(life, io))
		ck_assert_int_eq(ktvblk_io_complete(io, perform(life, io)), 0);
	return 0;
}

static int file_capacity(void *userdata, uint64_t *ret_bytes)
{
	const struct life *life = (const struct life *)userdata;

	return life->file->ops.capacity(life->file->userdata, ret_bytes);
}

static void file_release(void *userdata)
{
	struct life *life = (struct life *)userdata;

	ktvblk_backend_unref(life->file);
	life->released++;
}

static void count_release(void *userdata)
{
	((struct life *)userdata)->released++;
}

static int open_file(struct life *life, void (*release)(void *userdata),
		     struct ktvblk_backend **ret_backend)
{
	const int r =
		ktvblk_backend_new_fd(life->fd, release, life, ret_backend);

	/* The last three: what fstat() and ioctl() may answer. */
	expect_documented("ktvblk_backend_new_fd", r, EBADF, EMFILE, ENFILE,
			  ENOMEM, EIO, EOVERFLOW, ENOTTY);
	return r;
}

static int open_storage(struct life *life, struct ktvblk_backend **ret_backend)
{
	const bool later = life->disk == LIFE_LATER;
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = later ? NULL : gated_preadv,
		.pwritev = later ? NULL : gated_pwritev,
		.flush = later ? NULL : file_flush,
		.write_zeroes = later ? NULL : file_write_zeroes,
		.submit = later ? submit_later : NULL,
		.submit_flags = later ? KTVBLK_SUBMIT_WRITE_ZEROES : 0,
		.capacity = file_capacity,
		.release = file_release,
	};
	int r;

	if (life->disk >= LIFE_FILE)
		return open_file(life, count_release, ret_backend);
	r = open_file(life, NULL, &life->file);
	if (r < 0)
		return r;
	r = ktvblk_backend_new(&ops, life, ret_backend);
	expect_documented("ktvblk_backend_new", r, ENOMEM);
	if (r < 0)
		ktvblk_backend_unref(life->file);
	return r;
}

/*
 * The device
 */

void life_open(struct life *life, uint64_t flags, uint32_t budget_ms)
{
	*life = (struct life){ .flags = flags, .budget_ms = budget_ms };
	pthread_mutex_init(&life->lock, NULL);
	cond_init(&life->changed);
	life->rig.options.queue_size = 16;
	life->rig.ram = mmap(NULL, RIG_RAM_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(life->rig.ram, MAP_FAILED);
	life->rig.regions[0] =
		(struct ktvblk_region){ .host_addr = life->rig.ram,
					.size = RIG_RAM_BYTES };
	life->rig.n_regions = 1;
	life->rig.options.features = RIG_WRITE_ZEROES;
	life->model = calloc(1, LIFE_DISK_BYTES);
	ck_assert_ptr_nonnull(life->model);
	life->fd = memfd_create("life", MFD_CLOEXEC);
	ck_assert_int_ge(life->fd, 0);
	ck_assert_int_eq(ftruncate(life->fd, LIFE_DISK_BYTES), 0);
}

bool life_open_direct(struct life *life)
{
	const int fd = image_open(DISK_DIRECT);

	if (fd < 0)
		return false;
	close(life->fd);
	life->fd = fd;
	life->disk = LIFE_DIRECT;
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(ftruncate(fd, LIFE_DISK_BYTES), 0);
	return true;
}

static void ram_release(void *userdata)
{
	struct life *life = (struct life *)userdata;

	__atomic_add_fetch(&life->rig.ram_released, 1, __ATOMIC_SEQ_CST);
}

int life_create(struct life *life)
{
	struct ktvblk_config config = {
		.size = sizeof(config),
		.name = "life",
		.flags = life->flags,
		.throttle = { .bytes_per_sec = life->bytes_per_sec },
		.reset_timeout_ms = life->budget_ms,
		.destroy_timeout_ms = life->budget_ms,
		.engine = life->disk >= LIFE_RING ? KTVBLK_ENGINE_IO_URING
						  : KTVBLK_ENGINE_AUTO,
	};
	static const uint32_t cpus[] = { 0, 1, 2, 3 };
	int r;

	life->released = life->rig.ram_released = 0;
	r = open_storage(life, &config.backend);
	if (r < 0)
		return r;
	r = ktvblk_mem_new(life->rig.regions, 1, ram_release, life,
			   &life->rig.mem);
	expect_documented("ktvblk_mem_new", r, ENOMEM);
	if (r == 0) {
		/* EIO, ENOTTY: what capacity() may answer; then io_uring. */
		r = ktvblk_new(&config, &life->rig.dev);
		expect_documented("ktvblk_new", r, ENOMEM, EMFILE, ENFILE,
				  EAGAIN, EIO, ENOTTY, EOVERFLOW, EPERM, EINVAL,
				  EBUSY, EINTR);
		if (r == 0) {
			ck_assert_int_eq(ktvblk_set_memory(life->rig.dev,
							   life->rig.mem),
					 0);
			ck_assert_int_eq(
				ktvblk_set_worker_cpus(life->rig.dev, cpus,
						       ARRAY_SIZE(cpus)),
				0);
		}
		ktvblk_mem_unref(life->rig.mem);
	}
	ktvblk_backend_unref(config.backend);
	return r;
}

static bool needs_reset(struct life *life)
{
	return rig_status(&life->rig) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

bool life_start(struct life *life)
{
	rig_prepare(&life->rig);
	rig_write(&life->rig, VIRTIO_MMIO_STATUS, S_OK);
	return !needs_reset(life);
}

static void took(struct life *life, uint64_t since_ns)
{
	life->longest_ns = MAX(life->longest_ns, now_ns() - since_ns);
}

bool life_reset(struct life *life)
{
	const uint64_t start = now_ns();

	rig_reset(&life->rig);
	took(life, start);
	if (needs_reset(life))
		return false;
	ck_assert_uint_eq(rig_status(&life->rig), 0);
	return true;
}

/* Until it holds, with kicks; false: NEEDS_RESET instead. */
static bool await(struct life *life, bool (*holds)(struct life *life))
{
	struct timespec nap = { .tv_nsec = 20000 };
	const uint64_t start = now_ns();
	uint64_t kicked = start;

	while (!holds(life)) {
		const uint64_t now = now_ns();

		if (needs_reset(life))
			return holds(life);
		ck_assert_msg(now - start < WAIT_MS * NSEC_PER_MSEC,
			      "a request is lost");
		if (now - kicked > PATIENCE_NS) {
			rig_kick(&life->rig);
			kicked = now;
		}
		nanosleep(&nap, NULL);
		nap.tv_nsec = MIN(nap.tv_nsec * 2, NAP_NS_MAX);
	}
	return true;
}

static bool is_used(struct life *life)
{
	return rig_used_idx(&life->rig) == life->rig.avail_idx;
}

/* At head 0; not yet available. */
static void prepare(struct life *life, uint32_t type, uint64_t sector,
		    uint32_t len)
{
	unsigned char *data = (unsigned char *)rig_at(&life->rig, RIG_DATA);

	life->seed += 7;
	if (type == VIRTIO_BLK_T_WRITE_ZEROES) {
		const struct test_range range = {
			sector, len / KTVBLK_SECTOR_SIZE,
			VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
		};

		ranges_chain(&life->rig, type, &range, 1);
		return;
	}
	if (type == VIRTIO_BLK_T_OUT)
		for (uint32_t i = 0; i < len; i++)
			data[i] = (unsigned char)((i + life->seed) * 31 >> 3);
	else
		memset(data, SENTINEL, len);
	rig_chain(&life->rig, 0, type, sector, len);
}

static void submit(struct life *life)
{
	rig_avail(&life->rig, 0);
	rig_kick(&life->rig);
}

/* Its status; what is read must be what was written. */
static int check(struct life *life, uint32_t type, uint64_t sector,
		 uint32_t len)
{
	const void *data = rig_at(&life->rig, RIG_DATA);
	unsigned char *model = life->model + sector * KTVBLK_SECTOR_SIZE;
	const int status = *rig_chain_status(&life->rig, 0);

	if (status != VIRTIO_BLK_S_OK)
		ck_assert_int_eq(status, VIRTIO_BLK_S_IOERR);
	else if (type == VIRTIO_BLK_T_OUT)
		memcpy(model, data, len);
	else if (type == VIRTIO_BLK_T_WRITE_ZEROES)
		memset(model, 0, len);
	else if (type == VIRTIO_BLK_T_IN)
		ck_assert_msg(memcmp(data, model, len) == 0,
			      "a read brought other bytes than were written");
	return status;
}

int life_request(struct life *life, uint32_t type, uint64_t sector,
		 uint32_t len)
{
	prepare(life, type, sector, len);
	submit(life);
	return await(life, is_used) ? check(life, type, sector, len)
				    : LIFE_NEEDS_RESET;
}

int life_write_and_read(struct life *life, uint64_t sector, uint32_t len)
{
	static const uint16_t heads[] = { 0, 4 };
	const struct rig_part part = { RIG_DATA + (2u << 20),
				       KTVBLK_SECTOR_SIZE, WRITABLE };
	int status;

	prepare(life, VIRTIO_BLK_T_OUT, sector, len);
	rig_data(&life->rig, 4, VIRTIO_BLK_T_IN, sector, &part, 1);
	rig_avail_all(&life->rig, heads, ARRAY_SIZE(heads));
	rig_kick(&life->rig);
	if (!await(life, is_used))
		return LIFE_NEEDS_RESET;
	status = check(life, VIRTIO_BLK_T_OUT, sector, len);
	if (status == VIRTIO_BLK_S_OK)
		status = *rig_chain_status(&life->rig, 4);
	if (status == VIRTIO_BLK_S_OK)
		ck_assert_int_eq(memcmp(rig_at(&life->rig, part.addr),
					rig_at(&life->rig, RIG_DATA), part.len),
				 0);
	return status;
}

static bool is_held(struct life *life)
{
	SCOPED_LOCK(&life->lock);
	return life->held > 0;
}

static void hold(struct life *life)
{
	SCOPED_LOCK(&life->lock);
	life->hold = true;
}

void life_let_go(struct life *life)
{
	struct ktvblk_io *kept;

	{
		SCOPED_LOCK(&life->lock);
		life->hold = false;
		kept = life->kept;
		life->kept = NULL;
		life->held -= kept != NULL;
		pthread_cond_broadcast(&life->changed);
	}
	if (kept)
		ck_assert_int_eq(ktvblk_io_complete(kept, perform(life, kept)),
				 0);
}

bool life_wedge(struct life *life)
{
	hold(life);
	prepare(life, VIRTIO_BLK_T_IN, 0, KTVBLK_SECTOR_SIZE);
	submit(life);
	if (await(life, is_held))
		return true;
	life_let_go(life);
	return false;
}

enum ktvblk_outcome life_destroy(struct life *life)
{
	const uint64_t start = now_ns();
	const enum ktvblk_outcome outcome = ktvblk_destroy(life->rig.dev);

	took(life, start);
	life->rig.dev = NULL;
	return outcome;
}

void life_wait_released(struct life *life)
{
	ck_assert(eventually(
		life->released &&
		__atomic_load_n(&life->rig.ram_released, __ATOMIC_SEQ_CST)));
}

void life_check_disk(struct life *life)
{
	unsigned char *bytes =
		mmap(NULL, LIFE_DISK_BYTES, PROT_READ, MAP_SHARED, life->fd, 0);

	ck_assert_ptr_ne(bytes, MAP_FAILED);
	ck_assert_int_eq(memcmp(bytes, life->model, LIFE_DISK_BYTES), 0);
	munmap(bytes, LIFE_DISK_BYTES);
}

void life_close(struct life *life)
{
	close(life->fd);
	free(life->model);
	munmap(life->rig.ram, RIG_RAM_BYTES);
	pthread_cond_destroy(&life->changed);
	pthread_mutex_destroy(&life->lock);
}
