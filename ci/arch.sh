# shellcheck shell=bash
# Other targets: they build on plain stable without a C compiler, and the program runs on their
# kernels. Sourced by run.sh.

arch_targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-gnu riscv64gc-unknown-linux-gnu
    i686-unknown-linux-gnu armv7-unknown-linux-gnueabihf thumbv7neon-unknown-linux-gnueabihf
    s390x-unknown-linux-gnu powerpc64le-unknown-linux-gnu)
# Where the tests run, the slowest first. 6.1-ppc64el, for time, has those of the program.
# 6.12-riscv64, which refuses the entry of every function, is for `vm-run`: the mirrors are slow to
# have all of that suite. 6.12-arm64 is for `vm`: 7-arm64 shows the same of the architecture.
arch_suites=(7-riscv64 7-arm64 6.1-i386 6.1-s390x 6.1-armhf)
# The tests there: what is of an architecture is its numbers of system calls, its structs, its
# registers and its entries of functions. `ci/run.sh vm KERNEL` has them all.
arch_filter='asked:: asm:: attach:: cli:: count:: errors:: features:: link:: private_mount:: sweep::
    --skip thorough:: --skip lockdown_ --skip cli::a_hostile_name'
arch_sum='^[0-9]+ passed, [0-9]+ failed$'

# Unpacks Debian's source of the standard library of the very same compiler, and prints where it is.
rust_src() {
    local version dir
    version=$(rustc -vV | sed -n 's/^release: //p')
    dir=$(mktemp -d -p "$scratch")
    fetch_package amd64 "rust-src=$version*" "$dir" trixie-backports "${releases[@]}" experimental \
        -- './usr/src/rustc-*/library/*' || return
    echo "$dir"/usr/src/rustc-*/library
}

# The Rust target of a Debian architecture.
target_of() {
    case $1 in
        amd64) echo x86_64-unknown-linux-gnu ;;
        arm64) echo aarch64-unknown-linux-gnu ;;
        armhf) echo armv7-unknown-linux-gnueabihf ;;
        i386) echo i686-unknown-linux-gnu ;;
        ppc64el) echo powerpc64le-unknown-linux-gnu ;;
        riscv64) echo riscv64gc-unknown-linux-gnu ;;
        s390x) echo s390x-unknown-linux-gnu ;;
    esac
}

# What the C compiler for a Debian architecture is called by.
gnu_of() {
    case $1 in
        arm64) echo aarch64-linux-gnu ;;
        armhf) echo arm-linux-gnueabihf ;;
        i386) echo i686-linux-gnu ;;
        ppc64el) echo powerpc64le-linux-gnu ;;
        *) echo "$1-linux-gnu" ;;
    esac
}

