/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * image-lock-holder w|r FILE: lock it, say how that went, and hold the lock until
 * standard input ends.
 */

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ktvblk.h>

int main(int argc, char **argv)
{
	int fd, r;

	if (argc != 3)
		return 2;
	const bool reads = argv[1][0] == 'r';

	fd = open(argv[2], (reads ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0)
		return 2;
	r = ktvblk_image_lock(fd, reads ? KTVBLK_READ_ONLY : 0, NULL);
	puts(r < 0 ? strerror(-r) : "locked");
	fflush(stdout);
	while (r == 0 && getchar() != EOF)
		;
	return r < 0;
}
