#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# ktvblk-wedged against a real journald: every state a device can have, made by
# the library, what strangers write, and options. $BUILD (build) has the program
# and the shared library.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
private
work_in "$PRIVATE/wedged"
# shellcheck source-path=SCRIPTDIR source=wedged-helpers.sh
. "$here/wedged-helpers.sh"

echo '- nothing'
check 'none' quiet 0
check 'none, no output' [ ! -s "$out" ]
check 'none, JSON' quiet 0 --json
check 'none, no JSON' [ ! -s "$out" ]

echo '- a device goes through its states'
start_vmm vda
check 'a healthy device is not listed' quiet 0
ask hang
ask stalled
ask id
read -r pid instance stop_fd <<<"$answer"
check 'stalled' quiet 1 --json
check 'stalled: state' json state '"stalled"'
check 'stalled: event' json event '"request_stalled"'
check 'stalled: pid' json pid "$pid"
check 'stalled: instance' json instance_id "$instance"
check 'stalled: stop_fd' json stop_fd "$stop_fd"
check 'stalled: capacity' json capacity_bytes 268435456
check 'stalled: disk' json disk '"vda"'
check 'stalled: process' json process '"running"'
check 'stalled: command' json command '"vmm"'
check 'stalled: syscall' json stuck_syscall '"futex"'
check 'stalled: threads' json stuck_threads 1
check 'stalled: in flight' json in_flight 1
check 'stalled: request' json request '{"type":"in","sector":2048,"length":4096'
check 'stalled: not a wedge' json fenced null
ask release
ask wait
# The state is another one before that is recorded.
check 'resumed' eventually quiet 0

ask hang
ask stalled
ask reset
check 'the reset was one of a wedge' [ "$answer" = wedged ]
check 'wedged by reset' quiet 1 --json
check 'wedged by reset: state' json state '"wedged"'
check 'wedged by reset: event' json event '"reset_timed_out"'
check 'wedged by reset: life' json stop_fd "$stop_fd"
check 'wedged by reset: budget' json timeout_ms 50
check 'wedged by reset: fenced' json fenced true
check 'wedged by reset: request' json request '{"type":"in","sector":2048'
check 'wedged by reset, table' quiet 1
check 'table: a head and a line' [ "$(wc -l <"$out")" -eq 2 ]
check 'table: head' grep -q '^STATE  *SINCE  *DISK  *ID  *SIZE' "$out"
check 'table: line' grep -Eq \
	"^wedged +[-0-9]{10} [:0-9]{8} +vda +$instance +256M +vmm $pid +running +futex.* +read 4096 at 2048, [0-9.]+s old$" "$out"
check 'as journalctl says' [ "$(journalctl -o cat --output-fields=STOP_FD \
	MESSAGE_ID="$(id_of RESET_TIMED_OUT)" | tail -1)" = "$stop_fd" ]
ask release
ask wait
check 'reclaimed' quiet 0

ask hang
ask destroy
check 'the destroy timed out' [ "$answer" = 'timed out' ]
check 'wedged by destroy' quiet 1 --json
check 'wedged by destroy: event' json event '"destroy_timed_out"'
ask release
ask wait
check 'reclaimed after destroy' quiet 0

ask 'new vdb'
ask hang
ask stalled
check 'stalled again' quiet 1
ask panic
check 'a worker that ended is not stalled' quiet 0
stop_vmm

echo '- two lives and two processes'
fresh
start_vmm two-lives
ask hang
ask reset
ask id
read -r pid instance stop_fd <<<"$answer"
forge RESET_TIMED_OUT 1000
check 'two wedges of one process' quiet 1 --json
check 'two wedges, two lines' json pid "$pid" 2
ask release
ask wait
check 'one is left' quiet 1 --json
check 'the right one' json stop_fd 1000
forge RESET_TIMED_OUT 1000
check 'the number is in use again: the first is over' quiet 1 --json
check 'still one' json stop_fd 1000
kill_vmm
check 'unless the process is gone' quiet 1 --json
check 'then there are two' json process '"gone"' 2
check 'left out' quiet 0 --running

echo '- every kind of record'
fresh
for name in {DESTROY,RESET}_{TIMED_OUT,HELPER_SPAWN_FAILED,HELPER_DISCONNECTED}
do
	start_vmm
	forge "$name" 1001
	check "$name" quiet 1 --since="$since" --json
	check "$name: its name" json event "\"${name,,}\""
	forge RECLAIMED 1002
	check "$name: another life was reclaimed" quiet 1 --since="$since"
	forge RECLAIMED 1001
	check "$name: reclaimed" quiet 0 --since="$since"
	stop_vmm
