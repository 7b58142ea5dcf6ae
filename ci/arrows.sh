# shellcheck shell=bash
# Which file of the source imports which, and that no circle comes of it. Sourced by run.sh.

# The rooms of the library and of the program, in the order in which each may import those before
# it.
library_rooms=(
    numbers text sys mount request error diagnose bpf tracefs symbols kernel plan link explain
)
program_rooms=(rt out programs cli session commands)

# code FILE: without its comments, without what its macros name for their callers, and without its
# tests, which stand at the end.
code() {
    awk '/^#\[cfg\(test\)\]$/ { exit } { sub(/\/\/.*/, ""); gsub(/\$crate::/, ""); print }' "$1"
}

# file_of DIR MODULE: the file of a module.
file_of() {
    if [[ -e $1/$2.rs ]]; then
        echo "$1/$2.rs"
    elif [[ -e $1/$2/mod.rs ]]; then
        echo "$1/$2/mod.rs"
    fi
}

# words FILE PATH PATTERN: what follows PATH:: in its code, each once.
words() {
    code "$1" | grep -oE "\b$2::$3" | sed "s/$2:://" | sort -u
}

# arrows ROOT: a line `FROM TO` for each file below ROOT, the crate's root, and each file that it
# imports.
arrows() {
    local root=$1 file dir name to
    while read -r file; do
        dir=${file%/*}
        # `crate::room`, whatever of it is meant.
        for name in $(words "$file" crate '[a-z_0-9]+'); do
            to=$(file_of "$root" "$name")
            # Of the root itself only its function main is used.
            echo "$file ${to:-$root/main.rs}"
        done
        # `super::file`; anything else of `super` is in mod.rs.
        for name in $(words "$file" super '[A-Za-z_0-9]+'); do
            to=$(file_of "$dir" "$name")
            # A module whose file is elsewhere is named by a path.
            if [[ -n $to ]] || ! grep -qsx "mod $name;" "$dir/mod.rs"; then
                echo "$file ${to:-$dir/mod.rs}"
            fi
        done
        # A mod.rs hands on what its files have.
        if [[ $file = */mod.rs ]]; then
            for name in $(code "$file" |
                sed -nE 's/^(pub(\([a-z]+\))? )?mod ([a-z_0-9]+);$/\3/p'); do
                to=$(file_of "$dir" "$name")
                # Behind `::` it is a module of something else. grep reads to the end: if it stopped
                # early, `code` would end by a signal.
                if [[ -n $to ]] && code "$file" | grep -E "(^|[^:])\b$name::" >/dev/null; then
                    echo "$file $to"
                fi
            done
        fi
    done < <(find "$root" -name '*.rs' -not -path "$root/bin/*" -not -name build.rs \
        -not -path "$root/lib.rs" | sort)
}

# check_arrows ROOT ROOM...: each room imports only from those before it, and no files import each
# other in a circle.
check_arrows() {
    local root=$1 all wrong loop
    shift
    all=$(arrows "$root" | awk '$1 != $2')
    wrong=$(awk -v root="$root/" -v rooms="$*" '
        function room(file) {
            sub(root, "", file)
            sub(/\.rs$/, "", file)
            sub(/\/.*/, "", file)
            return file
        }
        BEGIN {
            count = split(rooms, names, " ")
            for (i = 1; i <= count; i++) place[names[i]] = i
            place["main"] = count + 1
        }
        {
            from = room($1); to = room($2)
            if (!(from in place) || !(to in place))
                print $1 " imports " $2 ": no room of ci/arrows.sh"
            # The entry is where the kernel, or libc, comes in: above all else, though it stands
            # with what it takes.
            else if (place[from] < place[to] && $1 !~ /\/rt\/(entry|hosted)\.rs$/)
                print $1 " imports " $2 ", of a later room"
        }' <<<"$all")
    [[ -z $wrong ]] || die "imports that run the wrong way:"$'\n'"$wrong"
    loop=$(tsort <<<"$all" 2>&1 >/dev/null) ||
        die "files that import each other in a circle:"$'\n'"$loop"
    echo "$root: $(wc -l <<<"$all") imports, none against the order of the rooms, and no circle"
}
