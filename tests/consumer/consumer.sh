#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# consumer.sh shared|static|fully-static DIR: build consumer.c in DIR by what
# pkg-config says of an installed libktvblk, and run it. CC, PKG_CONFIG (cc,
# pkg-config). A fully static one is skipped where there is no static libsystemd.

set -eu
kind=$1 dir=$2 pkg_config=${PKG_CONFIG:-pkg-config}
libs=$("$pkg_config" --libs libktvblk)
case $kind in
fully-static)
	for lib in systemd cap; do
		[ -e "$(${CC:-cc} -print-file-name=lib$lib.a)" ] || {
			echo "fully-static: no libsystemd.a, or no libcap.a"
			exit 0
		}
	done
	libs="-static $("$pkg_config" --static --libs libktvblk) -lcap"
	;;
static) # The shared libsystemd.
	libs=$("$pkg_config" --static --libs libktvblk)
	libs=${libs/-lktvblk/-l:libktvblk.a}
	;;
esac
# shellcheck disable=SC2046,SC2086 # lists of words
${CC:-cc} -Wall -Werror $("$pkg_config" --cflags libktvblk) \
	-o "$dir/$kind" "${0%/*}/consumer.c" $libs
"$dir/$kind"
case $kind,$(ldd "$dir/$kind" 2>&1 || :) in
shared,*libktvblk* ) ;;
static,*libktvblk*) exit 1 ;;
static,*) ;;
fully-static,*'not a dynamic executable'*) ;;
*) exit 1 ;;
esac
