#!/bin/sh
# The manual is made, complete, well formed, and every reference in it leads somewhere; where a browser is there, its
# search finds what it should.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sh packaging/manual/build.sh 0 "$work/manual"
pages=$work/manual/pages

# $1 and $2 are the same lists.
same() {
    diff -u --label "$1" --label "$2" "$3" "$4" || { echo "$1 and $2 differ" >&2; exit 1; }
}

# Every function, object and type has a page, and a line in the list of them; every constant is explained, every status
# also in the overview.
{
    printf '#include <platter.h>\n' | ${CC:-cc} -E -P -Iinclude - | grep -o '\bplatter_[a-z0-9_]*(' | tr -d '('
    sed -n 's/^typedef struct \(platter_[a-z_]*\) .*/\1/p; s/^typedef .*(\*\(platter_[a-z_]*\)).*/\1/p' include/platter.h
} | sort -u >"$work/header"
ls "$pages" | sed -n 's/^\(platter_.*\)\.3\.md$/\1/p' | grep -vx 'platter_constants\|platter_functions' |
    sort -u >"$work/pages"
same 'the header' 'the pages' "$work/header" "$work/pages"
sed -n 's/^- `\(platter_[a-z0-9_]*\)[()]*`: .*/\1/p; s/^`\(platter_[a-z_]*\)(3)`: .*/\1/p' \
    "$pages/platter_functions.3.md" | sort -u >"$work/listed"
same 'the header' 'platter_functions(3)' "$work/header" "$work/listed"
sed -n 's/^#define \(PLATTER_[A-Z0-9_]*\) .*/\1/p' include/platter.h | sort -u >"$work/constants"
sed -n 's/^- `\(PLATTER_[A-Z0-9_]*\)`: .*/\1/p' "$pages/platter_constants.3.md" | sort -u >"$work/explained"
same 'the header' 'platter_constants(3)' "$work/constants" "$work/explained"
grep '^PLATTER_STATUS_' "$work/constants" >"$work/statuses"
sed -n 's/^- `\(PLATTER_STATUS_[A-Z_]*\)`: .*/\1/p' "$pages/platter.md" | sort -u >"$work/handled"
same 'the header' 'platter(3)' "$work/statuses" "$work/handled"

# Whatever a sample calls has a part of it as its example, except what lets go.
cat examples-c/samples/*.c | grep -o '\bplatter_[a-z0-9_]*(' | tr -d '(' | grep -v '_free$' | sort -u >"$work/called"
grep -l '^## EXAMPLE$' "$pages"/platter_*.3.md | sed 's|.*/||; s|\.3\.md$||' | sort -u >"$work/with-example"
same 'what samples call' 'the pages with an example' "$work/called" "$work/with-example"

# The page of a function has every section, that of what can fail its errors too; what it is, in the third line, is whole.
printf '#include <platter.h>\n' | ${CC:-cc} -E -P -Iinclude - | tr '\n' ' ' | tr ';' '\n' >"$work/declared"
for name in $(grep -o '\bplatter_[a-z0-9_]*(' "$work/declared" | tr -d '(' | sort -u); do
    page=$pages/$name.3.md
    wanted='SYNOPSIS DESCRIPTION RETURN_VALUE THREADS VERSION SEE_ALSO'
    ! grep "\b$name(.*platter_error \*\*err" "$work/declared" >/dev/null || wanted="$wanted ERRORS"
    for section in $wanted; do
        grep -qx "## $(echo $section | tr _ ' ')" "$page" || { echo "$name(3) has no $section" >&2; exit 1; }
    done
done
awk 'FNR == 3 {
        if (gsub(/"/, "") % 2 || gsub(/`/, "") % 2 || gsub(/\(/, "") != gsub(/\)/, "")) {
            print FILENAME ": what it is, is cut off: " $0
            bad = 1
        }
    }
    END { exit bad }' "$pages"/*.md >&2

