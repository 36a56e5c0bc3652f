#!/bin/sh
# The exported symbols, platter.map and the header must name the same functions.
set -eu

so=${1:-build/libplatter.so}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '#include <platter.h>\n' | ${CC:-cc} -E -P -Iinclude - |
    grep -o '\bplatter_[a-z0-9_]*(' | tr -d '(' | sort -u >"$work/header"
sed -n 's/^ *\(platter_[a-z0-9_]*\);.*/\1/p' platter.map | sort -u >"$work/map"
nm -D --defined-only "$so" | sed -n 's/.* [TDBRVW] \([^@]*\).*/\1/p' | sort -u >"$work/exported"

diff -u --label 'the header' --label 'platter.map' "$work/header" "$work/map"
diff -u --label 'the header' --label "$so" "$work/header" "$work/exported"

# Every symbol is versioned.
if nm -D --defined-only "$so" | grep ' [TDBRVW] ' | grep -v '@@PLATTER_'; then
    echo "$so exports the symbols above without a version" >&2
    exit 1
fi
echo "$(wc -l <"$work/header") functions: header, platter.map and $so agree"
