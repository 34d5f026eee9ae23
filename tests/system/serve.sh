#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# ktvblk-serve in $BUILD (build): what it is asked for, how it ends, whom it
# tells. The front end is QEMU, whose firmware boots a sector that reads another
# one for ever, and writes what it finds to the serial port. As root also with
# storage that hangs, in a mount namespace of its own.

if [ "$(id -u)" -eq 0 ] && [ "${SERVE_INSIDE-}" != yes ]; then
	SERVE_INSIDE=yes exec unshare -m --propagation private "$0" "$@"
fi

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
# shellcheck source-path=SCRIPTDIR source=machine.sh
. "$here/machine.sh"
work=$(mktemp -d)
# shellcheck disable=SC2317 # called by the trap
clean_up() {
	exec 2>/dev/null # of what is killed
	for job in "${jobs_of[@]}"; do
		kill -KILL "$job"
	done
	wait
	umount -l fuse
	cd /
	rm -rf "$work"
}
trap clean_up EXIT
cd "$work" || exit 1
show=(out err)
export LD_LIBRARY_PATH=$BUILD
unset NOTIFY_SOCKET LISTEN_FDS LISTEN_PID WATCHDOG_USEC WATCHDOG_PID
serve=$BUILD/ktvblk-serve
: >out
: >err

make_disk() { "$top/src/demo/qemu/sector.sh" "$1"; }

# ends STATUS ARGUMENT...: it ends by itself with this status, and one line says
# why.
ends() {
	local rc want=$1
	shift
	timeout 100 "$serve" "$@" >out 2>err </dev/null
	rc=$?
	[ $rc -eq "$want" ] || { echo "exit status $rc, not $want"; return 1; }
	[ "$want" -eq 0 ] || [ "$(grep -c '^ktvblk-serve: ' err)" -eq 1 ] &&
		[ "$(wc -l <err)" -le 1 ]
}
# bad TEXT ARGUMENT...: that is no command line, and this says why.
bad() {
	local text=$1
	shift
	ends 2 "$@" && grep -qF -- "$text" err
}
fails() {
	local text=$1
	shift
	ends 1 "$@" && grep -qF -- "$text" err
}

# Of a server that is to end in good order, however busy the machine is, and what
# that may add to the end of another.
budget=1min late_ms=8000
# start ARGUMENT...: a server at the socket "socket".
start() {
	rm -f socket
	"$serve" --socket-path="$work/socket" ${budget:+"--timeout=$budget"} \
		"$@" >out 2>err </dev/null &
	server=$!
	jobs_of+=("$server")
	eventually listens
}
listens() {
	listens_at "$work/socket" || ! kill -0 "$server" 2>/dev/null
}
ms() {
	local now
	now=$(date +%s%N)
	echo $((now / 1000000))
}
# stop STATUS [MS]: SIGTERM ends it with this status, in so long and what a busy
# machine adds.
stop() {
	local rc begun
	begun=$(ms)
	kill -TERM "$server" 2>/dev/null
	wait "$server"
	rc=$?
	took=$(($(ms) - begun))
	[ $rc -eq "$1" ] || { echo "exit status $rc, not $1"; return 1; }
	[ $took -le "${2-60000}" ] || { echo "took $took ms"; return 1; }
}

offers() { [ $(($(asked 1) >> $1 & 1)) -eq 1 ]; }
lacks() { [ $(($(asked 1) >> $1 & 1)) -eq 0 ]; }
# The first 8 bytes of config space, behind offset, size and flags.
has_sectors() { [ "$(asked 24 0000000008000000000000000000000000000000)" = "$1" ]; }

is_json() {
	perl -MJSON::PP -0777 -ne '
		$c = decode_json($_);
		exit !($c->{type} eq "block" &&
			"@{[sort @{$c->{features}}]}" eq "blk-file read-only")' "$@"
}

echo '- the command line'
truncate -s 4M image
make_disk image
some=(--socket-path=socket --blk-file=image)
check 'capabilities' ends 0 --print-capabilities
check '... are JSON' is_json out
check '... whatever else there is' ends 0 --nonsense --print-capabilities x
check '... are JSON' is_json out
check 'help' ends 0 --help
check 'version' ends 0 --version
check 'no disk' bad 'no disk' --socket-path=socket
check 'two disks' bad 'give one of them' "${some[@]}" --nbd=nbd://localhost
check 'no socket' bad 'no socket' --blk-file=image
for value in '' on yes; do
	check "--discard=$value" bad "--discard=$value: give" "${some[@]}" --discard=$value
