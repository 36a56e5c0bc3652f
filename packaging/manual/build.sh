#!/bin/sh
# Makes the manual: build.sh VERSION DIRECTORY
# DIRECTORY gets pages/, what is rendered; man/, pages for man; html/, with an index and a search.
#
# What is rendered comes from the comments of include/platter.h, from docs/manual, where a block of code that is
# begun by "```c FILE" shows that file, and from docs/man for the tool.
set -eu

version=$1 out=$2
from=packaging/manual
new=$out.new
rm -rf "$new"
mkdir -p "$new/pages" "$new/man" "$new/html"
awk -v dir="$new/pages" -f $from/pages.awk include/platter.h docs/manual/*.md examples-c/samples/*.c
for page in docs/manual/*.md; do
    awk '
        /^```[a-z]+ / {
            print "```" substr($1, 4)
            while ((got = (getline line <$2)) > 0) print line
            if (got < 0) { print FILENAME ": " $2 " is missing" >"/dev/stderr"; exit 1 }
            next
        }
        { print }' "$page" >"$new/pages/${page##*/}"
done
awk -v dir="$new/man" -v version="$version" -f $from/man.awk "$new"/pages/*.md
# The page of the tool is written in roff; HTML has it as Markdown.
for page in docs/man/*.1; do
    cp "$page" "$new/man/"
    awk -f $from/roff.awk "$page" >"$new/pages/${page##*/}.md"
done
awk -v dir="$new/html" -v version="$version" -f $from/html.awk "$new"/pages/*.md "$new"/pages/*.md
cp $from/search.js $from/manual.css "$new/html/"
rm -rf "$out"
mv "$new" "$out"
