#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# consumer.sh shared|static DIR: build consumer.c in DIR by what pkg-config says
# of an installed libktvblk, and run it. CC, PKG_CONFIG (cc, pkg-config).

set -eu
kind=$1 dir=$2 pkg_config=${PKG_CONFIG:-pkg-config}
libs=$("$pkg_config" --libs libktvblk)
if [ "$kind" = static ]; then
	# libsystemd exists only as a shared library.
	libs=$("$pkg_config" --static --libs libktvblk)
	libs=${libs/-lktvblk/-l:libktvblk.a}
fi
# shellcheck disable=SC2046,SC2086 # lists of words
${CC:-cc} -Wall -Werror $("$pkg_config" --cflags libktvblk) \
	-o "$dir/$kind" "${0%/*}/consumer.c" $libs
"$dir/$kind"
case $kind,$(ldd "$dir/$kind") in
shared,*libktvblk* ) ;;
static,*libktvblk*) exit 1 ;;
static,*) ;;
*) exit 1 ;;
esac