done
check 'two sockets' bad 'give one of them' "${some[@]}" --fd=3
check 'an option that is none' bad "'--nonsense'" "${some[@]}" --nonsense
check 'an argument' bad "'nonsense'" "${some[@]}" nonsense
check 'no value' bad "'--name'" "${some[@]}" --name
for value in '' 0 17 -1 1x 18446744073709551617 ' 1' 0x1; do
	check "--num-queues=$value" bad "--num-queues=$value: give" "${some[@]}" \
		--num-queues="$value"
done
for value in 0 1025 many; do
	check "--depth=$value" bad "--depth=$value: give" "${some[@]}" --depth=$value
done
for value in 0 0s 61min 1h 1.5s 4294967296; do
	for option in --timeout --stall-warn; do
		check "$option=$value" bad "$option=$value: give" "${some[@]}" \
			$option=$value
	done
done
for value in 0 K 1KB 1P 16777216T; do
	check "--bps=$value" bad "--bps=$value: give" "${some[@]}" --bps=$value
done
for value in 0 1K -3; do
	check "--iops=$value" bad "--iops=$value: give" "${some[@]}" --iops=$value
done
check 'a burst without its rate' bad '--bps-burst' "${some[@]}" --bps-burst=1M
check 'a burst below its rate' bad '--iops-burst' "${some[@]}" --iops=10 \
	--iops-burst=9
check 'a serial that is too long' bad 'at most 20 bytes' "${some[@]}" \
	--serial=123456789012345678901
check 'a serial that is no text' bad --serial "${some[@]}" --serial=$'a\nb'
check 'a name that is no UTF-8' bad --name "${some[@]}" --name=$'\xff'
check 'a path that is too long' bad 'at most 107 bytes' --blk-file=image \
	--socket-path="$(printf '%0108d' 0)"
check '--direct of no file' bad --direct --socket-path=socket --direct \
	--nbd=nbd://localhost
check '--wait of no file' bad --wait --socket-path=socket --wait \
	--nbd=nbd://localhost
check '--wait without a lock' bad 'give one of them' "${some[@]}" --wait --no-lock
check '--nbd-keeps-writes of a file' bad --nbd-keeps-writes "${some[@]}" \
	--nbd-keeps-writes
check '--fd that is none' bad 'no UNIX stream socket' --blk-file=image --fd=99
check '--fd of a file' bad 'no UNIX stream socket' --blk-file=image --fd=0
check 'no such file' fails 'none: No such file' --socket-path=socket --blk-file=none
check 'a directory' fails '.: ' --socket-path=socket --blk-file=.
check 'a device that is no disk' fails '/dev/null: ' --socket-path=socket \
	--blk-file=/dev/null
mkfifo fifo
check 'a pipe' fails 'fifo: ' --socket-path=socket --blk-file=fifo
check 'a socket in no directory' fails 'none/socket: No such file' \
	--blk-file=image --socket-path=none/socket
check 'a file in the place of the socket' fails 'no socket' --blk-file=image \
	--socket-path=image
check '... which is still there' [ -s image ]
check 'no option left a socket behind' [ ! -e socket ]

echo '- a file of options'
# conf LINE...
conf() { printf '%s\n' "$@" >conf; }
conf '# a comment' '' '  blk-file = image' 'read-only' 'depth=4' 'timeout = 2s'
check 'a file' start --config=conf
check '... is taken' [ -S socket ]
check '... and the end is good' stop 0
conf 'blk-file=image' 'dept=4'
check 'a line that is none' bad 'conf:2: dept: there is no such option' --config=conf
conf 'blk-file=image' 'depth=none'
check 'a value that is none' bad 'conf:2: depth=none: give' --config=conf
conf 'blk-file'
check 'a value that is not there' bad 'conf:1: blk-file: give a value' --config=conf
conf 'read-only=yes'
check 'a value too many' bad 'conf:1: read-only: takes no value' --config=conf
conf 'config=conf'
check 'a file in a file' bad 'conf:1: config: there is no such option' --config=conf
check 'no such file' bad 'none: No such file' --config=none

echo '- one image, one writer'
check 'a server' start --blk-file=image
check 'a second one' fails 'image: in use by process' --socket-path=socket2 \
	--blk-file=image
check '... says who' grep -qE 'process [0-9]+ \(ktvblk-serve\)' err
check 'one that reads' fails 'image: in use by' --socket-path=socket2 \
	--blk-file=image --read-only
check 'one at its socket' fails 'another server listens there' \
	--socket-path=socket --blk-file=image --no-lock
