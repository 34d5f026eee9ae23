/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A guest of one page of code with a virtio-blk driver of its own, in ring 3 of
 * long mode: native speed even where KVM has to emulate a kernel.
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "ring3.h"

#define QUEUE_SIZE 16
#define BYTES 4096u
#define WORDS (BYTES / 8)
#define STATUS_READY                                                           \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |                \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

/* Each page by itself: none is shared by two. */
struct rings {
	_Alignas(4096) struct vring_desc desc[QUEUE_SIZE];
	_Alignas(4096) struct {
		uint16_t flags, idx, ring[QUEUE_SIZE], used_event;
	} avail;
	_Alignas(4096) struct {
		uint16_t flags, idx;
		struct vring_used_elem ring[QUEUE_SIZE];
		uint16_t avail_event;
	} used;
	_Alignas(4096) struct virtio_blk_outhdr header;
	uint8_t status;
	_Alignas(4096) uint64_t data[WORDS];
};

extern volatile uint32_t interrupts[RING3_DISKS];
void guest_main(void);

static struct rings rings[RING3_DISKS];

static void out(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static uint8_t in(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static uint32_t clock_ms(void)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0"
			 : "=a"(value)
			 : "Nd"((uint16_t)RING3_CLOCK));
	return value;
}

static void say(const char *text)
{
	while (*text)
		out(RING3_CHAR, (uint8_t)*text++);
}

/* False, and why. */
static bool fail(const char *why)
{
	say(": ");
	say(why);
	return false;
}

static volatile uint32_t *reg(unsigned int disk, uint32_t offset)
{
	return (volatile uint32_t *)(uintptr_t)(RING3_MMIO + disk * 0x1000 +
						offset);
}

static void set_address(unsigned int disk, uint32_t low, const void *to)
{
	*reg(disk, low) = (uint32_t)(uintptr_t)to;
	*reg(disk, low + 4) = 0;
}

static void *clear(void *to, unsigned long len)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(0) : "memory");
	return start;
}

static bool start(unsigned int disk)
{
	struct rings *r = &rings[disk];

	clear(r, sizeof(*r));
	*reg(disk, VIRTIO_MMIO_STATUS) = VIRTIO_CONFIG_S_ACKNOWLEDGE;
	*reg(disk, VIRTIO_MMIO_STATUS) = VIRTIO_CONFIG_S_ACKNOWLEDGE |
					 VIRTIO_CONFIG_S_DRIVER;
	*reg(disk, VIRTIO_MMIO_DRIVER_FEATURES_SEL) = 1;
	*reg(disk, VIRTIO_MMIO_DRIVER_FEATURES) = 1u
						  << (VIRTIO_F_VERSION_1 - 32);
	*reg(disk, VIRTIO_MMIO_DRIVER_FEATURES_SEL) = 0;
	*reg(disk, VIRTIO_MMIO_DRIVER_FEATURES) = 1u << VIRTIO_BLK_F_FLUSH;
	*reg(disk, VIRTIO_MMIO_STATUS) = STATUS_READY &
					 ~VIRTIO_CONFIG_S_DRIVER_OK;
	*reg(disk, VIRTIO_MMIO_QUEUE_SEL) = 0;
	*reg(disk, VIRTIO_MMIO_QUEUE_NUM) = QUEUE_SIZE;
	set_address(disk, VIRTIO_MMIO_QUEUE_DESC_LOW, r->desc);
	set_address(disk, VIRTIO_MMIO_QUEUE_AVAIL_LOW, &r->avail);
	set_address(disk, VIRTIO_MMIO_QUEUE_USED_LOW, &r->used);
	*reg(disk, VIRTIO_MMIO_QUEUE_READY) = 1;
	*reg(disk, VIRTIO_MMIO_STATUS) = STATUS_READY;
	return *reg(disk, VIRTIO_MMIO_STATUS) == STATUS_READY ||
	       fail("status after start");
}

static void submit(unsigned int disk, uint32_t type, uint64_t sector)
{
	struct rings *r = &rings[disk];
	const uint16_t idx = r->avail.idx;
	const bool in_data = type == VIRTIO_BLK_T_IN;

	r->header =
		(struct virtio_blk_outhdr){ .type = type, .sector = sector };
	*(volatile uint8_t *)&r->status = 0xff;
	r->desc[0] = (struct vring_desc){ (uintptr_t)&r->header,
					  sizeof(r->header), VRING_DESC_F_NEXT,
					  1 };
	r->desc[1] = (struct vring_desc){
		(uintptr_t)r->data, BYTES,
		VRING_DESC_F_NEXT | (in_data ? VRING_DESC_F_WRITE : 0), 2
	};
	r->desc[2] = (struct vring_desc){ (uintptr_t)&r->status, 1,
					  VRING_DESC_F_WRITE, 0 };
	if (type == VIRTIO_BLK_T_FLUSH)
		r->desc[0].next = 2;
	r->avail.ring[idx % QUEUE_SIZE] = 0;
	__atomic_store_n(&r->avail.idx, (uint16_t)(idx + 1), __ATOMIC_SEQ_CST);
	*reg(disk, VIRTIO_MMIO_QUEUE_NOTIFY) = 0;
}

static bool is_done(unsigned int disk)
{
	const struct rings *r = &rings[disk];

	return __atomic_load_n(&r->used.idx, __ATOMIC_ACQUIRE) == r->avail.idx;
}

static void relax(void)
{
	__asm__ volatile("pause" ::: "memory");
}

