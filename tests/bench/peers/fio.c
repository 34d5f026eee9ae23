/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See fio.h. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fio.h"

/* Fields of version 3 of its terse format, from 0. */
#define FIO_IOPS 7
#define FIO_RUNTIME_MS 8
#define FIO_USER_PERCENT 87
#define FIO_SYSTEM_PERCENT 88

static double field(const char *line, unsigned int n)
{
	while (n-- && line) {
		line = strchr(line, ';');
		line = line ? line + 1 : NULL;
	}
	return line ? strtod(line, NULL) : 0;
}

bool fio_run(const struct bench_case *what, int file_fd, uint32_t cpu,
	     uint64_t for_ns, struct run *run)
{
	char command[600], line[4096] = "";
	double iops, seconds;
	FILE *fio;

	*run = (struct run){ 0 };
	snprintf(command, sizeof(command),
		 "fio --name=bench --filename=/proc/%d/fd/%d --thread "
		 "--ioengine=io_uring --direct=%d --rw=randread --bs=%" PRIu32
		 " --iodepth=%u --size=%" PRIu64 " --time_based "
		 "--runtime=%" PRIu64 "ms --cpus_allowed=%" PRIu32
		 " --output-format=terse --terse-version=3 2>/dev/null",
		 getpid(), file_fd, what->store == STORE_DIRECT, what->bytes,
		 what->depth, DISK_BYTES, for_ns / NSEC_PER_MSEC, cpu);
	fio = popen(command, "re");
	if (!fio)
		return false;
	if (!fgets(line, sizeof(line), fio))
		line[0] = '\0';
	if (pclose(fio) != 0)
		return false;
	iops = field(line, FIO_IOPS);
	seconds = field(line, FIO_RUNTIME_MS) / 1000;
	if (iops <= 0 || seconds <= 0)
		return false;
	run->requests = (uint64_t)(iops * seconds);
	run->elapsed_ns = (uint64_t)(seconds * 1e9);
	run->worker_cpu_ns = (uint64_t)((field(line, FIO_USER_PERCENT) +
					 field(line, FIO_SYSTEM_PERCENT)) /
					100 * seconds * 1e9);
	return true;
}