"$serve" --wait --timeout=$budget --socket-path=socket2 --blk-file=image \
	2>err2 </dev/null &
second=$!
jobs_of+=("$second")
check 'one that waits' eventually grep -q 'in use by .*: waiting' err2
check '... and does not serve' [ ! -e socket2 ]
check '... the first one ends' stop 0
check '... it serves' eventually [ -S socket2 ]
server=$second
check '... and ends' stop 0
check 'sockets are gone' [ ! -e socket ] && [ ! -e socket2 ]
check 'two that read' start --blk-file=image --read-only
"$serve" --read-only --timeout=$budget --socket-path=socket2 --blk-file=image \
	2>err2 </dev/null &
second=$!
jobs_of+=("$second")
check '... serve' eventually [ -S socket2 ]
check '... and one ends' stop 0
server=$second
check '... and the other' stop 0
check 'one that waits may be ended' start --blk-file=image
"$serve" --wait --socket-path=socket2 --blk-file=image 2>err2 </dev/null &
second=$!
jobs_of+=("$second")
check '... it waits' eventually grep -q 'in use by .*: waiting' err2
first=$server server=$second
check '... no longer' stop 0
server=$first
check '... the first one too' stop 0

echo '- ends'
check 'a server' start --blk-file=image
kill -KILL "$(child_of "$server")"
wait "$server"
check 'whose child dies' [ $? -eq 1 ]
check '... says so' grep -q 'the server has died: Killed' err
check '... and leaves its socket' [ -S socket ]
"$serve" "${some[@]}" --timeout=$budget 2>err </dev/null &
server=$!
jobs_of+=("$server")
connects() { perl -MIO::Socket::UNIX -e \
	'exit !IO::Socket::UNIX->new(Peer => "socket")'; }
check '... which the next one takes, and the lock' eventually connects
check '... it ends' stop 0
check '... and takes it away' [ ! -e socket ]
check 'SIGINT' start --blk-file=image
kill -INT "$server"
wait "$server"
check '... is as good' [ $? -eq 0 ]
check 'killed' start --blk-file=image
child=$(child_of "$server")
{ kill -KILL "$server"; wait "$server"; } 2>/dev/null
gone_is() { [ ! -e "/proc/$1" ]; }
check '... it is gone with its child' eventually gone_is "$child"
check '... and the next may start' start --blk-file=image
check '... and end' stop 0
check 'who takes its socket' start --blk-file=image
rm socket
truncate -s 4M other
mkfifo socket
check '... keeps it' stop 0
check '... when it ends' [ -p socket ]
rm socket

echo '- systemd'
cat >listen.pl <<'END'
use Socket;
$| = 1;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die;
bind($s, pack_sockaddr_un("notify")) or die;
print "listening\n";
while (defined(recv($s, my $m, 4096, 0))) { $m =~ s/\n/ /g; print "$m\n" }
END
perl listen.pl >>told &
listener=$!
jobs_of+=("$listener")
check 'a listener' eventually grep -q listening told
export NOTIFY_SOCKET=$work/notify WATCHDOG_USEC=200000
budget='' check 'a server' start --blk-file=image --name=vda
check '... is ready' eventually grep -q '^READY=1 STATUS=vda: idle, 8192 sectors, no front end' told
signs() { [ "$(grep -c '^WATCHDOG=1' told)" -ge "$1" ]; }
check '... gives signs of life' eventually signs 5
truncate -s 8M image
kill -HUP "$server"
check '... reads its size again' eventually grep -q '^STATUS=vda: idle, 16384 sec' told
child=$(child_of "$server")
kill -STOP "$child"
check '... it ends all the same' stop 3 20000
check '... and says that it does' eventually grep -q '^STOPPING=1' told
kill -KILL "$child"
unset WATCHDOG_USEC
: >told
check 'one that waits' start --blk-file=image
"$serve" --wait --socket-path=socket2 --blk-file=image 2>err2 </dev/null &
second=$!
jobs_of+=("$second")
check '... says for whom' eventually \
	grep -q '^STATUS=waiting for image, in use by process' told
