/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst): a bzImage at
 * 16 MiB, entered 512 bytes in, in long mode, with the boot parameters in RSI.
 */

#include <asm/bootparam.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot.h"
#include "say.h"

#define KERNEL_ADDR UINT64_C(0x1000000)
#define KERNEL_ENTRY (KERNEL_ADDR + 0x200)
#define SETUP_SECT 512u
#define LOW_MEMORY_END 0x9fc00u
#define HIGH_MEMORY 0x100000u
#define LOADER_UNDEFINED 0xff

/* Read size bytes of a file from an offset to a place in guest memory. */
static void read_to(const struct vmm *vmm, int fd, off_t offset, uint64_t addr,
		    uint64_t size, const char *path)
{
	if (addr > vmm->ram_size || size > vmm->ram_size - addr)
		give_up("%s needs more --memory", path);
	while (size) {
		const ssize_t n = pread(fd, vmm->ram + addr, size, offset);

		if (n < 0)
			fail(path);
		if (n == 0)
			give_up("%s has become shorter", path);
		addr += (uint64_t)n;
		offset += n;
		size -= (uint64_t)n;
	}
}

static int open_file(const char *path, uint64_t *ret_size)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		fail(path);
	*ret_size = (uint64_t)st.st_size;
	return fd;
}

/* The header says where it ends; what is behind that must be zeros. */
static void read_header(int fd, const char *path, struct setup_header *header)
{
	const size_t start = offsetof(struct boot_params, hdr);
	const size_t jump = start + offsetof(struct setup_header, jump);
	size_t len;

	if (pread(fd, header, sizeof(*header), (off_t)start) !=
		    sizeof(*header) ||
	    memcmp(&header->header, "HdrS", 4) != 0 ||
	    header->version < 0x20c || !(header->xloadflags & XLF_KERNEL_64))
		give_up("%s is no 64-bit bzImage", path);
	len = jump + 2 + (header->jump >> 8) - start;
	if (len < sizeof(*header))
		memset((uint8_t *)header + len, 0, sizeof(*header) - len);
}

static void load_kernel(const struct vmm *vmm, const char *path,
			struct setup_header *header)
{
	uint64_t size, setup_size;
	const int fd = open_file(path, &size);

	read_header(fd, path, header);
	setup_size = (header->setup_sects ? header->setup_sects : 4u) + 1u;
	setup_size *= SETUP_SECT;
	if (setup_size > size)
		give_up("%s is no 64-bit bzImage", path);
	if (KERNEL_ADDR + header->init_size > vmm->ram_size)
		give_up("%s needs more --memory", path);
	read_to(vmm, fd, (off_t)setup_size, KERNEL_ADDR, size - setup_size,
		path);
	close(fd);
}

/* As far up as it may be, out of the way of the kernel's own unpacking. */
static void load_initrd(const struct vmm *vmm, const char *path,
			struct setup_header *header)
{
	const uint64_t start = KERNEL_ADDR + header->init_size;
	uint64_t size, end = header->initrd_addr_max + UINT64_C(1);
	const int fd = open_file(path, &size);

	if (end > vmm->ram_size)
		end = vmm->ram_size;
	if (size > end - start)
		give_up("%s needs more --memory", path);
	header->ramdisk_image = (uint32_t)(end - size) & ~UINT32_C(0xfff);
	header->ramdisk_size = (uint32_t)size;
	read_to(vmm, fd, 0, header->ramdisk_image, size, path);
	close(fd);
}

static void set_memory_map(const struct vmm *vmm, struct boot_params *params)
{
	const struct boot_e820_entry map[] = {
		{ 0, LOW_MEMORY_END, 1 },
		{ ACPI_ADDR, ACPI_END - ACPI_ADDR, 2 },
		{ HIGH_MEMORY, vmm->ram_size - HIGH_MEMORY, 1 },
	};

	memcpy(params->e820_table, map, sizeof(map));
	params->e820_entries = sizeof(map) / sizeof(*map);
}

