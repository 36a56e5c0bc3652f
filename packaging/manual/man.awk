# Renders pages of the manual as roff: DIRECTORY/NAME.SECTION for each.
# usage: awk -v dir=DIRECTORY -v version=VERSION -f man.awk PAGES

function escape(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    return text
}

# A line of text: what stands between backquotes is bold, and a full stop at its beginning is no request.
function inline(text,    out) {
    text = escape(text)
    while (match(text, /`[^`]*`/)) {
        out = out substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 1, RLENGTH - 2) "\\fP"
        text = substr(text, RSTART + RLENGTH)
    }
    out = out text
    if (out ~ /^[.']/) out = "\\&" out
    return out
}

FNR == 1 {
    if (file != "") close(file)
    page = substr($0, 3)
    match(page, /\([0-9]\)/)
    section = substr(page, RSTART + 1, 1)
    page = substr(page, 1, RSTART - 1)
    file = dir "/" page "." section
    printf ".TH %s %s \"\" \"Platter %s\" \"Platter\"\n.SH NAME\n", toupper(escape(page)), section, version > file
    named = code = list = wants_paragraph = 0
    next
}
!named && NF { printf "%s \\- %s\n", escape(page), inline($0) > file; named = 1; next }
/^```/ && !code { print (wants_paragraph ? ".PP\n" : "") (list ? ".RS\n" : "") ".EX" > file; code = 1; next }
/^```/ { print ".EE" (list ? "\n.RE" : "") > file; code = 0; wants_paragraph = !list; next }
code { print ($0 ~ /^[.']/ ? "\\&" : "") escape($0) > file; next }
/^## / { print ".SH " escape(toupper(substr($0, 4))) > file; list = wants_paragraph = 0; next }
/^### / { print ".SS " escape(substr($0, 5)) > file; list = wants_paragraph = 0; next }
/^- `[^`]*`: / {
    match($0, /^- `[^`]*`/)
    printf ".TP\n.B %s\n%s\n", escape(substr($0, 4, RLENGTH - 4)), inline(substr($0, RLENGTH + 3)) > file
    list = 1; wants_paragraph = 0; next
}
/^- / { print ".IP \\(bu 2\n" inline(substr($0, 3)) > file; list = 1; wants_paragraph = 0; next }
/^$/ { wants_paragraph = 1; next }
{
    if (/^ /) sub(/^ +/, ""); else if (wants_paragraph) { if (list || named > 1) print ".PP" > file; list = 0 }
    wants_paragraph = 0
    print inline($0) > file
}
/^[^#]/ { named = 2 }
/^## / { named = 1 }
