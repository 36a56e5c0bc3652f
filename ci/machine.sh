#!/bin/sh
# Fetches what the virtual machine of the tests boots: the kernel of Debian's cloud images and its modules for
# virtio, SCSI, VFIO, FAT and loop devices, 27 MB, which are unpacked and not installed. As root it installs the emulator,
# too, 100 MB on disk.
set -eu

cd "$(dirname "$0")/.."
machine=${CARGO_TARGET_DIR:-target}/machine

left_out() {
    echo "Tests with a virtual machine are left out: $1" >&2
    exit 0
}

[ "$(uname -m)" = x86_64 ] || left_out 'their kernel is for x86_64'
command -v apt-get >/dev/null || left_out "apt-get fetches their kernel"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
command -v qemu-system-x86_64 >/dev/null || {
    [ "$(id -u)" = 0 ] || left_out 'qemu-system-x86_64 is not installed (package qemu-system-x86)'
    # An emulator of another version than qemu-utils would remove those.
    case $(dpkg-query -W -f '${Version}' qemu-utils) in
    *~bpo*)
        # The backports for this alone, whatever the machine is set to.
        list=$fresh/backports.list
        echo 'deb http://deb.debian.org/debian bookworm-backports main' >"$list"
        apt-get update -q -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=- \
            -o APT::Get::List-Cleanup=0 || left_out 'the backports cannot be reached'
        set -- -o Dir::Etc::sourcelist="$list" -t bookworm-backports
        ;;
    *) set -- ;;
    esac
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --no-remove "$@" \
        qemu-system-x86 || left_out 'the package qemu-system-x86 cannot be installed'
}

[ ! -e "$machine/vmlinuz" ] || [ ! -e "$machine/loop.ko" ] || exit 0
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
[ -n "$package" ] || left_out 'there is no package linux-image-cloud-amd64'
(cd "$fresh" && apt-get download -q -o APT::Sandbox::User=root "$package") || left_out "$package cannot be fetched"
mkdir "$fresh/files"
dpkg-deb --fsys-tarfile "$fresh"/*.deb | tar -x -C "$fresh/files" --wildcards \
    './boot/vmlinuz-*' '*/drivers/virtio/*.ko*' '*/drivers/block/virtio_blk.ko*' '*/drivers/block/loop.ko*' '*/drivers/scsi/*.ko*' \
    '*/drivers/cdrom/*.ko*' '*/drivers/vfio/*.ko*' '*/virt/lib/*.ko*' '*/fs/fat/*.ko*' '*/fs/nls/*.ko*'
mkdir -p "$machine"
for name in virtio virtio_ring virtio_pci virtio_pci_legacy_dev virtio_pci_modern_dev virtio_blk \
    scsi_common scsi_mod virtio_scsi cdrom sr_mod sg irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci \
    fat nls_cp437 nls_ascii vfat loop; do
    module=$(find "$fresh/files" -name "$name.ko*")
    case $module in
    *.xz) xz -dc "$module" >"$machine/$name.ko" ;;
    *.ko) cp "$module" "$machine/$name.ko" ;;
    esac
done
# Last: where it is, all is.
cp "$fresh"/files/boot/vmlinuz-* "$machine/vmlinuz.new"
mv "$machine/vmlinuz.new" "$machine/vmlinuz"
