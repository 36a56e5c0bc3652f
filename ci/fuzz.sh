#!/bin/sh
# Runs every fuzz target for FUZZ_SECONDS from its seeds: without it for a minute, or less where all of them together
# would take longer than six. FUZZ_TARGETS names some of them, and FUZZ_SEED starts the random numbers, which
# are the same in every run unless it is 0.
# `cargo fuzz run TARGET` does the same with a nightly compiler and address checks; this needs no more
# than the stable one and a C++ compiler.
set -eu

cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
seed=${FUZZ_SEED:-1}
all=$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)
targets=${FUZZ_TARGETS:-$all}
# Two run side by side.
share=$((360 / (($(echo "$targets" | wc -w) + 1) / 2)))
seconds=${FUZZ_SECONDS:-$((share > 60 ? 60 : share < 30 ? 30 : share))}
dir=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# With --target the flags are for the targets alone, not for build scripts.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 --cfg fuzzing" \
    $CARGO build --manifest-path fuzz/Cargo.toml --release --target "$host" --target-dir "$dir"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
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
    if TMPDIR=$scratch "$dir/$host/release/$1" -max_total_time="$seconds" -seed="$seed" -max_len=$max -timeout=60 -rss_limit_mb=1024 \
        -malloc_limit_mb=256 -artifact_prefix="$scratch/$1-" -print_final_stats=1 \
        "$scratch/$1" $seeds >"$scratch/$1.log" 2>&1; then
        echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/$1.log") runs in $seconds seconds"
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
for target in $targets; do
    if [ -n "${other:-}" ]; then
        run "$target" || failed=1
        wait "$other" || failed=1
        other=
    else
        run "$target" &
        other=$!
    fi
done
[ -z "${other:-}" ] || wait "$other" || failed=1
exit "$failed"
