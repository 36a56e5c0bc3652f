#!/bin/sh
# The Debian packages, built from the tarball, take every file that `make install PREFIX=/usr` has put below TREE, each
# once, and no other; they have the version of the crate, and lintian finds nothing in them: debian.sh TREE [built]
# With `built`, the archive of Rust is that in build/, for it takes as long as all else: the tarball is checked for what
# the compiler reads. Without, the packages build their own with the flags of Debian, as `make packages` does.
set -eu

tree=$1 rust=${2:-}
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
cargo=${CARGO:-cargo}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
root=$PWD
sh packaging/dist.sh "$version" "$work" >/dev/null
tar -C "$work" -xf "$work/platter-$version.tar.gz"
cd "$work/platter-$version"
if [ "$rust" = built ]; then
    CARGO_TARGET_DIR=$target $cargo check --quiet --locked --offline --lib
    # In place of cargo: it has the archive, and what goes with it is told.
    mkdir -p "$work/target/release"
    cp "$root/build/rust.a" "$work/target/release/libplatter.a"
    printf '#!/bin/sh\n[ "$1" = rustc ] && cat %s >&2\n' "$root/build/rust.log" >"$work/cargo"
    chmod 755 "$work/cargo"
    export CARGO="$work/cargo"
fi
export CARGO_TARGET_DIR="$work/target"
# Cargo and rustc need not come from packages.
DEB_BUILD_OPTIONS=noautodbgsym dpkg-buildpackage -us -uc -b -d -Ppkg.platter.rustup >"$work/log" 2>&1 ||
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
