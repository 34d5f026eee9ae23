/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See inflight.h. */

#include <fcntl.h>
#include <sys/mman.h>

#include "util.h"
#include "vhost-user/inflight.h"

/* Each queue's part begins on a line of the cache, as other back ends have it. */
#define PART_ALIGN 64u

static size_t part_bytes(uint16_t queue_size)
{
	return (taken_bytes(queue_size) + PART_ALIGN - 1) / PART_ALIGN *
	       PART_ALIGN;
}

/*
 * It has room for the largest queues whatever was asked for: where the driver may
 * choose their size, as over QEMU's virtio-mmio, the front end does not know it.
 */
int inflight_make(uint16_t n_queues, uint16_t queue_size,
		  struct vu_inflight *ret_about, int *ret_fd)
{
	const size_t bytes = n_queues * part_bytes(KTVBLK_QUEUE_SIZE_MAX) +
			     sizeof(struct inflight_tail);
	struct inflight made = { 0 };
	struct vu_inflight about = {
		.mmap_size = bytes,
		.n_queues = n_queues,
		.queue_size = KTVBLK_QUEUE_SIZE_MAX,
	};
	const int fd = memfd_create("ktvblk-inflight",
				    MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0 ||
	    inflight_set(&made, &about, fd)) {
		close(fd);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < n_queues; i++)
		taken_init(inflight_region(&made, i), KTVBLK_QUEUE_SIZE_MAX);
	inflight_clear(&made);
	about.queue_size = queue_size;
	*ret_about = about;
	*ret_fd = fd;
	return 0;
}

#define BAD_SIZE "an inflight region of a bad size"

/*
 * For queues of what size it was made: it says so itself, as the front end gives
 * back what it had asked for. Others may write to it, so it is looked at once.
 */
static uint16_t made_for(const struct mapping *mapping,
			 const struct vu_inflight *about)
{
	const struct taken_region *first =
		(const struct taken_region *)mapping->at;
	const uint16_t size =
		__atomic_load_n(&first->desc_num, __ATOMIC_RELAXED);

	if (size > KTVBLK_QUEUE_SIZE_MAX || size < about->queue_size ||
	    about->n_queues * part_bytes(size) > about->mmap_size)
		return about->queue_size;
	return size;
}

const char *inflight_set(struct inflight *inflight,
			 const struct vu_inflight *about, int fd)
{
	struct inflight_tail *tail = NULL;
	struct mapping *mapping;
	const char *why;
	uint16_t queue_size;
	size_t parts;

	if (!about->n_queues || !about->queue_size ||
	    about->queue_size > KTVBLK_QUEUE_SIZE_MAX ||
	    about->n_queues > KTVBLK_QUEUES_MAX ||
	    about->mmap_offset % sizeof(uint64_t))
		return BAD_SIZE;
	if (about->mmap_size < about->n_queues * part_bytes(about->queue_size))
		return BAD_SIZE;
	mapping = mapping_new(fd, about->mmap_offset, about->mmap_size, &why);
	if (!mapping)
		return why;
	queue_size = made_for(mapping, about);
	parts = about->n_queues * part_bytes(queue_size);
	if (about->mmap_size - parts >= sizeof(*tail))
		tail = (struct inflight_tail *)(mapping->at + parts);
	inflight_clear(inflight);
	*inflight =
		(struct inflight){ mapping, tail, about->n_queues, queue_size };
	return NULL;
}

void inflight_clear(struct inflight *inflight)
{
	mapping_unref(inflight->mapping);
	*inflight = (struct inflight){ 0 };
}

struct taken_region *inflight_region(const struct inflight *inflight,
				     unsigned int queue)
{
	if (!inflight->mapping || queue >= inflight->n_queues)
		return NULL;
	return (struct taken_region *)(inflight->mapping->at +
				       queue * part_bytes(
						       inflight->queue_size));
}

#define TAIL_MAGIC 0x6b747662u /* "ktvb" */

/* In this order, as we may be killed between any two. */
void inflight_note_cache(struct inflight *inflight, bool back)
{
	struct inflight_tail *tail = inflight->tail;

	if (!tail)
		return;
	__atomic_store_n(&tail->writes_back, back, __ATOMIC_RELEASE);
	__atomic_store_n(&tail->magic, TAIL_MAGIC, __ATOMIC_RELEASE);
}

bool inflight_cache(const struct inflight *inflight, bool *ret_back)
{
	const struct inflight_tail *tail = inflight->tail;

	if (!tail ||
	    __atomic_load_n(&tail->magic, __ATOMIC_ACQUIRE) != TAIL_MAGIC)
		return false;
	*ret_back = __atomic_load_n(&tail->writes_back, __ATOMIC_ACQUIRE);
	return true;
}

static void own_marks_release(struct lease *lease)
{
	free(container_of(lease, struct own_marks, lease));
}

struct own_marks *own_marks_new(uint16_t queue_size)
{
	struct own_marks *marks = calloc(1, offsetof(struct own_marks, region) +
						    taken_bytes(queue_size));

	if (!marks)
		return NULL;
	atomic_init(&marks->lease.refs, 1);
	marks->lease.release = own_marks_release;
	taken_init(&marks->region, queue_size);
	return marks;
}

void own_marks_unref(struct own_marks *marks)
{
	if (marks)
		lease_unref(&marks->lease);
}
