/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See cpu.h. In the order in which they are put back: what the guest's clock
 * counts from before the registers that have it, the local APIC behind the
 * register that says where it is, and before the one that has its next deadline.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "boot.h"
#include "cpu.h"
#include "file.h"
#include "say.h"

#define CHIPS 3 /* two PICs and the IOAPIC */

union part {
	struct kvm_irqchip chip;
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	struct kvm_regs regs;
	struct kvm_xcrs xcrs;
	struct kvm_xsave xsave;
	struct kvm_debugregs debugregs;
	struct kvm_mp_state mp_state;
	struct kvm_vcpu_events events;
};

struct access {
	const char *name;
	unsigned long get, set;
	size_t size;
	bool of_cpu;
};

#define PART(name, type, of_cpu)                                               \
	{                                                                      \
#name, KVM_GET_##name, KVM_SET_##name, sizeof(struct type),    \
			of_cpu                                                 \
	}

static const struct access accesses[] = {
	PART(PIT2, kvm_pit_state2, false),
	PART(CLOCK, kvm_clock_data, false),
	PART(SREGS, kvm_sregs, true),
	PART(LAPIC, kvm_lapic_state, true),
	PART(REGS, kvm_regs, true),
	PART(XCRS, kvm_xcrs, true),
	PART(XSAVE, kvm_xsave, true),
	PART(DEBUGREGS, kvm_debugregs, true),
	PART(MP_STATE, kvm_mp_state, true),
	PART(VCPU_EVENTS, kvm_vcpu_events, true),
};
#define N_ACCESSES (sizeof(accesses) / sizeof(*accesses))

static int fd_of(const struct vmm *vmm, const struct access *access)
{
	return access->of_cpu ? vmm->vcpu_fd : vmm->vm_fd;
}

static void save_chips(const struct vmm *vmm, FILE *file)
{
	for (uint32_t i = 0; i < CHIPS; i++) {
		struct kvm_irqchip chip = { .chip_id = i };

		if (ioctl(vmm->vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
			fail("KVM_GET_IRQCHIP");
		file_write(file, &chip, sizeof(chip));
	}
}

static void restore_chips(const struct vmm *vmm, FILE *file)
{
	for (uint32_t i = 0; i < CHIPS; i++) {
		struct kvm_irqchip chip;

		file_read(file, &chip, sizeof(chip));
		if (ioctl(vmm->vm_fd, KVM_SET_IRQCHIP, &chip) < 0)
			fail("KVM_SET_IRQCHIP");
	}
}

/* The numbers of all model-specific registers that KVM keeps. */
static struct kvm_msr_list *list_msrs(const struct vmm *vmm)
{
	struct kvm_msr_list none = { 0 }, *list;

	/* It says how many there are, and that there was no room. */
	if (ioctl(vmm->kvm_fd, KVM_GET_MSR_INDEX_LIST, &none) == 0 ||
	    errno != E2BIG)
		fail("KVM_GET_MSR_INDEX_LIST");
	list = calloc(1, sizeof(*list) + none.nmsrs * sizeof(uint32_t));
	if (!list)
		fail("calloc");
	list->nmsrs = none.nmsrs;
	if (ioctl(vmm->kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
		fail("KVM_GET_MSR_INDEX_LIST");
	return list;
}

/* Room for a list of one. */
union one_msr {
	struct kvm_msrs list;
	unsigned char
		bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

static int access_msr(const struct vmm *vmm, unsigned long how,
		      struct kvm_msr_entry *entry)
{
	union one_msr one;
	int n;

	memset(&one, 0, sizeof(one));
	one.list.nmsrs = 1;
	memcpy(one.list.entries, entry, sizeof(*entry));
	n = ioctl(vmm->vcpu_fd, how, &one);
	memcpy(entry, one.list.entries, sizeof(*entry));
	return n;
}

/* One that this CPU does not have cannot be read. */
static bool read_msr(const struct vmm *vmm, struct kvm_msr_entry *entry)
{
	return access_msr(vmm, KVM_GET_MSRS, entry) == 1;
}

static void save_msrs(const struct vmm *vmm, FILE *file)
{
	struct kvm_msr_list *list = list_msrs(vmm);
	struct kvm_msr_entry entry = { 0 };

	for (uint32_t i = 0; i < list->nmsrs; i++) {
		entry.index = list->indices[i];
		if (read_msr(vmm, &entry))
			file_write(file, &entry, sizeof(entry));
	}
	memset(&entry, 0xff, sizeof(entry));
	file_write(file, &entry, sizeof(entry));
	free(list);
}

/* Some can only be read, and say the same here. */
static void restore_msrs(const struct vmm *vmm, FILE *file)
{
	struct kvm_msr_entry entry, here;

	for (;;) {
		file_read(file, &entry, sizeof(entry));
		if (entry.index == UINT32_MAX)
			return;
		here = entry;
		if (read_msr(vmm, &here) && here.data == entry.data)
			continue;
		if (access_msr(vmm, KVM_SET_MSRS, &entry) != 1)
			give_up("this CPU is another one: register %#x",
				entry.index);
	}
}

void cpu_save(const struct vmm *vmm, FILE *file)
{
	save_chips(vmm, file);
	for (size_t i = 0; i < N_ACCESSES; i++) {
		const struct access *access = &accesses[i];
		union part part;

		memset(&part, 0, sizeof(part));
		if (ioctl(fd_of(vmm, access), access->get, &part) < 0)
			fail(access->name);
		file_write(file, &part, access->size);
	}
	save_msrs(vmm, file);
}

void cpu_restore(const struct vmm *vmm, FILE *file)
{
	boot_cpuid(vmm);
	restore_chips(vmm, file);
	for (size_t i = 0; i < N_ACCESSES; i++) {
		const struct access *access = &accesses[i];
		union part part;

		file_read(file, &part, access->size);
		/* It goes on from there, not by what time it is now. */
		if (access->set == KVM_SET_CLOCK)
			part.clock.flags = 0;
		if (ioctl(fd_of(vmm, access), access->set, &part) < 0)
			fail(access->name);
	}
	restore_msrs(vmm, file);
}
