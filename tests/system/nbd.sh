#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The example with an NBD server: ktvblk-nbd in $BUILD (build), and nbdkit, which
# is slow, killed, stopped and started again under it.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
work=$(mktemp -d)
server='' guest=''
# shellcheck disable=SC2317 # called by the trap
clean_up() {
	[ -z "$server" ] || kill -KILL "$server" 2>/dev/null
	[ -z "$guest" ] || kill -KILL "$guest" 2>/dev/null
	wait
	rm -rf "$work"
}
trap clean_up EXIT
cd "$work" || exit 1
show=(out err server)
export LD_LIBRARY_PATH=$BUILD
[ -x "$BUILD/ktvblk-nbd" ] || { skip 'no libnbd here'; sums; exit; }
command -v nbdkit >/dev/null || { skip 'no nbdkit here'; sums; exit; }
uri="nbd+unix:///?socket=$work/socket"

# serve ARGUMENT...: nbdkit, with 64 requests at a time.
serve() {
	rm -f socket
	nbdkit -f -t 64 -U socket "$@" 2>server &
	server=$!
	eventually listens_at "$work/socket"
}

# gone SIGNAL: the server, by this.
gone() {
	kill "-$1" "$server"
	wait "$server" 2>/dev/null
	server=''
}

# work ARGUMENT...: the guest begins, until it is told to end. A disk that is well
# may take long for that, on a busy machine.
work() {
	"$BUILD/ktvblk-nbd" --seconds 300 --budget 60000 "$@" "$uri" \
		>out 2>err &
	guest=$!
}

# The guest ends, as it will: with this status.
ends() {
	local rc
	kill "$guest"
	wait "$guest"
	rc=$?
	guest=''
	[ $rc -eq "$1" ] || { echo "exit status $rc, not $1"; return 1; }
}

# Requests that were answered, by now.
n_done() {
	local n
	n=$(sed -n 's/^done: \([0-9]*\) reads, \([0-9]*\) writes, .*/\1 + \2/p' \
		out | tail -n 1)
	echo $((n))
}

# has_done N: that many.
has_done() {
	[ "$(n_done)" -ge "$1" ]
}

# settled: two of its looks found nothing more; $before have been done.
settled() {
	before=$(n_done)
	[ "$(grep '^done: ' out | tail -n 2 | uniq | wc -l)" -eq 1 ]
}

at_work() {
	eventually has_done $(($(n_done) + 200))
}

# The last that was told.
is_state() {
	[ "$(sed -n 's/^state: //p' out | tail -n 1)" = "$1" ]
}

all_right() {
	grep -q ' 0 errors, 0 reads wrong$' <(tail -n 4 out) ||
		{ tail -n 4 out; return 1; }
}

# record WORDS...: one has them all.
record() {
	local lines word
	lines=$(<err)
	for word; do
		lines=$(grep -F -- "[$word" <<<"$lines") || { echo "no $word"; return 1; }
	done
}

# quick MS: destroy took at most so long, and what a busy machine adds.
quick() {
	local ms
	ms=$(sed -n 's/^destroy: .* after \([0-9]*\) ms$/\1/p' out)
	[ "${ms:-99999}" -le $(($1 + 15000)) ] || { echo "took $ms ms"; return 1; }
}

message_id() {
	list_events | awk -v name="$1" '$1 == name { print $2 }'
}

# nothing_at STATUS ARGUMENT...: it ends by itself with this status.
nothing_at() {
	local rc want=$1
	shift
	timeout 100 "$BUILD/ktvblk-nbd" "$@" >out 2>err
	rc=$?
	[ $rc -eq "$want" ] || { echo "exit status $rc, not $want"; return 1; }
}

new_fails() {
	nothing_at 1 "$uri" && grep -qF "ktvblk-nbd: $uri: " err
}