void boot_load(const struct vmm *vmm, const char *kernel, const char *initrd,
	       const char *cmdline)
{
	struct boot_params *params =
		(struct boot_params *)(vmm->ram + BOOT_PARAMS_ADDR);
	struct setup_header header;

	load_kernel(vmm, kernel, &header);
	if (strlen(cmdline) > header.cmdline_size)
		give_up("--append is too long for %s", kernel);
	if (initrd)
		load_initrd(vmm, initrd, &header);
	strcpy((char *)vmm->ram + CMDLINE_ADDR, cmdline);
	header.type_of_loader = LOADER_UNDEFINED;
	header.loadflags |= LOADED_HIGH;
	header.cmd_line_ptr = CMDLINE_ADDR;
	memset(params, 0, sizeof(*params));
	params->hdr = header;
	params->acpi_rsdp_addr = ACPI_ADDR;
	set_memory_map(vmm, params);
}

void boot_cpuid(const struct vmm *vmm)
{
	enum { ENTRIES = 256 };
	struct kvm_cpuid2 *cpuid = calloc(
		1, sizeof(*cpuid) + ENTRIES * sizeof(struct kvm_cpuid_entry2));

	if (!cpuid)
		fail("calloc");
	cpuid->nent = ENTRIES;
	if (ioctl(vmm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
		fail("KVM_GET_SUPPORTED_CPUID");
	/* "There is a hypervisor": Linux looks for KVM, and takes its clock. */
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 1)
			cpuid->entries[i].ecx |= 1u << 31;
	if (ioctl(vmm->vcpu_fd, KVM_SET_CPUID2, cpuid) < 0)
		fail("KVM_SET_CPUID2");
	free(cpuid);
}

/* The first 4 GiB, each address itself, in pages of 2 MiB. */
static void make_page_tables(const struct vmm *vmm)
{
	uint64_t *const pml4 = (uint64_t *)(vmm->ram + PAGE_TABLES_ADDR);
	uint64_t *const pdpt = pml4 + 512, *const pd = pml4 + 1024;

	pml4[0] = (PAGE_TABLES_ADDR + 0x1000) | 3;
	for (uint64_t i = 0; i < 4; i++)
		pdpt[i] = (PAGE_TABLES_ADDR + 0x2000 + 0x1000 * i) | 3;
	for (uint64_t i = 0; i < 4 * 512; i++)
		pd[i] = i << 21 | 0x83;
}

/* __BOOT_CS is 0x10, __BOOT_DS 0x18; 0x20 is a task that nobody runs. */
static void set_segments(const struct vmm *vmm, struct kvm_sregs *sregs)
{
	static const uint64_t gdt[] = { 0, 0, 0x00af9a000000ffff,
					0x00cf92000000ffff,
					0x008f8b000000ffff };
	const struct kvm_segment code = { .limit = UINT32_MAX,
					  .selector = 0x10,
					  .type = 11,
					  .present = 1,
					  .s = 1,
					  .l = 1,
					  .g = 1 };
	struct kvm_segment data = code;

	memcpy(vmm->ram + GDT_ADDR, gdt, sizeof(gdt));
	sregs->gdt.base = GDT_ADDR;
	sregs->gdt.limit = sizeof(gdt) - 1;
	data.selector = 0x18;
	data.type = 3;
	data.l = 0;
	data.db = 1;
	sregs->cs = code;
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = (struct kvm_segment){
		.limit = 0xffff, .selector = 0x20, .type = 11, .present = 1
	};
}

void boot_cpu(const struct vmm *vmm)
{
	const struct kvm_regs regs = { .rip = KERNEL_ENTRY,
				       .rsi = BOOT_PARAMS_ADDR,
				       .rflags = 2 };
	struct kvm_sregs sregs;

	boot_cpuid(vmm);
	make_page_tables(vmm);
	if (ioctl(vmm->vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
		fail("KVM_GET_SREGS");
	set_segments(vmm, &sregs);
	sregs.cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
	sregs.cr3 = PAGE_TABLES_ADDR;
	sregs.cr4 = 0x20; /* PAE */
	sregs.efer = 0x500; /* LMA, LME */
	if (ioctl(vmm->vcpu_fd, KVM_SET_SREGS, &sregs) < 0 ||
	    ioctl(vmm->vcpu_fd, KVM_SET_REGS, &regs) < 0)
		fail("registers");
}
