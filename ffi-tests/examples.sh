#!/bin/sh
# Runs the installed examples, which are built in the current directory, as their pages say; platter-img is in PATH.
set -eux

same() { cmp -n 512 "$1" "$2"; }
refused() { if "$@" 2>refusal; then exit 1; fi }

here=$PWD
cd "$(mktemp -d -p "$here")"
head -c 1048576 /dev/urandom >disk

# Pipes, both ways.
"$here/through-pipes" in disk.qcow2 <disk
"$here/through-pipes" out disk.qcow2 | cmp - disk
"$here/read-sector" disk.qcow2 >/dev/null
"$here/convert-progress" disk.qcow2 disk.vmdk vmdk 2>progress
grep -q '100 %' progress

# The sum of all bytes, from a queue.
sum=$(od -An -v -tu1 disk | awk '{ for (i = 1; i <= NF; i++) sum += $i } END { print sum }')
[ "$("$here/queue-epoll" disk.qcow2)" = "$sum" ]

"$here/convert-in-memory" >memory.qcow2
platter-img check -q memory.qcow2
"$here/through-pipes" out memory.qcow2 | head -c 16 | grep -qx 'the first sector'

# An upload, and one that names a file of this machine.
"$here/check-upload" qcow2 kept.qcow2 <disk.qcow2
platter-img compare -q -F qcow2 disk.qcow2 kept.qcow2
platter-img create -q -f qcow2 -b disk.qcow2 -F qcow2 overlay.qcow2
refused "$here/check-upload" qcow2 refused.qcow2 <overlay.qcow2
grep -q 'FAIL *no-backing-file' refusal
[ ! -e refused.qcow2 ]

# Chains below one directory, and out of it.
"$here/open-chain" overlay.qcow2 . | same disk -
platter-img create -q -f qcow2 -b "$PWD/disk.qcow2" -F qcow2 outside.qcow2
refused "$here/open-chain" outside.qcow2 .

printf 'secret word' >secret
printf 'secret word\n' >passphrase
printf 'another\n' >wrong
platter-img create -q --object secret,id=s,file=secret -f qcow2 \
    -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 encrypted.qcow2 1M
"$here/open-encrypted" passphrase <encrypted.qcow2 | same /dev/zero -
status=0
"$here/open-encrypted" wrong <encrypted.qcow2 2>refusal || status=$?
[ $status = 3 ]

# A backup of everything, then of what has changed.
truncate -s 1M copy
"$here/backup-changes" disk.qcow2 copy
cmp copy disk
head -c 65536 /dev/urandom | dd of=disk bs=64k seek=3 conv=notrunc status=none
platter-img convert -q -n -f raw -O qcow2 disk disk.qcow2
"$here/backup-changes" disk.qcow2 copy
cmp copy disk

# A machine on a template, whose disk is told of, moves to another base and to none, and keeps a state.
"$here/make-disk" disk.qcow2 machine.qcow2 2097152 | grep -q '^Formatting .*machine.qcow2.* size=2097152'
status=0
"$here/make-disk" disk.qcow2 machine.qcow2 2097152 2>refusal || status=$?
[ $status = 3 ]
"$here/describe-disk" machine.qcow2 . >told
grep -q '^machine.qcow2: qcow2, 2097152 bytes' told
grep -q 'disk.qcow2: qcow2, 1048576 bytes' told
grep -qx '1048576 of 2097152 bytes are data' told
platter-img convert -q -f qcow2 -O raw machine.qcow2 before
platter-img create -q -f qcow2 base.qcow2 1M
"$here/change-base" machine.qcow2 . base.qcow2 qcow2
platter-img compare -q -f raw -F qcow2 before machine.qcow2
"$here/change-base" machine.qcow2 .
rm base.qcow2
"$here/keep-states" machine.qcow2 take 'before it began'
truncate -s 2M nothing
platter-img convert -q -n -f raw -O qcow2 nothing machine.qcow2
platter-img compare -q -f raw -F qcow2 nothing machine.qcow2
"$here/keep-states" machine.qcow2 | grep -q '^1 [0-9]* before it began$'
"$here/keep-states" machine.qcow2 return 'before it began'
"$here/keep-states" machine.qcow2 drop 'before it began'
[ -z "$("$here/keep-states" machine.qcow2)" ]
platter-img compare -q -f raw -F qcow2 before machine.qcow2

# Space that is lost comes back; damage stays as it is.
"$here/check-disk" machine.qcow2 qcow2 >told
[ ! -s told ]
platter-img create -q -f qcow2 -o cluster_size=64k damaged.qcow2 1M
# The refcount table is the second cluster, its block the third; the fourth is the L1 table.
printf '\0\1' | dd of=damaged.qcow2 bs=1 seek=$((0x20000 + 2 * 8)) conv=notrunc status=none
truncate -s $((9 * 65536)) damaged.qcow2
[ "$("$here/check-disk" damaged.qcow2 qcow2 2>findings)" = '1 leaked clusters given back' ]
grep -q 'Leaked cluster 8' findings
printf '\0\0' | dd of=damaged.qcow2 bs=1 seek=$((0x20000 + 2 * 3)) conv=notrunc status=none
cp damaged.qcow2 as-it-was
status=0
"$here/check-disk" damaged.qcow2 qcow2 2>findings || status=$?
[ $status = 2 ]
cmp damaged.qcow2 as-it-was

# What there is to choose.
"$here/list-options" >told
grep -qx 'qcow2: format, can be made' told
grep -qx 'throttle: filter' told
"$here/list-options" nbd >told
grep -qx '  reconnect-delay (number; default 0): .*' told
grep -qx '  server.type (inet, unix, vsock, fd): .*' told
"$here/list-options" qcow2 >told
grep -qx 'needs file' told
grep -qx '  cluster_size (size; default 65536): .*' told
grep -qx '  encrypt.key-secret (ID of a secret): .*' told
refused "$here/list-options" no-such-driver

# What steers a commit: all that it is told before it ends is heeded, whatever that is.
platter-img create -q -f qcow2 -b disk.qcow2 -F qcow2 overlay.qcow2
head -c 1048576 /dev/urandom >changed
platter-img convert -q -n -f raw -O qcow2 changed overlay.qcow2
printf psfr | "$here/commit-background" overlay.qcow2 .
"$here/through-pipes" out disk.qcow2 | cmp - changed

# Where there is no image.
for example in "read-sector nowhere" "serve-image nowhere socket" "through-pipes out nowhere" \
    "convert-progress nowhere new.vmdk vmdk" "queue-epoll nowhere" "backup-changes nowhere copy" \
    "commit-background nowhere ." "open-chain nowhere ." "make-disk nowhere new.qcow2 512" \
    "check-disk nowhere qcow2" "keep-states nowhere" "change-base nowhere ." "describe-disk nowhere ."; do
    # shellcheck disable=SC2086
    refused "$here"/$example
    grep -q nowhere refusal
done

# Until the client has left.
"$here/serve-image" disk.qcow2 socket >served &
server=$!
while [ ! -S socket ]; do kill -0 $server; sleep 0.05; done
platter-img compare -q -f raw -F qcow2 "nbd+unix:///?socket=$PWD/socket" disk.qcow2
wait $server
grep -q 'bytes read' served
