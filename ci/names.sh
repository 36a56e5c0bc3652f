#!/bin/sh
# The files that know a format or protocol by its name, outside its own module: a driver's description
# (FormatDriver, StorageDriver) says what others must know of it. Each file below has its reason; a new
# one needs one. `ci/names.sh count [DIR]` prints the files instead.
set -eu

# Where names of drivers are the matter. Who means plain disks asks the registry for them;
# the names of options and of children may be those of drivers.
#   driver_names  the list of the names that QEMU's tools know
#   blkverify     a child is called so
#   crypt         a method of encryption, in options of qcow2
#   dmg           sparse images stand in encrypted files of that kind too
#   profiles      the list of the profiles, which stand in modules of formats
#   names         the order of options and children in the names of images
#   printable     below all modules: schemes of URLs with logins of another form
#   encryption    a method of encryption, in options of RBD
#   qed/backing   of the format of a backing file the header says only whether it is that of plain disks
allowed='
src/driver_names.rs: all
src/filter/blkverify.rs: raw
src/format/crypt/chosen.rs: qcow
src/format/crypt/mod.rs: luks
src/format/dmg/mod.rs: sparseimage
src/format/profiles.rs: all
src/format/qed/backing.rs: raw
src/image/names.rs: raw
src/printable.rs: iscsi
src/printable.rs: iser
src/storage/rbd/encryption.rs: luks
'
# The modules of a registry, which are called like their drivers.
modules() {
    sed -n -e 's/^ *&crate::[a-z]*::/\&/' -e 's/^ *&\([a-z0-9_]*\)::.*/\1/p' "$1" | grep -vx 'file\|null' | sort -u | paste -sd '|' -
}
# The folders of protocols with several drivers, each with one of these: /storage/http/https.
own=$(sed -n 's/^ *&\([a-z0-9_]*\)::\([A-Z]*\),.*/\/storage\/\1\/\2/p' src/storage/registry.rs | tr A-Z a-z | paste -sd '|' -)
formats=$(modules src/format/registry.rs)
# Where a module has several drivers, each is called like its static, those of null apart.
drivers=$(sed -n 's/^ *&[a-z0-9_]*::\([A-Z_]*\),.*/\1/p' src/storage/registry.rs |
    grep -vx 'DRIVER\|FILE\|AIO\|CO' | tr A-Z a-z | paste -sd '|' -)
protocols="$(modules src/storage/registry.rs)|$drivers|null-co|null-aio"

found() {
    find "${1:-src}" -name '*.rs' ! -name 'tests.rs' ! -name 'architecture.rs' ! -path '*/tests/*' ! -path '*/testing/*' | sort |
        while read -r file; do
            awk -v file="$file" -v own="|$own|" -v formats="$formats" -v names="$formats|$protocols" '
                /^mod tests \{/ { exit }
                /^ *\/\// { next }
                /^ *#\[cfg\(feature = / { next }
                {
                    line = $0
                    pattern = "\"(" names ")\"|(^|[^a-z_:])(crate::format::)?(" formats ")::[A-Za-z]|crate::format::(" formats ");"
                    while (match(line, pattern)) {
                        name = substr(line, RSTART, RLENGTH)
                        line = substr(line, RSTART + RLENGTH)
                        sub(/crate::format::/, "", name)
                        sub(/(::|;).*/, "", name)
                        gsub(/[^a-z0-9_-]/, "", name)
                        if (index(file, "/format/" name ".rs") || index(file, "/format/" name "/")) continue
                        if (index(file, "/storage/" name) || index(file, "src/" name "/") || file ~ /\/storage\/(file|null)/) continue
                        if (file ~ /\/registry\.rs/) continue
                        folder = file; sub(/^.*\/storage\//, "/storage/", folder); sub(/[^\/]*$/, "", folder)
                        if (index(own, "|" folder name "|")) continue
                        # Not formats: volumes of LUKS, and what secrets and magic numbers are made of.
                        if (file ~ /\/(crypto|magic\.rs|secret\.rs)/ || file ~ /\/storage\/(crypt|data_cipher)\.rs/) continue
                        print file ": " name
                    }
                }' "$file"
        done | sort -u
}

if [ "${1:-}" = count ]; then
    found "${2:-src}"
    exit
fi
new=$(found | while read -r line; do
    file=${line%%: *}
    name=${line##*: }
    case $allowed in
    *"
$file: $name
"* | *"
$file: all
"*) continue ;;
    esac
    echo "$line"
done)
[ -z "$new" ] || {
    echo "$new"
    echo "These files know a driver by its name: let its description say what they need (ci/names.sh)." >&2
    exit 1
}
