#!/bin/sh
# The Debian packages take every file that `make install PREFIX=/usr` has put below TREE, each once, and no other,
# have the version of the crate, and lintian finds nothing in them: debian.sh TREE
set -eu

tree=$1
here=$PWD
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

# The packages as debhelper makes them, of the tree in place of a build.
for tool in dh dpkg-buildpackage lintian; do
    command -v $tool >/dev/null || { echo "SKIPPED: the Debian packages under lintian (needs $tool)" >&2; exit 0; }
done
build=$work/platter
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
mkdir "$build"
cp -R debian "$build/"
cp LICENSE-* CHANGELOG.md "$build/"
cp -R "$tree" "$build/installed"
cd "$build/installed/usr"
mkdir "$multiarch" && mv lib/* "$multiarch/" && mv "$multiarch" lib/
mv share/doc/platter share/doc/libplatter-dev
mkdir -p lib/python3/dist-packages
cp -R "$here/bindings/python/platter" lib/python3/dist-packages/
find lib/python3 -name __pycache__ -prune -exec rm -rf {} +
cd "$build"
cat >debian/rules <<'RULES'
#!/usr/bin/make -f
%:
	dh $@
override_dh_auto_configure override_dh_auto_build override_dh_auto_test override_dh_auto_clean:
override_dh_auto_install:
	cp -R installed debian/tmp
# Quickly: nobody keeps them.
override_dh_builddeb:
	dh_builddeb -- -Zgzip -z1
RULES
DEB_BUILD_OPTIONS=noautodbgsym dpkg-buildpackage -us -uc -b -d >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
# ci/manual.sh looks at every page already, which takes long here; the project has no address, and nothing to close.
lintian --fail-on error,warning -X documentation/manual \
    --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs "$work"/*.deb
