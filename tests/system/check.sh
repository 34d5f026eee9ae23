# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the tests in bash: `. check.sh`, private if a journald is needed, checks,
# and sums at the end. $top is the tree, $BUILD what was built of it, $work a
# directory to work in.

here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
BUILD=$(realpath "${BUILD:-$top/build}")
export BUILD LC_ALL=C.UTF-8 TZ=UTC
passed=0 failed=0 skipped=0
show=() # files that a failure shows

# private: go on with a journald of our own, or not at all.
private() {
	[ "${PRIVATE-}" != /run/private ] || return 0
	"$here/private-journald.sh" "$0"
	rc=$?
	[ $rc -eq 77 ] || exit $rc
	exit 0
}

# work_in DIR: from here on.
work_in() {
	work=$1
	mkdir -p "$work"
	cd "$work" || exit 1
}

# check NAME COMMAND...: it succeeds.
check() {
	local name=$1
	shift
	if "$@" >"$work/said" 2>&1; then
		passed=$((passed + 1))
		return
	fi
	failed=$((failed + 1))
	echo "FAIL $name"
	head -qn 20 "$work/said" "${show[@]}" | cut -c 1-200 | sed 's/^/    | /'
}

# eventually COMMAND...: it succeeds, sooner or later. How long that takes says
# how busy the machine is.
eventually() {
	local until=$((SECONDS + 120))
	until "$@"; do
		[ $SECONDS -lt $until ] || return 1
		sleep 0.02
	done
}

# listens_at PATH: a process does. A socket alone may be bound and no more yet, or
# be of one that was killed.
listens_at() { grep -q " 00010000 0001 01 .* $1\$" /proc/net/unix; }

skip() {
	skipped=$((skipped + 1))
	echo "skipped: $*"
}

sums() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed -eq 0 ]
}

# build PROGRAM SOURCE...: with the library in $BUILD.
build() {
	local program=$1
	shift
	${CC:-cc} -std=gnu11 -D_GNU_SOURCE -I. -I"$top/include" \
		-iquote "$top/src/lib" -iquote "$top/src/demo" -o "$program" \
		"$@" -L"$BUILD" -lktvblk -lsystemd -pthread || exit 1
	export LD_LIBRARY_PATH=$BUILD
}

# calls.inc: the system calls of this machine, for programs that forbid some.
list_calls() {
	echo '#include <sys/syscall.h>' | ${CC:-cc} -E -dM - |
		sed -n 's/^#define __NR_\([a-z0-9_]*\) [0-9].*/{ "\1", __NR_\1 },/p' \
		>calls.inc
}

# The library's events: name, MESSAGE_ID, priority, l or -, fields.
list_events() {
	${CC:-cc} -I"$top/include" -iquote "$top/src/lib" -o "$work/list-events" \
		"$here/catalog-events.c" || exit 1
	"$work/list-events"
}
