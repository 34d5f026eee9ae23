#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The message catalogue against the library's list of events, and against a
# real journalctl -x. $BUILD (build) has the shared library, $CATALOG may name
# another catalogue than that of the tree.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
private
work_in "$PRIVATE/catalog"
catalog=${CATALOG:-$top/src/catalog/libktvblk.catalog}
build vmm "$here/wedged-vmm.c"
list_events >events
show=(out)

# The entry of a MESSAGE_ID: all between its line and the next.
entry() { awk -v id="$1" '/^-- / { on = $2 == id } on' "$catalog"; }

# Fields every record of a device has, and what libsystemd and the journal add.
common=' STOP_FD INSTANCE_ID CAPACITY_SECTORS KTVBLK_DISK KTVBLK_QUEUE SYSLOG_IDENTIFIER _PID '

echo '- the text'
check 'one entry for each MESSAGE_ID of the header, and no other' \
	diff <(sed -n 's/^-- //p' "$catalog" | sort) \
	<(grep -o '"[0-9a-f]\{32\}"' "$top/include/ktvblk-messages.h" |
		tr -d '"' | sort)
check 'no line is long' bash -c "! grep -v '^Subject\|^@SYSLOG_IDENTIFIER@' '$catalog' |
	grep '.\{81\}'"
# complaints EVENT <ENTRY: what its entry lacks, or says wrongly.
complaints() {
	perl -0e '
		my ($common, $name, $id, $priority, $flags, @fields) = @ARGV;
		my $entry = <STDIN>;
		for my $header ("Subject: libktvblk: [^ ]", "Defined-By: libktvblk\$",
				"Support: [^ ]", "For guest and host: [^ ]",
				"Documentation: man:ktvblk-messages\\(7\\)",
				"What to do: [^ ]") {
			print "no $header\n" unless $entry =~ /^$header/m;
		}
		my %has = map { $_ => 1 } split(" ", $common), @fields;
		$has{$_} or print "no record has $_\n" for $entry =~ /@([A-Z_]+)@/g;
		$entry =~ /\@$_@/ or print "$_ is not told\n" for @fields;
	' "$common" "$@"
}
while read -r -a event; do
	name=${event[0]} id=${event[1]}
	entry "$id" >out
	check "$name: its name stands above" \
		grep -qx "# $name" <(grep -B1 "^-- $id" "$catalog")
	check "$name: its entry" diff /dev/null <(complaints "${event[@]}" <out)
done <events

echo '- journalctl reads it'
mkdir -p root/usr/lib/systemd/catalog
cp "$catalog" root/usr/lib/systemd/catalog
check 'update' journalctl --root="$PWD/root" --update-catalog
check 'list' [ "$(journalctl --root="$PWD/root" --list-catalog 2>/dev/null |
	wc -l)" -eq "$(wc -l <events)" ]
cp "$catalog" /usr/lib/systemd/catalog/
check 'update as installed' journalctl --update-catalog

echo '- journalctl -x fills the values in'
while read -r name id priority _ fields; do
	printf 'log MESSAGE=%s MESSAGE_ID=%s PRIORITY=%s' "$id" "$id" "$priority"
	for field in INSTANCE_ID STOP_FD CAPACITY_SECTORS KTVBLK_DISK $fields; do
		printf ' %s=<%s>' "$field" "$field"
	done
	echo
done <events | ./vmm >out
check 'records are sent' [ "$(grep -cx ok out)" -eq "$(wc -l <events)" ]
journalctl --sync
# All in one, cut at the lines that are not of the catalogue.
journalctl -x --no-pager | perl -ne '
	if (/^░░ /) { print "$id $_" } else { $id = (split)[-1] } ' >explained
says() { [[ $text == *"$1"* ]]; }
while read -r name id _ _ fields; do
	text=$(grep "^$id " explained)
	check "$name: -x" says ' ░░ Subject: libktvblk: '
	check "$name: nothing is left to fill in" eval '! says @'
	check "$name: the process" says 'vmm '
	for field in $fields; do
		check "$name: $field" says "<$field>"
	done
done <events

echo '- a real wedge'
# The last that a VMM says before it ends: by when a busy journald gets to it,
# there is no process any more that it could ask anything of.
kill -STOP "$JOURNALD"
printf '%s\n' 'new vdc' hang destroy release wait | ./vmm >/dev/null
kill -CONT "$JOURNALD"
journalctl --sync
id=$(awk '$1 == "DESTROY_TIMED_OUT" { print $2 }' events)
journalctl -x --no-pager MESSAGE_ID="$id" KTVBLK_DISK=vdc >out
check 'the device' grep -q '^░░ Subject: libktvblk: device 0 is wedged' out
check 'the process' grep -q '^░░ vmm [0-9]*, device' out
check 'the disk' grep -q '^░░ .*disk vdc, 524288 sectors' out
check 'the budget' grep -q '^░░ 50 ms' out
check 'the request' grep -q '^░░ Request: in of 4096 bytes at sector 2048' out
check 'the thread' grep -q '^░░ Thread [0-9]*: state S, system call' out
check 'the fence' grep -q '^░░ Fenced: yes\.' out

sums
