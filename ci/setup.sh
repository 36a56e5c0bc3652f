#!/bin/sh
# Sets up what the checks need beside Rust and a C compiler. As root on Debian it is installed;
# otherwise this prints the one line that does it, and the groups of tests that lack something are
# left out, loudly.
set -eu

cd "$(dirname "$0")/.."
packages='build-essential pkg-config qemu-utils e2fsprogs xfsprogs valgrind strace xz-utils gzip bzip2 zstd lz4 7zip dmg2img
    mtools dosfstools openssl vmdk-stream-converter python3-venv python3-pip nbdkit libnbd-bin nbd-server
    nginx-light curl openssh-server openssh-client libssh-4 libcurl3-gnutls cmake zsh fish
    tgt libiscsi-bin libiscsi7
    ceph-mon ceph-osd ceph-common librbd1
    nfs-ganesha nfs-ganesha-vfs rpcbind libnfs-utils libnfs13 iproute2 util-linux
    glusterfs-server libgfapi0'
missing=
for pair in cc:build-essential g++:build-essential pkg-config:pkg-config qemu-img:qemu-utils \
    qemu-io:qemu-utils mke2fs:e2fsprogs mkfs.xfs:xfsprogs valgrind:valgrind strace:strace 7zz:7zip dmg2img:dmg2img \
    xz:xz-utils gzip:gzip bzip2:bzip2 zstd:zstd lz4:lz4 mcopy:mtools fsck.fat:dosfstools openssl:openssl \
    nbdkit:nbdkit nbdcopy:libnbd-bin nbdinfo:libnbd-bin nbd-server:nbd-server \
    nginx:nginx-light curl:curl sshd:openssh-server ssh-keygen:openssh-client cmake:cmake zsh:zsh fish:fish \
    tgtd:tgt iscsi-readcapacity16:libiscsi-bin \
    ceph-mon:ceph-mon ceph-osd:ceph-osd rbd:ceph-common \
    ganesha.nfsd:nfs-ganesha rpcbind:rpcbind nfs-cat:libnfs-utils glusterd:glusterfs-server ip:iproute2 nsenter:util-linux; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
# Debian's own: its modules are for no other.
python=/usr/bin/python3
for pair in ensurepip:python3-venv VMDKstream:vmdk-stream-converter; do
    "$python" -c "import ${pair%%:*}" 2>/dev/null || missing="$missing ${pair##*:}"
done

if [ -z "$missing" ]; then
    :
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # The tests start servers themselves, on the loopback device alone: none is started by its package.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f $policy' EXIT
    fi
    apt-get update -q || :
    # What is missing then is left out where no archive answers, and a failure where one does: ci/groups.sh.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages ||
        echo "Cannot be installed:$missing" >&2
    # The tests compare with QEMU 10; Debian 12 has it among its backports.
    case $(qemu-img --version | head -n 1) in
    *' version '[1-9].*)
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            -t bookworm-backports qemu-utils ||
            echo 'qemu-img is older than 10: its words may differ from those that the tests expect' >&2
        ;;
    esac
else
    echo "Missing:$missing. To install what the tests use: sudo apt-get install -y" $packages >&2
fi

# Without these the search of the manual, the header with bindgen and cgo, and the Debian packages are not tried.
for pair in chromium-headless-shell:chromium-headless-shell bindgen:bindgen go:golang-go dh:debhelper lintian:lintian; do
    command -v "${pair%%:*}" >/dev/null && continue
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || continue
    extra=
    [ "$pair" != bindgen:bindgen ] || extra=libclang1-14
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${pair##*:}" $extra ||
        echo "${pair##*:} cannot be installed: its tests are left out" >&2
done

sh ci/modules.sh || echo 'Comparisons with QEMU over the network are left out: ci/modules.sh failed' >&2
sh ci/machine.sh || echo 'Tests with a virtual machine are left out: ci/machine.sh failed' >&2

# Readers of other projects, a server of FTP and tools for Python, in a directory of their own.
[ -z "${PLATTER_SKIP_WITNESSES:-}" ] || exit 0
witnesses=${CARGO_TARGET_DIR:-target}/witnesses
cmp -s ci/witnesses.txt "$witnesses/installed.txt" || {
    rm -rf "$witnesses"
    mkdir -p "${witnesses%/*}"
    if "$python" -m venv --system-site-packages "$witnesses" &&
        "$witnesses/bin/pip" install -q --disable-pip-version-check -r ci/witnesses.txt; then
        cp ci/witnesses.txt "$witnesses/installed.txt"
    else
        echo "The readers of ci/witnesses.txt cannot be installed" >&2
    fi
}
