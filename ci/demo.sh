#!/bin/sh
# The main job: a disk with this machine's own files goes raw -> qcow2 -> compressed qcow2 -> raw.
set -eu

cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
img=$PWD/build/platter-img
size=${PLATTER_DEMO_SIZE:-6G}
content=${PLATTER_DEMO_CONTENT:-/usr}
mib=${PLATTER_DEMO_MIB:-1280}
keep=${PLATTER_DEMO_DIR:-}
work=${keep:-$(mktemp -d "${TMPDIR:-/tmp}/platter-demo.XXXXXX")}
mkdir -p "$work"
[ -n "$keep" ] || trap 'rm -rf "$work"' EXIT INT TERM

command -v mke2fs >/dev/null || {
    echo 'make demo needs mke2fs: sudo apt-get install -y e2fsprogs' >&2
    exit 1
}

say() {
    printf '\n== %s\n' "$*"
}

# Runs the tool and shows what is run.
run() {
    printf '$ platter-img %s\n' "$*"
    "$img" "$@"
}

say "A disk of $size with files of $content in an ext4 file system"
if [ ! -e "$work/disk.raw" ]; then
    mkdir "$work/stage"
    find "$content" -xdev -type f -readable -printf '%s %P\n' |
        awk -v max="$((mib << 20))" '{ total += $1 } total > max { exit } { sub(/^[0-9]+ /, ""); print }' |
        tar -C "$content" --verbatim-files-from -T - -cf - | tar -C "$work/stage" -xf -
    truncate -s "$size" "$work/disk.raw.new"
    mke2fs -q -F -t ext4 -d "$work/stage" "$work/disk.raw.new"
    mv "$work/disk.raw.new" "$work/disk.raw"
    rm -rf "$work/stage"
fi
cd "$work"
run info disk.raw

say 'raw -> qcow2'
run convert -p -f raw -O qcow2 disk.raw disk.qcow2
run info disk.qcow2
run check disk.qcow2

say 'qcow2 -> compressed qcow2'
run convert -p -c -f qcow2 -O qcow2 disk.qcow2 small.qcow2
run info small.qcow2
run check small.qcow2

say 'compressed qcow2 -> raw'
run convert -p -f qcow2 -O raw small.qcow2 back.raw

say 'The same disk at both ends'
run compare -f raw -F raw disk.raw back.raw
run compare -f qcow2 -F qcow2 disk.qcow2 small.qcow2
if command -v qemu-img >/dev/null; then
    say 'The peer agrees'
    for args in 'check disk.qcow2' 'check small.qcow2' 'compare -f raw -F raw disk.raw back.raw' \
        'compare -f raw -F qcow2 disk.raw small.qcow2'; do
        printf '$ qemu-img %s\n' "$args"
        # shellcheck disable=SC2086
        qemu-img $args
    done
else
    echo 'qemu-img is not installed: its comparison is left out (apt-get install qemu-utils)'
fi
du -h disk.raw disk.qcow2 small.qcow2 back.raw
