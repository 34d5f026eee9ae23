#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# ktvblk-wedged and what a journal can be: of several boots and machines, large,
# rotated away, damaged, closed to us, or not there. $BUILD (build) has the
# program and the shared library.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
private
work_in "$PRIVATE/wedged-journals"
# shellcheck source-path=SCRIPTDIR source=wedged-helpers.sh
. "$here/wedged-helpers.sh"

# journald: another one, once the one before has ended.
journald() {
	local pid
	pid=$(pidof systemd-journald)
	[ -z "$pid" ] || kill "$pid"
	while pidof systemd-journald >/dev/null; do sleep 0.02; done
	rm -f /run/systemd/journal/socket
	/lib/systemd/systemd-journald 2>>journald.log &
	eventually [ -S /run/systemd/journal/socket ]
	journalctl --sync
}
# boot ID: as if the machine had been started again.
boot() {
	umount /proc/sys/kernel/random/boot_id 2>/dev/null
	[ "$1" = "$real_boot" ] || {
		echo "$1" >"boot-$1"
		mount --bind "boot-$1" /proc/sys/kernel/random/boot_id
	}
	journald
}
real_boot=$(cat /proc/sys/kernel/random/boot_id)
other_boot=$(cat /proc/sys/kernel/random/uuid)
of_boot() { json boot_id "\"${1//-/}\"" "$2"; }

echo '- boots'
start_vmm boots
ask hang
ask stalled # all that it says is of this boot
ask destroy
check 'this boot' quiet 1 --boot
check 'this boot, by ID' quiet 1 --boot="$real_boot"
check 'another boot' quiet 0 --boot="$other_boot"
boot "$other_boot"
check 'after a reboot' quiet 1 -j
check 'after a reboot it is gone' json process '"gone"'
check 'after a reboot: of the old one' of_boot "$real_boot" 1
check 'nothing in the new boot' quiet 0 --boot
forge RESET_TIMED_OUT 1001
check 'the new one' quiet 1 --boot -j
check 'the new one runs' json process '"running"'
check 'both' quiet 1 -j
check 'both are listed' json pid "$vmm_pid" 2
# The same life of the same pid in two boots.
boot "$real_boot"
forge RESET_TIMED_OUT 1001
boot "$other_boot"
forge RECLAIMED 1001
check 'reclaimed in one boot' quiet 0 --boot
check 'wedged in the other' quiet 1 -j
check 'two lives there' of_boot "$real_boot" 2
boot "$real_boot"
ask release
ask wait
forge RECLAIMED 1001
kill_vmm

echo '- machines'
fresh
start_vmm machines
forge RESET_TIMED_OUT 1002
journalctl --sync
cp -r /var/log/journal all
# The same life of the same pid on another machine, which was reclaimed there.
cat >elsewhere <<-EOF
	# A thread of journald may take the number first. The path of the directory is
	# hidden there, and would be what bash executes; env takes it as it is.
	for _ in {1..50}; do
		echo $((vmm_pid - 1)) >/proc/sys/kernel/ns_last_pid
		([ \$BASHPID -eq $vmm_pid ] && exec env ./vmm <commands) && break
	done
	journalctl --sync
	cp -r /var/log/journal/* all
EOF
for name in RESET_TIMED_OUT RECLAIMED REQUEST_STALLED; do
	echo "log MESSAGE=x MESSAGE_ID=$(id_of $name) INSTANCE_ID=77 STOP_FD=1002"
done >commands
check 'another machine' env -u PRIVATE "$here/private-journald.sh" \
	bash ./elsewhere
check 'two machines' [ "$(find all -name system.journal | wc -l)" -eq 2 ]
check 'two machines: one device of each' quiet 1 --since="$since" -D all -j
check 'two machines: the same numbers' json stop_fd 1002 2
check 'two machines: ours is wedged' grep -q \
	"wedged.*running.*\"$(cat /etc/machine-id)\"" "$out"
check 'two machines: theirs is stalled' grep -q '"stalled".*"unknown"' "$out"
check 'two machines: what may run' quiet 1 --since="$since" -D all -r -j
check 'two machines: both may' json stop_fd 1002 2
mkdir flat
n=0
find all -name '*.journal' | while read -r file; do
	n=$((n + 1))
	cp "$file" "flat/$n.journal"
done
check 'two machines: all files in one directory' quiet 1 --since="$since" \
	-D flat -j
check 'two machines: all files: both' json stop_fd 1002 2
kill_vmm

echo '- a large journal'
fresh
start_vmm large
forge RESET_TIMED_OUT 1003
seq 100000 | systemd-cat
forge REQUEST_STALLED 1004
check 'two of 100,000' quiet 1 --since="$since" -j
check 'both' json instance_id 77 2
# cpu COMMAND...: its processor time in ms, which other load changes little.
cpu() {
	local TIMEFORMAT='%U %S'
	{ time "$@" >/dev/null 2>&1; } 2>&1 | awk '{ print ($1 + $2) * 1000 }'
}
ours=$(cpu ./ktvblk-wedged)
all=$(cpu journalctl -q -o cat)
echo "$ours ms of processor time; to read all records: $all ms"
check 'it does not read them all' [ "$ours" -lt $((all / 5)) ]
kill_vmm

echo '- written to and rotated meanwhile'
fresh
start_vmm busy
# Not without end: newer journalds sync only once nothing is left to be written.
write() {
	for _ in {1..10}; do seq 2000 | systemd-cat; done
}
# Fewer times than files are kept: the record that is looked for is in one.
rotate() {
	for _ in {1..10}; do
		journalctl --rotate
		journalctl --vacuum-files=20
	done 2>/dev/null
}
for n in {1001..1025}; do
	forge RESET_TIMED_OUT "$n"
	journalctl --sync
	write &
	writer=$!
	rotate &
	rotator=$!
	SYNCED=1 check 'no trouble where there is none' quiet 1 --since="$since"
	wait $rotator $writer
done
kill_vmm

echo '- journals that cannot be read'
fresh
start_vmm
forge DESTROY_TIMED_OUT 10
journalctl --sync
rm -rf copy
cp -r /var/log/journal copy
good=$(ls copy/*/system.journal)
dir=${good%/*}
mkdir alone
"${CC:-cc}" -shared -fPIC -D_GNU_SOURCE -o vacuum.so "$here/wedged-vacuum.c" ||
	exit 1
vacuumed() {
	cp "$good" alone/
	LD_PRELOAD=$work/vacuum.so VACUUM=$work/alone/system.journal "$@" -D alone
}
check 'vacuumed while it is read' vacuumed quiet 0
check 'vacuumed: it is' [ ! -e alone/system.journal ]
export VACUUM_KEEPS_NAME=1
check 'its blocks are gone, it is not' vacuumed trouble
unset VACUUM_KEEPS_NAME
# As journald does it: a file, and its head next.
just_made() {
	rm alone/system.journal
	: >alone/new.journal
	"${wedged[@]}" -D alone >"$out" 2>"$err" &
	eventually is_open $! || return 1
	cat "$good" >alone/new.journal
	wait $!
	[ $? -eq 1 ] && [ ! -s "$err" ]
}
is_open() { find "/proc/$1/fd" -lname '*/new.journal' | grep -q .; }
check 'a file that has just been made' just_made
mkdir empty
check 'an empty directory' trouble -D empty
check 'no journal files' grep -q 'no journal files' "$err"
for damage in cut empty random; do
	case $damage in
	cut) head -c 100000 "$good" ;;
	empty) : ;;
	random) head -c 100000 /dev/urandom ;;
	esac >"$dir/other.journal"
	check "damaged: $damage" trouble -D copy
	check "damaged: $damage: which" grep -q 'other.journal: The file is' "$err"
	check "damaged: $damage: the rest" grep -q '^wedged' "$out"
