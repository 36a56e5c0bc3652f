# Takes the pages of the C functions, types and constants from the public header, in the subset of Markdown that
# man.awk and html.awk render: DIRECTORY/NAME.SECTION.md for each.
# usage: awk -v dir=DIRECTORY -f pages.awk include/platter.h docs/manual/*.md examples-c/samples/*.c
#
# The example of a function is the shortest one of the samples' own functions that calls it.
# The comment of a function ends in one paragraph "Statuses: ... Threads: ... Since 0.1.", and "# Safety" with
# what the caller sees to may follow.

function fail(text) {
    print "pages.awk: " text > "/dev/stderr"
    failed = 1
    exit 1
}

function trim(text) {
    sub(/^[ \n]+/, "", text)
    sub(/[ \n]+$/, "", text)
    return text
}

# The first sentence, for the NAME section and the lists of functions.
function summary(text,    at) {
    text = trim(text)
    at = index(text, "\n\n")
    if (at) text = substr(text, 1, at - 1)
    gsub(/\n/, " ", text)
    gsub(/`/, "", text)
    if (match(text, /[.:;] /)) text = substr(text, 1, RSTART - 1)
    sub(/[.: ]+$/, "", text)
    # A bracket that was left open goes with what is in it.
    if (text ~ /\([^)]*$/) sub(/ *\([^)]*$/, "", text)
    if (text ~ /^[A-Z][^A-Z]/) text = tolower(substr(text, 1, 1)) substr(text, 2)
    return text
}

# The object that a function belongs to; "" for none.
function page_of(name,    i, best) {
    if (name ~ /_job_new$/) return "platter_job"
    if (name ~ /^platter_inspect/) return "platter_report"
    for (i = 1; i <= objects; i++)
        if (index(name, object[i] "_") == 1 && length(object[i]) > length(best)) best = object[i]
    return best
}

# The samples: what stands at the left margin up to its closing brace, with the comment above it.
FILENAME ~ /\.c$/ {
    if (FNR == 1) { part = ""; in_part = 0 }
    if (/^\/\* / && !in_part) { part = ""; in_remark = 1 }
    if (in_remark) { part = part $0 "\n"; if (/\*\/$/) in_remark = 0; next }
    if (/^[a-z].*\(/ && !/;$/) in_part = 1
    if (!in_part) { part = ""; next }
    part = part $0 "\n"
    if (/^}$/) { take_part(); part = ""; in_part = 0 }
    next
}
FILENAME != ARGV[1] {
    if (FNR == 1) {
        match($0, /platter[^(]*/)
        page = substr($0, RSTART, RLENGTH)
    }
    if (/^```c /) shown_on[$2] = page
    if (page !~ /^platter-/) next
    line = $0
    while (match(line, /platter_[a-z0-9_]*\(/)) {
        name = substr(line, RSTART, RLENGTH - 1)
        line = substr(line, RSTART + RLENGTH)
        if (!((name, page) in told)) tasks[name] = tasks[name] " " page
        told[name, page] = 1
    }
    next
}
/^\/\*\*$/ { comment = ""; in_comment = 1; next }
in_comment && /^ \*\/$/ { in_comment = 0; next }
in_comment { line = $0; sub(/^ \* ?/, "", line); comment = comment line "\n"; next }

/^typedef struct platter_[a-z_]* platter_[a-z_]*;$/ {
    name = $NF; sub(/;/, "", name)
    object[++objects] = name
    about[name] = comment
    comment = ""; next
}
/^#define PLATTER_[A-Z0-9_]+ / && !/PLATTER_H$/ {
    constants[++n_constants] = $2
    value[$2] = $0
    sub(/^#define [^ ]* /, "", value[$2])
    what[$2] = comment
    comment = ""; next
}
# A struct with members: its declaration without comments, then each member with its own.
/^typedef struct platter_[a-z_]* \{$/ {
    type = $3
    types[++n_types] = type
    about[type] = comment; declared[type] = $0 "\n"
    comment = ""; member = ""; in_struct = 1; next
}
in_struct && /^\}/ { declared[type] = declared[type] $0 "\n"; in_struct = 0; comment = ""; next }
in_struct && /^ *\/\*\*$/ { comment = ""; next }
in_struct && /^ *\*\/$/ { next }
in_struct && /^ *\* ?/ { line = $0; sub(/^ *\* ?/, "", line); comment = comment line "\n"; next }
in_struct {
    declared[type] = declared[type] $0 "\n"
    line = $0; sub(/^ +/, "", line)
    member = member (member == "" ? "" : " ") line
    if (/;$/) {
        name = member
        if (match(name, /\(\*[a-z_]*\)/)) name = substr(name, RSTART + 2, RLENGTH - 3)
        else { sub(/;$/, "", name); sub(/\[.*/, "", name); sub(/.*[ *]/, "", name) }
        members[type] = members[type] item(name, comment)
        member = ""; comment = ""
    }
    next
}
/^typedef .*\(\*platter_[a-z_]*_fn\)/ {
    match($0, /\*platter_[a-z_]*_fn/)
    type = substr($0, RSTART + 1, RLENGTH - 1)
    types[++n_types] = type
    about[type] = comment; declared[type] = ""
    comment = ""; in_callback = 1
}
in_callback { declared[type] = declared[type] $0 "\n"; if (/;$/) in_callback = 0; next }
/^typedef / || /^struct / && !/\(/ { in_type = /\{$/ || !/;$/; comment = ""; next }
in_type { if (/^\}/ || /;$/ && !/^ /) in_type = 0; if (/^ .*\);$/) in_type = 0; next }
/^[a-z].*platter_[a-z0-9_]*\(/ { prototype = ""; in_function = 1 }
in_function {
    prototype = prototype $0 "\n"
    if (/;$/) {
        in_function = 0
        match(prototype, /platter_[a-z0-9_]*\(/)
        name = substr(prototype, RSTART, RLENGTH - 1)
        functions[++n_functions] = name
        declared[name] = prototype
        about[name] = comment
        comment = ""
    }
}

# A function of a sample: the example of what it calls, where none is shorter.
function take_part(    text, name, lines) {
    lines = gsub(/\n/, "\n", part)
    text = part
    while (match(text, /platter_[a-z0-9_]*\(/)) {
        name = substr(text, RSTART, RLENGTH - 1)
        text = substr(text, RSTART + RLENGTH)
        # Letting go is the same everywhere.
        if (name ~ /_free$/) continue
        if (name in example && example_lines[name] <= lines) continue
        example[name] = part
        example_lines[name] = lines
        example_page[name] = shown_on[FILENAME]
        example_file[name] = FILENAME
        sub(/.*\//, "", example_file[name])
    }
}

# A term of a list with what it means: the first line at the term, further ones below it.
function item(term, text) {
    text = trim(text)
    gsub(/\n\n/, "\n", text)
    gsub(/\n/, "\n  ", text)
    return "- `" term "`: " text "\n"
}

# Takes the comment of a function apart.
function split_comment(name,    text, at, n, paragraphs, last) {
    text = about[name]
    safety = statuses = threads = since = ""
    if (at = index(text, "# Safety\n")) {
        safety = trim(substr(text, at + length("# Safety\n")))
        text = substr(text, 1, at - 1)
    }
    text = trim(text)
    n = split(text, paragraphs, /\n\n/)
    last = paragraphs[n]
    if (n < 2 || last !~ /^(Statuses|Threads|Since)/) fail(name "() has no line of statuses, threads and version")
    description = substr(text, 1, length(text) - length(last))
    gsub(/\n/, " ", last)
    if (!match(last, /Since [0-9.]*\.$/)) fail(name "() does not say since when it is there")
    since = substr(last, RSTART)
    last = trim(substr(last, 1, RSTART - 1))
    if (last ~ /^Statuses and threads: /) {
        statuses = threads = substr(last, length("Statuses and threads: ") + 1)
    } else {
        if (at = index(last, "Threads: ")) {
            threads = substr(last, at + length("Threads: "))
            last = trim(substr(last, 1, at - 1))
        }
        statuses = last
        sub(/^Statuses: /, "", statuses)
        sub(/^Statuses of the completion: /, "Of the completion: ", statuses)
    }
}

# Each status that is named, in full, with what it means.
function status_list(text,    i, name, short, list) {
    for (i = 1; i <= n_constants; i++) {
        name = constants[i]
        if (name !~ /^PLATTER_STATUS_/) continue
        short = substr(name, length("PLATTER_STATUS_") + 1)
        if (match(" " text " ", "[^A-Z_]" short "[^A-Z_]")) list = list item(name, what[name])
    }
    return list
}

# Names that the text mentions and that have pages, without those that are there already.
function mentioned(text,    name, found) {
    while (match(text, /platter_[a-z0-9_]*/)) {
        name = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH)
        if ((name in declared || name in is_object) && !(name in seen)) {
            seen[name] = 1
            found = found ", `" name "(3)`"
        }
    }
    return found
}

# Where a program stands as a whole.
function shown(page) {
    if (page == "") return ""
    return ", and shown in `" page "(" (page == "platter" ? 3 : 7) ")`"
}

function write_function(name,    file, page, list, n, i) {
    split_comment(name)
    file = dir "/" name ".3.md"
    printf "# %s(3)\n\n%s\n\n## SYNOPSIS\n\n```c\n#include <platter.h>\n\n%s```\n\n", name, summary(description), \
        declared[name] > file
    printf "## DESCRIPTION\n\n%s\n\n", trim(description) > file
    if (safety != "") printf "The caller sees to it: %s\n\n", safety > file
    print "## RETURN VALUE\n" > file
    if (declared[name] ~ /\*\*err\)/)
        print "`PLATTER_OK` or a negative `PLATTER_STATUS_*`. After a failure what is given out is NULL or 0, unless the " \
            "description says otherwise, and `*err`, where `err` is not NULL, is an error that the caller frees with " \
            "`platter_error_free()`.\n" > file
    else if (declared[name] ~ /^void/)
        print "None: the call cannot fail.\n" > file
    else
        print "As described; the call cannot fail.\n" > file
    if (statuses != "") {
        printf "## ERRORS\n\n%s\n\n", statuses > file
        list = status_list(statuses)
        if (list != "") print list > file
    }
    if (threads != "") printf "## THREADS\n\n%s%s\n\n", toupper(substr(threads, 1, 1)), substr(threads, 2) > file
    printf "## VERSION\n\n%s\n\n", since > file
    if (name in example)
        printf "## EXAMPLE\n\nFrom %s, which is installed as an example%s:\n\n```c\n%s```\n\n", \
            example_file[name], shown(example_page[name]), example[name] > file
    split("", seen)
    seen[name] = seen["platter_error"] = seen["platter_error_free"] = 1
    page = page_of(name)
    list = page == "" ? "" : mentioned(page)
    list = list mentioned(description " " statuses " " declared[name])
    page = example_page[name]
    if (page ~ /^platter-/ && index(tasks[name] " ", " " page " ") == 0) tasks[name] = tasks[name] " " page
    n = split(tasks[name], many, " ")
    for (i = 1; i <= n; i++) list = list ", `" many[i] "(7)`"
    printf "## SEE ALSO\n\n`platter(3)`%s\n", list > file
    close(file)
}

# Writes a line per function of the object.
function list_functions(file, page,    i) {
    for (i = 1; i <= n_functions; i++)
        if (page_of(functions[i]) == page)
            printf "%s", item(functions[i] "()", about_line[functions[i]] ".") > file
    print "" > file
}

END {
    if (failed) exit 1
    for (i = 1; i <= objects; i++) is_object[object[i]] = 1
    for (i = 1; i <= n_functions; i++) {
        about_line[functions[i]] = summary(about[functions[i]])
        write_function(functions[i])
    }
    for (i = 1; i <= objects; i++) {
        page = object[i]
        file = dir "/" page ".3.md"
        printf "# %s(3)\n\n%s\n\n## SYNOPSIS\n\n```c\n#include <platter.h>\n\ntypedef struct %s %s;\n```\n\n", page, \
            summary(about[page]), page, page > file
        printf "## DESCRIPTION\n\n%s\n\n## FUNCTIONS\n\n", trim(about[page]) > file
        list_functions(file, page)
        split("", seen)
        seen[page] = 1
        printf "## SEE ALSO\n\n`platter(3)`, `platter_functions(3)`%s\n", mentioned(about[page]) > file
        close(file)
    }
    for (i = 1; i <= n_types; i++) {
        type = types[i]
        file = dir "/" type ".3.md"
        printf "# %s(3)\n\n%s\n\n## SYNOPSIS\n\n```c\n#include <platter.h>\n\n%s```\n\n", type, summary(about[type]), \
            declared[type] > file
        printf "## DESCRIPTION\n\n%s\n\n", trim(about[type]) > file
        if (members[type] != "") printf "## MEMBERS\n\n%s\n", members[type] > file
        split("", seen)
        seen[type] = 1
        users = ""
        for (j = 1; j <= n_functions; j++)
            if (declared[functions[j]] ~ ("[^a-z_]" type "[^a-z_]")) users = users " " functions[j]
        printf "## SEE ALSO\n\n`platter(3)`%s\n", mentioned(about[type] users) > file
        close(file)
    }
    file = dir "/platter_constants.3.md"
    print "# platter_constants(3)\n\nevery constant of the header, with its value\n\n## SYNOPSIS\n\n" \
        "```c\n#include <platter.h>\n```\n" > file
    # Together by the word behind PLATTER_, in the order of the header.
    for (i = 1; i <= n_constants; i++) {
        split(constants[i], words, "_")
        group = words[2] == "OK" ? "STATUS" : words[2]
        if (!(group in grouped)) groups[++n_groups] = group
        grouped[group] = grouped[group] item(constants[i], "(" value[constants[i]] ") " what[constants[i]])
    }
    for (i = 1; i <= n_groups; i++) printf "\n## PLATTER_%s\n\n%s", groups[i], grouped[groups[i]] > file
    print "\n## SEE ALSO\n\n`platter(3)`, `platter_functions(3)`" > file
    close(file)
    file = dir "/platter_functions.3.md"
    print "# platter_functions(3)\n\nevery object, function and type of the library\n\n## SYNOPSIS\n\n" \
        "```c\n#include <platter.h>\n```\n" > file
    for (i = 1; i <= objects; i++) {
        printf "## %s\n\n`%s(3)`: %s.\n\n", object[i], object[i], summary(about[object[i]]) > file
        list_functions(file, object[i])
    }
    print "## Without an object\n" > file
    list_functions(file, "")
    print "## Types\n" > file
    for (i = 1; i <= n_types; i++) printf "%s", item(types[i], summary(about[types[i]]) ".") > file
    print "\n## SEE ALSO\n\n`platter(3)`, `platter_constants(3)`" > file
    close(file)
}
