# Writes completions for one shell (-v shell=bash|zsh|fish) from the help of the tool: first the general
# one, then that of each command, each behind a line "@ COMMAND" (see completions.sh).

/^@ / {
    command = $2
    in_arguments = 0
    commands[++command_count] = command
    next
}

# The general help: what each command does, and the formats.
command == "" && /^Commands/ { section = "commands"; next }
command == "" && /^Supported image formats/ { section = "formats"; next }
command == "" && section == "commands" && / - / {
    name = $1
    text = $0
    sub(/^ *[a-z-]* - /, "", text)
    about[name] = text
    next
}
command == "" && section == "formats" { formats = formats " " $0; next }

/^Arguments:/ { in_arguments = 1; next }

in_arguments && /^  -/ {
    line = substr($0, 3)
    count = ++option_count[command]
    value = ""
    short = ""
    long = ""
    optional = 0
    parts = split(line, part, /, */)
    for (i = 1; i <= parts; i++) {
        name = part[i]
        if (match(name, /\[=[^\]]*\]/)) {
            optional = 1
            name = substr(name, 1, RSTART - 1)
        } else if (match(name, /[ ,][^ ].*$/)) {
            value = substr(name, RSTART + 1)
            name = substr(name, 1, RSTART - 1)
        }
        if (name ~ /^--/)
            long = substr(name, 3)
        else
            short = substr(name, 2)
    }
    option_short[command, count] = short
    option_long[command, count] = long
    option_value[command, count] = value
    option_text[command, count] = ""
    next
}

in_arguments && /^     / && count {
    text = $0
    sub(/^ */, "", text)
    known = option_text[command, count]
    option_text[command, count] = known (known == "" ? "" : " ") text
    next
}

in_arguments { count = 0 }

# What a value may be: words, or "" for a file name.
function values(kind) {
    if (kind ~ /FMT$/)
        return formats
    if (kind ~ /CACHE$/ || kind == "CACHE_MODE")
        return "none writeback writethrough directsync unsafe"
    if (kind ~ /^[a-z0-9]+(\|[a-z0-9]+)+$/) {
        gsub(/\|/, " ", kind)
        return kind
    }
    return ""
}

function trimmed(text) {
    gsub(/^ +| +$/, "", text)
    gsub(/ +/, " ", text)
    return text
}

# Inside single quotes.
function quoted(text) {
    gsub(/'/, "'\\''", text)
    return text
}

function bash(    c, i, name, words, arms, all) {
    print "# Completions of platter-img for bash."
    print ""
    print "_platter_img()"
    print "{"
    print "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}"
    print "    local command= words= values= i"
    print "    for ((i = 1; i < COMP_CWORD; i++)); do"
    print "        case ${COMP_WORDS[i]} in"
    print "        -T | --trace) ((i++)) ;;"
    print "        -*) ;;"
    print "        *)"
    print "            command=${COMP_WORDS[i]}"
    print "            break"
    print "            ;;"
    print "        esac"
    print "    done"
    print "    case $command in"
    for (c = 1; c <= command_count; c++)
        all = all " " commands[c]
    print "    '') words='" trimmed(all) " --help --trace --version' ;;"
    for (c = 1; c <= command_count; c++) {
        name = commands[c]
        words = ""
        arms = ""
        for (i = 1; i <= option_count[name]; i++) {
            if (option_short[name, i] != "")
                words = words " -" option_short[name, i]
            if (option_long[name, i] != "")
                words = words " --" option_long[name, i]
            if (values(option_value[name, i]) != "") {
                arms = arms "        " pattern(name, i) ") values='" \
                    trimmed(values(option_value[name, i])) "' ;;\n"
            } else if (option_value[name, i] != "") {
                arms = arms "        " pattern(name, i) ") return ;;\n"
            }
        }
        print "    " name ")"
        print "        words='" trimmed(words) "'"
        if (arms != "")
            print "        case $previous in\n" arms "        esac"
        print "        ;;"
    }
    print "    esac"
    print "    if [ -n \"$values\" ]; then"
    print "        mapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$current\")"
    print "    elif [ -z \"$command\" ] || [ \"${current#-}\" != \"$current\" ]; then"
    print "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")"
    print "    fi"
    print "}"
    print ""
    print "# Whatever else there is to complete is the name of a file."
    print "complete -o bashdefault -o default -F _platter_img platter-img"
}

