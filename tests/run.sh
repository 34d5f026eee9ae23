#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh PROGRAM...: run libcheck programs, several at once, and add up what
# they say. A program's output goes to PROGRAM.log and is shown if it failed.
# A program may exit 77: it could not run here, which counts as one skipped.
#
#   TEST_JOBS     programs at a time (all processors)
#   TEST_TIMEOUT  seconds for each program (300; test-faults: three times that)
#   TESTS_RUN_SLOWLY  if set, bounds of time are wide and loops short
#   TESTS_EMULATED    if set, TEST_WRAPPER is qemu-user: procfs shows the host's
#                 system calls
#   TESTS_ONE_THREAD  if set, a wait in io_uring_enter() holds up all threads
#   TEST_WRAPPER  command to run it under, such as valgrind

export CK_DEFAULT_TIMEOUT="${CK_DEFAULT_TIMEOUT:-30}"

# Leaves "passed failed skipped" in PROGRAM.sum.
run_one() {
	rm -f "$1.sum"
	limit=${TEST_TIMEOUT:-300}
	# It takes a fifth of that on an idle machine.
	case ${1##*/} in test-faults) limit=$((limit * 3)) ;; esac
	# shellcheck disable=SC2086 # the wrapper is several words
	timeout -k 10 "$limit" $TEST_WRAPPER "$1" >"$1.log" 2>&1
	status=$?
	# 100%: Checks: 12, Failures: 0, Errors: 0
	counts=$(awk '/^[0-9]+%: Checks: / { n += $3; bad += $5 + $7; seen = 1 }
		END { if (seen) print n - bad, bad + 0 }' "$1.log")
	passed=${counts% *} failed=${counts#* } skipped=0 why=

	case $status in
	0) [ "$counts" ] || why='no summary' ;;
	77) skipped=1 ;;
	124 | 137) why='timed out' ;;
	*) [ "${failed:-0}" -gt 0 ] || why="exit status $status" ;;
	esac
	# A crash, or a sanitizer's verdict, after the last test or instead of it.
	[ -z "$why" ] || failed=$((failed + 1))

	echo "${passed:-0} ${failed:-0} $skipped" >"$1.sum"
	case ${failed:-0},$skipped in
	0,0) verdict=pass ;;
	0,*) verdict=skip ;;
	*) verdict=FAIL ;;
	esac
	printf '  %s  %-24s %3d passed%s%s\n' $verdict "${1##*/}" "${passed:-0}" \
		"$([ "${failed:-0}" -eq 0 ] || echo ", $failed failed")" \
		"${why:+ ($why)}"
}

if [ "$1" = --one ]; then
	run_one "$2"
	exit 0
fi

[ $# -eq 0 ] || printf '%s\0' "$@" |
	xargs -0 -n 1 -P "${TEST_JOBS:-$(nproc)}" "$0" --one

passed=0 failed=0 skipped=0
for program; do
	read -r p f s <"$program.sum" || { p=0 f=1 s=0; }
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	[ "$f" -eq 0 ] || { echo "--- $program.log"; cat "$program.log"; }
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
