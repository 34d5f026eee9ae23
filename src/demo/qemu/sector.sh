#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sector.sh FILE: a boot sector, at the start of FILE, that reads the next one for
# ever. To the serial port it writes a K for each time that this was well, and an
# E for each error.

{
	printf '\061\300\216\330\216\300'             # ds = es = 0
	printf '\270\001\002\271\002\000\266\000'     # read sector 2
	printf '\273\000\200\315\023'                 # ... to 0x8000
	printf '\162\005\240\000\200\353\002'         # al = its first byte
	printf '\260\105'                             # ... or E
	printf '\122\272\370\003\356\132'             # to the serial port
	printf '\353\342'                             # again
	head -c 474 /dev/zero
	printf '\125\252K'
} | dd of="$1" bs=4096 iflag=fullblock conv=notrunc,sync status=none