function pattern(name, i,    short, long) {
    short = option_short[name, i]
    long = option_long[name, i]
    if (short == "")
        return "--" long
    return long == "" ? "-" short : "-" short " | --" long
}

function zsh(    c, i, name, short, long, text, spec, kind, words) {
    print "#compdef platter-img"
    print ""
    print "_platter_img_commands() {"
    print "    local -a commands=("
    for (c = 1; c <= command_count; c++) {
        text = about[commands[c]]
        gsub(/:/, "\\:", text)
        print "        '" commands[c] ":" quoted(text) "'"
    }
    print "    )"
    print "    _describe command commands"
    print "}"
    print ""
    print "_platter_img() {"
    print "    local curcontext=$curcontext state line"
    print "    local -A opt_args"
    print "    _arguments -C '(- *)'{-h,--help}'[print help]' '(- *)'{-V,--version}'[print the version]' \\"
    print "        {-T,--trace}'[write events of the library]:trace:' \\"
    print "        '1:command:_platter_img_commands' '*::argument:->arguments'"
    print "    [[ $state == arguments ]] || return"
    print "    case $words[1] in"
    for (c = 1; c <= command_count; c++) {
        name = commands[c]
        print "    " name ")"
        print "        _arguments -s -S \\"
        for (i = 1; i <= option_count[name]; i++) {
            short = option_short[name, i]
            long = option_long[name, i]
            text = option_text[name, i]
            gsub(/[\[\]:]/, " ", text)
            spec = "'[" quoted(trimmed(text)) "]"
            kind = option_value[name, i]
            if (kind != "") {
                words = trimmed(values(kind))
                gsub(/[:|]/, " ", kind)
                spec = spec ":" quoted(kind) ":" (words == "" ? "_files" : "(" words ")")
            }
            spec = spec "'"
            if (short != "" && long != "")
                spec = "'*'{-" short ",--" long "}" spec
            else
                spec = "'*" (short != "" ? "-" short : "--" long) substr(spec, 2)
            print "            " spec " \\"
        }
        print "            '*:file:_files'"
        print "        ;;"
    }
    print "    esac"
    print "}"
    print ""
    print "_platter_img \"$@\""
}

function fish(    c, i, name, all, line, words, text) {
    print "# Completions of platter-img for fish."
    for (c = 1; c <= command_count; c++)
        all = all " " commands[c]
    all = trimmed(all)
    print "set -l commands " all
    print "complete -c platter-img -n \"not __fish_seen_subcommand_from $commands\" -s h -l help -d 'print help'"
    print "complete -c platter-img -n \"not __fish_seen_subcommand_from $commands\" -s V -l version -d 'print the version'"
    print "complete -c platter-img -n \"not __fish_seen_subcommand_from $commands\" -s T -l trace -x -d 'write events of the library'"
    for (c = 1; c <= command_count; c++) {
        print "complete -c platter-img -f -n \"not __fish_seen_subcommand_from $commands\" -a " \
            commands[c] " -d '" escaped(about[commands[c]]) "'"
    }
    for (c = 1; c <= command_count; c++) {
        name = commands[c]
        for (i = 1; i <= option_count[name]; i++) {
            line = "complete -c platter-img -n '__fish_seen_subcommand_from " name "'"
            if (option_short[name, i] != "")
                line = line " -s " option_short[name, i]
            if (option_long[name, i] != "")
                line = line " -l " option_long[name, i]
            if (option_value[name, i] != "") {
                words = trimmed(values(option_value[name, i]))
                line = line (words == "" ? " -r" : " -x -a '" words "'")
            }
            text = option_text[name, i]
            print line " -d '" escaped(text) "'"
        }
    }
}

# Inside single quotes of fish.
function escaped(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/'/, "\\'", text)
    return text
}

END {
    if (command_count == 0 || formats == "") {
        print "completions.awk: this is no help of platter-img" >"/dev/stderr"
        exit 1
    }
    if (shell == "bash")
        bash()
    else if (shell == "zsh")
        zsh()
    else
        fish()
}
