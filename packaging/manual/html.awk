# Renders pages of the manual as HTML, with an index and the list that search.js looks through.
# usage: awk -v dir=DIRECTORY -v version=VERSION -f html.awk PAGES PAGES
#
# The pages are named twice: the first pass learns what there is to link to.

function escape(text) {
    gsub(/&/, "\\&amp;", text)
    gsub(/</, "\\&lt;", text)
    gsub(/>/, "\\&gt;", text)
    gsub(/"/, "\\&quot;", text)
    return text
}

# Where a name leads; "" for nowhere.
function target(name,    bare, section) {
    if (name in address) return address[name]
    bare = name
    if (match(bare, /\([0-9]\)$/)) { if (!(bare in address)) return "" }
    sub(/\(\)$/, "", bare)
    if ((bare "(3)") in address) return address[bare "(3)"]
    if (bare in constant) return "platter_constants.3.html#" bare
    sub(/_?\*$/, "", bare)
    if (bare in group) return "platter_constants.3.html#" bare
    return ""
}

function code_span(text,    to) {
    to = target(text)
    text = "<code>" escape(text) "</code>"
    return to == "" || to == here ? text : "<a href=\"" to "\">" text "</a>"
}

function inline(text,    out, name) {
    while (match(text, /`[^`]*`/)) {
        name = substr(text, RSTART + 1, RLENGTH - 2)
        out = out escape(substr(text, 1, RSTART - 1))
        text = substr(text, RSTART + RLENGTH)
        out = out code_span(name)
    }
    return out escape(text)
}

# A line of code, in which names of the library are links.
function code_line(text,    out, name, to) {
    while (match(text, /(platter|PLATTER)_[A-Za-z0-9_]*/)) {
        name = substr(text, RSTART, RLENGTH)
        out = out escape(substr(text, 1, RSTART - 1))
        text = substr(text, RSTART + RLENGTH)
        to = target(name)
        out = out (to == "" || to == here ? name : "<a href=\"" to "\">" name "</a>")
    }
    return out escape(text)
}

function head(file, title) {
    print "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n" \
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" title "</title>\n" \
        "<link rel=\"stylesheet\" href=\"manual.css\">\n<script src=\"names.js\" defer></script>\n" \
        "<script src=\"search.js\" defer></script>\n</head>\n<body>\n<header><a href=\"index.html\">Platter " version \
        "</a>\n<input type=\"search\" id=\"search\" placeholder=\"Search\" aria-label=\"Search the manual\" " \
        "autocomplete=\"off\">\n<ol id=\"found\" hidden></ol></header>\n<main>" > file
}

function close_blocks(    out) {
    if (paragraph) out = out "</p>\n"
    if (in_item) out = out (defined ? "</dd>\n" : "</li>\n")
    if (list != "") out = out "</" list ">\n"
    paragraph = in_item = 0
    list = ""
    return out
}

function json(text) {
    gsub(/`/, "", text)
    gsub(/\\/, "\\\\", text)
    gsub(/"/, "\\\"", text)
    # Not read as the end of the script.
    gsub(/</, "\\u003c", text)
    return "\"" text "\""
}

# A link to a heading or a constant is its own name.
function anchor(text) {
    gsub(/[^A-Za-z0-9_]+/, "-", text)
    return text
}

FNR == 1 {
    page = substr($0, 3)
    passed[page]++
    second = passed[page] > 1
    here = page
    sub(/\(/, ".", here)
    sub(/\)/, ".html", here)
    title[page] = page
    named = 0
    if (second) {
        if (file != "") { printf "%s</main>\n</body>\n</html>\n", close_blocks() > file; close(file) }
        file = dir "/" here
        head(file, page " – Platter")
        print "<h1>" page "</h1>" > file
        paragraph = in_item = code = 0
        list = ""
    } else {
        address[page] = here
        order[++pages] = page
    }
    next
}
!named && NF {
    named = 1
    about[page] = $0
    if (second) print "<p class=\"summary\">" inline($0) "</p>" > file
    next
}
!second {
    if (page == "platter_constants(3)" && match($0, /^- `PLATTER_[A-Z0-9_]*`/)) {
        name = substr($0, 4, RLENGTH - 4)
        constant[name] = substr($0, RLENGTH + 3)
        constants[++n_constants] = name
    }
    if (page == "platter_constants(3)" && /^## PLATTER_/) group[substr($0, 4)] = 1
    next
}
/^```/ && !code { printf "%s<pre>", (in_item ? "" : close_blocks()) > file; code = 1; next }
/^```/ { print "</pre>" > file; code = 0; next }
code { print code_line($0) > file; next }
/^##+ / {
    level = /^###/ ? 3 : 2
    text = $0
    sub(/^##+ /, "", text)
    printf "%s<h%d id=\"%s\">%s</h%d>\n", close_blocks(), level, anchor(text), escape(text), level > file
    next
}
/^- / {
    wanted = /^- `[^`]*`: / ? "dl" : "ul"
    if (list != wanted) { printf "%s<%s>\n", close_blocks(), wanted > file; list = wanted }
    else if (in_item) print (defined ? "</dd>" : "</li>") > file
    in_item = 1
    defined = wanted == "dl"
    if (defined) {
        match($0, /^- `[^`]*`/)
        name = substr($0, 4, RLENGTH - 4)
        text = substr($0, RLENGTH + 3)
        printf "<dt%s>%s</dt>\n<dd>%s\n", name ~ /^[A-Za-z]/ && !((here, name) in used) ? " id=\"" anchor(name) "\"" : "", \
            code_span(name), inline(text) > file
        used[here, name] = 1
    } else print "<li>" inline(substr($0, 3)) > file
    next
}
/^$/ { if (paragraph) { print "</p>" > file; paragraph = 0 } next }
/^ / && in_item { sub(/^ +/, ""); print inline($0) > file; next }
{
    if (!paragraph) { printf "%s<p>", close_blocks() > file; paragraph = 1 }
    print inline($0) > file
}

function list_pages(heading, pattern,    i, any) {
    for (i = 1; i <= pages; i++) {
        page = order[i]
        if (page !~ pattern || page in listed) continue
        if (!any++) print "<h2>" heading "</h2>\n<dl>" > file
        listed[page] = 1
        print "<dt><a href=\"" address[page] "\"><code>" page "</code></a></dt>\n<dd>" inline(about[page]) "</dd>" > file
    }
    if (any) print "</dl>" > file
}

END {
    if (file != "") { printf "%s</main>\n</body>\n</html>\n", close_blocks() > file; close(file) }
    file = dir "/index.html"
    here = "index.html"
    head(file, "Platter " version)
    print "<h1>Platter " version "</h1>\n<p class=\"summary\">virtual-machine disk images</p>" > file
    list_pages("Overview", "^platter(_functions|_constants)?\\(3\\)|^platter-img\\(1\\)")
    list_pages("Tasks", "\\(7\\)")
    list_pages("Everything else, by name", ".")
    print "</main>\n</body>\n</html>" > file
    close(file)
    # What is searched: name, address, what it is.
    file = dir "/names.js"
    print "const names = [" > file
    for (i = 1; i <= pages; i++)
        print "[" json(order[i]) ", " json(address[order[i]]) ", " json(about[order[i]]) "]," > file
    for (i = 1; i <= n_constants; i++)
        print "[" json(constants[i]) ", " json("platter_constants.3.html#" constants[i]) ", " json(constant[constants[i]]) "]," > file
    print "];" > file
    close(file)
}
