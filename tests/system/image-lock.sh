#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# One image, one writer: ktvblk_image_lock() against qemu-img and
# qemu-storage-daemon, both ways; and ktvblk-serve at both ends of a migration.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
work=$(mktemp -d)
daemon='' servers=()
# shellcheck disable=SC2317 # called by the trap
clean_up() {
	kill -KILL $daemon "${servers[@]}" 2>/dev/null
	wait
	rm -rf "$work"
}
trap clean_up EXIT
cd "$work" || exit 1
show=(out)
command -v qemu-img >/dev/null && command -v qemu-storage-daemon >/dev/null || {
	skip 'no qemu-img and qemu-storage-daemon here'
	sums
	exit
}
build holder "$here/image-lock-holder.c"
truncate -s 1M image

# holds r|w: it is ours.
holds() {
	coproc HOLDER { exec ./holder "$1" image; }
	# shellcheck disable=SC2153 # coproc sets it
	holder=$HOLDER_PID
	read -r -t 120 answer <&"${HOLDER[0]}" && [ "$answer" = locked ]
}
lets_go() {
	# shellcheck disable=SC1083,SC2093
	exec {HOLDER[1]}>&-
	wait "$holder"
}

# refused r|w: it is not.
refused() {
	./holder "$1" image >out </dev/null
	[ $? -eq 1 ] && grep -qx 'Device or resource busy' out
}
taken() {
	./holder "$1" image >out </dev/null
}

# daemon_has on|off: qemu-storage-daemon has it, read-only or not.
daemon_has() {
	rm -f pid
	qemu-storage-daemon --pidfile pid \
		--blockdev driver=file,node-name=image,filename=image,locking=on \
		--nbd-server addr.type=unix,addr.path=nbd \
		--export type=nbd,id=x,node-name=image,writable="$1" \
		>out 2>&1 </dev/null &
	daemon=$!
	eventually [ -s pid ]
}
daemon_ends() {
	kill "$daemon"
	wait "$daemon"
	daemon=''
}

# qemu STATUS COMMAND...: it ends so, and if badly for the lock.
qemu() {
	local want=$1 rc
	shift
	timeout 100 "$@" >out 2>&1 </dev/null
	rc=$?
	[ $rc -eq "$want" ] || { echo "exit status $rc, not $want"; return 1; }
	[ "$want" -eq 0 ] || grep -q 'Failed to get .* lock' out
}
qsd=(qemu-storage-daemon --pidfile pid2 --blockdev
	driver=file,node-name=image,filename=image,locking=on)

# Ours first.
check 'we write' holds w
check '... qemu-img does not resize it' qemu 1 qemu-img resize -f raw image 2M
check '... nor convert it' qemu 1 qemu-img convert -O raw image copy
check '... unless it is told to' qemu 0 qemu-img convert -U -O raw image copy
check '... qemu-storage-daemon does not write it' qemu 1 "${qsd[@]}" \
	--nbd-server addr.type=unix,addr.path=nbd2 \
	--export type=nbd,id=x,node-name=image,writable=on
check '... we do not a second time' refused w
check '... nor read' refused r
check '... let go' lets_go
check '... and all is as before' qemu 0 qemu-img resize -f raw image 2M

check 'we read' holds r
check '... qemu-img reads it' qemu 0 qemu-img convert -O raw image copy
check '... and does not resize it' qemu 1 qemu-img resize -f raw image 3M
check '... qemu-storage-daemon does not write it' qemu 1 "${qsd[@]}" \
	--nbd-server addr.type=unix,addr.path=nbd2 \
	--export type=nbd,id=x,node-name=image,writable=on
check '... we read a second time' taken r
check '... and do not write' refused w
check '... qemu-storage-daemon reads' daemon_has off
check '... beside us' taken r
check '... let go' lets_go
check '... it ends' daemon_ends
check '... and all is as before' taken w

# QEMU's first.
check 'qemu-storage-daemon writes' daemon_has on
check '... and we do not' refused w
check '... nor read' refused r
daemon_ends
check '... it has ended' taken w

# Two servers of one disk: a migration's.
# serve NAME OPTION...: it says what it has to say in NAME.err.
serve() {
	local name=$1
	shift
	"$BUILD/ktvblk-serve" --socket-path="$work/$name" --blk-file=image \
		--timeout=1min "$@" 2>"$name.err" </dev/null &
	servers+=($!)
	eventually listens_at "$work/$name"
}
# ends N: the one that was started as the Nth.
ends() {
	kill "${servers[$1]}"
	wait "${servers[$1]}"
}
check 'it is served' serve first
check '... and at the other end of a migration' serve second --incoming
check '... which says that it is not locked' \
	grep -q 'in use by .*: locked once that has ended$' second.err
check '... nobody else writes it' refused w
check 'the first ends' ends 0
check '... the second has the lock' \
	eventually grep -q ': image: locked$' second.err
check '... nobody else writes it now' refused w
check '... nor does qemu-img' qemu 1 qemu-img resize -f raw image 3M
check 'the second ends' ends 1
check '... and all is as before' taken w
check 'an image that nobody has' serve third --incoming
check '... is locked at once' refused w
check '... without a word' [ ! -s third.err ]
check '... until its end' ends 2
sums