# in_flight N: so many were with the server at some time, by nbdkit's log of
# requests, and never more.
in_flight() {
	[ "$(awk '/ (Read|Write|Flush) id=/ { if (++n > max) max = n }
		/ \.\.\.(Read|Write|Flush) id=/ { n-- } END { print max + 0 }' \
		log)" -eq "$1" ]
}

record_stalled=MESSAGE_ID=$(message_id REQUEST_STALLED)
record_resumed=MESSAGE_ID=$(message_id REQUEST_RESUMED)
record_wedged=MESSAGE_ID=$(message_id DESTROY_TIMED_OUT)
record_reclaimed=MESSAGE_ID=$(message_id RECLAIMED)

# Healthy servers.
serve --filter=log --filter=delay memory 64M rdelay=50ms wdelay=50ms logfile=log
work --stall 60000
check 'at work' at_work
check '... 32 requests are with the server at once' eventually in_flight 32
check '... and at the end nothing is left behind' ends 0
check '... all it read was right' all_right
check '... the disk was joined' grep -q '^destroy: joined' out
check '... with no record' [ ! -s err ]
gone TERM
check '... and never more were' in_flight 32

truncate -s 64M image
serve --filter=error file image error=EIO error-file=bad error-rate=1 error-pwrite-rate=0
work --keeps-writes
check 'a server that answers' at_work
touch bad
check '... its errors are the guest'\''s' eventually grep -q '^error: status 1 of a read' out
rm bad
check '... and go by' at_work
check '... which is told at the end' ends 1
gone TERM

# A server that goes, and comes again.
for how in KILL TERM; do
	serve file image
	work --stall 500 --keeps-writes
	check "under load, then $how" at_work
	gone $how
	check '... the disk stalls, no more' eventually is_state stalled
	check '... and says so' eventually record "$record_stalled"
	before=$(n_done)
	serve file image
	check '... it is served again' eventually has_done $((before + 500))
	check '... and says that it goes on' eventually record "$record_resumed"
	check '... no answer was lost, and none wrong' ends 0
	check '... all it read was right' all_right
	gone TERM
done

serve file image
work --stall 500
check 'a server that may lose writes' at_work
gone KILL
check '... is gone' eventually is_state stalled
serve file image
check '... and is not trusted with what was not flushed' \
	eventually grep -q '^error: status 1 of a flush' out
check '... by nobody' ends 1
check '... but no read nor write failed' \
	[ "$(grep -c '^error: .* of a \(read\|write\)$' out)" -eq 0 ]
gone TERM

serve file image
work --stall 500 --budget 500
check 'another disk in its place' at_work
gone KILL
serve memory 32M
check '... is none' eventually is_state stalled
check '... from the beginning' eventually settled
gone KILL
check '... nothing was asked of it' [ "$(n_done)" -eq "$before" ]
serve file image
check '... the old one is' eventually has_done $((before + 200))
gone KILL
check '... when it is gone for good' eventually is_state stalled
check '... the end is bounded' ends 3
check '... to its budget' quick 1500
check '... and memory comes back' grep -q '^guest memory is unmapped$' out

# A server that is stopped.
serve file image
work --stall 500
check 'under load, then SIGSTOP' at_work
kill -STOP "$server"
check '... the disk stalls' eventually is_state stalled
kill -CONT "$server"
check '... SIGCONT heals it' at_work
check '... it runs' eventually is_state running
check '... records of both' eventually record "$record_resumed"
check '... nothing was wrong' ends 0
check '... all it read was right' all_right

work --stall 500 --budget 500
check 'stopped, and not continued' at_work
kill -STOP "$server"
check '... the disk stalls' eventually is_state stalled
check '... its end is bounded' ends 3
check '... to its budget' quick 1500
check '... the worker is left behind' grep -q '^destroy: timed out' out
check '... and a record names the disk and a request' \
	record "$record_wedged" KTVBLK_DISK=nbd KTVBLK_REQ_TYPE= KTVBLK_TIMEOUT_MS=500
check '... once nobody wants the answers all comes back' \
	grep -q '^guest memory is unmapped$' out
check '... and is told to be back' record "$record_reclaimed"
check '... a new disk cannot be had, and is not waited for long' new_fails
kill -CONT "$server"
gone TERM

check 'no server' new_fails
check 'a URI that is none' nothing_at 1 nonsense
check 'no URI' nothing_at 2
check 'two of them' nothing_at 2 "$uri" "$uri"
check 'an option that is none' nothing_at 2 --nonsense "$uri"
check 'help' nothing_at 0 --help
sums