kill "$second"
wait "$second"
check '... the other ends' stop 0
unset NOTIFY_SOCKET
if command -v systemd-socket-activate >/dev/null && has_qemu; then
	rm -f socket
	systemd-socket-activate -l "$work/socket" --setenv=LD_LIBRARY_PATH \
		"$serve" --blk-file=image --timeout=$budget \
		>out 2>err </dev/null &
	server=$!
	jobs_of+=("$server")
	check 'a socket of systemd'\''s' eventually [ -S socket ]
	boot
	check '... is served' reads_on
	halt
	check '... and again' listens
	boot
	check '... by the same' reads_on
	halt
	check '... it ends' stop 0
	check '... and leaves systemd'\''s socket' [ -S socket ]
	rm -f socket
	# The same as a descriptor.
	systemd-socket-activate -l "$work/socket" --setenv=LD_LIBRARY_PATH \
		env -u LISTEN_FDS "$serve" --blk-file=image --fd=3 \
		--exit-on-disconnect --timeout=$budget >out 2>err </dev/null &
	server=$!
	jobs_of+=("$server")
	check 'a descriptor' eventually [ -S socket ]
	boot
	check '... is served' reads_on
	halt
	wait $server
	check '... until it is let go' [ $? -eq 0 ]
	rm -f socket
else
	skip 'no systemd-socket-activate, or no qemu-system-x86_64'
fi
if command -v systemd-analyze >/dev/null; then
	cp "$BUILD"/units/ktvblk-serve@.{service,socket} .
	hardened() {
		systemd-analyze security --offline=yes --no-pager \
			--threshold=20 ./ktvblk-serve@.service >out 2>&1
	}
	check 'the unit is hardened' hardened
	list_calls
	${CC:-cc} -D_GNU_SOURCE -I. -o filtered "$here/filtered.c" || exit 1
	# expand NAME...: groups are lists, of groups too.
	expand() {
		local name
		for name; do
			case $name in
			@*) mapfile -t members < <(systemd-analyze --no-pager \
					syscall-filter "$name" |
					sed -n 's/^ *\([a-z0-9_]\)/\1/p; s/^  *@/@/p')
				expand "${members[@]}" ;;
			*) echo "$name" ;;
			esac
		done
	}
	mapfile -t lists < <(sed -n 's/^SystemCallFilter=//p' ktvblk-serve@.service)
	read -ra given <<<"${lists[0]}"
	read -ra taken <<<"${lists[1]#\~}"
	# What starts a program is always there.
	expand @default execve "${given[@]}" | sort -u >given
	expand "${taken[@]}" | sort -u | comm -23 given - >allowed
	check 'the unit'\''s system calls are some' \
		[ "$(grep -cxe pread64 -e io_uring_enter -e accept4 allowed)" -eq 3 ]
	check '... and not all' eval '! grep -qxe ptrace -e mount -e setuid allowed'
fi
check 'what QEMU'\''s users look for' perl -MJSON::PP -0777 -ne '
	$c = decode_json($_); exit !($c->{type} eq "block" &&
	$c->{binary} =~ m{^/.*/ktvblk-serve$})' "$BUILD/units/50-ktvblk.json"

echo '- what a front end is offered'
ro=5 discard=13 write_zeroes=14
check 'a server' start --blk-file=image
check '... has the size of the file' has_sectors $(($(stat -c %s image) / 512))
check '... is to be written' lacks $ro
check '... takes back space' offers $discard
check '... and has zeros' offers $write_zeroes
check '... it ends' stop 0
check 'one of --discard=off' start --blk-file=image --discard=off
check '... takes no space back' lacks $discard
check '... it ends' stop 0
check 'one of --read-only' start --blk-file=image --read-only
check '... is not to be written' offers $ro
check '... nor gives space back' lacks $discard
check '... it ends' stop 0

has_qemu || { skip 'no qemu-system-x86_64 here: front ends'; sums; exit; }

echo '- a front end'
check 'a server' start --blk-file=image --exit-on-disconnect
boot
check '... is of use' reads_on
halt
wait "$server"
check '... and ends with it' [ $? -eq 0 ]
check 'one for many' start --blk-file=image --direct --num-queues=1 --depth=1
for _ in 1 2; do
	boot
	check '... is of use' reads_on
	halt
done
boot
check '... to a third' reads_on
check '... and ends under it' stop 0 $((5000 + late_ms))
check 'the next is found by the same machine' start --blk-file=image
check '... and is of use' reads_on
halt
check '... it ends' stop 0
check 'limits' start --blk-file=image --iops=2 --iops-burst=2
boot
check '... hold' eventually has_read 3
# Three of them may be out, or have what they need: 4.5 seconds for the others.
begun=$SECONDS before=$(n_reads)
eventually has_read $((before + 12))
check '... 12 take more than three seconds' [ $((SECONDS - begun)) -gt 3 ]
halt
check '... it ends' stop 0

