# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For run.sh: cases and their sum, disks and their images, a guest and what it
# says. $build is the build directory, $out where consoles' logs and kernels
# are, $group what the cases belong to, $tmp its own directory.

passed=0 failed=0 skipped=0

# report ok|FAIL HUNDREDTHS NAME
report() {
	case $1 in
	ok) passed=$((passed + 1)) ;;
	*) failed=$((failed + 1)) ;;
	esac
	printf '%-4s %4d.%02ds  %s: %s\n' "$1" $(($2 / 100)) $(($2 % 100)) \
		"$group" "$3"
}

# check NAME COMMAND...: a case of the host's.
check() {
	local name=$1 begin=${EPOCHREALTIME/./} verdict=ok
	shift
	"$@" >"$tmp/check.log" 2>&1 || verdict=FAIL
	report $verdict $(((${EPOCHREALTIME/./} - begin) / 10000)) "$name"
	[ $verdict = ok ] || sed 's/^/     | /' "$tmp/check.log"
}

# skip WHY: the whole group.
skip() {
	echo "skip: $group: $*"
	skipped=$((skipped + 1))
	sum
}

sum() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ]
	exit
}

# need PROGRAM...
need() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "no $program"
	done
}

#
# Disks
#

# disk NAME MIB [OPTION...]: make an image, and add to the array disks.
disk() {
	local image=$tmp/$1.img options
	rm -f "$image"
	truncate -s "$2M" "$image"
	printf -v options ',%s' "name=$1" "serial=$1" "${@:3}"
	disks+=("$image$options")
}

# case_of QUEUE:EVENT_IDX:INDIRECT:COPY REBINDS [SIZE]: a disk, and its suite,
# for the plan. Adds to the array suites.
case_of() {
	local queue event_idx indirect copy name
	IFS=: read -r queue event_idx indirect copy <<<"$1"
	name=q$queue-${event_idx/#on/ei}-${indirect/#on/in}-$copy
	name=${name//-off/}
	disk "$name" 8 "queue=$queue" \
		$([ "$event_idx" = on ] || echo no-event-idx) \
		$([ "$indirect" = on ] || echo no-indirect) \
		$([ "$copy" = fenced ] || echo zero-copy)
	suites+=("$name")
	echo "$name suite $name 16384 0 $queue $(bit "$event_idx")" \
		"$(bit "$indirect") $2"
}

bit() {
	if [ "$1" = on ]; then echo 1; else echo 0; fi
}

# The image of a disk that the guest's "image" wrote, byte for byte.
same_image() {
	local sectors=$(($(stat -L -c %s "$tmp/$1.img") / 512))
	rm -f "$tmp/expected"
	sh "$here/scribble" "$tmp/pattern" "$tmp/expected" $sectors &&
		cmp "$tmp/expected" "$tmp/$1.img"
}

# copied NAME: its first half is what it was, and so is its second, now.
copied() {
	local half=$(($(stat -c %s "$tmp/$1.img") / 2))
	cmp -n $half "$tmp/$1.before" "$tmp/$1.img" &&
		cmp -n $half -i 0:$half "$tmp/$1.before" "$tmp/$1.img"
}

#
# Guests
#

# An emulated kernel that measures the TSC on a busy machine sometimes hangs;
# one whose CPU waited for a reset finds it unreliable, and counts ticks. One that
# sees no tick for a while finds its timer broken.
clock_parameters() {
	echo "tsc=reliable tsc_early_khz=$("$build/tests/guest/tsc-khz")" \
		"no_timer_check $patient_parameters"
}
# Of any that waits for a processor of the host's, and takes it for a fault.
patient_parameters='nosoftlockup rcupdate.rcu_cpu_stall_suppress=1'

# Files of the guest that differ from boot to boot: its plans, and the pattern.
# Not compressed, so it comes first: the kernel wants it aligned.
own_archive() {
	mkdir -p "$tmp/root/etc"
	cp "$tmp"/plan.* "$tmp/root/etc/"
	cp "$tmp/pattern" "$tmp/root/pattern"
	(cd "$tmp/root" && find . | cpio -o -H newc --quiet)
}

# What a guest says of its cases, from standard input, and what it should have.
follow() {
	local line verdict time name
	while IFS= read -r line; do
		line=${line//$'\r'/}
		printf '%s\n' "$line" >>"$out/$group.log"
		case $line in
		*'@@ ok '* | *'@@ FAIL '*)
			read -r verdict time name <<<"${line##*@@ }"
			report "$verdict" "$time" "$name"
			echo "$name" >>"$tmp/seen"
			;;
		*'@@ |'*) echo "     ${line##*@@ }" ;;
		*'@@ note '*) echo "     ${line##*@@ note }" ;;
		esac
	done
	while read -r name _; do
		grep -qxF "$name" "$tmp/seen" ||
			report FAIL 0 "$name: no answer, see $out/$group.log"
	done < <(cat "$tmp"/plan.*)
}

# guest SECONDS COMMAND...: its cases, by what it says on standard output. If
# set, $keyboard is a file to read from, and $listen a command between the two.
guest() {
	local pid
	: >"$out/$group.log" >"$tmp/seen"
	exec {console}< <(exec timeout --foreground -k 10 "$@" \
		<"${keyboard:-/dev/null}" 2>"$out/$group.err")
	pid=$!
	follow < <("${listen:-cat}" <&"$console")
	wait $pid || echo "     | ended with $?, see $out/$group.*"
	exec {console}<&-
}