done
start_vmm
forge REQUEST_STALLED 1001
check 'REQUEST_STALLED' quiet 1 --since="$since"
forge RESET_TIMED_OUT 1001
forge REQUEST_RESUMED 1001
check 'a wedge outlives REQUEST_RESUMED' quiet 1 --since="$since" -j
check 'and is one' json state '"wedged"'
forge RECLAIMED 1001
forge REQUEST_RESUMED 1001
forge RECLAIMED 1001
check 'ends without a beginning' quiet 0 --since="$since"
stop_vmm

echo '- the process'
fresh
start_vmm gone
ask hang
ask destroy
check 'running' quiet 1 --since="$since" -j
check 'running: said' json process '"running"'
check 'running: listed' quiet 1 --since="$since" --running
kill_vmm
check 'gone' quiet 1 --since="$since" -j
check 'gone: said' json process '"gone"'
check 'gone: not listed' quiet 0 --since="$since" --running
# Gone before a busy journald could ask for its name: its own word is taken.
fresh
start_vmm ends
kill -STOP "$JOURNALD"
ask hang
ask destroy
pid=$vmm_pid
kill_vmm
kill -CONT "$JOURNALD"
check 'gone before the journal saw it' quiet 1 --since="$since" -j
check 'gone before the journal saw it: command' json command '"vmm"'
# Its number again, for another.
sleep 0.05
for _ in {1..50}; do
	echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid
	sleep 100 &
	[ $! -ne "$pid" ] || break
	kill $!
done
if [ $! -eq "$pid" ]; then
	check 'a pid used again' quiet 1 --since="$since" -j
	check 'a pid used again: gone' json process '"gone"'
else
	skip 'pids cannot be chosen here'
fi
kill $!
# One that waits for its parent, who never asks.
mkfifo commands
bash -c './vmm <commands & echo $! >zombie.pid; exec sleep 100' >zombie.out &
parent=$!
exec 9>commands
printf '%s\n' 'new zombie' hang destroy >&9
eventually grep -q 'timed out' zombie.out
pid=$(cat zombie.pid)
kill -9 "$pid"
# All of its threads: only then is it gone for the program.
is_zombie() { [ "$(awk '{ print $3, $20 }' "/proc/$pid/stat")" = 'Z 1' ]; }
check 'a zombie' eventually is_zombie
check 'a zombie is gone' quiet 0 --since="$since" --running
kill $parent
exec 9>&-

echo '- many requests in service'
fresh
start_vmm
forge REQUEST_STALLED 7 KTVBLK_REQ_TYPE=in KTVBLK_SECTOR=8 KTVBLK_LENGTH=4096 \
	KTVBLK_AGE_MS=5300 KTVBLK_IN_FLIGHT=32 KTVBLK_STUCK_THREADS=0
check 'with no thread' quiet 1 --since="$since" --json
check 'with no thread: in flight' json in_flight 32
check 'with no thread: threads' json stuck_threads 0
check 'with no thread: thread' json stuck_tid null
check 'with no thread, table' quiet 1 --since="$since"
check 'with no thread: said' \
	grep -Eq ' no thread +read 4096 at 8, 5\.3s old, of 32$' "$out"
forge RESET_TIMED_OUT 7 KTVBLK_REQ_TYPE=in KTVBLK_SECTOR=8 KTVBLK_LENGTH=4096 \
	KTVBLK_AGE_MS=9000 KTVBLK_IN_FLIGHT=1 KTVBLK_STUCK_THREADS=3 \
	KTVBLK_STUCK_TID=77 KTVBLK_STUCK_SYSCALL=none \
	KTVBLK_STUCK_WCHAN=fuse_wait
check 'with threads of the kernel' quiet 1 --since="$since" --json
check 'with threads of the kernel: in flight' json in_flight 1
check 'with threads of the kernel: threads' json stuck_threads 3
check 'with threads of the kernel: thread' json stuck_tid 77
check 'with threads of the kernel, table' quiet 1 --since="$since"
check 'with threads of the kernel: said' \
	grep -Eq ' none \(fuse_wait\) x3 +read 4096 at 8, 9\.0s old$' "$out"
kill_vmm

