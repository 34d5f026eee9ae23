# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2034,SC2154
#
# For the tests of ktvblk-wedged, in the directory $work of a private journald: a
# VMM that is told what to do, and the program run against its records.

out=$work/out err=$work/err
show=("$out" "$err")
# Where a reader without any rights finds it too.
cp "$BUILD/ktvblk-wedged" "$work/" || exit 1
build vmm "$here/wedged-vmm.c"
# shellcheck disable=SC2206 # words
wedged=(${TEST_WRAPPER-} ./ktvblk-wedged)

# run STATUS ARGUMENT...: ktvblk-wedged ends so; what it says is in out and err.
# SYNCED: what it shall find is in the journal already, and more may be coming.
run() {
	local want=$1 rc
	shift
	[ "${SYNCED-}" ] || journalctl --sync
	timeout 300 "${wedged[@]}" "$@" >"$out" 2>"$err"
	rc=$?
	[ $rc -eq "$want" ] || { echo "exit status $rc, not $want"; return 1; }
}

# run, and no word on stderr; or one line there, and getopt's hint.
quiet() { run "$@" && [ ! -s "$err" ]; }
trouble() {
	run 2 "$@" && [ "$(grep -c '^ktvblk-wedged: ' "$err")" -eq 1 ] &&
		! grep -qv "^ktvblk-wedged: \|^Try 'ktvblk-wedged --help'" "$err"
}

# Each line is JSON, by the grammar of RFC 8259, and an object.
json_valid() {
	perl -ne '
	BEGIN { $json = qr/
		(?(DEFINE)
		(?<value> \s* (?: (?&object) | (?&array) | (?&string) |
			(?&number) | true | false | null ) \s* )
		(?<object> \{ (?: \s* (?&string) \s* : (?&value)
			(?: , \s* (?&string) \s* : (?&value) )* | \s* ) \} )
		(?<array> \[ (?: (?&value) (?: , (?&value) )* | \s* ) \] )
		(?<string> " (?: [^"\\\x00-\x1f] | \\ ["\\\/bfnrt] |
			\\ u [0-9a-fA-F]{4} )* " )
		(?<number> -? (?: 0 | [1-9]\d* ) (?: \.\d+ )?
			(?: [eE][-+]?\d+ )? )
		) ^ (?&object) $/x }
	exit 1 unless utf8::decode($_) && /$json/' "$out"
}

# json KEY VALUE [LINES]: each of the lines (1) has that member.
json() {
	json_valid && [ "$(wc -l <"$out")" -eq "${3:-1}" ] &&
		[ "$(grep -cF "\"$1\":$2" "$out")" -eq "${3:-1}" ]
}

# A VMM of our own, asked and answering.
start_vmm() {
	coproc VMM { exec ./vmm; }
	# shellcheck disable=SC2153 # coproc sets it
	vmm_pid=$VMM_PID
	ask "new ${1-vda}"
}
ask() {
	echo "$*" >&"${VMM[1]}"
	read -r -t 120 answer <&"${VMM[0]}" || answer='no answer'
}
stop_vmm() {
	# shellcheck disable=SC1083,SC2093
	exec {VMM[1]}>&-
	wait "$vmm_pid" 2>/dev/null
}
kill_vmm() {
	kill -9 "$vmm_pid"
	wait "$vmm_pid" 2>/dev/null
}
id_of() {
	tr -d '\\\n' <"$top/include/ktvblk-messages.h" |
		sed "s/.*KTVBLK_MESSAGE_$1[[:space:]]*\"\([0-9a-f]*\)\".*/\1/"
}
# forge NAME STOP_FD [FIELD...]: a record of the VMM's process.
forge() {
	local name=$1 fd=$2
	shift 2
	ask "log MESSAGE=forged MESSAGE_ID=$(id_of "$name") INSTANCE_ID=77" \
		"STOP_FD=$fd $*"
}
# No trace of what was before: the records of later tests stand alone.
fresh() {
	local second=$(($(date +%s) + 1))
	since=@$second
	while [ "$(date +%s)" -lt $second ]; do sleep 0.05; done
}