if [ -s allowed ]; then
	printf '#!/bin/sh\nexec %s/filtered %s/allowed %s "$@"\n' \
		"$work" "$work" "$serve" >behind
	chmod +x behind
	plain=$serve serve=$work/behind
	check 'behind the unit'\''s filter' start --blk-file=image
	boot
	check '... it is of use' reads_on
	check '... has nothing to say' [ ! -s err ]
	check '... and ends' stop 0
	halt
	serve=$plain
fi

echo '- NBD'
# nbd ARGUMENT...: nbdkit, at the socket "nbd".
nbd() {
	rm -f nbd
	nbdkit -f -U nbd "$@" >nbdkit 2>&1 </dev/null &
	nbdkit=$!
	jobs_of+=("$nbdkit")
	eventually listens_at "$work/nbd"
}
gone() {
	kill "-$1" $nbdkit
	wait $nbdkit 2>/dev/null
}
tells_last() { tail -n 1 told | grep -q -- "$1"; }
uri="nbd+unix:///?socket=$work/nbd"
if command -v nbdkit >/dev/null && ldd "$serve" | grep -q libnbd; then
	check 'no server' fails "$uri: " --socket-path=socket --nbd="$uri"
	check 'no URI' fails 'nonsense: ' --socket-path=socket --nbd=nonsense
	nbd file image
	check 'a server' start --nbd="$uri"
	boot
	check '... is of use' reads_on
	gone KILL
	before=$(n_reads)
	nbd file image
	check '... goes on with the next' reads_on
	gone TERM
	nbd file image
	check '... and the next' reads_on
	truncate -s 16M image
	kill -HUP "$server"
	check '... and when its size is read again' reads_on
	check '... without an error' no_errors
	check '... it ends' stop 0
	halt
	export NOTIFY_SOCKET=$work/notify
	check 'a server' start --nbd="$uri" --timeout=500ms --stall-warn=1s
	unset NOTIFY_SOCKET
	boot
	check '... is of use' reads_on
	kill -STOP $nbdkit
	: >told
	check '... waits for the other one' eventually tells_last ': stalled, '
	check '... ends while that hangs' stop 3 $((3000 + late_ms))
	# Its guard may have ended before it.
	check '... and says so' eventually grep -q 'did not come back: timed out' err
	kill -CONT $nbdkit
	halt
	check 'a server' start --nbd="$uri"
	check '... has the size of the export' has_sectors $((16 << 11))
	check '... takes no space back' lacks $discard
	for mib in 24 12; do
		truncate -s ${mib}M image
		kill -HUP "$server"
		check '... and another one, when it is told' \
			eventually has_sectors $((mib << 11))
	done
	check '... it ends' stop 0
	gone TERM
else
	skip 'no nbdkit here, or no libnbd'
fi

echo '- storage that hangs'
mkdir fuse
SLOWFS=$BUILD/tests/system/slowfs
slowfs=0
if [ "$(id -u)" -eq 0 ]; then
	"$SLOWFS" control fuse -f -o max_threads=64 \
		>slowfs 2>&1 &
	slowfs=$!
	jobs_of+=("$slowfs")
fi
mounted() { mountpoint -q fuse || ! kill -0 $slowfs 2>/dev/null; }
eventually mounted
if mountpoint -q fuse; then
	make_disk fuse/direct0
	check 'a server' start --blk-file=fuse/direct0 --timeout=500ms
	boot
	check '... is of use' reads_on
	hold 1
	check '... hangs in a read' eventually held
	child=$(child_of "$server")
	check '... ends within its budget' stop 3 $((2500 + late_ms))
	check '... says so' eventually \
		grep -q 'direct0 did not come back: timed out' err
	check '... its socket is gone' [ ! -e socket ]
	# By a process, or by the kernel alone.
	check '... while the image is still in use' fails "in use by" \
		--socket-path=socket --blk-file=fuse/direct0
	"$serve" --wait --timeout=$budget --socket-path=socket \
		--blk-file=fuse/direct0 2>err2 </dev/null &
	server=$!
	jobs_of+=("$server")
	check 'the next waits for it' eventually grep -q 'in use by .*: waiting' err2
	halt
	hold 0
	check '... and serves once it is gone' eventually [ -S socket ]
	check '... as is the child' eventually gone_is "$child"
	boot
	check '... and is of use' reads_on
	halt
	check '... it ends' stop 0
	{ kill -KILL $slowfs; wait $slowfs; } 2>/dev/null
else
	skip 'no FUSE here, or not root'
fi
sums