echo '- several queues'
fresh
start_vmm
# Each is wedged, and comes back, by itself.
forge RESET_TIMED_OUT 8 KTVBLK_QUEUE=0
forge RESET_TIMED_OUT 9 KTVBLK_QUEUE=11
check 'two queues' quiet 1 --since="$since" --json
check 'two queues: of one device' json instance_id 77 2
check 'two queues: the first' grep -q '"queue":0,"stop_fd":8,' "$out"
check 'two queues: the other' grep -q '"queue":11,"stop_fd":9,' "$out"
check 'two queues, table' quiet 1 --since="$since"
check 'two queues, table: the first' grep -Eq ' 77\.0 ' "$out"
check 'two queues, table: the other' grep -Eq ' 77\.11 ' "$out"
forge RECLAIMED 8 KTVBLK_QUEUE=0
check 'one came back' quiet 1 --since="$since" --json
check 'one came back: the other is left' json queue 11
forge RESET_TIMED_OUT 7
check 'a device of one queue' quiet 1 --since="$since" --json
check 'a device of one queue: JSON' grep -q '"queue":null,"stop_fd":7,' "$out"
check 'a device of one queue, table' quiet 1 --since="$since"
check 'a device of one queue, table: no dot' grep -Eq ' 77 ' "$out"
kill_vmm

echo '- what strangers write'
fresh
start_vmm
forge DESTROY_TIMED_OUT 7 $'KTVBLK_DISK=a"b\\c\x1b[31m\x80\xff\xc3\xa9\xed\xa0\x80' \
	KTVBLK_REQ_TYPE=$'in\x07' KTVBLK_AGE_MS=x KTVBLK_SECTOR=-1 \
	KTVBLK_LENGTH=99999999999999999999999 CAPACITY_SECTORS=$((1 << 62)) \
	KTVBLK_FENCED=maybe
check 'hostile' quiet 1 --since="$since" --json
check 'hostile: JSON' json disk '"a\"b\\c\u001b[31m\ufffd\ufffdé\ufffd\ufffd\ufffd"'
check 'hostile: numbers' json capacity_bytes null
check 'hostile: request' json request \
	'{"type":"in\u0007","sector":null,"length":null,"age_ms":null}'
check 'hostile, table' quiet 1 --since="$since"
check 'hostile: no control character' \
	bash -c "! LC_ALL=C grep -q '[[:cntrl:]]' '$out'"
check 'hostile: nothing but UTF-8' iconv -f UTF-8 -t UTF-8 -o /dev/null "$out"
forge DESTROY_TIMED_OUT 8 "KTVBLK_DISK=$(printf 'x%.0s' {1..3000})"
check 'a long name' quiet 1 --since="$since" --json
check 'a long name is cut' json_valid
kill_vmm

echo '- since'
fresh
start_vmm
forge DESTROY_TIMED_OUT 9
sleep 1.1
for t in "$since" "$(date -d "$since" '+%F %T')" "$(date -d "$since" +%FT%TZ)" \
	"$(date -d "$since" +%FT%T)" -1h -2m -30min -90s -90sec -7d -1w \
	"$(date -d "$since" +%F)" "$(date -d "$since" '+%F %R')" 1999-12-31 \
	-999999d @0; do
	check "since $t" quiet 1 -S "$t"
done
for t in -0s "@$(date +%s)" '2999-01-01 00:00' 2999-12-31T23:59:59Z; do
	check "since $t" quiet 0 --since="$t"
done
for t in '' x - @ @x @-1 -1 -x -1x -h 12:00 2026-02-30 2026-13-01 '2026-01-01 25:00' \
	'2026-01-01 12:00:00 x' now 1h @99999999999999999999 -99999999999999999999s \
	-999999999999999w '1969-01-01' "$(printf '%0100d' 1)"; do
	check "no time: $t" trouble --since="$t"
done
check 'what a time is' grep -q 'YYYY-MM-DD HH:MM:SS' "$err"
kill_vmm

echo '- options'
check 'help' quiet 0 --help
check 'help: on stdout' grep -q '^Usage: ktvblk-wedged' "$out"
check 'version' quiet 0 --version
check 'version: what' grep -Eq '^ktvblk-wedged [0-9]+\.[0-9]+\.[0-9]+$' "$out"
for args in --nope -x --since --directory=/nonexistent '-D /dev/null' extra \
	--boot=xyz --json=1; do
	# shellcheck disable=SC2086 # words
	check "no good: $args" trouble $args
	check "no good: $args: nothing on stdout" [ ! -s "$out" ]
done
run 2 --nope
check 'unknown option: a hint' grep -q "Try 'ktvblk-wedged --help'" "$err"

sums
