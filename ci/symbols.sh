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

# Every function is on a page of the manual.
mkdir "$work/man"
awk -v dir="$work/man" -v version=0 -f ci/man.awk include/platter.h
sed -n 's/^\.SS \(platter_[a-z0-9_]*\)()$/\1/p' "$work"/man/*.3 | sort -u >"$work/pages"
diff -u --label 'the header' --label 'the manual' "$work/header" "$work/pages"
# So is every type and every constant, and every page is well formed.
sed -n 's/^typedef struct \(platter_[a-z_]*\) .*/\1/p; s/^typedef .*(\*\(platter_[a-z_]*\)).*/\1/p' \
    include/platter.h | sort -u >"$work/types"
{
    sed -n 's/^\.SS \(platter_[a-z_]*\)$/\1/p' "$work/man/platter.3"
    # An object has a page of its own.
    grep -l '^\.TH' "$work"/man/*.3 | sed 's|.*/||; s|\.3$||' | grep -v '^platter$'
} | sort -u >"$work/type_pages"
diff -u --label 'the header' --label 'the manual' "$work/types" "$work/type_pages"
sed -n 's/^#define \(PLATTER_[A-Z0-9_]*\) .*/\1/p' include/platter.h | sort -u >"$work/constants"
sed -n 's/^\.B \(PLATTER_[A-Z0-9_]*\) (.*/\1/p' "$work/man/platter.3" | sort -u >"$work/constant_pages"
diff -u --label 'the header' --label 'the manual' "$work/constants" "$work/constant_pages"
if command -v groff >/dev/null; then
    for page in docs/man/*.1 $(grep -l '^\.TH' "$work"/man/*.3); do
        groff -man -Kutf8 -Tutf8 -ww -z "$page" >"$work/lint" 2>&1
        if [ -s "$work/lint" ]; then
            cat "$work/lint" >&2
            exit 1
        fi
    done
fi

# Every symbol is versioned.
if nm -D --defined-only "$so" | grep ' [TDBRVW] ' | grep -v '@@PLATTER_'; then
    echo "$so exports the symbols above without a version" >&2
    exit 1
fi
echo "$(wc -l <"$work/header") functions: header, platter.map and $so agree"
