#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# demo.sh PROGRAM: run ktvblk-demo in the ways it can be run, look at what it
# says, and that it leaves nothing behind.

program=$(realpath "${1:?usage: demo.sh PROGRAM}") || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0 skipped=0

# A copy that anybody can run, with the library beside it if it is there.
chmod 755 "$work"
mkdir "$work/bin" "$work/tmp"
chmod 1777 "$work/tmp"
cp "$program" "$work/bin/ktvblk-demo"
cp -P "${program%/*}"/libktvblk.so* "$work/bin" 2>/dev/null
chmod -R a+rX "$work/bin"
demo=$work/bin/ktvblk-demo out=$work/out err=$work/err
TMPDIR=$work/tmp
LD_LIBRARY_PATH=$work/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export TMPDIR LD_LIBRARY_PATH

pass() {
	passed=$((passed + 1))
	echo "  pass  $1"
}

skip() {
	skipped=$((skipped + 1))
	echo "  skip  $1: $2"
}

# NAME COMMAND...: the command succeeds; else show what the program said.
check() {
	name=$1
	shift
	if "$@"; then
		pass "$name"
	else
		failed=$((failed + 1))
		echo "  FAIL  $name ($*)"
		tail -n 60 "$out" "$err"
	fi
}

run() {
	"$@" >"$out" 2>"$err"
	status=$?
}

# What a line says, wherever it is wrapped.
says() {
	tr '\n' ' ' <"$out" | tr -s ' ' | grep -qF -- "$1"
}

all_held() {
	[ "$status" -eq 0 ] && [ ! -s "$err" ] && ! grep -q BROKEN "$out" &&
		[ "$(tail -n 1 "$out")" = 'All that was promised held.' ]
}

# The record of the destroy, field by field.
has_record() {
	for field in MESSAGE_ID=70b5dbfd5c394574889b74ed475785df \
		'INSTANCE_ID=[1-9][0-9]*' 'STOP_FD=[0-9]*' 'CAPACITY_SECTORS=[0-9]*' \
		PRIORITY=2 KTVBLK_DISK=demo KTVBLK_TIMEOUT_MS="$budget" \
		KTVBLK_FENCED=yes KTVBLK_REQ_TYPE=in 'KTVBLK_STUCK_TID=[0-9]*' \
		"$@"; do
		grep -q "^    $field\$" "$out" || return 1
	done
}

# These are journald's own.
in_journal() {
	budget=$1
	has_record '_TRANSPORT=journal' '_PID=[0-9]*' '_COMM=ktvblk-demo'
}

in_sink() {
	budget=$1
	has_record && ! grep -q '_TRANSPORT=journal' "$out"
}

# NAME BUDGET: the record is where the program says that records are.
check_record() {
	if says 'in the callback sink'; then
		skip "$1: journal" "$(tr '\n' ' ' <"$out" | tr -s ' ' |
			sed 's/.*cannot be had: //; s/ 1\. A disk.*//')"
		check "$1: record from the callback" in_sink "$2"
	else
		check "$1: record in the journal" in_journal "$2"
	fi
}

start=$(date +%s)
run "$demo"
check "plain (about $(($(date +%s) - start)) s)" all_held
check_record plain 250
for line in 'sectors read was as it should be' 'reads_completed' \
	'to another device, 3 times' 'a limit of 200 requests/s' \
	'1 MiB discarded' 'grown by 1 MiB' 'the dirty log told of' 'the device is "stalled"' \
	'and told the outcome: "timed out"' \
	'guest memory ran 1 time' 'descriptors, threads and memory are back' \
	'the device is "wedged"' 'did not reach guest memory' \
	'reset: 5 tries' 'destroy: 5 tries' 'and no record is made: 0'; do
	check "plain: says '$line'" says "$line"
done

run "$demo" --seconds 1 --budget 50 --no-journal --moves 200
check 'without a journal' all_held
check 'without a journal: says so' says 'in the callback sink (--no-journal)'
check 'without a journal: record' in_sink 50
check 'moved as often as asked for' says 'to another device, 200 times'
run "$demo" --seconds 1 --budget 50 --no-journal --moves 0 --iops 3 \
	--discard 16 --grow 1024 --dirty 500
check 'not moved' all_held
for line in 'a limit of 3 requests/s' '16 MiB discarded' \
	'grown by 1024 MiB' 'by 500 reads'; do
	check "as asked for: says '$line'" says "$line"
done
run "$demo" --seconds 1 --budget 50 --no-journal --moves 0 --iops 0 \
	--discard 0 --grow 0 --dirty 0