# References: pages, functions, types and constants.
{
    awk 'FNR == 1 { print substr($0, 3) }' "$pages"/*.md
    # Of others.
    printf '%s\n' 'qemu-img(1)' 'qemu-nbd(8)' 'epoll(7)' 'fork(2)' 'poll(2)' 'execve(2)' 'openat(2)'
} | sort -u >"$work/known"
awk -v known="$work/known" -v constants="$work/constants" '
    BEGIN {
        while ((getline name <known) > 0) page[name] = 1
        while ((getline name <constants) > 0) {
            constant[name] = 1
            # PLATTER_STATUS_* stands for the constants that begin so.
            while (sub(/_[A-Z0-9]*$/, "", name)) group[name] = 1
        }
    }
    /^```/ { code = !code; next }
    code { next }
    {
        line = $0
        while (match(line, /`[^`]*`/)) {
            name = substr(line, RSTART + 1, RLENGTH - 2)
            line = substr(line, RSTART + RLENGTH)
            there = 1
            if (name ~ /^[A-Za-z][-A-Za-z0-9_.]*\([1-8]\)$/) {
                # The page of the tool names those of other programs.
                there = name in page || FILENAME ~ /platter-img\.1/
            } else if (name ~ /^platter_[a-z0-9_]*(\(\))?$/) {
                sub(/\(\)/, "", name)
                there = (name "(3)") in page
            } else if (name ~ /^PLATTER_[A-Z0-9_]*\*?$/ && name != "PLATTER_LOG") {
                there = name in constant
                if (name ~ /\*$/) { sub(/_?\*$/, "", name); there = name in group }
            }
            if (!there) { print FILENAME ": " name " is nowhere"; bad = 1 }
        }
    }
    END { exit bad }' "$pages"/*.md >&2
# And those of HTML, to pages and places on them.
awk '
    {
        line = $0
        file = FILENAME
        sub(/.*\//, "", file)
        there[file] = 1
        while (match(line, / id="[^"]*"/)) {
            id = file "#" substr(line, RSTART + 5, RLENGTH - 6)
            if (id in there) { print id " is there twice"; bad = 1 }
            there[id] = 1
            line = substr(line, RSTART + RLENGTH)
        }
        line = $0
        while (match(line, / (href|src)="[^"]*"/)) {
            link = substr(line, RSTART, RLENGTH)
            line = substr(line, RSTART + RLENGTH)
            gsub(/^[^"]*"|"$/, "", link)
            wanted[link] = file
        }
    }
    END {
        for (link in wanted) if (!(link in there)) { print wanted[link] ": " link " is nowhere"; bad = 1 }
        exit bad
    }' "$work"/manual/html/* >&2

if command -v groff >/dev/null; then
    groff -man -Kutf8 -Tutf8 -ww -z "$work"/manual/man/* >"$work/lint" 2>&1
    [ ! -s "$work/lint" ] || { cat "$work/lint" >&2; exit 1; }
fi

# A browser without a window: what is looked for comes first, as a link to its page.
browser=
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    command -v $name >/dev/null && browser=$name && break
done
[ -n "$browser" ] || exit 0
# What is searched for, and the first page that is found.
while read -r words page; do
    timeout 60 $browser --headless --no-sandbox --disable-gpu --user-data-dir="$work/browser" --virtual-time-budget=5000 \
        --dump-dom "file://$work/manual/html/index.html?q=$words" >"$work/dom" 2>"$work/browser.log" ||
        { cat "$work/browser.log" >&2; exit 1; }
    found=$(sed -n 's/.*<ol id="found"><li>\(<a href="\)*\([^"<]*\).*/\2/p' "$work/dom")
    [ "$found" = "$page" ] || { echo "A search for '$words' finds '$found' and not '$page'" >&2; exit 1; }
done <<'SEARCHES'
platter_image_open platter_image_open.3.html
bitmap+dirty platter_bitmap_dirty.3.html
STATUS_LOCKED platter_constants.3.html#PLATTER_STATUS_LOCKED
stranger platter-upload.7.html
zzzz Nothing found
SEARCHES
