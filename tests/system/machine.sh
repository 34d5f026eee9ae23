# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the tests in bash: front ends of the server at $SOCKET. A machine's firmware
# boots from a disk of sector.sh's, which reads for ever.

SOCKET=socket
jobs_of=() # all processes that were started

has_qemu() { command -v qemu-system-x86_64 >/dev/null; }
# boot: a machine with the disk.
boot() {
	: >serial
	qemu-system-x86_64 -M q35,accel=tcg -m 64 -display none -monitor none \
		-object memory-backend-memfd,id=ram,size=64M,share=on \
		-numa node,memdev=ram -nodefaults -serial file:serial \
		-chardev "socket,id=disk,path=$SOCKET,reconnect=1" \
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

# asked REQUEST [BYTES]: the last 8 bytes of what a front end is answered, as a
# number.
asked() {
	perl -MIO::Socket::UNIX -e '
		my ($socket, $request, $bytes) = @ARGV;
		$bytes = pack "H*", $bytes // "";
		$s = IO::Socket::UNIX->new(Peer => $socket) or die $!;
		$s->syswrite(pack "L3 a*", $request, 1, length $bytes, $bytes);
		$s->sysread($head, 12) == 12 or die;
		$size = (unpack "L3", $head)[2];
		$s->sysread($answer, $size) == $size or die;
		print unpack("Q", substr $answer, -8), "\n"' "$SOCKET" "$@"
}

# The process that serves, of the one that was started.
child_of() { tr -d ' ' <"/proc/$1/task/$1/children"; }

# Of slowfs, in the file "control": hold so many reads, and is one held?
hold() { "$SLOWFS-hold" control "$1"; }
held() { [ "$(od -An -tu4 -j4 -N4 control)" -ge 1 ]; }
