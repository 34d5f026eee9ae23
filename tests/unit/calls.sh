#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# calls.sh CC NM OBJECT...: see that test-faults.c, or test-vu-faults.c, makes each
# function fail that these objects of the library want of others, but for those
# listed here.

set -u
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
here=$(dirname "$0") cc=$1 nm=$2
shift 2

words() {
	tr -s ' ' '\n' | sort -u
}

sed '/^#/d' <<'END' | words >"$tmp/cannot"
# Copying, formatting and counting in memory we have.
bcmp memchr memcmp memcpy memmove memset qsort snprintf strchr strcmp strcspn
strlen strncmp strrchr strstr strtol strtoull tolower vsnprintf
# The C library's own, without a system call.
__ctype_tolower_loc __errno_location __pthread_unwind_next
__pthread_register_cancel __pthread_unregister_cancel __sched_cpucount
__sigsetjmp sysconf
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
# Of a directory that was opened.
closedir
# Says whether a thread is there: test-locate.c has both answers.
access
# Always succeed.
free getpid gettid io_uring_queue_exit pthread_equal pthread_self sched_yield
# For a thread's own name: only what does not fit.
pthread_getname_np
# Of a thread that is ours and has not been joined or detached before.
pthread_detach pthread_join
END
sed -n 's|^/\* wrap: \(.*\) \*/|\1|p' "$here/test-faults.c" \
	"$here/test-vu-faults.c" |
	words | comm -23 - "$tmp/cannot" >"$tmp/fail"

# What the compiler brings itself makes no system call.
# shellcheck disable=SC2086 # it may be several words
runtime=$($cc -print-libgcc-file-name) && [ -s "$runtime" ] || exit 1
"$nm" --defined-only -P "$@" "$runtime" 2>/dev/null |
	sed 's/ .*//' | words >"$tmp/ours"
# Nor does what the linker defines, what guards the stack, finds thread-local
# variables, or looks on in a sanitizer's or gcov's build.
"$nm" -u -P "$@" | sed -n 's/ [UwW].*//p' | words |
	comm -23 - "$tmp/ours" |
	grep -v -E '^(\.|_GLOBAL_OFFSET_TABLE_$|__stack_chk_|_*tls_get_)' |
	grep -v -E '^_*(asan|ubsan|tsan|sanitizer|gcov|llvm)_|:$' |
	sed -f "$here/plain-names.sed" | words >"$tmp/others"

[ -s "$tmp/others" ] || { echo 'calls.sh: no calls found'; exit 1; }
if sort -u "$tmp/cannot" "$tmp/fail" | comm -23 "$tmp/others" - |
	grep . >"$tmp/missing"; then
	echo 'calls.sh: called, but test-faults.c does not make them fail:'
	cat "$tmp/missing"
	exit 1
fi
n=$(comm -12 "$tmp/others" "$tmp/fail" | wc -l)
echo "  test-faults has all $n calls of the library that can fail"
