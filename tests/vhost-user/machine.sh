# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2154
#
# For run.sh: servers of disks, machines of QEMU's with them, and what they are
# told. $tmp, $build, $here as in guest.sh. What a guest asks for is done by
# another shell than that which began it all, so what both must know is in files.

budget_ms=60000 # where nothing hangs
# What a busy machine may add, and the storage hangs until it has passed.
late_ms=15000

# eventually COMMAND...: it succeeds, sooner or later.
eventually() {
	local until=$((SECONDS + 120))
	until "$@"; do
		[ $SECONDS -lt $until ] || return 1
		sleep 0.02
	done
}

gone() { ! grep -q '^State:.[^Z]' "/proc/$1/status" 2>/dev/null; }

# in_ms COMMAND...: it succeeds, in $took ms.
in_ms() {
	local begin=${EPOCHREALTIME/./}
	"$@" || return
	took=$(((${EPOCHREALTIME/./} - begin) / 1000))
}

# within MS WHAT: what took so long.
within() {
	echo "$2: $took ms, may be $1"
	[ "$took" -le "$1" ]
}

#
# Servers
#

# server NAME IMAGE [OPTION...]: at $tmp/NAME.sock, with the serial NAME.
server() {
	local name=$1
	printf '%s\n' "${@:2}" >"$tmp/$name.options"
	serve "$name"
}

# serve NAME [OPTION...]: as it was told before.
serve() {
	local name=$1 options
	mapfile -t options <"$tmp/$name.options"
	LD_LIBRARY_PATH=$build "$build/ktvblk-serve" --serial="${name%-to}" \
		--socket-path="$tmp/$name.sock" --timeout=${budget_ms}ms \
		--blk-file="${options[0]}" "${options[@]:1}" "${@:2}" \
		>>"$out/$group-$name.serve" 2>&1 </dev/null &
	echo $! >"$tmp/$name.pid"
	echo $! >>"$tmp/pids"
	eventually listens_or_ended "$name"
	listens "$name" || {
		cat "$out/$group-$name.serve"
		return 1
	}
}

# The file alone says nothing: it may be that of one that was killed.
listens() {
	grep -q " 00010000 0001 01 .* $tmp/$1.sock\$" /proc/net/unix
}

listens_or_ended() { listens "$1" || gone "$(pid_of "$1")"; }

pid_of() { cat "$tmp/$1.pid"; }
child_of() { tr -d ' ' <"/proc/$1/task/$1/children"; }

# The process that was started, or the one that does the work; there are two.
kill_server() {
	local parent child
	parent=$(pid_of "$1")
	child=$(child_of "$parent")
	[ "$child" ] || return
	if [ $(($2 % 2)) -eq 0 ]; then
		kill -KILL "$parent" "$child"
	else
		kill -KILL "$child"
	fi
	eventually gone "$parent" && eventually gone "$child"
}

# ends NAME STATUS: it was started by this shell, and SIGTERM ends it.
ends() {
	local rc=0
	kill -TERM "$(pid_of "$1")"
	in_ms wait_for "$(pid_of "$1")"
	echo "status $rc"
	[ $rc -eq "$2" ] && within $((budget_ms + late_ms)) SIGTERM
}
wait_for() {
	wait "$1"
	rc=$?
}

#
# Machines
#

# pipes NAME...: for what it says and hears.
pipes() {
	local one
	for one; do
		mkfifo "$tmp/$one".{in,out}
	done
}

# memory MIB [SUFFIX]: that servers may share, for any kind of machine.
memory() {
	printf '%s\n' -m "$1${2-}" \
		-object "memory-backend-memfd,id=ram,size=$1M,share=on" \
		-machine memory-backend=ram
}

# front NAME QUEUES [OPTION]: on the PCI bus, or on that of virtio-mmio, where $bus
# is set and empty.
front() {
	printf '%s\n' -chardev "socket,id=$1,path=$tmp/$1.sock,reconnect=1" \
		-device "vhost-user-blk${bus--pci},id=disk-$1,chardev=$1,num-queues=$2,queue-size=256${3-}"
}

