#!/bin/sh
# Fetches the modules with which QEMU's tools speak to servers, 107 kB, where they are not installed: of the version of
# the tools, unpacked and not installed, for the package would take other client libraries with it.
set -eu

cd "$(dirname "$0")/.."
modules=${CARGO_TARGET_DIR:-target}/qemu-modules

left_out() {
    echo "Comparisons with QEMU's tools over the network are left out: $1" >&2
    exit 0
}

command -v dpkg-query >/dev/null || left_out 'the version of qemu-utils is not known'
version=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null) || left_out 'qemu-utils is not installed'
[ "$(cat "$modules/version" 2>/dev/null)" != "$version" ] || exit 0
installed=$(dpkg-query -W -f '${Version}' qemu-block-extra 2>/dev/null) || installed=
[ "$installed" != "$version" ] || exit 0

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
package=$fresh/modules.deb
# Of the archive's signed lists, or of its pool, where a version stays when the lists have a later one.
if (cd "$fresh" && apt-get download -q -o APT::Sandbox::User=root "qemu-block-extra=$version") >/dev/null 2>&1; then
    mv "$fresh"/qemu-block-extra_*.deb "$package"
else
    file=qemu-block-extra_${version#*:}_$(dpkg --print-architecture).deb
    case $file in
    'qemu-block-extra_10.0.2+ds-2+deb13u1~bpo12+1_amd64.deb')
        sum=a9e5ac4c72461cde752ea70bd00aa54bba6226fe675e1e65fb43effc6cf35f9a
        ;;
    *) left_out "the archive has no $file whose sum is known" ;;
    esac
    curl -fsS --retry 3 --max-time 60 -o "$package" "http://deb.debian.org/debian/pool/main/q/qemu/$file" ||
        left_out "$file cannot be fetched"
    echo "$sum  $package" | sha256sum -c --quiet >&2 || left_out "$file is not what it was"
fi
dpkg-deb -x "$package" "$fresh/files"
rm -rf "$modules"
mkdir -p "$modules"
find "$fresh/files" -name 'block-*.so' -exec cp {} "$modules" \;
# Last: where it is, all is.
echo "$version" >"$modules/version"
