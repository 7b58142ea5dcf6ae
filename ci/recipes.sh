# shellcheck shell=bash
# The recipes of the guide's page on building, word for word, with the standard library that rustup
# serves. Sourced by run.sh.

recipes=src/guide/building.md
recipe_seconds=120 # in which rustup must serve a target

# recipe TARGET: the script in the guide that builds for it.
recipe() {
    awk -v target="$1" '
        /^```/ { if (found) exit; text = ""; next }
        { text = text $0 "\n" }
        $1 == "cargo" && $NF == target { found = 1 }
        END { if (!found) exit 1; printf "%s", text }' "$recipes"
}

# The targets that have a recipe.
recipe_targets() {
    sed -n 's/^cargo build .*--target //p' "$recipes"
}

# Each script of the guide that is a file of its own is without fault.
check_hooks() {
    local page path script shell
    for page in src/guide/*.md; do
        while read -r shell path; do
            script=$(guide_script "${path#/}" "$page")
            [[ $shell != ash ]] || shell=dash
            # What it sources and what its tool sets is not here.
            shellcheck --shell "$shell" --exclude SC1091,SC2154 - <<<"$script" ||
                die "$page: $path has a fault"
        done < <(sed -nE '/^#!/ { N; s|^#!.*/(.*)\n# (/.*)|\1 \2|p }' "$page")
    done
}

# run_program TARGET PROGRAM ARGUMENT...: here, or in an emulator of the processor alone.
run_program() {
    local target=$1
    shift
    case $target in
        x86_64-*) "$@" ;;
        armv7-*) qemu-arm "$@" ;;
        i686-*) qemu-i386 "$@" ;;
        powerpc64le-*) qemu-ppc64le "$@" ;;
        riscv64gc-*) qemu-riscv64 "$@" ;;
        *) "qemu-${target%%-*}" "$@" ;;
    esac
}

# cook TARGET: carries the recipe out, and looks at what it made. 75 if rustup did not serve it.
cook() {
    local target=$1 words=$scratch/recipe-$1 made packages
    rustc --print target-list | grep -qx "$target" || die "there is no target $target"
    recipe "$target" >"$words" || die "no recipe for $target"
    packages=$(sed -n 's/^apt-get install --yes //p' "$words")
    # shellcheck disable=SC2086 # they are words
    need $packages
    # The words are the guide's. But what is installed by now is not installed again; rustup has its
    # time; and what is built lies in a folder of its own.
    {
        echo 'apt-get() { :; }'
        echo "rustup() { timeout $recipe_seconds rustup \"\$@\" || exit 75; }"
        cat "$words"
    } >"$words.sh"
    CARGO_TARGET_DIR=target/recipes bash -e "$words.sh"
    made=target/recipes/$target/release/kprobe-attach
    file -b "$made"
    check_static "$made"
    measure "$target" "$made" "$(target_limit "$target")"
    cmp <(run_program "$target" "$made" --help) <("$bin" --help) ||
        die "$made does not print the help"
}

# relinks TARGET DRIVER: the build follows the linker, which the environment or the flags name. A
# bare linker refuses the arguments that a compiler driver takes, and the other way round.
relinks() {
    local variable made=target/recipes/$1/debug/kprobe-attach linker flags
    variable=$(linker_variable "$1")
    while read -r linker flags; do
        env "$variable=$linker" RUSTFLAGS="$flags" CARGO_TARGET_DIR=target/recipes \
            cargo build --locked --target "$1" </dev/null
        run_program "$1" "$made" --help >/dev/null
    done <<EOF
rust-lld
$2
$2 -C linker=rust-lld
rust-lld -Clinker=$2
EOF
}

# counts_three KERNEL TARGET: there, what the recipe made counts exactly.
counts_three() {
    local counted made=target/recipes/$2/release/kprobe-attach
    counted=$(KPROBE_ATTACH_PROGRAM=$made ci/run.sh vm-run "$1" -- '
        touch 1 2 3
        kprobe-attach count --json vfs_unlink kretprobe/vfs_unlink,mode=legacy -- rm 1 2 3')
    echo "$counted"
    [[ $(grep -c '"hits":3,' <<<"$counted") -eq 2 ]]
}

# cmd_recipes [TARGET...]
cmd_recipes() {
    local targets=("$@") target status passed failed=0
    [[ $(uname -m) = x86_64 ]] || die "recipes needs an x86_64 host"
    [[ ${#targets[@]} -gt 0 ]] || mapfile -t targets < <(recipe_targets)
    need binutils file qemu-user
    make_scratch
    cmd_build # the recipe for this machine
    passed=1
    for target in "${targets[@]}"; do
        printf '\n%s\n' "$target"
        # A shell of its own: `set -e` would be off inside a condition.
        {
            cook "$target"
            case $target in
                aarch64-unknown-linux-musl)
                    need gcc-aarch64-linux-gnu
                    relinks "$target" aarch64-linux-gnu-gcc
                    ;;
                x86_64-unknown-linux-musl) counts_three 6.12 "$target" ;;
            esac
        } &
        status=0
        wait "$!" || status=$?
        case $status in
            0) passed=$((passed + 1)) ;;
            75)
                hole "not run here: the recipe for $target, not served in $recipe_seconds s"
                recipe_seconds=15 # the next ones are not waited for as long
                ;;
            *)
                failed=$((failed + 1))
                echo "the recipe for $target FAILED"
                ;;
        esac
    done
    tally <<<"$passed $failed"
}
