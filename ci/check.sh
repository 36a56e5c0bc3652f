#!/bin/sh
# Every test: cargo's own first, then the slow groups. Ends with a count of what was left out.
set -eu

cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
export PATH
CARGO=${CARGO:-cargo}
# What is built once needs no record of its parts; valgrind reports false errors in code that was optimised in parts.
export CARGO_INCREMENTAL=0
# shellcheck source=ci/groups.sh
. ci/groups.sh

sh ci/groups-test.sh
sh ci/setup.sh
sh ci/names.sh
QEMU_MODULE_DIR=$(pwd)/target/qemu-modules
[ -z "${CARGO_TARGET_DIR:-}" ] || QEMU_MODULE_DIR=$(realpath -m "$CARGO_TARGET_DIR")/qemu-modules
export QEMU_MODULE_DIR

if ! have valgrind; then
    skip 'the C tests under valgrind'
    export PLATTER_SKIP_VALGRIND=1
fi
if ! have qemu-img || ! have qemu-io; then
    skip 'every test that compares with qemu-img'
    export PLATTER_SKIP_QEMU=1
fi

# The tests of one format alone are for who writes it.
unset PLATTER_SAMPLES

witnesses=${CARGO_TARGET_DIR:-target}/witnesses
group='every test that asks readers of other projects or a server of FTP, and those of the Python package'
if [ -n "${PLATTER_SKIP_WITNESSES:-}" ]; then
    skip "$group"
elif ! have 7zz || ! have dmg2img ||
    ! "$witnesses/bin/python" -c 'import cffi, mypy, VMDKstream, pyewf, pymodi, pyphdi, pyvhdi, pyvmdk, dissect.hypervisor, pyftpdlib, OpenSSL' 2>/dev/null; then
    # Most of it comes from the index of Python, not from the archive.
    if python3 -m pip index versions pyftpdlib >/dev/null 2>&1; then
        missing "$group"
    else
        skip "$group"
    fi
    export PLATTER_SKIP_WITNESSES=1
fi

# These tests leave themselves out, where nobody sees it.
servers 'tests of NBD against nbdkit, nbd-server and the tools of libnbd' nbdkit nbdinfo nbdcopy nbd-server
servers 'tests of HTTP (need nginx-light and curl)' nginx curl
servers 'tests of ssh (need root, openssh-server and libssh-4)' root /usr/sbin/sshd ssh-keygen
servers 'tests of iSCSI (need root, tgt, libiscsi-bin and libiscsi7)' root /usr/sbin/tgtd iscsi-readcapacity16
servers 'tests of rbd (need ceph-mon, ceph-osd, ceph-common and librbd1)' ceph-mon ceph-osd rbd
servers 'tests of NFS (need root, nfs-ganesha, nfs-ganesha-vfs, rpcbind, libnfs-utils and libnfs13)' \
    root ganesha.nfsd nfs-cat nsenter /usr/sbin/rpcbind
servers 'tests of GlusterFS (need root, FUSE, glusterfs-server and libgfapi0)' root /dev/fuse glusterd nsenter
servers 'tests of TLS (need openssl)' openssl
for scheme in http ssh iscsi nfs rbd gluster; do
    ! have qemu-img || ! qemu-img info --image-opts "driver=$scheme" 2>&1 | grep -q 'Unable to load module' ||
        missing "the comparison with QEMU over $scheme (needs qemu-block-extra, which ci/modules.sh fetches)"
done
if [ "$(id -u)" != 0 ] || ! [ -c /dev/fuse ]; then
    skip 'tests of mounted images (need root and FUSE)'
fi
if ! have qemu-system-x86_64 || [ ! -e "${CARGO_TARGET_DIR:-target}/machine/loop.ko" ]; then
    skip 'tests with a virtual machine (need qemu-system-x86 and the kernel of ci/machine.sh)'
fi

