#!/bin/sh
# The header alone and twice, under every standard of C and C++ that programs use.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#include <platter.h>\n#include <platter.h>\nint answer(void);\nint answer(void) { return PLATTER_OK; }\n' >"$work/alone.c"
cp "$work/alone.c" "$work/alone.cpp"
flags='-Wall -Wextra -Wpedantic -Wconversion -Werror -Iinclude -c -o /dev/null'

for compiler in gcc clang; do
    command -v $compiler >/dev/null || continue
    for std in c99 c11 c17 c2x; do
        # shellcheck disable=SC2086
        $compiler -std=$std $flags "$work/alone.c"
    done
done
for compiler in g++ clang++; do
    command -v $compiler >/dev/null || continue
    for std in c++11 c++14 c++17 c++20; do
        # shellcheck disable=SC2086
        $compiler -std=$std $flags "$work/alone.cpp"
    done
done
echo 'the header is self-contained in C99 to C2x and C++11 to C++20'
