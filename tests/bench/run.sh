#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh BENCH LIBRARY DIRECTORY [ARGUMENT...]: measure, and draw what came out.
#
#   BENCH=full     all cases instead of a choice, in shorter rounds: 20 minutes
#   BENCH_AGAINST  another build of the library, measured in turn with it
#   BENCH_DIR      where to put the files; a real file system (DIRECTORY)

set -e
bench=$1 library=$2 out=$3
shift 3
mkdir -p "$out"
[ "$BENCH" != full ] || set -- --full --ms 50 "$@"
[ -z "$BENCH_AGAINST" ] || set -- --against "$(realpath "$BENCH_AGAINST")" "$@"
"$bench" --library "$(realpath "$library")" --dir "${BENCH_DIR:-$out}" \
	--out "$out/bench" "$@"

echo "$out: bench.txt, bench.json"
if ! command -v gnuplot >/dev/null; then
	echo "no plot: no gnuplot here"
	exit 0
fi
gnuplot -e "data = '$out/bench.dat'; set output '$out/bench.svg'" \
	tests/bench/plot.gp
echo "$out: bench.svg"
