#!/bin/bash -eu
# Built by OSS-Fuzz: its conventions are $SRC, $OUT and cargo fuzz.
cd "$SRC/platter"
cargo fuzz build -O --debug-assertions
release=fuzz/target/x86_64-unknown-linux-gnu/release
for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    cp "$release/$target" "$OUT/"
    if [ -d "fuzz/seeds/$target" ]; then
        zip -q -j "$OUT/${target}_seed_corpus.zip" fuzz/seeds/"$target"/*
    fi
done
