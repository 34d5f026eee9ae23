# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the tests in bash: a machine whose firmware boots from a disk of
# sector.sh's, which reads for ever, and what it has read so far.

jobs_of=() # all processes that were started

# boot [SOCKET]: a machine with the disk that is served there.
boot() {
	: >serial
	qemu-system-x86_64 -M q35,accel=tcg -m 64 -display none -monitor none \
		-object memory-backend-memfd,id=ram,size=64M,share=on \
		-numa node,memdev=ram -nodefaults -serial file:serial \
		-chardev "socket,id=disk,path=${1-socket},reconnect=1" \
		-device vhost-user-blk-pci,chardev=disk,num-queues=1 \
		>qemu 2>&1 </dev/null &
	machine=$!
	jobs_of+=("$machine")
}
halt() {
	kill -KILL "$machine" 2>/dev/null
	wait "$machine" 2>/dev/null
}
n_reads() { tr -cd K <serial | wc -c; }
has_read() { [ "$(n_reads)" -ge "$1" ]; }
reads_on() { eventually has_read $(($(n_reads) + 20)); }
no_errors() { ! grep -q E serial; }

# Of slowfs, in the file "control": hold so many reads, and is one held?
hold() { "$SLOWFS-hold" control "$1"; }
held() { [ "$(od -An -tu4 -j4 -N4 control)" -ge 1 ]; }
