#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# demo.sh DIR: QEMU with a disk of DIR/ktvblk-serve, whose storage, an NBD server,
# is stopped under it. The guest is QEMU's firmware and a sector that reads for
# ever.

set -eu
here=$(realpath "$(dirname "$0")")
serve=$(realpath "$1")/ktvblk-serve
LD_LIBRARY_PATH=$(realpath "$1")
export LD_LIBRARY_PATH
work=$(mktemp -d)
trap 'kill -KILL $(jobs -p) 2>/dev/null || :; wait; rm -rf "$work"' EXIT
cd "$work"

say() { printf '\n%s\n' "$*"; }
until_there() {
	for _ in $(seq 600); do
		! "$@" || return 0
		sleep 0.05
	done
	echo "this does not come: $*" >&2
	exit 1
}
reads() { tr -cd K <serial | wc -c; }
has_read() { [ "$(reads)" -gt "$1" ]; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

truncate -s 64M image
"$here/sector.sh" image
nbdkit -f -U storage file image >/dev/null 2>&1 &
storage=$!
until_there test -S storage
"$serve" --socket-path=disk --nbd="nbd+unix:///?socket=$work/storage" \
	--name=vda --stall-warn=1s &
server=$!
until_there test -S disk
: >serial
qemu-system-x86_64 -M q35,accel=kvm:tcg -m 64 -display none -nodefaults \
	-object memory-backend-memfd,id=ram,size=64M,share=on \
	-numa node,memdev=ram -serial file:serial \
	-chardev socket,id=vda,path=disk \
	-device vhost-user-blk-pci,chardev=vda,num-queues=1 \
	-monitor unix:monitor,server=on,wait=off &
machine=$!
say 'A guest of QEMU reads its disk, which ktvblk-serve has on an NBD server:'
until_there has_read 50
echo "  $(reads) reads"

say 'The server is stopped:'
kill -STOP $storage
sleep 1
before=$(reads)
sleep 1
echo "  $(($(reads) - before)) reads in a second"

say 'QEMU is told to quit:'
begun=$(now_ms)
perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Peer => "monitor")
	or die "monitor: $!\n"; print $s "quit\n"; $s->flush; 1 while <$s>'
wait $machine
echo "  it has, after $(($(now_ms) - begun)) ms"

say 'So is ktvblk-serve:'
begun=$(now_ms)
kill $server
rc=0
wait $server || rc=$?
echo "  it has ended, after $(($(now_ms) - begun)) ms, with status $rc"