done
rm "$dir/other.journal"
touch "$dir"/$'\e[31m\xff.journal'
check 'a hostile name' trouble -D copy
check 'a hostile name: no control character' \
	bash -c "! LC_ALL=C grep -q '[[:cntrl:]]' '$err'"
check 'a hostile name: which' grep -q '/?\[31m?.journal: The file is' "$err"
rm "$dir"/*31m*
# All that can be found by its MESSAGE_ID.
rm "$dir"/*@*
at=$(grep -abo "MESSAGE_ID=$(id_of DESTROY_TIMED_OUT)" "$good" | head -1)
head -c 2000 /dev/urandom | dd of="$good" bs=1 seek=$((${at%%:*} - 2000)) \
	conv=notrunc status=none
check 'damaged inside' trouble -D copy
chmod 0 "$good"
wedged=(setpriv --bounding-set=-all --inh-caps=-all ./ktvblk-wedged)
check 'not allowed' trouble -D copy
check 'not allowed: why' grep -q '1 of 1 .*Permission denied.*systemd-journal' \
	"$err"
chmod 0 copy
check 'not allowed to look' trouble -D copy
chmod 700 copy
# shellcheck disable=SC2206 # words
wedged=(${TEST_WRAPPER-} ./ktvblk-wedged)
check 'all there is' quiet 1 --since="$since"
"${wedged[@]}" --since="$since" >/dev/full 2>"$err"
check 'no room for the output' [ $? -eq 2 ]
check 'no room: told' grep -q 'ktvblk-wedged: standard output: No space' "$err"
exec 9> >(exec sleep 0)
wait $!
"${wedged[@]}" -S "$since" 2>"$err" >&9
check 'closed pipe' [ $? -eq 2 ]
check 'closed pipe: told' grep -q 'standard output: Broken pipe' "$err"
exec 9>&-
for args in "-S $since" "-f -S @$(date -d +1day +%s)" --help --version; do
	# shellcheck disable=SC2086 # words
	timeout 120 "${wedged[@]}" $args 2>"$err" >&-
	check "no standard output: $args" [ $? -eq 2 ]
	check "no standard output: $args: told" [ "$(cat "$err")" = \
		'ktvblk-wedged: standard output: Bad file descriptor' ]
done
"${wedged[@]}" -j -S "$since" >"$out" 2>&-
check 'no standard error' [ $? -eq 1 ]
check 'no standard error: the answer' json stop_fd 10
ask "log MESSAGE_ID=$(id_of RESET_TIMED_OUT) STOP_FD=1"
check 'a record without a device' trouble --since="$since"
check 'the others are listed' grep -q '^wedged' "$out"
mount -t tmpfs tmpfs /var/log
check 'no journal here' trouble
kill_vmm

sums
