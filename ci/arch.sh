# shellcheck shell=bash
# Other targets: they build on plain stable without a C compiler, and the program runs on their kernels. Sourced by run.sh.

arch_targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-gnu riscv64gc-unknown-linux-gnu i686-unknown-linux-gnu
    armv7-unknown-linux-gnueabihf thumbv7neon-unknown-linux-gnueabihf s390x-unknown-linux-gnu powerpc64le-unknown-linux-gnu)
# 6.12-riscv64, which refuses the entry of every function, is for `vm-run`: the mirrors are slow to have all of that suite.
arch_kernels=(6.12-arm64 7-arm64 7-riscv64 6.1-armhf 6.1-i386 6.1-s390x 6.1-ppc64el)

# Unpacks Debian's source of the standard library of the very same compiler, and prints where it is.
rust_src() {
    local conf version dir
    version=$(rustc -vV | sed -n 's/^release: //p')
    dir=$(mktemp -d -p "$scratch")
    conf=$(apt_suite trixie-backports amd64) || return
    unpack_package "$conf" "rust-src=$version*" "$dir" './usr/src/rustc-*/library/*' || return
    echo "$dir"/usr/src/rustc-*/library
}

# Sets arch_flags, the RUSTFLAGS that find core for the targets: none where rustup has them; else core is built from
# Debian's source, for a machine without rustup's server; else rustup fetches them.
arch_sysroot() {
    local target missing=() host own sysroot lib dir src
    own=$(rustc --print sysroot)
    for target in "${arch_targets[@]}"; do
        [[ -e $own/lib/rustlib/$target ]] || missing+=("$target")
    done
    arch_flags=
    [[ ${#missing[@]} -gt 0 ]] || return 0

    host=$(rustc -vV | sed -n 's/^host: //p')
    # rustup's musl target brings start files and makes a static-pie; this one has neither.
    sysroot=$cache/sysroot/$(rustc -vV | sed -n 's/^release: //p')-$(rustc -vV | sed -n 's/^commit-hash: //p')
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
    note "building core for ${missing[*]}"
    dir=$(mktemp -d -p "$scratch")
    mkdir -p "$dir/empty/src"
    printf '[package]\nname = "empty"\nedition = "2024"\n' >"$dir/empty/Cargo.toml"
    echo '#![no_std]' >"$dir/empty/src/lib.rs"
    # Unstable flags for core alone: the project itself builds as any user's.
    (
        cd "$dir/empty"
        export RUSTC_BOOTSTRAP=1 RUSTFLAGS='-C embed-bitcode=yes' __CARGO_TESTS_ONLY_SRC_ROOT=$src
        cargo build -q --release -Zbuild-std=core,alloc "${missing[@]/#/--target=}" --target-dir target
    )
    mkdir -p "$sysroot/lib/rustlib"
    ln -sfn "$own/lib/rustlib/$host" "$sysroot/lib/rustlib/$host"
    for target in "${missing[@]}"; do
        lib=$dir/rustlib/$target/lib
        mkdir -p "$lib"
        cp "$dir/empty/target/$target"/release/deps/lib{core,alloc,compiler_builtins}-*.rlib "$lib/"
        rm -rf "target/arch/$target" # it was built with another core
        mv "${lib%/lib}" "$sysroot/lib/rustlib/$target"
    done
}

# The RUSTFLAGS that a target takes besides: see the compile_error! of src/lib.rs.
target_flags() {
    case $1 in
        s390x-* | powerpc64le-*) echo '--cfg rustix_use_experimental_asm' ;;
    esac
}

# What a foreign kernel must show: the promised modes, exact counts in each of them, nothing left behind.
# shellcheck disable=SC2016 # for the shell in the machine
arch_job='
set -e
kprobe-attach features
modes=$(kprobe-attach features --json | sed "s/.*\"modes\"://" | grep -oE "\"(link|perf|legacy-link|legacy)\":\{\"support\":\"yes\"" |
    cut -d "\"" -f 2 | tr "\n" , | sed "s/,$//")
[ "$modes" = "$KPROBE_ATTACH_MODES" ] || { echo "modes: $modes, promised: $KPROBE_ATTACH_MODES"; exit 1; }
set --
for mode in $(echo "$modes" | tr , " "); do
    set -- "$@" "kprobe/vfs_unlink,mode=$mode" "kretprobe/vfs_unlink,mode=$mode"
done
# There calls within the kernel go to a second entry, behind the address that the symbol has.
[ "$(uname -m)" = ppc64le ] || set -- "$@" "0x$(sed -n "s/ [tT] vfs_unlink$//p" /proc/kallsyms)"
mkdir -p d
for i in $(seq 100); do echo $i >d/$i; done
kprobe-attach count --json "$@" -- sh -c "rm d/*" | tee counts
[ "$(grep -c "\"hits\":100," counts)" = $# ] || { echo "not 100 hits each"; exit 1; }
[ -z "$(cat /sys/kernel/tracing/kprobe_events)" ] || { echo "left in kprobe_events"; exit 1; }
'

cmd_arch() {
    local target linker limit kernel job arch_flags passed=0 failed=0
    need gcc libc6-dev binutils
    make_scratch
    locked arch_sysroot
    export RUSTFLAGS CARGO_TARGET_DIR=target/arch
    for target in "${arch_targets[@]}"; do
        RUSTFLAGS="$arch_flags $(target_flags "$target")"
        linker=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_LINKER
        export "$linker=rust-lld"
        cargo clippy --locked --target "$target" -- -D warnings
        cargo build --release --locked --target "$target"
        case $target in # code is less dense there
            i686-* | armv7-* | s390x-* | powerpc64le-*) limit=$((140 * 1024)) ;;
            *) limit=$size_limit ;;
        esac
        check_static "target/arch/$target/release/kprobe-attach" "$limit"
    done
    # A build without the flag is told all that it takes to have one with it.
    target=s390x-unknown-linux-gnu
    ! RUSTFLAGS=$arch_flags cargo check -q --locked --target "$target" --target-dir target/arch/plain 2>target/arch/plain.log ||
        die "$target was built without $(target_flags "$target")"
    grep -F "RUSTFLAGS=\"$(target_flags "$target")\"" target/arch/plain.log || die "no word of the flag in target/arch/plain.log"
    unset RUSTFLAGS CARGO_TARGET_DIR
    for kernel in "${arch_kernels[@]}"; do
        printf '\n%s\n' "$kernel"
        job=$arch_job
        unset KPROBE_ATTACH_EXTRA
        if [[ $kernel = *-armhf ]]; then # Thumb code as well
            export KPROBE_ATTACH_EXTRA=$scratch/thumb
            install -D target/arch/thumbv7neon-unknown-linux-gnueabihf/release/kprobe-attach "$scratch/thumb/kprobe-attach"
            job+="PATH=/extra:\$PATH$arch_job"
        fi
        # A command of its own: `set -e` would be off inside a condition.
        if ci/run.sh vm-run "$kernel" -- "$job"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    done
    tally <<<"$passed $failed"
}