# The cache, the limbo list and the ranges in flight under every interleaving of their threads. They share sources with
# the crate, which a build of the crate alone does not prove; so they come before what takes long.
(cd tests/loom && $CARGO test --target-dir ../../target/loom models)

# The C tests link the shared object and the installed tree.
make --no-print-directory all
sh ci/symbols.sh
sh ci/header.sh
sh ci/manual.sh
have bindgen || skip 'the header with bindgen'
have go || skip 'the header with cgo (needs golang-go)'
if ! have chromium-headless-shell && ! have chromium && ! have chromium-browser && ! have google-chrome; then
    skip 'the search of the manual in a browser (needs chromium-headless-shell)'
fi

# Unit tests are built in a fifth of the time unoptimised, which costs them half a minute; the others are not.
unit_tests='--lib --config profile.test.opt-level=0'
# The servers of the tests listen where nobody else can reach them. What cargo fetches, it fetches before.
# shellcheck disable=SC2086
$CARGO test --no-run $unit_tests
$CARGO test --no-run --test '*'
# Test programs of other projects against the server.
if have curl && have apt-get && have openssl && have qemu-img && sh ci/interop.sh fetch; then
    sh ci/interop.sh build/platter-img
else
    skip 'the test programs of libnbd and nbd-server (need curl, apt-get, openssl and their sources)'
fi

# Ends the run if a fuzz target has failed, and else tells how many inputs each had.
wait_for_fuzz() {
    [ -n "$fuzz" ] || return 0
    wait "$fuzz" || { cat "$fuzz_log" >&2; exit 1; }
    grep ' runs in ' "$fuzz_log"
    fuzz=
}

# The same, if they have ended.
look_at_fuzz() {
    [ -z "$fuzz" ] || kill -0 "$fuzz" 2>/dev/null || wait_for_fuzz
}

# A minute of each fuzz target, built and run in what the tests leave of the processors; they are C++ at their root.
fuzz=
if have g++ || have clang++ || have c++; then
    $CARGO fetch --manifest-path fuzz/Cargo.toml
    fuzz_log=$(mktemp)
    trap '[ -z "$fuzz" ] || kill "$fuzz" 2>/dev/null || :; rm -f "$fuzz_log"' EXIT
    FUZZ_PROFILE=quick FUZZ_TIMEOUT=600 chrt --idle 0 sh ci/fuzz.sh >"$fuzz_log" 2>&1 &
    fuzz=$!
else
    skip 'the fuzz targets (need a C++ compiler)'
fi

apart=
if [ "$(id -u)" = 0 ] && have ip && sh ci/private-network.sh true; then
    apart='sh ci/private-network.sh'
else
    skip 'a network of its own for the servers of the tests, which now listen on the loopback device (needs root and iproute2)'
fi
# shellcheck disable=SC2086
$apart $CARGO test $unit_tests
look_at_fuzz
if [ -n "${PLATTER_SKIP_QEMU:-}" ]; then
    $apart $CARGO test --test ffi
else
    $apart $CARGO test --test '*'
fi
look_at_fuzz
$apart $CARGO test --doc
have dh && have lintian || skip 'the Debian packages (need debhelper and lintian)'
if have cmake && have zsh && have fish; then
    $CARGO test --test ffi -- --ignored
else
    skip 'the installed tree (needs cmake, zsh and fish)'
fi

# Loop devices need root, and a kernel that has them.
if [ "$(id -u)" = 0 ] && loop=$(losetup -f 2>/dev/null) && [ -b "$loop" ]; then
    if modprobe xfs 2>/dev/null || grep -qw xfs /proc/filesystems; then
        $CARGO test --test storage_device -- --ignored
    else
        $CARGO test --test storage_device -- --ignored --skip where_the_file_system_can
        skip 'shared blocks (needs a kernel with XFS)'
    fi
else
    skip 'block devices (needs root and loop devices)'
fi

wait_for_fuzz

if [ "$skipped" -gt 0 ]; then
    echo "$skipped group(s) of tests were SKIPPED for lack of tools; see above" >&2
fi
