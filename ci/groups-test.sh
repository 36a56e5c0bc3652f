#!/bin/sh
# Whether a group without its servers fails where they could be installed, and is skipped where not.
set -eu

cd "$(dirname "$0")"
fake=$(mktemp -d)
trap 'rm -rf "$fake"' EXIT

# A machine: whose user has the number $1, whose archive answers with $2, and which has the programs that follow.
machine() {
    rm -rf "${fake:?}/bin"
    mkdir "$fake/bin"
    printf '#!/bin/sh\necho %s\n' "$1" >"$fake/bin/id"
    printf '#!/bin/sh\necho asked >>%s/asked\nexit %s\n' "$fake" "$2" >"$fake/bin/apt-get"
    shift 2
    for program; do
        printf '#!/bin/sh\n' >"$fake/bin/$program"
    done
    chmod 755 "$fake/bin"/*
    : >"$fake/asked"
}

# What comes of looking for the needs of a group, twice: the code, and what is said.
look() {
    code=0
    said=$(
        # shellcheck disable=SC2030
        PATH=$fake/bin
        # shellcheck source=ci/groups.sh
        . ./groups.sh
        servers 'tests of x' "$@" 2>&1
        servers 'tests of x' "$@" 2>&1
        echo "$skipped skipped"
    ) || code=$?
}

expect() {
    [ "$code" = "$1" ] || { echo "exit code $code, not $1: $said" >&2; exit 1; }
    case $said in
    *"$2"*) ;;
    *) echo "not said: '$2', but: $said" >&2; exit 1 ;;
    esac
}

machine 0 0
look xd
expect 1 'FAILED: tests of x (no xd)'
look /nowhere/xd
expect 1 'FAILED: tests of x (no /nowhere/xd)'
look root xd
expect 1 'FAILED'
# No archive has a device.
look /dev/nothing xd
expect 0 '2 skipped'

machine 0 0 xd
look root xd /dev/null /bin/sh
expect 0 '0 skipped'
[ ! -s "$fake/asked" ] || { echo 'the archive is asked although nothing is missing' >&2; exit 1; }

machine 0 100
look xd
expect 0 'SKIPPED: tests of x (no xd)'
expect 0 '2 skipped'
[ "$(grep -c asked "$fake/asked")" = 1 ] || { echo 'the archive is asked again' >&2; exit 1; }

machine 1000 0 xd
look root xd
expect 0 '2 skipped'
look yd
expect 0 'SKIPPED: tests of x (no yd)'
