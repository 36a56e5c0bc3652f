#!/bin/sh
# Runs test programs of other projects against the server of `platter-img`: those of libnbd for servers, and the tester
# of nbd-server. `make check` and `make interop` call it. Their sources are fetched and built below the target directory,
# and so are the headers that they need; nothing is installed. `fetch` fetches them and runs none. Needed are curl, a C
# compiler, apt-get, openssl and the tools of QEMU.
set -eu

cd "$(dirname "$0")/.."
[ "$1" = fetch ] || img=$(realpath "$1")
dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/interop
pool=http://deb.debian.org/debian/pool/main
mkdir -p "$dir/packages"
cd "$dir"

# fetch ADDRESS SHA256
fetch() {
    file=${1##*/}
    echo "$2  $file" | sha256sum -c --status 2>/dev/null || curl -fsS -m 120 -O "$1"
    echo "$2  $file" | sha256sum -c --quiet
    tar xf "$file"
}
fetch $pool/libn/libnbd/libnbd_1.14.2.orig.tar.gz \
    83cc3a88d63b17353275ff4c7c8dcc778437f48ca5d51caa76da415981a7a0cf
fetch $pool/n/nbd/nbd_3.26.1.orig.tar.xz \
    f0cf509fa5b20b1a07f7904eb637e9b47d3e30b6ed6f00075af5d8b701c78fef
for package in libnbd-dev libnbd0 libglib2.0-dev libglib2.0-0; do
    [ -d "packages/$package" ] && continue
    apt-get download -q $package
    dpkg-deb -x ${package}_*.deb "packages/$package"
done
[ "$1" != fetch ] || exit 0
found() { find packages -path "$1" ! -path '*gdb*' | head -n 1; }
nbd_library=$(found '*/libnbd.so.0')
glib_library=$(found '*/libglib-2.0.so.0')

# The server under its drop-in name; the TLS credentials of both ends.
mkdir -p bin run tests/pki
cp "$img" bin/platter-img
# It looks for its library beside itself.
cp "${img%/*}"/libplatter.so.* bin/
ln -sf platter-img bin/qemu-nbd
server=$dir/bin/qemu-nbd
if [ ! -e tests/pki/client-cert.pem ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=ca -keyout tests/pki/ca-key.pem \
        -out tests/pki/ca-cert.pem -addext keyUsage=critical,keyCertSign 2>openssl.log
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >extensions
    for end in server client; do
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout tests/pki/$end-key.pem -out request 2>>openssl.log
        openssl x509 -req -in request -CA tests/pki/ca-cert.pem -CAkey tests/pki/ca-key.pem -CAcreateserial \
            -days 3650 -extfile extensions -out tests/pki/$end-cert.pem 2>>openssl.log
    done
    echo "alice:$(openssl rand -hex 32)" >tests/keys.psk
fi

libnbd=libnbd-1.14.2
: >run/config.h
# What the programs include and do not use without TLS of their own.
mkdir -p run/gnutls && : >run/gnutls/gnutls.h

# build NAME SOURCE FLAGS...
build() {
    name=$1 source=$2
    shift 2
    cc -w -D_GNU_SOURCE -DHAVE_LIBNBD=1 -DHAVE_GNUTLS_NO_SIGNAL=1 -Irun -Ipackages/libnbd-dev/usr/include \
        -I$libnbd/common/include -I$libnbd/tests -DSERVER="\"$server\"" "$@" "$libnbd/interop/$source" \
        $libnbd/tests/requires.c -o "run/$name" "$nbd_library"
}
activated="-DSOCKET_ACTIVATION=1 -DNEEDS_TMPFILE=1"
build interop interop.c $activated -DEXPORT_NAME='"/"' -DSERVER_PARAMS='"-f", "raw", "-x", "/", TMPFILE'
build interop-certs interop.c $activated -DEXPORT_NAME='"/"' -DCERTS=1 -DTLS_MODE=LIBNBD_TLS_REQUIRE \
    -DSERVER_PARAMS="\"--object\", \"tls-creds-x509,id=t,endpoint=server,dir=$dir/tests/pki\", \"--tls-creds\", \"t\", \"-f\", \"raw\", \"-x\", \"/\", TMPFILE"
build interop-psk interop.c $activated -DEXPORT_NAME='"/"' -DPSK=1 -DTLS_MODE=LIBNBD_TLS_REQUIRE \
    -DSERVER_PARAMS="\"--object\", \"tls-creds-psk,id=t,endpoint=server,dir=$dir/tests\", \"--tls-creds\", \"t\", \"-f\", \"raw\", \"-x\", \"/\", TMPFILE"
build list-exports list-exports.c $activated -DEXPORTS='"testing"' -DDESCRIPTIONS='"data"' \
    -DSERVER_PARAMS='"-f", "raw", "-x", "testing", "-D", "data", TMPFILE'
build socket-activation socket-activation.c -DSERVER_PARAMS='"-f", "raw", "-x", "", tmpfile'
build dirty-bitmap dirty-bitmap.c
# Its structured-read wants short reads cut into chunks as qemu-nbd cuts them; here they come in one.

nbd=nbd-3.26.1
cat >$nbd/config.h <<'END'
#define HAVE_SYS_MOUNT_H 1
#define HAVE_SYS_UIO_H 1
#define NBD_LFS 1
#define ISSERVER 0
#define _FILE_OFFSET_BITS 64
#define SIZEOF_UNSIGNED_INT 4
#define SIZEOF_UNSIGNED_LONG_INT 8
#define SIZEOF_UNSIGNED_LONG_LONG_INT 8
#define SIZEOF_UNSIGNED_SHORT_INT 2
END
glib=packages/libglib2.0-dev/usr
cc -w -D_GNU_SOURCE -I$nbd -I$glib/include/glib-2.0 -I"$(dirname "$(find $glib -name glibconfig.h)")" \
    $nbd/tests/run/nbd-tester-client.c $nbd/cliserv.c $nbd/buffer.c -o run/nbd-tester-client "$glib_library" 2>tester.log

cd run
export PATH="$dir/bin:$PATH"
failed=0
# passes NAME COMMAND...
passes() {
    name=$1
    shift
    if timeout 120 "$@" >log 2>&1; then
        echo "ok      $name"
    else
        echo "FAILED  $name"
        tail -c 2000 log
        failed=$((failed + 1))
    fi
}

for program in interop interop-certs interop-psk list-exports socket-activation; do
    passes "libnbd: $program" ./$program
done
qemu-img create -q -f qcow2 bitmap.qcow2 1M
qemu-io -f qcow2 -c 'w 0 64k' bitmap.qcow2 >log
qemu-img bitmap --add --enable -f qcow2 bitmap.qcow2 bitmap0
qemu-io -f qcow2 -c 'w 64k 64k' -c 'w -z 512k 64k' bitmap.qcow2 >log
passes 'libnbd: dirty-bitmap' ./dirty-bitmap qemu:dirty-bitmap:bitmap0 "$server" -f qcow2 -B bitmap0 bitmap.qcow2
# tested NAME SIZE SERVER-OPTION TESTER-ARGUMENT...
tested() {
    name=$1 size=$2 option=$3
    shift 3
    rm -f disk socket
    truncate -s "$size" disk
    "$server" -t -e 5 $option -f raw -x export1 -k "$dir/run/socket" disk &
    pid=$!
    # One that has ended is missed by the tester.
    tries=0
    until [ -S socket ] || [ $tries = 500 ]; do
        sleep 0.02
        tries=$((tries + 1))
    done
    passes "nbd: $name" ./nbd-tester-client -N export1 "$@" -u "$dir/run/socket"
    kill $pid
    wait $pid 2>/dev/null || :
}
tested read 4M ''
tested write 4M '' -w
tested flush 4M '' -w -f
tested 'read-only, written to' 4M -r -w -F
tested handshake 4M '' -h
tested integrity 50M '' -i -t "$dir/$nbd/tests/run/integrity-test.tr"
rm -f disk && truncate -s 4M disk
passes 'nbd: one socket for both directions' ./nbd-tester-client -N export1 -I -- \
    sh -c "exec '$dir/bin/platter-img' serve --stdio -f raw -x export1 disk >&0"
[ $failed = 0 ]
