/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program outside the tree: what pkg-config says of an installed library is
 * enough to build it, and the library it runs with is the one it was built for.
 */
#include <ktvblk.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
	printf("libktvblk %s\n", ktvblk_version());
	return strcmp(ktvblk_version(), KTVBLK_VERSION) ? 1 : 0;
}
