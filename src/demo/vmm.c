/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See vmm.h. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm.h"

/* KVM wants some pages of its own below 4 GiB, on CPUs that need them. */
#define IDENTITY_MAP_ADDR UINT64_C(0xfffbc000)
#define TSS_ADDR UINT64_C(0xfffbd000)

struct options {
	const char *kernel;
	const char *initrd;
	const char *cmdline;
	unsigned long memory_mib;
	bool records;
};

static struct vmm vmm;
static pthread_t run_thread;
static volatile sig_atomic_t stopping;

void give_up(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("ktvblk-vmm: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

void fail(const char *what)
{
	give_up("%s: %s", what, strerror(errno));
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Also where KVM_RUN is just about to begin: it looks at immediate_exit. */
static void on_signal(int signal)
{
	(void)signal;
	stopping = 1;
	if (vmm.run)
		vmm.run->immediate_exit = 1;
}

static void quit(void)
{
	pthread_kill(run_thread, SIGTERM);
}

/*
 * The virtual machine
 */

/*
 * Nobody, not even a worker that had been stuck in storage, uses the guest's
 * memory any more.
 */
static void release_memory(void *userdata)
{
	const struct vmm *machine = (const struct vmm *)userdata;

	munmap(machine->ram, machine->ram_size);
}

static struct ktvblk_mem *make_memory(void)
{
	struct kvm_userspace_memory_region slot = { 0 };
	struct ktvblk_region region = { 0 };
	struct ktvblk_mem *mem;
	int r;

	vmm.ram = mmap(NULL, vmm.ram_size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vmm.ram == MAP_FAILED)
		fail("guest memory");
	slot.memory_size = vmm.ram_size;
	slot.userspace_addr = (uintptr_t)vmm.ram;
	if (ioctl(vmm.vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		fail("KVM_SET_USER_MEMORY_REGION");
	region.host_addr = vmm.ram;
	region.size = vmm.ram_size;
	r = ktvblk_mem_new(&region, 1, release_memory, &vmm, &mem);
	if (r < 0)
		give_up("guest memory: %s", strerror(-r));
	return mem;
}

static void make_vm(void)
{
	const struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	const uint64_t identity_map = IDENTITY_MAP_ADDR;
	int size;

	vmm.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vmm.kvm_fd < 0)
		fail("/dev/kvm");
	vmm.vm_fd = ioctl(vmm.kvm_fd, KVM_CREATE_VM, 0);
	if (vmm.vm_fd < 0 ||
	    ioctl(vmm.vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
	    ioctl(vmm.vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR) < 0 ||
	    ioctl(vmm.vm_fd, KVM_CREATE_IRQCHIP, 0) < 0 ||
	    ioctl(vmm.vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		fail("virtual machine");
	vmm.vcpu_fd = ioctl(vmm.vm_fd, KVM_CREATE_VCPU, 0);
	size = ioctl(vmm.kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vmm.vcpu_fd < 0 || size < 0)
		fail("virtual CPU");
	vmm.run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
		       vmm.vcpu_fd, 0);
	if (vmm.run == MAP_FAILED)
		fail("virtual CPU");
}

/* The guest's kicks and the disk's interrupts need no exit to user space. */
static void plug_disk(unsigned int i, struct ktvblk_mem *mem)
{
	struct vmm_disk *disk = &vmm.disks[i];
	struct ktvblk_backend *storage;
	struct kvm_ioeventfd kick = { .len = 4 };
	struct kvm_irqfd irq = { .gsi = DISK_GSI + i };
	int r = disk_open_file(&disk->options, &storage);

	if (r == 0) {
		r = disk_new(&disk->options, storage, mem, &disk->dev);
		ktvblk_backend_unref(storage); /* the device has its own */
	}
	if (r < 0)
		give_up("%s: %s", disk->options.path, strerror(-r));
	kick.addr = DISK_MMIO + KTVBLK_MMIO_SIZE * i + KTVBLK_MMIO_QUEUE_NOTIFY;
	kick.fd = ktvblk_kick_fd(disk->dev);
	irq.fd = (uint32_t)ktvblk_irq_fd(disk->dev);
	if (ioctl(vmm.vm_fd, KVM_IOEVENTFD, &kick) < 0 ||
	    ioctl(vmm.vm_fd, KVM_IRQFD, &irq) < 0)
		fail("eventfds of a disk");
}

/*
 * Running
 */

static void on_mmio(struct kvm_run *run)
{
	const uint64_t addr = run->mmio.phys_addr;
	const uint64_t i = (addr - DISK_MMIO) / KTVBLK_MMIO_SIZE;
	const uint64_t offset = addr % KTVBLK_MMIO_SIZE;
	/* Where no disk is, the library answers for NULL: all ones. */
	struct ktvblk_dev *dev =
		addr >= DISK_MMIO && i < vmm.n_disks ? vmm.disks[i].dev : NULL;

	if (run->mmio.is_write)
		ktvblk_mmio_write(dev, offset, run->mmio.data, run->mmio.len);
	else
		ktvblk_mmio_read(dev, offset, run->mmio.data, run->mmio.len);
}

/* The reason why the machine ends, or NULL. */
static const char *on_port_write(uint16_t port, uint8_t value)
{
	if (port - SERIAL_PORT < SERIAL_PORTS && port >= SERIAL_PORT)
		serial_write(port - SERIAL_PORT, value);
	else if (port == SLEEP_PORT && (value & 0x20))
		return "power-off";
	else if (port == KEYBOARD_PORT && value == 0xfe)
		return "reset";
	return NULL;
}

static uint8_t on_port_read(uint16_t port)
{
	if (port - SERIAL_PORT < SERIAL_PORTS && port >= SERIAL_PORT)
		return serial_read(port - SERIAL_PORT);
	/* The sleep registers and an idle keyboard controller; else nothing. */
	return port == SLEEP_PORT || port == SLEEP_PORT + 1 ||
			       port == KEYBOARD_PORT
		       ? 0
		       : 0xff;
}

static const char *on_port(struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	const char *why = NULL;

	for (uint32_t i = 0; i < run->io.count && !why; i++) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			why = on_port_write(run->io.port, *data);
		} else {
			memset(data, 0xff, run->io.size);
			*data = on_port_read(run->io.port);
		}
		data += run->io.size;
	}
	return why;
}

static const char *run_guest(void)
{
	const char *why = NULL;

	while (!why && !stopping) {
		if (ioctl(vmm.vcpu_fd, KVM_RUN, 0) < 0) {
			if (errno != EINTR && errno != EAGAIN)
				fail("KVM_RUN");
			continue;
		}
		switch (vmm.run->exit_reason) {
		case KVM_EXIT_MMIO:
			on_mmio(vmm.run);
			break;
		case KVM_EXIT_IO:
			why = on_port(vmm.run);
			break;
		case KVM_EXIT_SHUTDOWN:
			return "triple fault";
		case KVM_EXIT_INTERNAL_ERROR:
			give_up("KVM cannot go on, suberror %u",
				vmm.run->internal.suberror);
		default:
			give_up("KVM exit %u", vmm.run->exit_reason);
		}
	}
	return why ? why : "signal";
}

/*
 * All are told to stop before the first is waited for, so that stuck disks
 * share one budget. 0, or 1 if a disk was left behind.
 */
static int end_disks(void)
{
	int status = 0;

	for (unsigned int i = 0; i < vmm.n_disks; i++)
		ktvblk_request_stop(vmm.disks[i].dev);
	for (unsigned int i = 0; i < vmm.n_disks; i++) {
		const uint64_t start = now_ms();
		const enum ktvblk_outcome outcome =
			ktvblk_destroy(vmm.disks[i].dev);

		if (outcome == KTVBLK_JOINED)
			continue;
		status = 1;
		fprintf(stderr, "ktvblk-vmm: %s: %s after %llu ms\n",
			vmm.disks[i].options.path, ktvblk_outcome_name(outcome),
			(unsigned long long)(now_ms() - start));
	}
	return status;
}

/*
 * Options
 */

static void print_record(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	fprintf(stderr, "<%d>", record->priority);
	for (size_t i = 0; i < record->n_fields; i++)
		fprintf(stderr, " %s;", record->fields[i]);
	fputc('\n', stderr);
}

static _Noreturn void usage(int status)
{
	fputs("usage: ktvblk-vmm --kernel BZIMAGE [--initrd FILE] "
	      "[--append TEXT]\n"
	      "\t[--memory MIB] [--records] [--disk DISK]...\n"
	      "A DISK is " DISK_SYNTAX ".\n"
	      "--append adds to \"console=ttyS0 reboot=k panic=-1\";\n"
	      "--records prints the records of the disks, which else go to "
	      "the journal.\n"
	      "On a terminal, Ctrl-A x ends the machine.\n",
	      status ? stderr : stdout);
	exit(status);
}

static void add_disk(char *text)
{
	const char *what;

	if (vmm.n_disks == DISKS_MAX)
		give_up("more than %d disks", DISKS_MAX);
	if (disk_parse(text, &vmm.disks[vmm.n_disks++].options, &what) < 0)
		give_up("--disk: %s: a disk is " DISK_SYNTAX, what);
}

static struct options parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "kernel", required_argument, NULL, 'k' },
		{ "initrd", required_argument, NULL, 'i' },
		{ "append", required_argument, NULL, 'a' },
		{ "memory", required_argument, NULL, 'm' },
		{ "disk", required_argument, NULL, 'd' },
		{ "records", no_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct options options = { .cmdline = "", .memory_mib = 256 };
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) >= 0) {
		switch (c) {
		case 'k':
			options.kernel = optarg;
			break;
		case 'i':
			options.initrd = optarg;
			break;
		case 'a':
			options.cmdline = optarg;
			break;
		case 'm':
			options.memory_mib = strtoul(optarg, NULL, 0);
			break;
		case 'd':
			add_disk(optarg);
			break;
		case 'r':
			options.records = true;
			break;
		case 'h':
			usage(0);
		default:
			usage(2);
		}
	}
	if (!options.kernel || optind < argc)
		usage(2);
	if (options.memory_mib < 64 || options.memory_mib > MEMORY_MAX >> 20)
		give_up("--memory is from 64 to %u",
			(unsigned)MEMORY_MAX >> 20);
	return options;
}

int main(int argc, char **argv)
{
	const struct options options = parse(argc, argv);
	const struct sigaction action = { .sa_handler = on_signal };
	struct ktvblk_mem *mem;
	char cmdline[2048];
	const char *why;
	int status;

	run_thread = pthread_self();
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	if (options.records)
		ktvblk_set_log_handler(print_record, NULL, NULL);
	snprintf(cmdline, sizeof(cmdline), "console=ttyS0 reboot=k panic=-1 %s",
		 options.cmdline);
	vmm.ram_size = (uint64_t)options.memory_mib << 20;
	make_vm();
	mem = make_memory();
	for (unsigned int i = 0; i < vmm.n_disks; i++)
		plug_disk(i, mem);
	acpi_build(&vmm);
	boot_load(&vmm, options.kernel, options.initrd, cmdline);
	boot_cpu(&vmm);
	serial_start(&vmm, quit);
	why = run_guest();
	status = end_disks();
	/* The guest is over. The last reference unmaps its memory. */
	close(vmm.vcpu_fd);
	close(vmm.vm_fd);
	ktvblk_mem_unref(mem);
	ktvblk_log_flush(1000);
	fprintf(stderr, "ktvblk-vmm: end of the guest: %s\n", why);
	return status;
}
