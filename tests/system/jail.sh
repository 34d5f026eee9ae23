#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What libktvblk(7) says under JAILS, with a real journald: each thread makes
# the system calls listed for it and no other; a device lives behind filters
# built of that list; what a chroot lacks. $BUILD (build) has the library.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
private
work_in "$PRIVATE/jail"
if [ "$(uname -m)" != x86_64 ]; then
	skip 'the page lists the system calls of x86-64'
	sums
	exit
fi
list_calls
read -ra check < <(pkgconf --cflags --libs check)
build jail "$here"/jail{,-crew,-front}.c "$top"/src/demo/{driver,event,guest,hang,image,say}.c \
	"$top"/tests/unit/{front-end,harness,later,recorder,rig,storage,wedge}.c \
	"$top/tests/bench/peers/asserts.c" -iquote "$top/tests/unit" \
	-Wl,--wrap=_ck_assert_failed,--wrap=_mark_point \
	"${check[@]}"
build vmm "$here/wedged-vmm.c"

# The lists: "THREAD CALL" of those it makes, and of those it perhaps makes.
perl -ne '
	if (/^\.Ss (.*)/) { $on = $1 eq "System calls" }
	$on = 0 if /^\.El/;
	next unless $on;
	if (/^\.It (.*)/) {
		$perhaps = 0;
		$_ = $1;
		@who = /that calls/ ? "caller" : /of the library/ ? "library" :
			/vu- Ns Ar id/ ? "ktvblk-vu" :
			/Ns Ar id/ ? "ktvblk-id" : /^Li (\S+)/ ? $1 :
			/request_stop.*destroy/ ? "destroy" :
			/refresh.*replace/ ? "change" : /_set_.*_set_/ ? "set" :
			/pause.*resume/ ? "pause" : /^Xr ktvblk_(\S+) 3$/ ? $1 : die;
	}
	$perhaps = 1 if /^perhaps/ || /; perhaps/;
	print $perhaps ? "perhaps" : "surely", " $who[0] $1\n" if /^\.Li (\w+)( |$)/;
	' "$top/src/man/man7/libktvblk.7" >page
sed -n 's/^surely //p' page | sort -u >surely
cut -d' ' -f2- page | sort -u >all

echo '- each thread by itself'
check 'a life without a filter' bash -c 'timeout 300 ./jail >seen'
# Common lists hold for each of their threads.
awk 'NR == FNR { listed[$0] = 1; next }
	{ common = $1 ~ /^ktvblk-/ ? "library" : "caller" }
	!(listed[$0] || listed[common " " $2])' all <(sort -u seen) >unlisted
check 'no thread makes a call that is not listed for it' diff /dev/null unlisted
awk 'NR == FNR { seen[$0] = 1
		seen[($1 ~ /^ktvblk-/ ? "library" : "caller") " " $2] = 1; next }
	!seen[$0]' seen surely >unseen
check 'each call listed is made' diff /dev/null unseen
# Those two have one.
cut -d' ' -f1 surely | sort -u | grep -vx -e set -e image_lock >threads
while read -r thread; do
	check "$thread: some calls are listed" \
		[ "$(grep -c "^$thread " surely)" -ge 2 ]
done <threads

echo '- behind filters'
check 'a life with what is listed' timeout 300 ./jail all
# Storage's calls; a front end's kick is read by one of them, too.
grep -Ev '^ktvblk-(id|probe) (io_uring_.*|preadv2|pwritev2)$' all >less
check 'a life where io_uring is refused' timeout 300 ./jail less
# The filters are real: what is needed and left out ends the process.
for line in 'ktvblk-id preadv' 'ktvblk-log sendmsg' 'library set_robust_list' \
	'new eventfd2' 'backend_new_fd fcntl' 'image_lock fcntl' 'mmio_write epoll_create1' \
	'\(destroy\|ktvblk-drop\) clone3' 'pause fcntl' 'ktvblk-vu recvmsg' \
	'\(vhost_user_start\|ktvblk-vu\) getsockopt' 'ktvblk-id preadv2' \
	'ktvblk-id io_uring_enter' 'ktvblk-id fallocate' 'ktvblk-size newfstatat' \
	'set write'; do
	grep -vx "$line" all >less
	check "not without $line" bash -c 'timeout 300 ./jail less
		[ $? -eq 159 ]' # SIGSYS
done
# Where ktvblk_new() makes the first thread of a process; exit_group is its end.
{ cat all; echo 'caller exit_group'; } >first
check 'the first thread, with what is listed' timeout 300 ./jail first first
grep -v ' rt_sigaction$' first >less
check 'not without new rt_sigaction' bash -c 'timeout 300 ./jail less first
	[ $? -eq 159 ]'

echo '- in a chroot'
# in_chroot COMMAND...: given to the VMM; its answers are in out.
mkdir -p root/run/systemd/journal
ldd vmm | grep -o '/[^ ]*' | while read -r file; do
	mkdir -p "root${file%/*}"
	cp "$file" "root$file"
done
mkdir -p "root$BUILD"
cp -d "$BUILD"/libktvblk.so* "root$BUILD"
cp vmm root/
in_chroot() {
	printf '%s\n' "$@" | timeout 120 chroot root /vmm >out 2>&1
}
# record DISK [FIELD]: the wedge of that disk is in the journal, with the field.
record() {
	journalctl --sync
	[ -n "$(journalctl -o cat --output-fields="${2-MESSAGE}" KTVBLK_DISK="$1")" ]
}
show=(out)
check 'no socket: no error' in_chroot 'new lost' hang destroy release wait
check 'no socket: each answer' [ "$(xargs <out)" = 'ok ok timed out ok ok' ]
check 'no socket: no record' eval '! record lost'
touch root/run/systemd/journal/socket
mount --bind /run/systemd/journal/socket root/run/systemd/journal/socket
check 'the socket' in_chroot 'new kept' hang destroy release wait
check 'the socket: a record' record kept KTVBLK_TIMEOUT_MS
check 'no /proc: the thread' record kept KTVBLK_STUCK_TID
for field in STATE SYSCALL WCHAN; do
	check "no /proc: no $field" eval "! record kept KTVBLK_STUCK_$field"
done
mkdir root/proc
mount --bind /proc root/proc
in_chroot 'new both' hang destroy release wait
check '/proc: where it is stuck' record both KTVBLK_STUCK_SYSCALL
check 'no libgcc_s: pthread_exit() in a callback aborts' eval \
	'in_chroot "new aborts" hang panic; [ $? -eq 134 ]'
cp "$(cc -print-file-name=libgcc_s.so.1)" root/lib/x86_64-linux-gnu/
check 'libgcc_s: it is a panic' in_chroot 'new panics' hang panic destroy
check 'libgcc_s: recorded' [ "$(tail -1 out)" = panicked ]

sums
