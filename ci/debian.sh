#!/bin/sh
# The Debian packages take every file that `make install PREFIX=/usr` has put below TREE, each once, and no other, and
# have the version of the crate: debian.sh TREE
set -eu

tree=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for list in debian/*.install; do
    # What is installed in other places there.
    sed 's/ .*//; s|^usr/lib/\*/|usr/lib/|; s|^usr/share/doc/libplatter-dev/|usr/share/doc/platter/|' "$list" |
        while read -r pattern; do
            case $pattern in
            usr/lib/python3/*) continue ;;
            esac
            # shellcheck disable=SC2086
            (cd "$tree" && find $pattern ! -type d) || { echo "$list: $pattern is not there" >&2; exit 1; }
        done
done >"$work/taken"
sort "$work/taken" >"$work/packaged"
(cd "$tree" && find usr ! -type d | sort) >"$work/installed"
diff -u --label 'what is installed' --label 'what the packages take' "$work/installed" "$work/packaged"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
sed -n '1s/.*(\(.*\)-[0-9]*).*/\1/p' debian/changelog | grep -Fqx "$version" ||
    { echo "debian/changelog is not of version $version" >&2; exit 1; }
abi=$(echo "$version" | cut -d. -f1,2)
grep -Fqx "Package: libplatter$abi" debian/control || { echo "debian/control is not of ABI $abi" >&2; exit 1; }
