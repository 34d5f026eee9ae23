/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "file.h"
#include "say.h"

void file_write(FILE *file, const void *from, size_t size)
{
	/* Where this fails the stream remembers that. */
	(void)!fwrite(from, size, 1, file);
}

void file_read(FILE *file, void *to, size_t size)
{
	if (fread(to, size, 1, file) != 1)
		give_up("the saved machine is cut short");
}
