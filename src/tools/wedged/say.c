/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "say.h"

const char program_name[] = PROGRAM;

int flush(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	complain("standard output: %s", strerror(errno));
	return -EIO;
}
