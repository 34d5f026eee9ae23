#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# instructions.sh show BENCH LIBRARY DIRECTORY [CASE...]: what a request costs in
# instructions of the library, counted by callgrind, so whatever the machine is
# doing meanwhile. Not in it: libc (copies, the clock) and the kernel. A case is
# named without its depth, as null/4k/read/fenced.
#
# The worker serves a full ring in one drain: once of 32 requests and once of
# 128, and the difference is divided by 96, so what a drain costs by itself falls
# out. The columns beside it are parts, with all they call (copies too): pop takes
# a head from the ring, parse reads and checks the chain, start moves the data,
# publish writes status and used entry and looks whether to interrupt.
#
# instructions.sh check ...: no more than in instructions.txt, by 5 %. They are of
# one compiler with the default CFLAGS; for others there is nothing to check.
# instructions.sh baseline ...: write instructions.txt.

set -eu
do=$1 bench=$2 library=$(realpath "$3") out=$4
shift 4
baseline=$(dirname "$0")/instructions.txt
[ $# -gt 0 ] || set -- null/4k/{read,write}/{fenced,zerocopy} null/4k/flush/fenced \
	null/4k/read/fenced/no-{event-idx,indirect} null/64k/read/zerocopy
mkdir -p "$out"

skip() {
	echo "skipped: instructions: $*"
	[ "$do" = check ] || exit 77
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
}
command -v valgrind >/dev/null || skip no valgrind here

# What the figures depend on: machine and compiler, as "X86-64 GCC 12".
built_by() {
	readelf -h -p .comment "$library" | sed -nE \
		's/.*Machine: .* (.*)/\1/p; s/.*(GCC|clang)[^0-9]* ([0-9]+)\..*/\1 \2/p' |
		paste -sd ' '
}

# The name of a case at a depth. No polling: that depends on time.
at_depth() {
	local store size rest
	IFS=/ read -r store size rest <<<"$2"
	echo "$store/$size/d$1/$rest/no-poll"
}

# Run all cases in one process; callgrind.N is of the Nth. The first request of
# a process does more than others, so there is one before them.
count_all() {
	local names=(null/512/d1/read/fenced/no-poll) case
	for case; do
		names+=("$(at_depth 32 "$case")" "$(at_depth 128 "$case")")
	done
	rm -f "$out"/callgrind*
	valgrind -q --tool=callgrind --toggle-collect=drain \
		--dump-after=guest_close --compress-strings=no \
		--compress-pos=no --callgrind-out-file="$out/callgrind" \
		"$bench" --library "$library" --once "${names[@]}"
	mapfile -t visited < <("$bench" --list "${names[@]}")
}

# "all pop parse start publish" of one drain.
count_of() {
	local n
	for n in "${!visited[@]}"; do
		[ "${visited[n]}" != "$1" ] || break
	done
	{ cat "$out/callgrind.$((n + 1))"; echo inclusive
	  callgrind_annotate --auto=no --inclusive=yes --threshold=100 \
		"$out/callgrind.$((n + 1))"; } | awk '
		# Costs of its own, of the functions of the library.
		/^inclusive$/ { inclusive = 1 }
		!inclusive && /^ob=/ { ours = /libktvblk/ }
		!inclusive && /^calls=/ { getline; next }
		!inclusive && ours && /^[0-9]+ [0-9]+$/ { all += $2 }
		# One whole, and parts of it, where it has lines of other files.
		inclusive && match($0, /src\/lib\/.*\.[ch]:[a-z_0-9]+/) {
			gsub(",", "", $1)
			name = substr($0, RSTART, RLENGTH)
			sub(/.*:/, "", name)
			if (of[name] < $1 + 0) of[name] = $1 + 0 }
		END { print all, of["virtqueue_pop"] + 0,
			of["request_read"] + 0, of["io_start"] + 0,
			of["complete"] + 0 }'
}

show() {
	local case
	count_all "$@"
	printf '%-40s %8s %6s %6s %6s %7s   instructions per request\n' \
		case all pop parse start publish
	for case; do
		echo "$case $(count_of "$(at_depth 32 "$case")")" \
			"$(count_of "$(at_depth 128 "$case")")"
	done | awk '{ printf "%-40s", $1
		for (i = 2; i <= 6; i++)
			printf (i == 2 ? " %8.1f" : i == 6 ? " %7.1f" : " %6.1f"),
				($(i + 5) - $i) / 96
		print "" }'
}

case $do in
show)
	show "$@"
	;;
baseline)
	show "$@" >"$out/instructions"
	{ echo '# Instructions of the library for a request; "make bench-baseline"'
	  echo "# built by: $(built_by)"
	  awk 'NR > 1 { printf "%-40s %5.0f\n", $1, $2 }' "$out/instructions"
	} >"$baseline"
	;;
check)
	want=$(sed -n 's/^# built by: //p' "$baseline")
	[ "$(built_by)" = "$want" ] || skip "of $want, this is $(built_by)"
	mapfile -t cases < <(sed '/^#/d; s/ .*//' "$baseline")
	show "${cases[@]}" >"$out/instructions"
	awk '
		NR == FNR { if (!/^#/) want[$1] = $2; next }
		!($1 in want) { next }
		{ good = $2 > 0 && $2 <= want[$1] * 1.05
		  good ? passed++ : failed++
		  printf "%-4s %-44s %.0f instructions, %.0f committed%s\n",
			good ? "ok" : "FAIL", $1, $2, want[$1],
			$2 < want[$1] * 0.98 ? ": less, make bench-baseline" : "" }
		END { printf "%d passed, %d failed, 0 skipped\n", passed, failed
			exit failed || !passed }
	' "$baseline" "$out/instructions"
	;;
esac
