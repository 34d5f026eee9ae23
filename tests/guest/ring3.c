/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * ring3 GUEST DISK DISK: a KVM guest with two disks, the first of which can be
 * blocked. QueueNotify is an ioeventfd and the interrupts are irqfds, so only
 * the set-up of the devices comes to user space, but for the one case that
 * compares. See ring3-guest.c.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "gate.h"
#include "ktvblk-kvm.h"
#include "ring3.h"
#include "vmm/disk.h"

/* In guest memory, below the code. */
#define GDT 0x1000
#define TSS 0x2000
#define IDT 0x3000
#define PAGE_TABLES 0x9000

static uint8_t *ram;
static struct kvm_run *run;
static int kvm_fd, vm_fd, vcpu_fd;
static struct disk disks[RING3_DISKS];

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int checked(int r, const char *what)
{
	if (r < 0)
		err(1, "%s", what);
	return r;
}

static int kvm(int fd, unsigned long request, const void *arg, const char *what)
{
	return checked(ioctl(fd, request, arg), what);
}

static void make_vm(void)
{
	struct kvm_userspace_memory_region memory = { 0 };

	vm_fd = kvm(kvm_fd, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	checked(ioctl(vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000ul), "TSS");
	kvm(vm_fd, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
	ram = mmap(NULL, RING3_RAM, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		err(1, "mmap");
	memory.memory_size = RING3_RAM;
	memory.userspace_addr = (uintptr_t)ram;
	kvm(vm_fd, KVM_SET_USER_MEMORY_REGION, &memory, "memory");
}

static void load(const char *path)
{
	const int fd = checked(open(path, O_RDONLY | O_CLOEXEC), path);

	checked((int)read(fd, ram + RING3_CODE, 0x100000), path);
	close(fd);
}

/* 4 GiB, each address itself, user pages of 2 MiB. */
static void make_page_tables(void)
{
	uint64_t *const pml4 = (uint64_t *)(ram + PAGE_TABLES);
	uint64_t *const pdpt = pml4 + 512, *const pd = pml4 + 1024;

	pml4[0] = (PAGE_TABLES + 0x1000) | 7;
	for (uint64_t i = 0; i < 4; i++)
		pdpt[i] = (PAGE_TABLES + 0x2000 + 0x1000 * i) | 7;
	for (uint64_t i = 0; i < 4 * 512; i++)
		pd[i] = i << 21 | 0x87;
}

static void make_tables(void)
{
	/* Ring 0 and ring 3, code and data each, and the TSS. */
	static const uint64_t gdt[] = {
		0,
		0x00af9a000000ffff,
		0x00cf92000000ffff,
		0x00affa000000ffff,
		0x00cff2000000ffff,
		0x0000890000000067 | (uint64_t)TSS << 16,
		0,
	};
	const uint64_t stack0 = RING3_STACK - 0x10000;

	memcpy(ram + GDT, gdt, sizeof(gdt));
	memcpy(ram + TSS + 4, &stack0, sizeof(stack0));
	for (uint32_t i = 0; i < RING3_DISKS; i++) {
		const uint32_t handler = RING3_CODE + 16 * (i + 1);
		const uint32_t gate[4] = { 8u << 16 | (handler & 0xffff),
					   (handler & 0xffff0000) | 0x8e00 };

		memcpy(ram + IDT + 16 * (RING3_VECTOR + i), gate, sizeof(gate));
	}
	make_page_tables();
}

static void route_interrupts(void)
{
	struct kvm_irq_routing *routing =
		calloc(1, sizeof(*routing) +
				  RING3_DISKS * sizeof(routing->entries[0]));

	if (!routing)
		err(1, "calloc");
	routing->nr = RING3_DISKS;
	for (uint32_t i = 0; i < RING3_DISKS; i++) {
		routing->entries[i].gsi = RING3_GSI + i;
		routing->entries[i].type = KVM_IRQ_ROUTING_MSI;
		routing->entries[i].u.msi.address_lo = 0xfee00000;
		routing->entries[i].u.msi.data = RING3_VECTOR + i;
	}
	kvm(vm_fd, KVM_SET_GSI_ROUTING, routing, "routing");
	free(routing);
}

static uint64_t window_of(unsigned int i)
{
	return RING3_MMIO + 0x1000 * i;
}

/* Kicks go to the eventfd at once, or come here as an exit. */
static void set_kick(unsigned int i, bool by_ioeventfd)
{
	struct kvm_ioeventfd kick = {
		.addr = window_of(i) + KTVBLK_MMIO_QUEUE_NOTIFY,
		.len = 4,
		.fd = ktvblk_kick_fd(disks[i].dev),
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH |
			 (by_ioeventfd ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	kvm(vm_fd, KVM_IOEVENTFD, &kick, "KVM_IOEVENTFD");
}

static int bind_at(unsigned int i, unsigned int window)
{
	return ktvblk_kvm_bind(disks[i].dev, vm_fd, window_of(window),
			       RING3_GSI + i);
}

static int unbind_at(unsigned int i, unsigned int window)
{
	return ktvblk_kvm_unbind(disks[i].dev, vm_fd, window_of(window),
				 RING3_GSI + i);
}

static void expect(int r, int wanted, const char *what)
{
	if (r != wanted)
		errx(1, "%s: %d, not %d", what, r, wanted);
}

/*
 * Of a binding that KVM refuses nothing stays: were its kick still at a window
 * of nobody, the next one there would be refused for that. Ends with both disks
 * bound, which the guest then proves.
 */
static void check_bindings(void)
{
	expect(bind_at(0, 0), 0, "bind");
	expect(bind_at(0, 0), -EEXIST, "bind again");
	expect(bind_at(0, RING3_DISKS), -EBUSY, "bind its irq again");
	expect(bind_at(0, RING3_DISKS), -EBUSY, "... with nothing left over");
	expect(unbind_at(0, 0), 0, "unbind");
	expect(unbind_at(0, 0), -ENOENT, "unbind again");
	expect(bind_at(1, 0), 0, "bind another there");
	expect(unbind_at(1, 0), 0, "unbind the other");
	for (unsigned int i = 0; i < RING3_DISKS; i++)
		expect(bind_at(i, i), 0, "bind for the guest");
}

static void plug(unsigned int i, char *path, struct ktvblk_mem *mem)
{
	struct ktvblk_backend *storage;
	const char *what;
	int r = disk_parse(path, &disks[i], &what);

	if (r == 0)
		r = i ? disk_open(&disks[i], &storage)
		      : gate_open(path, &storage);
	if (r == 0)
		r = disk_start(&disks[i], storage, mem);
	if (r < 0)
		errx(1, "%s: %s", path, strerror(-r));
	ktvblk_backend_unref(storage);
}

/* x2APIC is not there unless CPUID says so. */
static void set_cpuid(void)
{
	enum { ENTRIES = 256 };
	struct kvm_cpuid2 *cpuid = calloc(
		1, sizeof(*cpuid) + ENTRIES * sizeof(struct kvm_cpuid_entry2));

	if (!cpuid)
		err(1, "calloc");
	cpuid->nent = ENTRIES;
	kvm(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid, "cpuid");
	kvm(vcpu_fd, KVM_SET_CPUID2, cpuid, "KVM_SET_CPUID2");
	free(cpuid);
}

static void make_vcpu(void)
{
	const struct kvm_segment code = { .limit = UINT32_MAX,
					  .selector = 0x1b,
					  .type = 11,
					  .present = 1,
					  .dpl = 3,
					  .s = 1,
					  .l = 1,
					  .g = 1 };
	const struct kvm_regs regs = { .rip = RING3_CODE,
				       .rflags = 0x3202, /* IOPL 3, IF */
				       .rsp = RING3_STACK };
	struct kvm_segment data = code;
	struct kvm_lapic_state lapic;
	struct kvm_sregs sregs;
	const uint32_t enable = 0x1ff;
	int size;

	vcpu_fd = kvm(vm_fd, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
	size = kvm(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL, "vcpu");
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   vcpu_fd, 0);
	if (run == MAP_FAILED)
		err(1, "mmap of the vcpu");
	set_cpuid();
	kvm(vcpu_fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	data.type = 3;
	data.selector = 0x23;
	data.l = 0;
	data.db = 1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){ .base = TSS,
					 .limit = 0x67,
					 .selector = 0x28,
					 .type = 11,
					 .present = 1 };
	sregs.gdt = (struct kvm_dtable){ .base = GDT, .limit = 7 * 8 - 1 };
	sregs.idt = (struct kvm_dtable){ .base = IDT, .limit = 0xfff };
	sregs.cr3 = PAGE_TABLES;
	sregs.cr4 = 0x20; /* PAE */
	sregs.cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
	sregs.efer = 0x500; /* LMA, LME */
	sregs.apic_base = 0xfee00d00; /* x2APIC, boot CPU */
	kvm(vcpu_fd, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	kvm(vcpu_fd, KVM_GET_LAPIC, &lapic, "KVM_GET_LAPIC");
	memcpy(lapic.regs + 0xf0, &enable, sizeof(enable));
	memset(lapic.regs + 0x80, 0, 4);
	kvm(vcpu_fd, KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC");
	kvm(vcpu_fd, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

/* The first disk, while the guest runs. */
static void destroy_disk(void)
{
	struct ktvblk_dev *dev = disks[0].dev;

	expect(unbind_at(0, 0), 0, "unbind under the guest");
	disks[0].dev = NULL;
	ktvblk_destroy(dev);
}

/* Has a worker of the first disk been left behind? */
static bool is_wedged(void)
{
	return ktvblk_get_state(disks[0].dev) == KTVBLK_STATE_WEDGED;
}

static void on_mmio(void)
{
	const uint64_t offset = run->mmio.phys_addr - RING3_MMIO;
	struct ktvblk_dev *dev = NULL;

	if (offset / 0x1000 < RING3_DISKS)
		dev = disks[offset / 0x1000].dev;
	if (run->mmio.is_write)
		ktvblk_mmio_write(dev, offset % 0x1000, run->mmio.data,
				  run->mmio.len);
	else
		ktvblk_mmio_read(dev, offset % 0x1000, run->mmio.data,
				 run->mmio.len);
}

/* True: there are no more cases. */
static bool on_verdict(const char *name, uint8_t verdict, bool *failed)
{
	static uint64_t begin;
	const uint64_t now = clock_ns();

	if (verdict <= 1)
		printf("@@ %s %llu %s\n", verdict ? "ok" : "FAIL",
		       (unsigned long long)(begin ? (now - begin) / 10000000
						  : 0),
		       name);
	fflush(stdout);
	begin = now;
	*failed |= verdict == 0;
	return verdict > 1;
}

/* The guest begins, or has ended, RING3_TRIPS requests to the second disk. */
static void on_trips(uint8_t command)
{
	static uint64_t begin_ns, ioeventfd_ns;
	const uint64_t took_ns = clock_ns() - begin_ns;

	if (command == 'E')
		ioeventfd_ns = took_ns;
	if (command == 'X') {
		set_kick(1, true);
		printf("@@ note 4 KiB read and its interrupt: %.1f us, kicked "
		       "by ioeventfd; %.1f us, by an exit\n",
		       (double)ioeventfd_ns / (1000. * RING3_TRIPS),
		       (double)took_ns / (1000. * RING3_TRIPS));
	}
	if (command == 'x')
		set_kick(1, false);
	begin_ns = clock_ns();
}

static void on_command(uint8_t command)
{
	if (command == 'd')
		destroy_disk();
	else if (command == 'b' || command == 'r')
		gate_shut(command == 'b');
	else
		on_trips(command);
}

/* True: the end. */
static bool on_port(bool *failed)
{
	static char name[128];
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	const size_t len = strlen(name);
	const uint32_t now = (uint32_t)(clock_ns() / 1000000);
	bool end;

	switch (run->io.port) {
	case RING3_CHAR:
		if (len + 1 < sizeof(name))
			name[len] = (char)*data;
		break;
	case RING3_VERDICT:
		end = on_verdict(name, *data, failed);
		memset(name, 0, sizeof(name));
		return end;
	case RING3_COMMAND:
		on_command(*data);
		break;
	case RING3_WEDGED:
		*data = is_wedged();
		break;
	case RING3_RELEASED:
		*data = (uint8_t)gate_look().released;
		break;
	case RING3_CLOCK:
		memcpy(data, &now, sizeof(now));
		break;
	}
	return false;
}

int main(int argc, char **argv)
{
	struct ktvblk_region region = { .size = RING3_RAM };
	struct ktvblk_mem *mem;
	bool failed = false;

	if (argc != 2 + RING3_DISKS)
		errx(2, "usage: %s GUEST DISK DISK", argv[0]);
	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0) {
		printf("/dev/kvm: %s\n", strerror(errno));
		return 77;
	}
	alarm(200);
	ktvblk_set_log_handler(disk_print_record, NULL, NULL);
	make_vm();
	load(argv[1]);
	make_tables();
	route_interrupts();
	region.host_addr = ram;
	if (ktvblk_mem_new(&region, 1, NULL, NULL, &mem) < 0)
		errx(1, "memory");
	for (unsigned int i = 0; i < RING3_DISKS; i++)
		plug(i, argv[2 + i], mem);
	ktvblk_mem_unref(mem);
	check_bindings();
	make_vcpu();
	for (;;) {
		if (ioctl(vcpu_fd, KVM_RUN, 0) < 0 && errno != EINTR)
			err(1, "KVM_RUN");
		if (run->exit_reason == KVM_EXIT_MMIO)
			on_mmio();
		else if (run->exit_reason != KVM_EXIT_IO)
			errx(1, "exit %u", run->exit_reason);
		else if (on_port(&failed))
			break;
	}
	for (unsigned int i = 0; i < RING3_DISKS; i++)
		ktvblk_destroy(disks[i].dev);
	return failed;
}