check 'nothing changes' all_held
for line in 'a limit of' 'discarded' 'grown by' 'the dirty log'; do
	check "nothing changes: says no '$line'" eval '! says "$line"'
done

dd if=/dev/urandom of="$work/image" bs=1000 count=3000 2>/dev/null
chmod 444 "$work/image"
before=$(cksum <"$work/image")
run "$demo" --seconds 1 --budget 50 --disk "$work/image"
check 'with an image' all_held
check 'with an image: a write is refused' says 'refuses a write: status 1, IOERR'
check 'with an image: whole sectors' grep -q ' CAPACITY_SECTORS=5859$' "$out"
check 'with an image: unchanged' [ "$before" = "$(cksum <"$work/image")" ]

truncate -s 512 "$work/tiny"
run "$demo" --seconds 1 --budget 50 --disk "$work/tiny"
check 'with an image of one sector' all_held

if [ "$(id -u)" -ne 0 ]; then
	skip 'as an ordinary user' 'we are one already'
elif ! as_user=$(command -v setpriv); then
	skip 'as an ordinary user' 'no setpriv'
elif ! "$as_user" --reuid 65534 --regid 65534 --clear-groups \
	"$demo" --version >/dev/null 2>&1; then
	skip 'as an ordinary user' 'another user cannot run the program'
else
	run "$as_user" --reuid 65534 --regid 65534 --clear-groups \
		"$demo" --seconds 1 --budget 50
	check 'as an ordinary user' all_held
	check_record 'as an ordinary user' 50
fi

# Killed while it has all it ever has, and for long. A shell's background jobs
# ignore INT.
: >"$out" # not what was before, until the child gets there
"$demo" --budget 60000 >"$out" 2>"$err" &
pid=$!
until grep -q 'A disk that hangs' "$out" || ! kill -0 $pid; do sleep 0.1; done
children=$(sed -n "s/^\([0-9]*\) (.*) [A-Z] $pid .*/\1/p" \
	/proc/[0-9]*/stat 2>/dev/null)
kill -TERM $pid
wait $pid 2>/dev/null
ended() {
	for child in $children; do
		until=$(($(date +%s) + 60))
		while state=$(sed 's/.*) //; s/ .*//' "/proc/$child/stat" \
			2>/dev/null) && [ "$state" != Z ]; do
			[ "$(date +%s)" -lt $until ] || return 1
			sleep 0.1
		done
	done
}
if [ "$children" ]; then
	check 'killed: its journald is gone' ended
else
	skip 'killed: its journald is gone' 'it had none'
fi

# ARGUMENT...: refused with a message, and nothing else happens.
refused() {
	run "$demo" "$@"
	[ "$status" -eq 2 ] && [ ! -s "$out" ] &&
		grep -q '^ktvblk-demo: ' "$err"
}

: >"$work/empty"
mkfifo "$work/fifo"
check 'unknown option' refused --nonsense
check 'unknown short option' refused -x
check 'operand' refused file
check 'missing value' refused --disk
check 'value that is not asked for' refused --no-journal=1
for value in 0 -1 +1 ' 1' 1x 0x1 '' 3601 99999999999999999999; do
	check "--seconds '$value'" refused --seconds "$value"
done
for value in -1 100001 x; do
	check "--moves '$value'" refused --moves "$value"
done
check '--iops 1001' refused --iops 1001
check '--discard 17' refused --discard 17
check '--grow 1025' refused --grow 1025
check '--dirty x' refused --dirty x
for value in 9 60001 1.5; do
	check "--budget '$value'" refused --budget "$value"
done
check 'seed that is no number' refused --seed x
check 'image that is not there' refused --disk "$work/none"
check 'image that is empty' refused --disk "$work/empty"
check 'image that is a directory' refused --disk "$work"
check 'image that is a FIFO' refused --disk "$work/fifo"
check 'image that is a terminal or the like' refused --disk /dev/null

run "$demo" --help
check 'help' [ "$status" -eq 0 ]
check 'help: names each option' says '--no-journal'
run "$demo" --version
check 'version' grep -q '^ktvblk-demo [0-9.]*, libktvblk [0-9.]*$' "$out"

check 'nothing is left in the temporary directory' [ -z "$(ls -A "$TMPDIR")" ]
# Of the program's: others come and go on a machine that does more than this.
no_mounts() {
	! grep -F -e ktvblk-demo -e "$work" /proc/self/mountinfo >"$out"
}
check 'no mount is left' no_mounts

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
