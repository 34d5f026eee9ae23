/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See vmm.h. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm.h"

struct options {
	const char *kernel;
	const char *initrd;
	const char *cmdline;
	uint64_t memory_mib;
};

static struct vmm vmm;
static pthread_t main_thread;
static _Atomic unsigned int asked;

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

/*
 * The main thread leaves KVM_RUN for a signal; immediate_exit is for one that
 * comes just before. SIGUSR1 is vmm_ask()'s, the others are the user's.
 */
static void on_signal(int signal)
{
	if (signal != SIGUSR1)
		atomic_fetch_or(&asked, ASK_QUIT);
	if (vmm.run)
		vmm.run->immediate_exit = 1;
}

static void take_signals(void)
{
	static const int signals[] = { SIGUSR1, SIGINT, SIGTERM, SIGHUP };
	const struct sigaction action = { .sa_handler = on_signal };

	main_thread = pthread_self();
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &action, NULL);
}

void vmm_ask(unsigned int what)
{
	atomic_fetch_or(&asked, what);
	pthread_kill(main_thread, SIGUSR1);
}

static enum end do_what_is_asked(void)
{
	unsigned int what;

	vmm.run->immediate_exit = 0; /* what is asked from now on sets it */
	what = atomic_exchange(&asked, 0);
	for (unsigned int i = 0; i < vmm.n_disks; i++)
		if (what & ASK_UNPLUG(i))
			bus_unplug(&vmm, i);
	return what & ASK_QUIT ? QUIT : RUNNING;
}

static enum end boot_and_run(const struct options *options)
{
	enum end end;

	machine_on(&vmm);
	acpi_build(&vmm);
	boot_load(&vmm, options->kernel, options->initrd, options->cmdline);
	boot_cpu(&vmm);
	do {
		end = do_what_is_asked();
		if (end == RUNNING)
			end = machine_run(&vmm);
	} while (end == RUNNING);
	machine_off(&vmm);
	return end;
}

static void print_help(void)
{
	puts("Usage: ktvblk-vmm --kernel BZIMAGE [OPTION]...\n"
	     "Boot a Linux kernel on KVM, with disks of libktvblk and a serial "
	     "console.\n"
	     "\n"
	     "  --kernel BZIMAGE  the kernel, 64-bit\n"
	     "  --initrd FILE     its initial RAM filesystem\n"
	     "  --append TEXT     add this to its command line, console=ttyS0\n"
	     "  --memory MIB      the guest's memory (256)\n"
	     "  --disk DISK       one more disk, of up to 8:\n"
	     "                    FILE[,name=NAME][,serial=TEXT][,ro]\n"
	     "                    [,zero-copy][,iops=N][,bps=N][,queue=N]\n"
	     "                    [,no-event-idx][,no-indirect][,budget=MS]\n"
	     "                    [,stall=MS]\n"
	     "  --records         print the disks' records, which else go to "
	     "the journal\n"
	     "  --help            show this\n"
	     "  --version         show the version\n"
	     "\n"
	     "On the console, Ctrl-A x ends the machine, Ctrl-A and a digit "
	     "pulls out the\n"
	     "disk of that number, from 0, and Ctrl-A Ctrl-A is a Ctrl-A.\n"
	     "\n"
	     "Exit status: 0, 1 if something failed or a disk was left behind "
	     "stuck, 2 if\n"
	     "the arguments are wrong.");
}

static _Noreturn void usage_error(void)
{
	fputs("Try 'ktvblk-vmm --help'.\n", stderr);
	exit(2);
}

static uint64_t parse_memory(const char *text)
{
	char *end;
	const unsigned long long mib = strtoull(text, &end, 10);

	if (!*end && mib >= MEMORY_MIN_MIB && mib <= MEMORY_MAX_MIB)
		return mib;
	fprintf(stderr, "ktvblk-vmm: --memory is from %d to %d\n",
		MEMORY_MIN_MIB, MEMORY_MAX_MIB);
	usage_error();
}

static void parse_disk(char *text)
{
	const char *what = "too many";

	if (vmm.n_disks < BUS_SLOTS &&
	    disk_parse(text, &vmm.disks[vmm.n_disks++], &what) == 0)
		return;
	fprintf(stderr, "ktvblk-vmm: --disk: %s\n", what);
	usage_error();
}

static const char *parse_cmdline(const char *more)
{
	static char cmdline[CMDLINE_MAX];

	snprintf(cmdline, sizeof(cmdline), "console=ttyS0 %s", more);
	if (strlen(more) < sizeof(cmdline) - sizeof("console=ttyS0 "))
		return cmdline;
	fputs("ktvblk-vmm: --append is too long\n", stderr);
	usage_error();
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
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	struct options options = { .cmdline = "console=ttyS0",
				   .memory_mib = 256 };
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
			options.cmdline = parse_cmdline(optarg);
			break;
		case 'm':
			options.memory_mib = parse_memory(optarg);
			break;
		case 'd':
			parse_disk(optarg);
			break;
		case 'r':
			ktvblk_set_log_handler(disk_print_record, NULL, NULL);
			break;
		case 'h':
			print_help();
			exit(0);
		case 'V':
			printf("ktvblk-vmm %s\n", ktvblk_version());
			exit(0);
		default:
			usage_error();
		}
	}
	if (optind < argc)
		fprintf(stderr, "ktvblk-vmm: what is %s?\n", argv[optind]);
	else if (!options.kernel)
		fputs("ktvblk-vmm: no --kernel\n", stderr);
	else
		return options;
	usage_error();
}

int main(int argc, char **argv)
{
	static const char *const ends[] = { [POWER_OFF] = "power-off",
					    [TRIPLE_FAULT] = "triple fault",
					    [QUIT] = "asked to end" };
	const struct options options = parse(argc, argv);
	struct ktvblk_mem *mem;
	enum end end;
	bool all_joined;

	take_signals();
	vmm.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vmm.kvm_fd < 0)
		fail("/dev/kvm");
	mem = machine_memory(&vmm, options.memory_mib << 20);
	bus_open(&vmm, mem);
	serial_start();
	while ((end = boot_and_run(&options)) == REBOOT)
		bus_reset(&vmm);
	all_joined = bus_close(&vmm);
	ktvblk_mem_unref(mem); /* a disk left behind has a reference as well */
	ktvblk_log_flush(1000);
	fprintf(stderr, "ktvblk-vmm: end of the guest: %s\n", ends[end]);
	return !all_joined;
}
