#!/bin/sh
# A tarball of the sources, the same for the same sources: dist.sh VERSION DIRECTORY
set -eu

version=$1 out=$2
mkdir -p "$out"
tarball=$out/platter-$version.tar.gz
trap 'rm -f "$tarball.list" "$tarball.tar"' EXIT
if [ -e .git ]; then
    git ls-files -z >"$tarball.list"
    date=$(git log -1 --format=%ct)
else
    # A tarball has no more than what was in it, and what was built since.
    find . \( -path ./build -o -path ./target -o -path ./fuzz/target \) -prune -o -type f -print0 |
        sed -z 's|^\./||' >"$tarball.list"
    date=$(stat -c %Y Cargo.toml)
fi
LC_ALL=C sort -z -o "$tarball.list" "$tarball.list"
tar --create --file "$tarball.tar" --format=ustar --no-recursion --null --verbatim-files-from \
    --transform "flags=r;s|^|platter-$version/|" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX --mtime="@${SOURCE_DATE_EPOCH:-$date}" --files-from "$tarball.list"
gzip -n9 "$tarball.tar"
mv "$tarball.tar.gz" "$tarball"
echo "$tarball"