static bool request(unsigned int disk, uint32_t type, uint64_t sector,
		    bool by_interrupt)
{
	const uint32_t before = interrupts[disk];

	submit(disk, type, sector);
	while (by_interrupt && interrupts[disk] == before)
		relax();
	while (!is_done(disk))
		relax();
	if (by_interrupt)
		*reg(disk, VIRTIO_MMIO_INTERRUPT_ACK) =
			*reg(disk, VIRTIO_MMIO_INTERRUPT_STATUS);
	return *(volatile uint8_t *)&rings[disk].status == VIRTIO_BLK_S_OK ||
	       fail("request");
}

static void fill(unsigned int disk, uint64_t seed)
{
	for (unsigned int i = 0; i < WORDS; i++)
		rings[disk].data[i] = seed ? seed * 1000003 + i : 0;
}

static bool holds(unsigned int disk, uint64_t seed)
{
	const volatile uint64_t *data = rings[disk].data;

	for (unsigned int i = 0; i < WORDS; i++)
		if (data[i] != (seed ? seed * 1000003 + i : 0))
			return fail("data");
	return true;
}

/* Write a block and read it back, so many times. */
static bool verified(unsigned int disk, unsigned int times, bool by_interrupt)
{
	for (unsigned int i = 1; i <= times; i++) {
		const uint64_t sector = i % (RING3_SECTORS / 8) * 8;

		fill(disk, i);
		if (!request(disk, VIRTIO_BLK_T_OUT, sector, by_interrupt))
			return false;
		fill(disk, 0);
		if (!request(disk, VIRTIO_BLK_T_IN, sector, by_interrupt) ||
		    !holds(disk, i))
			return false;
	}
	return true;
}

static bool registers(void)
{
	for (unsigned int disk = 0; disk < RING3_DISKS; disk++) {
		if (*reg(disk, VIRTIO_MMIO_MAGIC_VALUE) != 0x74726976 ||
		    *reg(disk, VIRTIO_MMIO_VERSION) != 2 ||
		    *reg(disk, VIRTIO_MMIO_DEVICE_ID) != 2)
			return fail("identity");
		if (*reg(disk, VIRTIO_MMIO_CONFIG) != RING3_SECTORS)
			return fail("capacity");
		if (!start(disk))
			return false;
	}
	return true;
}

static bool polled(void)
{
	return verified(0, 1000, false);
}

static bool by_interrupt(void)
{
	return verified(0, 1000, true) && verified(1, 200, true) &&
	       request(1, VIRTIO_BLK_T_FLUSH, 0, true);
}

/* How late a busy machine makes it is not ours; that it comes back at all is. */
static bool in_budget(uint32_t since)
{
	const uint32_t took = clock_ms() - since;

	return (took >= RING3_BUDGET_MS - 10 && took < 50 * RING3_BUDGET_MS) ||
	       fail("not in the budget");
}

static bool await(uint16_t port, uint8_t value)
{
	const uint32_t since = clock_ms();

	while (in(port) != value)
		if (clock_ms() - since > 60000)
			return fail("no end of the wedge");
	return true;
}

static bool trips(uint8_t begin, uint8_t end)
{
	bool ok = true;

	out(RING3_COMMAND, begin);
	for (unsigned int i = 0; i < RING3_TRIPS && ok; i++)
		ok = request(1, VIRTIO_BLK_T_IN, 0, true);
	out(RING3_COMMAND, end);
	return ok;
}

static bool round_trips(void)
{
	return trips('e', 'E') && trips('x', 'X');
}

/* A read is stuck; reset; what was read then never reaches memory. */
static bool wedged_reset(void)
{
	struct rings *r = &rings[0];
	uint32_t since;

	fill(0, 7);
	if (!request(0, VIRTIO_BLK_T_OUT, 0, false))
		return false;
	out(RING3_COMMAND, 'b');
	submit(0, VIRTIO_BLK_T_IN, 0);
	if (!verified(1, 100, true))
		return false;
	if (is_done(0))
		return fail("not stuck");
	since = clock_ms();
	*reg(0, VIRTIO_MMIO_STATUS) = 0;
	if (!in_budget(since))
		return false;
	if (in(RING3_WEDGED) != 1)
		return fail("not wedged");
	if (*reg(0, VIRTIO_MMIO_STATUS) != 0)
		return fail("status after reset");
	clear(r, sizeof(*r));
	if (!verified(1, 100, true))
		return false;
	out(RING3_COMMAND, 'r');
	if (!await(RING3_WEDGED, 0) || !holds(0, 0))
		return false;
	for (unsigned long i = 0; i < sizeof(*r); i++)
		if (((const volatile uint8_t *)r)[i])
			return fail("late write");
	return true;
}

static bool restarted(void)
{
	return start(0) && verified(0, 100, true);
}

static bool destroyed(void)
{
	uint32_t since;

	out(RING3_COMMAND, 'b');
	submit(0, VIRTIO_BLK_T_OUT, 0);
	if (!verified(1, 100, true))
		return false;
	since = clock_ms();
	out(RING3_COMMAND, 'd');
	if (!in_budget(since))
		return false;
	if (*reg(0, VIRTIO_MMIO_MAGIC_VALUE) != UINT32_MAX)
		return fail("still there");
	if (!verified(1, 100, true))
		return false;
	out(RING3_COMMAND, 'r');
	return await(RING3_RELEASED, 1) && verified(1, 100, true);
}

static void run(const char *name, bool (*fn)(void))
{
	say(name);
	out(RING3_VERDICT, fn());
}

void guest_main(void)
{
	run("registers", registers);
	run("2000 requests, polled", polled);
	run("2401 requests, by interrupt", by_interrupt);
	run("4000 reads, kicked by ioeventfd and by exits", round_trips);
	run("reset while wedged", wedged_reset);
	run("start again", restarted);
	run("destroy while wedged", destroyed);
	out(RING3_VERDICT, 2);
}