# machine NAME QEMU ARGUMENT...: its console and its monitor are pipes. $input, if
# set, is another one to hear from: who waits for a guest takes a byte already.
machine() {
	local name=$1
	pipes "$name-qmp"
	"${@:2}" -nodefaults -no-user-config -display none \
		-chardev "pipe,id=con,path=$tmp/${input-con}" -serial chardev:con \
		-chardev "pipe,id=qmp,path=$tmp/$name-qmp" \
		-mon chardev=qmp,mode=control \
		>"$out/$group-$name.qemu" 2>&1 </dev/null &
	echo $! >"$tmp/$name.pid"
	echo $! >>"$tmp/pids"
	# Both ways are held open, so that nobody waits to open them.
	exec {monitor}<>"$tmp/$name-qmp.in" {replies}<>"$tmp/$name-qmp.out"
	echo "$monitor $replies" >"$tmp/$name.monitor"
	qmp "$name" qmp_capabilities
}

# hear NAME: a line of its monitor, in $line. It says no more once it has ended.
hear() {
	local from part until=$((SECONDS + 120))
	read -r _ from <"$tmp/$1.monitor"
	line=
	until read -r -t 0.5 part <&"$from"; do
		line+=$part
		[ $SECONDS -lt $until ] || return 1
		! gone "$(pid_of "$1")" || read -r -t 0 <&"$from" || return 1
	done
	line+=$part
}

# qmp NAME COMMAND [ARGUMENTS]: what it answers is in $answer.
qmp() {
	local to line
	read -r to _ <"$tmp/$1.monitor"
	answer=
	printf '{"execute":"%s","arguments":{%s}}\n' "$2" "${3-}" >&"$to"
	while hear "$1"; do
		case $line in
		'{"return"'*) answer=$line; return 0 ;;
		'{"error"'*) answer=$line; break ;;
		esac
	done
	echo "$1: $2: ${answer:-no answer}"
	return 1
}

# event NAME WHAT: wait until it happens.
event() {
	local line
	while hear "$1"; do
		[[ $line != *"\"$2\""* ]] || return 0
	done
	echo "$1: no $2"
	return 1
}

#
# Storage that hangs
#

# slow_disk: $tmp/fuse/direct0, of 4 MiB.
slow_disk() {
	mkdir "$tmp/fuse"
	"$build/tests/system/slowfs" "$tmp/control" "$tmp/fuse" -f \
		-o max_threads=64 >"$out/$group.slowfs" 2>&1 &
	echo $! >"$tmp/slowfs.pid"
	echo $! >>"$tmp/pids"
	eventually mounted || return
	mountpoint -q "$tmp/fuse"
}
mounted() { mountpoint -q "$tmp/fuse" || gone "$(pid_of slowfs)"; }

# hold CALLS: 1 reads, 2 writes, 4 fsync; 0: none any more.
hold() { "$build/tests/system/slowfs-hold" "$tmp/control" "$1"; }
word() { od -An -tu4 -j"$1" -N4 "$tmp/control" | tr -d ' '; }
hangs() { [ "$(word 4)" -ge 1 ]; }
still_hangs() { hangs || { echo 'nothing hangs any more'; return 1; }; }

# What is left when all is over; the shell need not tell whom it has killed. A
# mount that cannot be told apart from a file would stay.
clean_up() {
	local pid child
	[ ! -e "$tmp/control" ] || hold 0
	[ ! -e "$tmp/pids" ] || {
		while read -r pid; do
			child=$(child_of "$pid")
			# shellcheck disable=SC2086 # none, or one
			kill -KILL "$pid" $child
		done <"$tmp/pids"
		wait
	} 2>/dev/null
	while grep -q " $tmp/fuse " /proc/self/mounts; do
		umount -l "$tmp/fuse" || break
	done
	rm -rf "$tmp"
}
