/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The names are those of QEMU's schema of vhost-user backends. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "capabilities.h"
#include "say.h"

int capabilities_print(void)
{
	puts("{\n"
	     "  \"type\": \"block\",\n"
	     "  \"features\": [\n"
	     "    \"read-only\",\n"
	     "    \"blk-file\"\n"
	     "  ]\n"
	     "}");
	if (fflush(stdout) == 0 && !ferror(stdout))
		return STATUS_GOOD;
	complain("standard output: %s", strerror(errno));
	return STATUS_FAILED;
}
