#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# calls.sh NM OBJECT...: see that test-faults.c makes each function fail that
# these objects of the library want of others, but for those listed here.

set -u
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
nm=$1
shift

words() {
	tr -s ' ' '\n' | sort -u
}

sed '/^#/d' <<'END' | words >"$tmp/cannot"
# Copying, formatting and counting in memory we have.
bcmp memchr memcmp memcpy memmove memset qsort snprintf strchr strcspn strlen
strncmp strrchr strtol tolower vsnprintf
# The compiler's and the C library's own, without a system call.
_GLOBAL_OFFSET_TABLE_ __ctype_tolower_loc __errno_location __pthread_unwind_next
__pthread_register_cancel __pthread_unregister_cancel __sched_cpucount
__sigsetjmp __stack_chk_fail __udivmodti4 __udivti3 __umodti3
# Fail for a wrong argument only, and theirs are constants: a clock, a signal
# mask, a state; or a lock, a condition, attributes that were initialised.
clock_gettime pthread_attr_destroy pthread_attr_init
pthread_attr_setstacksize pthread_cond_broadcast
pthread_cond_init pthread_cond_signal pthread_condattr_destroy
pthread_condattr_init pthread_condattr_setclock pthread_mutex_destroy
pthread_mutex_init pthread_mutex_lock pthread_mutex_unlock pthread_once
pthread_setcancelstate pthread_sigmask sigdelset sigfillset
# Fails where memory is locked; then that stays.
madvise
# Always succeed.
free getpid gettid pthread_equal pthread_self sched_yield
# Of a thread that is ours and has not been joined or detached before.
pthread_detach pthread_join
END
sed -n 's|^/\* wrap: \(.*\) \*/|\1|p' "$(dirname "$0")/test-faults.c" |
	words | comm -23 - "$tmp/cannot" >"$tmp/fail"

# Sanitizers and gcov add calls, _FORTIFY_SOURCE renames some.
"$nm" -u -P "$@" | sed -n 's/ [UwW].*//p' |
	sed 's/^__\(.*\)_chk$/\1/; s/^__open_2$/open/' |
	grep -v -E '^_*(asan|ubsan|tsan|sanitizer|gcov|llvm)_|:$' |
	words >"$tmp/wanted"
"$nm" --defined-only -P "$@" | sed 's/ .*//' | words >"$tmp/ours"
comm -23 "$tmp/wanted" "$tmp/ours" >"$tmp/others"

[ -s "$tmp/others" ] || { echo 'calls.sh: no calls found'; exit 1; }
if sort -u "$tmp/cannot" "$tmp/fail" | comm -23 "$tmp/others" - |
	grep . >"$tmp/missing"; then
	echo 'calls.sh: called, but test-faults.c does not make them fail:'
	cat "$tmp/missing"
	exit 1
fi
n=$(comm -12 "$tmp/others" "$tmp/fail" | wc -l)
echo "  test-faults has all $n calls of the library that can fail"
