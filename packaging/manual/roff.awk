# Turns a page for man into the subset of Markdown that html.awk renders; knows what the page of the tool uses.
# usage: awk -f roff.awk docs/man/NAME.1

# Text without escapes; fonts within a word are left out.
function plain(text) {
    gsub(/\\f[A-Z]/, "", text)
    gsub(/\\\(dq/, "\"", text)
    gsub(/\\\(aq/, "'", text)
    gsub(/\\\(bu/, "-", text)
    gsub(/\\&/, "", text)
    gsub(/\\-/, "-", text)
    gsub(/\\e/, "\\", text)
    gsub(/\\ /, " ", text)
    return text
}

# The arguments of a macro, quoted ones without their quotes.
function arguments(text,    n) {
    split("", argument)
    while (1) {
        sub(/^ +/, "", text)
        if (text == "") return n
        if (text ~ /^"/) {
            match(text, /^"([^"]|"")*"?/)
            argument[++n] = substr(text, 2, RLENGTH - 2)
            gsub(/""/, "\"", argument[n])
            text = substr(text, RLENGTH + 1)
        } else {
            match(text, /^([^ \\]|\\.)+/)
            argument[++n] = substr(text, 1, RLENGTH)
            text = substr(text, RLENGTH + 1)
        }
    }
}

# What a macro of fonts prints: what is not roman is code.
function fonts(macro, text,    n, i, kind, was, out, word, tail) {
    n = arguments(text)
    if (length(macro) == 1) {
        for (i = 1; i <= n; i++) word = word (i > 1 ? " " : "") argument[i]
        return code(word)
    }
    for (i = 1; i <= n; i++) {
        kind = substr(macro, 2 - i % 2, 1) == "R" ? "R" : "C"
        if (kind != was && i > 1) {
            out = out (was == "C" ? code(word) : plain(word))
            word = ""
        }
        was = kind
        word = word argument[i]
    }
    out = out (was == "C" ? code(word) : plain(word))
    # The section belongs to the name of a page.
    if (match(out, /`\([1-8]\)/)) out = substr(out, 1, RSTART - 1) substr(out, RSTART + 1, 3) "`" substr(out, RSTART + 4)
    return out
}

function code(word,    tail) {
    if (match(word, /\\fR[],.;:)]*$/)) {
        tail = substr(word, RSTART + 3)
        word = substr(word, 1, RSTART - 1)
    }
    word = plain(word)
    return (word == "" ? "" : "`" word "`") tail
}

function put(text) {
    if (tag) {
        gsub(/`/, "", text)
        printf "- `%s`: ", text
        tag = 0; item = 1; first = 1
        return
    }
    if (first) { print text; first = 0; return }
    print (item ? "  " : "") text
}

/^\.\\"/ { next }
/^\.TH / { n = arguments(substr($0, 5)); printf "# %s(%s)\n\n", tolower(argument[1]), argument[2]; next }
/^\.SH NAME/ { in_name = 1; next }
in_name { sub(/.* \\- /, ""); print plain($0) "\n"; in_name = 0; next }
/^\.S[HS] / {
    if (first) print ""
    first = item = 0
    n = arguments(substr($0, 5))
    text = argument[1]
    for (i = 2; i <= n; i++) text = text " " argument[i]
    printf "\n%s %s\n\n", /^\.SH/ ? "##" : "###", plain(text)
    next
}
/^\.TP/ { if (first) print ""; first = 0; tag = 1; next }
/^\.IP/ { if (first) print ""; printf "- "; first = item = 1; next }
/^\.PP/ { print ""; item = 0; next }
/^\.nf/ { print "\n```"; verbatim = 1; next }
/^\.fi/ { print "```\n"; verbatim = 0; next }
/^\.(RS|RE|nh|hy|br)/ { next }
/^\.(B|I|BR|RB|BI|IB|IR|RI) / { put(fonts(substr($1, 2), substr($0, length($1) + 2))); next }
/^\./ { print "roff.awk: " FILENAME ":" FNR ": unknown request " $1 > "/dev/stderr"; exit 1 }
verbatim { print plain($0); next }
{ put(plain($0)) }
