# Which groups of tests are left out, and which may not be; for scripts to read in.

skipped=0
can_install=

have() {
    command -v "$1" >/dev/null
}

# Counts a group that this machine cannot run.
skip() {
    skipped=$((skipped + 1))
    echo "SKIPPED: $1" >&2
}

# Whether what is missing could be installed: by root, from archives that answer. They are asked once.
installs() {
    if [ -z "$can_install" ]; then
        can_install=no
        if [ "$(id -u)" = 0 ] && have apt-get &&
            apt-get update -qq -o APT::Update::Error-Mode=any >/dev/null 2>&1; then
            can_install=yes
        fi
    fi
    [ "$can_install" = yes ]
}

# A group whose servers are missing is skipped where they cannot be installed, and a failure where they can.
missing() {
    if installs; then
        echo "FAILED: $1: what it needs is not there, though root can install it from an archive that answers" >&2
        exit 1
    fi
    skip "$1"
}

# servers GROUP NEED...: looks for what a group of tests with servers needs. A need is a program, a file, or "root"; what no
# package brings, root and devices, is no failure.
servers() {
    group=$1
    shift
    absent=
    for need; do
        case $need in
        root) [ "$(id -u)" = 0 ] || { skip "$group"; return; } ;;
        /dev/*) [ -c "$need" ] || { skip "$group"; return; } ;;
        /*) [ -e "$need" ] || absent="$absent $need" ;;
        *) have "$need" || absent="$absent $need" ;;
        esac
    done
    [ -z "$absent" ] || missing "$group (no$absent)"
}
