#!/bin/sh
# Runs every fuzz target for FUZZ_SECONDS of processor time (60) from its seeds, two side by side; one that mostly waits for
# something else, for twice as long and at least a quarter of that time. FUZZ_TARGETS names some of them, FUZZ_SEED starts
# the random numbers, which are the same in every run unless it is 0, and FUZZ_TIMEOUT (60) is how many seconds an input may
# take. FUZZ_PROFILE=quick builds in half the time what runs more slowly. With `build` it builds them and runs none.
# `cargo fuzz run TARGET` does the same with a nightly compiler and address checks; this needs no more
# than the stable one and a C++ compiler.
set -eu

cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
seed=${FUZZ_SEED:-1}
all=$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)
targets=${FUZZ_TARGETS:-$all}
seconds=${FUZZ_SECONDS:-60}
profile=${FUZZ_PROFILE:-release}
ticks=$((seconds * $(getconf CLK_TCK)))
dir=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# With --target the flags are for the targets alone, not for build scripts.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 --cfg fuzzing" \
    $CARGO build --manifest-path fuzz/Cargo.toml --profile "$profile" --target "$host" --target-dir "$dir" &
build=$!
trap 'kill "$build" 2>/dev/null || :; exit 1' TERM INT
wait "$build"

[ "${1:-}" != build ] || exit 0

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Whether process $1, which began in second $2, has time left.
has_time() {
    [ -r "/proc/$1/stat" ] || return 1
    # Without what its main thread has waited for a processor, in nanoseconds.
    waited=$(cut -d ' ' -f 2 "/proc/$1/schedstat" 2>/dev/null || echo 0)
    elapsed=$(($(date +%s) - $2 - waited / 1000000000))
    # Behind the name: the state, ten others, then the time in user and system mode.
    # shellcheck disable=SC2046
    set -- $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) Z
    [ "$1" != Z ] || return 1
    used=$((${12} + ${13}))
    if [ "$elapsed" -lt $((2 * seconds)) ]; then
        [ "$used" -lt "$ticks" ]
    else
        [ "$used" -lt $((ticks / 4)) ]
    fi
}

run() {
    mkdir -p "$scratch/$1"
    seeds=fuzz/seeds/$1
    [ -d "$seeds" ] || seeds=
    # Whole files need room; lists of edits and changes do with little.
    case $1 in
    open_image) max=65536 ;;
    *) max=4096 ;;
    esac
    # What is found goes into the scratch directory: the seeds stay few.
    TMPDIR=$scratch "$dir/$host/$profile/$1" -seed="$seed" -max_len=$max -timeout="${FUZZ_TIMEOUT:-60}" \
        -rss_limit_mb=1024 -malloc_limit_mb=256 -artifact_prefix="$scratch/$1-" -print_final_stats=1 \
        "$scratch/$1" $seeds >"$scratch/$1.log" 2>&1 &
    fuzzer=$!
    began=$(date +%s)
    trap 'kill "$fuzzer" 2>/dev/null || :; exit 1' TERM
    while has_time "$fuzzer" "$began"; do
        sleep 1
    done
    # It ends after the input at hand, and says how many there were.
    kill -USR1 "$fuzzer" 2>/dev/null || :
    if wait "$fuzzer"; then
        echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/$1.log") runs in $(($(date +%s) - began)) seconds"
    else
        tail -n 60 "$scratch/$1.log" >&2
        mkdir -p fuzz/artifacts
        for found in "$scratch/$1"-*; do
            [ -f "$found" ] && cp "$found" fuzz/artifacts/ && echo "see fuzz/artifacts/${found##*/}" >&2
        done
        return 1
    fi
}

failed=0
other=
this=
trap 'kill $other $this 2>/dev/null || :; exit 1' TERM INT
for target in $targets; do
    run "$target" &
    this=$!
    if [ -n "$other" ]; then
        wait "$other" || failed=1
    fi
    other=$this
done
wait "$other" || failed=1
exit "$failed"
