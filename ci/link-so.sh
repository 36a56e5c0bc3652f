#!/bin/sh
# Links the shared object from the archive: link-so.sh OUT SONAME ARCHIVE "NATIVE LIBS"
set -eu

out=$1 soname=$2 archive=$3 libs=$4

# Unversioned roots would defeat --gc-sections; the version script leaves the ABI alone as root.
# shellcheck disable=SC2086
${CC:-cc} -shared -o "$out" \
    -Wl,--whole-archive "$archive" -Wl,--no-whole-archive \
    -Wl,--version-script=platter.map -Wl,-soname,"$soname" \
    -Wl,-z,defs -Wl,-z,relro -Wl,-z,now -Wl,-z,nodelete -Wl,-z,noexecstack \
    -Wl,--gc-sections -Wl,--as-needed -Wl,--build-id -Wl,--strip-debug \
    ${LDFLAGS:-} $libs
