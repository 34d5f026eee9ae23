#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# instructions.sh BENCH LIBRARY DIRECTORY [CASE...]: what a request costs in
# instructions of the library, counted by callgrind, so whatever the machine is
# doing meanwhile. Not in it: libc (copies, the clock) and the kernel. A case is
# named without its depth, as null/4k/read/fenced.
#
# The worker serves a full ring in one drain: once of 32 requests and once of
# 128, and the difference is divided by 96, so what a drain costs by itself falls
# out. The columns beside it are parts, with all they call (copies too): pop takes
# a head from the ring, parse reads and checks the chain, serve moves the data,
# publish writes status and used entry and looks whether to interrupt.

set -eu
bench=$1 library=$(realpath "$2") out=$3
shift 3
[ $# -gt 0 ] || set -- null/4k/{read,write}/{fenced,zerocopy} null/4k/flush/fenced \
	null/4k/read/fenced/no-{event-idx,indirect} null/64k/read/zerocopy
command -v valgrind >/dev/null || { echo "no valgrind here"; exit 77; }
mkdir -p "$out"

# count CASE DEPTH: "total pop parse serve publish" of that one drain.
count() {
	local file=$out/callgrind.$2 name
	name=$(sed "s|^\([^/]*/[^/]*\)/|\1/d$2/|" <<<"$1")/no-poll
	valgrind -q --tool=callgrind --toggle-collect=drain \
		--compress-strings=no --compress-pos=no \
		--callgrind-out-file="$file" "$bench" --library "$library" \
		--once "$name"
	{ cat "$file"; echo inclusive
	  callgrind_annotate --auto=no --inclusive=yes --threshold=100 "$file"; } | awk '
		# Costs of its own, of the functions of the library.
		/^inclusive$/ { inclusive = 1 }
		!inclusive && /^ob=/ { ours = /libktvblk/ }
		!inclusive && /^calls=/ { getline; next }
		!inclusive && ours && /^[0-9]+ [0-9]+$/ { total += $2 }
		inclusive && /\.c:[a-z_0-9]+ \[.*libktvblk/ {
			gsub(",", "", $1); match($0, /\.c:[a-z_0-9]+/)
			of[substr($0, RSTART + 3, RLENGTH - 3)] = $1 }
		END { print total, of["virtqueue_pop"] + 0,
			of["request_read"] + 0, of["io_serve"] + 0,
			of["complete"] + 0 }'
}

printf '%-40s %8s %6s %6s %6s %7s   instructions per request\n' \
	case all pop parse serve publish
for case; do
	few=$(count "$case" 32)
	many=$(count "$case" 128)
	awk -v case="$case" '
		NR == 1 { split($0, few) }
		NR == 2 { printf "%-40s", case
			for (i = 1; i <= NF; i++)
				printf (i == 1 ? " %8.1f" : i == 5 ? " %7.1f" : " %6.1f"),
					($i - few[i]) / 96
			print "" }' <<<"$few
$many"
done
