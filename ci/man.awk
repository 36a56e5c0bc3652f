# Writes the manual pages of section 3 from the public header: platter.3, one page per object, and for each
# function and type a link to the page that it is on.
# usage: awk -v dir=DIRECTORY -v version=VERSION -f man.awk include/platter.h

function escape(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    if (text ~ /^[.']/) text = "\\&" text
    return text
}

# Comment text: names between backquotes are bold, an empty line starts a paragraph.
function prose(text,    lines, n, i, line, out) {
    n = split(text, lines, "\n")
    for (i = 1; i <= n; i++) {
        line = lines[i]
        if (line == "# Safety") { out = out ".PP\nThe caller sees to it:\n"; continue }
        if (line == "") { if (out != "") out = out ".PP\n"; continue }
        line = escape(line)
        while (match(line, /`[^`]*`/))
            line = substr(line, 1, RSTART - 1) "\\fB" substr(line, RSTART + 1, RLENGTH - 2) "\\fP" \
                substr(line, RSTART + RLENGTH)
        out = out line "\n"
    }
    return out
}

# The object that a function belongs to; what has none is on platter(3).
function page_of(name,    i, best) {
    if (name ~ /_job_new$/) return "platter_job"
    if (name ~ /^platter_inspect/) return "platter_report"
    best = "platter"
    for (i = 1; i <= objects; i++)
        if (index(name, object[i] "_") == 1 && length(object[i]) > length(best)) best = object[i]
    return best
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
    value[$2] = $3; what[$2] = comment
    comment = ""; next
}
# A struct with members: its comment, then each member with its own.
/^typedef struct platter_[a-z_]* \{$/ {
    type = $3
    types[++n_types] = type
    about_type[type] = comment
    members[type] = ""; comment = ""; member = ""; in_struct = 1; next
}
in_struct && /^\}/ { in_struct = 0; comment = ""; next }
in_struct && /^ *\/\*\*$/ { comment = ""; next }
in_struct && /^ *\*\/$/ { next }
in_struct && /^ *\* ?/ { line = $0; sub(/^ *\* ?/, "", line); comment = comment line "\n"; next }
in_struct {
    line = $0; sub(/^ +/, "", line)
    member = member (member == "" ? "" : " ") line
    if (/;$/) {
        members[type] = members[type] ".TP\n.B " escape(member) "\n" prose(comment)
        member = ""; comment = ""
    }
    next
}
# A callback.
/^typedef .*\(\*platter_[a-z_]*_fn\)/ {
    match($0, /\*platter_[a-z_]*_fn/)
    type = substr($0, RSTART + 1, RLENGTH - 1)
    types[++n_types] = type
    about_type[type] = comment
    members[type] = ".PP\n.nf\n"; comment = ""; in_callback = 1
}
in_callback {
    members[type] = members[type] escape($0) "\n"
    if (/;$/) { in_callback = 0; members[type] = members[type] ".fi\n" }
    next
}
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
        declared[name] = prototype; doc[name] = comment
        comment = ""
    }
}

function head(file, page, text) {
    printf ".TH %s 3 \"\" \"Platter %s\" \"Platter\"\n.SH NAME\n%s \\- %s\n", toupper(page), version, \
        page, text > file
}

function body(file, page,    i, name, any) {
    print ".SH SYNOPSIS\n.nf\n.B #include <platter.h>\n" > file
    for (i = 1; i <= n_functions; i++)
        if (page_of(functions[i]) == page) print escape(declared[functions[i]]) > file
    print ".fi" > file
    if (page in about) printf ".SH DESCRIPTION\n%s", prose(about[page]) > file
    for (i = 1; i <= n_functions; i++) {
        name = functions[i]
        if (page_of(name) != page) continue
        if (!any++) print ".SH FUNCTIONS" > file
        printf ".SS %s()\n%s", name, prose(doc[name]) > file
    }
}

# The first sentence of an object's comment, for the NAME line.
function first_sentence(text,    at) {
    gsub(/\n/, " ", text)
    gsub(/`/, "", text)
    at = index(text, ". ")
    if (at) text = substr(text, 1, at - 1)
    sub(/[.: ]+$/, "", text)
    return escape(text)
}

END {
    for (i = 1; i <= objects; i++) {
        page = object[i]
        file = dir "/" page ".3"
        head(file, page, first_sentence(about[page]))
        body(file, page)
        print ".SH SEE ALSO\n.BR platter (3),\n.BR platter\\-img (1)" > file
        close(file)
    }
    file = dir "/platter.3"
    head(file, "platter", "virtual\\-machine disk images")
    body(file, "platter")
    print ".SH CONSTANTS" > file
    for (i = 1; i <= n_constants; i++)
        printf ".TP\n.B %s (%s)\n%s", constants[i], escape(value[constants[i]]), \
            prose(what[constants[i]]) > file
    print ".SH TYPES" > file
    for (i = 1; i <= n_types; i++)
        printf ".SS %s\n%s%s", types[i], prose(about_type[types[i]]), members[types[i]] > file
    print ".SH SEE ALSO" > file
    for (i = 1; i <= objects; i++) printf ".BR %s (3),\n", object[i] > file
    print ".BR platter\\-img (1)" > file
    close(file)
    # A page for every name, so that `man NAME` finds it.
    for (i = 1; i <= n_functions; i++) {
        file = dir "/" functions[i] ".3"
        printf ".so man3/%s.3\n", page_of(functions[i]) > file
        close(file)
    }
    for (i = 1; i <= n_types; i++) {
        file = dir "/" types[i] ".3"
        print ".so man3/platter.3" > file
        close(file)
    }
}
