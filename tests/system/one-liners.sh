#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Each command for the journal in README.md and ktvblk-wedged(1), as it stands
# there, against a real journald in which there is what it asks for. $BUILD
# (build) has the program and the shared library.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
private
work_in "$PRIVATE/one-liners"
# shellcheck source-path=SCRIPTDIR source=wedged-helpers.sh
. "$here/wedged-helpers.sh"
export PATH=$work:$PATH
cp "$top/src/catalog/libktvblk.catalog" /usr/lib/systemd/catalog/
journalctl --update-catalog

# A stall and its end, a wedge of each kind and its end, and one that lasts. The
# numbers are those of the examples; a thread of journald may take the pid first.
for _ in {1..50}; do
	echo 1233 >/proc/sys/kernel/ns_last_pid
	start_vmm vda
	[ "$vmm_pid" -ne 1234 ] || break
	stop_vmm
done
check 'a process with the pid of the examples' [ "$vmm_pid" -eq 1234 ]
ask hang
ask stalled
# It is stalled before that is recorded, and only then its end is, too.
is_told() { journalctl -q "MESSAGE_ID=$(id_of REQUEST_STALLED)" | grep -q .; }
check 'the stall is recorded' eventually is_told
ask release
ask wait
ask hang
ask reset
ask release
ask wait
ask hang
ask destroy
for name in {RESET,DESTROY}_HELPER_{SPAWN_FAILED,DISCONNECTED}; do
	forge "$name" 17
done
ask "log MESSAGE=device MESSAGE_ID=$(id_of RECLAIMED) INSTANCE_ID=3 STOP_FD=17"
journalctl --sync

# Indented lines of the README; what is displayed in the page.
grep '^    \(journalctl\|ktvblk-wedged\)' "$top/README.md" >readme
perl -0ne '
	s/\\\\\n\s*//g, s/\\e\n\s*//g;
	print "$1\n" while /^(?:\.Dl )?((?:journalctl|ktvblk-wedged) .*)$/mg;
	' "$top/src/man/man1/ktvblk-wedged.1" >page
check 'the README has commands' [ "$(wc -l <readme)" -ge 13 ]
check 'so has the page' [ "$(wc -l <page)" -ge 8 ]
sed 's/ *#.*//; s/^ *//' readme page | sort -u >commands
while read -r command; do
	case $command in
	*--follow*)
		: >"$out" # not what was before, until the child gets there
		# shellcheck disable=SC2086 # words
		$command >"$out" 2>"$err" &
		eventually [ -s "$out" ]
		kill $!
		wait $!
		;;
	*'| jq '*)
		command -v jq >/dev/null || { skip "no jq here: $command"; continue; }
		eval "$command" >"$out" 2>"$err"
		;;
	*) eval "${command/journalctl/journalctl -q}" >"$out" 2>"$err" ;;
	esac
	check "$command: answers" [ -s "$out" ]
	check "$command: no trouble" [ ! -s "$err" ]
	case $command in
	*MESSAGE_ID=*)
		# shellcheck disable=SC2013 # words
		for id in $(grep -o 'MESSAGE_ID=[0-9a-f]*' <<<"$command"); do
			check "$command: $id" grep -q . <(journalctl -q "$id")
		done
		;;
	*'journalctl -x'*)
		check "$command: explained" grep -q '^░░ What to do' "$out"
		;;
	esac
done <commands

sums