# Sets arch_flags, the RUSTFLAGS that find core for the targets: none where rustup has them; else
# core is built from Debian's source, for a machine without rustup's server; else rustup fetches
# them.
arch_sysroot() {
    local target missing=() own sysroot src
    own=$(rustc --print sysroot)
    for target in "${arch_targets[@]}"; do
        [[ -e $own/lib/rustlib/$target ]] || missing+=("$target")
    done
    arch_flags=
    [[ ${#missing[@]} -gt 0 ]] || return 0

    sysroot=$cache/sysroot/$(compiler)
    # rustup's musl target brings start files and makes a static-pie; this one has neither.
    arch_flags="--sysroot $sysroot -C link-self-contained=no -C relocation-model=static"
    missing=()
    for target in "${arch_targets[@]}"; do
        [[ -e $sysroot/lib/rustlib/$target ]] || missing+=("$target")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0

    if ! src=$(rust_src); then
        note "Debian has no source of this compiler's library: asking rustup for ${arch_targets[*]}"
        rustup target add "${arch_targets[@]}"
        arch_flags=
        return
    fi
    build_sysroot "$sysroot" "$src" '#![no_std]' core,alloc "${missing[@]}"
    # They were built with another core.
    for target in "${missing[@]}"; do rm -rf "target/arch/$target"; done
}

# What the compiler is called in the cache: what it builds is for no other.
compiler() {
    rustc -vV | awk '
        /^release:/ { release = $2 }
        /^commit-hash:/ { hash = $2 }
        END { print release "-" hash }'
}

# build_sysroot SYSROOT SOURCE CRATE LIBRARIES TARGET...: builds the standard library, or some of
# it, into a sysroot of the compiler's own, by way of a crate with this text. Unstable flags for
# this alone: the project itself builds as any user's.
build_sysroot() {
    local sysroot=$1 src=$2 text=$3 libraries=$4 host target lib dir
    shift 4
    note "building $libraries for $*"
    dir=$(mktemp -d -p "$scratch")
    mkdir -p "$dir/empty/src"
    printf '[package]\nname = "empty"\nedition = "2024"\n' >"$dir/empty/Cargo.toml"
    echo "$text" >"$dir/empty/src/lib.rs"
    (
        cd "$dir/empty"
        export RUSTC_BOOTSTRAP=1 RUSTFLAGS='-C embed-bitcode=yes' __CARGO_TESTS_ONLY_SRC_ROOT=$src
        cargo build -q --release -Zbuild-std="$libraries" "${@/#/--target=}" --target-dir target
    )
    host=$(rustc -vV | sed -n 's/^host: //p')
    mkdir -p "$sysroot/lib/rustlib"
    ln -sfn "$(rustc --print sysroot)/lib/rustlib/$host" "$sysroot/lib/rustlib/$host"
    for target; do
        lib=$dir/rustlib/$target/lib
        mkdir -p "$lib"
        cp "$dir/empty/target/$target"/release/deps/*.rlib "$lib/"
        rm "$lib"/libempty-*
        mv "${lib%/lib}" "$sysroot/lib/rustlib/$target"
    done
}

# The RUSTFLAGS that find the whole standard library for a target, which tests take: none where
# rustup has it.
std_flags() {
    [[ -e $(rustc --print sysroot)/lib/rustlib/$1 ]] ||
        echo "--sysroot $cache/sysroot/$(compiler)-std"
}

# std_sysroot TARGET...: builds what std_flags names, where it is not there yet.
std_sysroot() {
    local target missing=() src sysroot
    sysroot=$cache/sysroot/$(compiler)-std
    for target; do
        [[ -z $(std_flags "$target") || -e $sysroot/lib/rustlib/$target ]] || missing+=("$target")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    src=$(rust_src) ||
        die "no source of this compiler's library in Debian, and rustup has not added ${missing[*]}"
    build_sysroot "$sysroot" "$src" '' std,panic_unwind,test "${missing[@]}"
    # They were built with another library.
    for target in "${missing[@]}"; do rm -rf "target/vm-tests/$target"; done
}

# The RUSTFLAGS that a target takes besides: see the compile_error! of src/lib.rs.
target_flags() {
    case $1 in
        s390x-* | powerpc64le-*) echo '--cfg rustix_use_experimental_asm' ;;
    esac
}

# The variable by which cargo is told the linker of a target.
linker_variable() {
    echo "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$1")_LINKER"
}

# arch_cargo TARGET COMMAND ARGUMENT...: cargo for a target as its users have it, without a C
# compiler. Leaves arch_flags set.
arch_cargo() {
    local target=$1 command=$2
    shift 2
    make_scratch
    locked arch_sysroot
    env "$(linker_variable "$target")=rust-lld" RUSTFLAGS="$arch_flags $(target_flags "$target")" \
        cargo "$command" --locked --target "$target" --target-dir target/arch "$@"
}

# arch_vm LOG KERNEL...: the tests there; their sum is left for cmd_arch to add up.
arch_vm() {
    local log=target/arch/$1.log
    shift
    printf '\n'
    { ci/run.sh vm "$@" 2>&1 || true; } | tee "$log" | grep -vE "$arch_sum" || true
}

# arch_program TARGET KERNEL: the tests of the program there, with that which was built for TARGET.
arch_program() {
    printf '\nthe program for %s' "$1"
    KPROBE_ATTACH_PROGRAM=target/arch/$1/release/kprobe-attach \
        KPROBE_ATTACH_FILTER="count:: cli::" arch_vm "$1" "$2"
}

# The most bytes that the program may have for a target.
target_limit() {
    case $1 in # code is less dense there
        i686-* | armv7-* | s390x-*) echo $((240 * 1024)) ;;
        powerpc64le-*) echo $((284 * 1024)) ;; # and least dense there
        *) echo "$size_limit" ;;
    esac
}

cmd_targets() {
    local target limit arch_flags
    need gcc libc6-dev binutils
    for target in "${arch_targets[@]}"; do
        arch_cargo "$target" clippy -- -D warnings
        arch_cargo "$target" build --release
        limit=$(target_limit "$target")
        check_static "target/arch/$target/release/kprobe-attach"
        measure "$target" "target/arch/$target/release/kprobe-attach" "$limit"
    done
    # esi, which carries an argument, is exchanged with a register that carries no other.
    ! objdump -d --no-show-raw-insn target/arch/i686-unknown-linux-gnu/release/kprobe-attach |
        grep -E 'xchg +(%esi,%e([abcd]x|di)|%e([abcd]x|di),%esi)' ||
        die "i686: a system call with somebody else's argument"
    # A build without the flag is told all that it takes to have one with it.
    target=s390x-unknown-linux-gnu
    ! RUSTFLAGS=$arch_flags cargo check -q --locked --target "$target" \
        --target-dir target/arch/plain 2>target/arch/plain.log ||
        die "$target was built without $(target_flags "$target")"
    grep -F "RUSTFLAGS=\"$(target_flags "$target")\"" target/arch/plain.log ||
        die "no word of the flag in target/arch/plain.log"
}

cmd_arch() {
    cmd_targets
    rm -f target/arch/*.log
    # Machines run what was built for another target, too: musl's, and Thumb code.
    arch_program x86_64-unknown-linux-musl 6.12
    arch_program thumbv7neon-unknown-linux-gnueabihf 6.1-armhf
    arch_program powerpc64le-unknown-linux-gnu 6.1-ppc64el
    KPROBE_ATTACH_FILTER="$arch_filter" arch_vm suites "${arch_suites[@]}"
    # Each has a sum.
    awk -v sum="$arch_sum" '
        FNR == 1 { files++ }
        $0 ~ sum { print $1, $3; sums++ }
        END { if (sums != files || files != 4) print 0, 1 }' target/arch/*.log | tally
}
