#!/bin/sh
# Makes the archive that is shipped of the one that rustc makes: archive.sh FROM TO SYMBOLS
#
# One object with what the functions of the version script SYMBOLS reach and no symbol but theirs, so that a program can
# hold another archive of Rust as well; without debug information and the bitcode that only rustc reads.
set -eu

from=$1 to=$2 symbols=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -n 's/^ *\(platter_[a-z0-9_]*\);.*/\1/p' "$symbols" >"$work/keep"
${OBJCOPY:-objcopy} --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd "$from" "$work/from.a"
# shellcheck disable=SC2046
${LD:-ld} -r --gc-sections -o "$work/one.o" $(sed 's/^/-u /' "$work/keep") --whole-archive "$work/from.a"
${OBJCOPY:-objcopy} --keep-global-symbols="$work/keep" "$work/one.o" "$work/local.o"
${OBJCOPY:-objcopy} --strip-unneeded "$work/local.o" "$work/platter.o"
rm -f "$to"
${AR:-ar} rcsD "$to" "$work/platter.o"
