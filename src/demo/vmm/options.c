/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

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
	     "  --save FILE       on SIGUSR2 save the machine there, and end\n"
	     "  --restore FILE    go on with it, with the same disks, in the "
	     "place of a\n"
	     "                    boot; --kernel is for a reboot then\n"
	     "  --disk DISK       one more disk, of up to 8:\n"
	     "                    FILE[,name=NAME][,serial=TEXT][,ro]\n"
	     "                    [,zero-copy][,iops=N][,bps=N][,queue=N]\n"
	     "                    [,queues=N][,no-event-idx][,no-indirect]\n"
	     "                    [,no-discard][,no-cache][,block=BYTES]\n"
	     "                    [,physical=BYTES][,opt-io=BYTES]\n"
	     "                    [,budget=MS][,stall=MS]; a comma in FILE or\n"
	     "                    TEXT is ,,\n"
	     "  --records         print the disks' records, which else go to "
	     "the journal\n"
	     "  --help            show this\n"
	     "  --version         show the version\n"
	     "\n"
	     "On the console, Ctrl-A x ends the machine, Ctrl-A and a digit "
	     "pulls out the\n"
	     "disk of that number, from 0, Ctrl-A r gives each disk the size "
	     "that its file\n"
	     "has now, Ctrl-A l switches iops and bps off and on, and Ctrl-A "
	     "Ctrl-A is a\n"
	     "Ctrl-A.\n"
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

static void parse_disk(struct vmm *vmm, char *text)
{
	const char *what = "too many";

	if (vmm->n_disks < BUS_SLOTS &&
	    disk_parse(text, &vmm->disks[vmm->n_disks++], &what) == 0)
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

struct options options_parse(int argc, char **argv, struct vmm *vmm)
{
	static const struct option names[] = {
		{ "kernel", required_argument, NULL, 'k' },
		{ "initrd", required_argument, NULL, 'i' },
		{ "append", required_argument, NULL, 'a' },
		{ "memory", required_argument, NULL, 'm' },
		{ "save", required_argument, NULL, 's' },
		{ "restore", required_argument, NULL, 'R' },
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
		case 's':
			options.save = optarg;
			break;
		case 'R':
			options.restore = optarg;
			break;
		case 'd':
			parse_disk(vmm, optarg);
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
	else if (!options.kernel && !options.restore)
		fputs("ktvblk-vmm: neither --kernel nor --restore\n", stderr);
	else
		return options;
	usage_error();
}
