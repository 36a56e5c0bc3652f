#!/bin/sh
# The Debian packages, built from the tarball, take every file that `make install PREFIX=/usr` has put below TREE, each
# once, and no other; they have the version of the crate, and lintian finds nothing in them: debian.sh TREE
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

# The packages, as their rules build them from the tarball, without git.
for tool in dh dpkg-buildpackage lintian; do
    command -v $tool >/dev/null || { echo "SKIPPED: the Debian packages (need $tool)" >&2; exit 0; }
done
# What was built so far is there for thin LTO, in a copy: their flags for C would have it built again for all others.
mkdir "$work/target"
built=${CARGO_TARGET_DIR:-target}/release
[ ! -d "$built" ] || cp -a "$built" "$work/target/"
export CARGO_TARGET_DIR="$work/target"
sh packaging/dist.sh "$version" "$work" >/dev/null
tar -C "$work" -xf "$work/platter-$version.tar.gz"
cd "$work/platter-$version"
# Cargo and rustc need not come from packages.
LTO=thin DEB_BUILD_OPTIONS=noautodbgsym dpkg-buildpackage -us -uc -b -d -Ppkg.platter.rustup >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; exit 1; }
for package in "$work"/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -t | sed 's|^\./||' | grep -v '/$'
done | sort >"$work/built"
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
sed "s|^usr/lib/|usr/lib/$multiarch/|; s|^usr/share/doc/platter/|usr/share/doc/libplatter-dev/|
    s|^usr/share/zsh/site-functions/|usr/share/zsh/vendor-completions/|" "$work/installed" |
    sed -E '/^usr\/share\/man\//s/$/.gz/' | sort >"$work/wanted"
comm -23 "$work/wanted" "$work/built" >"$work/missing"
[ ! -s "$work/missing" ] || { echo 'Not in the packages:' && cat "$work/missing"; exit 1; } >&2
# ci/manual.sh looks at every page already, which takes long here; the project has no address, and nothing to close.
lintian --fail-on error,warning -X documentation/manual \
    --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs "$work"/*.deb
