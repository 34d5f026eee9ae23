#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# ktvblk-wedged --follow: what happens to devices, processes, the journal and the
# reader meanwhile. $BUILD (build) has the program and the shared library.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
private
work_in "$PRIVATE/wedged-follow"
# shellcheck source-path=SCRIPTDIR source=wedged-helpers.sh
. "$here/wedged-helpers.sh"

# follow ARGUMENT...: in the background, with each line as it comes in out.
follow() {
	: >"$out" # not what was before, until the child gets there
	"${wedged[@]}" --follow --since="$since" "$@" >"$out" 2>"$err" &
	follower=$!
}
# await_lines N: it has printed that many.
has_lines() { [ "$(wc -l <"$out")" -ge "$1" ]; }
await_lines() { eventually has_lines "$1"; }
# It has read what there is, and waits: it blocks the signals that end it, and
# none beside, as the shell does before it becomes the program.
await_waiting() {
	eventually grep -q '^SigBlk:[[:space:]]*0*4002$' "/proc/$follower/status"
}
# ended SIGNAL STATUS: by the signal, with that status and no word on stderr.
ended() {
	local rc
	kill "-$1" $follower
	wait $follower
	rc=$?
	[ $rc -eq "$2" ] && [ ! -s "$err" ]
}
states() { grep -o '"state":"[a-z]*"' "$out" | cut -d'"' -f4 | xargs; }

echo '- a device goes through its states'
fresh
start_vmm follow
follow --json
check 'nothing yet' await_waiting
ask hang
check 'stalled' await_lines 1
ask reset
check 'wedged' await_lines 2
ask release
check 'reclaimed' await_lines 3
ask hang
check 'stalled again' await_lines 4
ask release
check 'resumed' await_lines 5
check 'in order' [ "$(states)" = 'stalled wedged reclaimed stalled resumed' ]
check 'each line is JSON' json_valid
check 'SIGTERM: there is none' ended TERM 0

echo '- the journal is rotated, and what is old removed'
ask hang
journalctl --sync
follow --json
check 'what there is comes first' await_lines 1
for n in {2..6}; do
	journalctl --rotate
	journalctl --vacuum-files=1 2>/dev/null
	forge RESET_TIMED_OUT "100$n"
	check "after removal $n" await_lines "$n"
done
check 'the first record is gone' [ -z "$(journalctl -q -o cat \
	MESSAGE_ID="$(id_of REQUEST_STALLED)" --since="$since")" ]
ask release
check 'what has been read is known' await_lines 7
check 'removed: each once' [ "$(states)" = \
	'stalled wedged wedged wedged wedged wedged resumed' ]
check 'SIGINT: there are some' ended INT 1
stop_vmm

echo '- the process ends'
fresh
start_vmm gone
ask hang
ask reset
journalctl --sync
follow --json
check 'wedged' await_lines 1
forge REQUEST_STALLED 1008
check 'another one' await_lines 2
check 'both are of a process that runs' json process '"running"' 2
kill_vmm
check 'gone: both are told, and nothing else woke us' await_lines 4
check 'gone: said' [ "$(states)" = 'wedged stalled gone gone' ]
check 'gone: each line is JSON' json_valid
start_vmm next
forge DESTROY_TIMED_OUT 1009
check 'gone: told once' await_lines 5
kill_vmm
check 'gone: the next' await_lines 6
check 'gone: in order' [ "$(states)" = \
	'wedged stalled gone gone wedged gone' ]
check 'gone: listed at the end' ended INT 1
follow --json
check 'gone before: listed' await_lines 3
check 'gone before: waiting' await_waiting
check 'gone before: not told again' [ "$(states)" = 'wedged stalled wedged' ]
check 'gone before: the end' ended INT 1
follow --json --running
check 'gone before: left out' await_waiting
check 'gone before: none' ended INT 0
check 'gone before: no output' [ ! -s "$out" ]

echo '- the table'
fresh
start_vmm table
ask hang
ask stalled
journalctl --sync
follow
check 'a head and a line' await_lines 2
ask release
check 'one more' await_lines 3
check 'one head' [ "$(grep -c ^STATE "$out")" -eq 1 ]
check 'in its columns' [ "$(grep -c '^stalled  .* table  \|^resumed  .* table  ' \
	"$out")" -eq 2 ]
check 'and its end' ended INT 0

echo '- the reader'
mkfifo pipe
"${wedged[@]}" -f -j --since="$since" 2>"$err" >pipe &
follower=$!
exec 9<pipe
forge RESET_TIMED_OUT 1010
check 'a line goes through a pipe at once' read -r -t 120 -u 9 _
forge RECLAIMED 1010
check 'and the next' read -r -t 120 -u 9 _
# Nothing more happens.
exec 9<&-
wait $follower
check 'it leaves: status' [ $? -eq 2 ]
check 'it leaves: told' [ "$(cat "$err")" = \
	'ktvblk-wedged: standard output: Broken pipe' ]
forge RESET_TIMED_OUT 1011
journalctl --sync
timeout 120 "${wedged[@]}" -f --since="$since" 2>"$err" >/dev/full
check 'no room: status' [ $? -eq 2 ]
check 'no room: told' [ "$(cat "$err")" = \
	'ktvblk-wedged: standard output: No space left on device' ]
stop_vmm

echo '- another directory'
fresh
start_vmm elsewhere
forge RESET_TIMED_OUT 1012
journalctl --sync
mkdir dir
follow -j -D dir
check 'nothing to read yet' await_waiting
cp /var/log/journal/*/system.journal dir/
check 'a file that came' await_lines 1
check 'read' json stop_fd 1012
kill $follower
wait $follower
check 'the trouble is not forgotten' [ $? -eq 2 ]
check 'nor was it left unsaid' grep -q 'dir: no journal files' "$err"
kill_vmm

sums
