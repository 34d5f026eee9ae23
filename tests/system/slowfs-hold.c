/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* slowfs-hold CONTROL CALLS: hang these from now on, 0: none. See slowfs.h. */

#include <stdio.h>
#include <stdlib.h>

#include "slowfs.h"

int main(int argc, char **argv)
{
	struct slowfs *slow = argc == 3 ? slowfs_map(argv[1]) : NULL;

	if (!slow) {
		fprintf(stderr, "usage: %s CONTROL CALLS\n", argv[0]);
		return 2;
	}
	slowfs_hold(slow, (uint32_t)atoi(argv[2]));
	return 0;
}
