#!/bin/sh
# Completions for bash, zsh and fish from the help of the tool: completions.sh TOOL DIRECTORY
set -eu

tool=$1 out=$2
awk=$(dirname "$0")/completions.awk
mkdir -p "$out"
"$tool" --help >"$out/help"
sed -n '/^Commands/,/^Supported/s/^  \([a-z][a-z-]*\) - .*/\1/p' "$out/help" >"$out/commands"
while read -r command; do
    echo "@ $command"
    "$tool" "$command" --help
done <"$out/commands" >>"$out/help"
awk -v shell=bash -f "$awk" "$out/help" >"$out/platter-img"
awk -v shell=zsh -f "$awk" "$out/help" >"$out/_platter-img"
awk -v shell=fish -f "$awk" "$out/help" >"$out/platter-img.fish"
rm "$out/help" "$out/commands"
