/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The guest's memory, which lasts, and the virtual machine around it: each boot
 * has a new one.
 */

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ask.h"
#include "bus.h"
#include "machine.h"
#include "say.h"
#include "serial.h"

#define HUGE_PAGE (UINT64_C(2) << 20)
/* KVM wants some pages of its own below 4 GiB, on CPUs that need them. */
#define IDENTITY_MAP_ADDR UINT64_C(0xfffbc000)
#define TSS_ADDR UINT64_C(0xfffbd000)

/* Nobody, not even a worker that had been stuck in storage, needs it now. */
static void release_memory(void *userdata)
{
	const struct vmm *vmm = (const struct vmm *)userdata;

	munmap(vmm->ram, vmm->ram_size);
}

/* On a boundary of huge pages, or KVM cannot use them. */
static uint8_t *map_memory(uint64_t size)
{
	void *map = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *start = (uint8_t *)map, *ram;
	size_t before;

	if (map == MAP_FAILED)
		fail("guest memory");
	before = (size_t)(-(uintptr_t)start % HUGE_PAGE);
	ram = start + before;
	if (before)
		munmap(start, before);
	munmap(ram + size, HUGE_PAGE - before);
	madvise(ram, size, MADV_HUGEPAGE); /* or else small ones */
	return ram;
}

/* vmm must be there until the memory is released. */
struct ktvblk_mem *machine_memory(struct vmm *vmm, uint64_t size)
{
	struct ktvblk_region region = { .size = size };
	struct ktvblk_mem *mem;
	int r;

	vmm->ram = map_memory(size);
	vmm->ram_size = size;
	region.host_addr = vmm->ram;
	r = ktvblk_mem_new(&region, 1, release_memory, vmm, &mem);
	if (r < 0)
		give_up("guest memory: %s", strerror(-r));
	return mem;
}

static void make_vm(struct vmm *vmm)
{
	const struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	const uint64_t identity_map = IDENTITY_MAP_ADDR;
	const struct kvm_userspace_memory_region memory = {
		.memory_size = vmm->ram_size,
		.userspace_addr = (uintptr_t)vmm->ram,
	};

	vmm->vm_fd = ioctl(vmm->kvm_fd, KVM_CREATE_VM, 0);
	if (vmm->vm_fd < 0 ||
	    ioctl(vmm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
	    ioctl(vmm->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR) < 0 ||
	    ioctl(vmm->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0 ||
	    ioctl(vmm->vm_fd, KVM_CREATE_PIT2, &pit) < 0 ||
	    ioctl(vmm->vm_fd, KVM_SET_USER_MEMORY_REGION, &memory) < 0)
		fail("virtual machine");
}

static size_t run_size(const struct vmm *vmm)
{
	const int size = ioctl(vmm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (size < 0)
		fail("KVM_GET_VCPU_MMAP_SIZE");
	return (size_t)size;
}

static void make_cpu(struct vmm *vmm)
{
	void *run;

	vmm->vcpu_fd = ioctl(vmm->vm_fd, KVM_CREATE_VCPU, 0);
	if (vmm->vcpu_fd < 0)
		fail("KVM_CREATE_VCPU");
	run = mmap(NULL, run_size(vmm), PROT_READ | PROT_WRITE, MAP_SHARED,
		   vmm->vcpu_fd, 0);
	if (run == MAP_FAILED)
		fail("virtual CPU");
	vmm->run = (struct kvm_run *)run;
	ask_interrupts(vmm->run);
}

void machine_on(struct vmm *vmm)
{
	make_vm(vmm);
	make_cpu(vmm);
	bus_connect(vmm);
	serial_connect(vmm->vm_fd);
}

/* Its end takes the eventfds and interrupts out of KVM. */
void machine_off(struct vmm *vmm)
{
	struct kvm_run *run = vmm->run;

	ask_interrupts(NULL); /* first: a signal handler looks there */
	vmm->run = NULL;
	munmap(run, run_size(vmm));
	serial_connect(-1);
	close(vmm->vcpu_fd);
	close(vmm->vm_fd);
	vmm->vm_fd = -1;
}

static bool is_serial(uint16_t port)
{
	return port >= SERIAL_PORT && port < SERIAL_PORT + SERIAL_PORTS;
}

static enum end write_port(uint16_t port, uint8_t value)
{
	if (is_serial(port))
		serial_write(port - SERIAL_PORT, value);
	else if (port == RESET_PORT && value == RESET_VALUE)
		return REBOOT;
	else if (port == SLEEP_PORT && value & SLEEP_ENABLE)
		return POWER_OFF;
	return RUNNING;
}

static uint8_t read_port(uint16_t port)
{
	if (is_serial(port))
		return serial_read(port - SERIAL_PORT);
	/* Behind these two nothing is going on, behind the others is nothing. */
	return port == RESET_PORT || port == SLEEP_PORT ? 0 : 0xff;
}

static enum end access_ports(struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	enum end end = RUNNING;

	for (uint32_t i = 0; i < run->io.count && end == RUNNING; i++) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			end = write_port(run->io.port, *data);
		} else {
			memset(data, 0xff, run->io.size);
			*data = read_port(run->io.port);
		}
		data += run->io.size;
	}
	return end;
}

/* False: there was a signal, or immediate_exit. */
static bool enter_guest(const struct vmm *vmm)
{
	if (ioctl(vmm->vcpu_fd, KVM_RUN, 0) == 0)
		return true;
	if (errno != EINTR && errno != EAGAIN)
		fail("KVM_RUN");
	return false;
}

static enum end do_what_it_wants(const struct vmm *vmm)
{
	struct kvm_run *run = vmm->run;

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		bus_access(vmm, run->mmio.phys_addr, run->mmio.is_write,
			   run->mmio.data, run->mmio.len);
		return RUNNING;
	case KVM_EXIT_IO:
		return access_ports(run);
	case KVM_EXIT_SHUTDOWN:
		return TRIPLE_FAULT;
	case KVM_EXIT_INTERNAL_ERROR:
		give_up("KVM cannot go on, suberror %u",
			run->internal.suberror);
	default:
		give_up("KVM exit %u", run->exit_reason);
	}
}

/* Let the CPU run until it wants something of us, or there is a signal. */
enum end machine_run(const struct vmm *vmm)
{
	return enter_guest(vmm) ? do_what_it_wants(vmm) : RUNNING;
}

/*
 * An access of the guest's is over for the CPU only once that has been entered
 * again, and then it may go on with another one.
 */
enum end machine_settle(const struct vmm *vmm)
{
	enum end end = RUNNING;

	do
		vmm->run->immediate_exit = 1;
	while (enter_guest(vmm) && (end = do_what_it_wants(vmm)) == RUNNING);
	return end;
}
