# shellcheck shell=bash
# Other targets: they build on plain stable without a C compiler, and the program runs on their kernels. Sourced by run.sh.

arch_targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-gnu riscv64gc-unknown-linux-gnu)
# 6.12-riscv64, which refuses the entry of every function, is for `vm-run`: the mirrors are slow to have all of that suite.
arch_kernels=(6.12-arm64 7-riscv64)

# Sets arch_flags, the RUSTFLAGS that find core for the targets: none where rustup has them; else core is built from
# Debian's source of the very same compiler, for a machine without rustup's server; else rustup fetches them.
arch_sysroot() {
    local target missing=() version host own sysroot conf dir
    own=$(rustc --print sysroot)
    for target in "${arch_targets[@]}"; do
        [[ -e $own/lib/rustlib/$target ]] || missing+=("$target")
    done
    arch_flags=
    [[ ${#missing[@]} -gt 0 ]] || return 0

    version=$(rustc -vV | sed -n 's/^release: //p')
    host=$(rustc -vV | sed -n 's/^host: //p')
    # rustup's musl target brings start files and makes a static-pie; this one has neither.
    sysroot=$cache/sysroot/$version-$(rustc -vV | sed -n 's/^commit-hash: //p')
    arch_flags="--sysroot $sysroot -C link-self-contained=no -C relocation-model=static"
    [[ ! -e $sysroot ]] || return 0

    dir=$(mktemp -d -p "$scratch")
    if ! conf=$(apt_suite trixie-backports amd64) || ! unpack_package "$conf" "rust-src=$version*" "$dir" './usr/src/rustc-*/library/*'; then
        note "Debian has no rust-src $version: asking rustup for ${missing[*]}"
        rustup target add "${missing[@]}"
        arch_flags=
        return
    fi
    note "building core $version for ${arch_targets[*]}"
    mkdir -p "$dir/empty/src" "$dir/sysroot/lib/rustlib"
    printf '[package]\nname = "empty"\nedition = "2024"\n' >"$dir/empty/Cargo.toml"
    echo '#![no_std]' >"$dir/empty/src/lib.rs"
    # Unstable flags for core alone: the project itself builds as any user's.
    (
        cd "$dir/empty"
        export RUSTC_BOOTSTRAP=1 RUSTFLAGS='-C embed-bitcode=yes'
        __CARGO_TESTS_ONLY_SRC_ROOT=$(echo "$dir"/usr/src/rustc-*/library) \
            cargo build -q --release -Zbuild-std=core,alloc "${arch_targets[@]/#/--target=}" --target-dir target
    )
    for target in "${arch_targets[@]}"; do
        mkdir -p "$dir/sysroot/lib/rustlib/$target/lib"
        cp "$dir/empty/target/$target"/release/deps/lib{core,alloc,compiler_builtins}-*.rlib "$dir/sysroot/lib/rustlib/$target/lib/"
    done
    ln -s "$own/lib/rustlib/$host" "$dir/sysroot/lib/rustlib/$host"
    rm -rf target/arch # it was built with another core
    mkdir -p "${sysroot%/*}"
    mv "$dir/sysroot" "$sysroot"
}

# What a foreign kernel must show: the promised modes, exact counts, nothing left behind.
# shellcheck disable=SC2016 # for the shell in the machine
arch_job='
set -e
kprobe-attach features
modes=$(kprobe-attach features --json | sed "s/.*\"modes\"://" | grep -oE "\"(link|perf|legacy-link|legacy)\":\{\"support\":\"yes\"" |
    cut -d "\"" -f 2 | tr "\n" , | sed "s/,$//")
[ "$modes" = "$KPROBE_ATTACH_MODES" ] || { echo "modes: $modes, promised: $KPROBE_ATTACH_MODES"; exit 1; }
mkdir d
for i in $(seq 100); do echo $i >d/$i; done
kprobe-attach count --json "$@" -- sh -c "rm d/*" | tee counts
[ "$(grep -c "\"hits\":100," counts)" = $# ] || { echo "not 100 hits each"; exit 1; }
[ -z "$(cat /sys/kernel/tracing/kprobe_events)" ] || { echo "left in kprobe_events"; exit 1; }
'

cmd_arch() {
    local target linker kernel arch_flags passed=0 failed=0
    need gcc libc6-dev binutils
    make_scratch
    locked arch_sysroot
    export RUSTFLAGS=$arch_flags CARGO_TARGET_DIR=target/arch
    for target in "${arch_targets[@]}"; do
        linker=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_LINKER
        export "$linker=rust-lld"
        cargo clippy --locked --target "$target" -- -D warnings
        cargo build --release --locked --target "$target"
        check_static "target/arch/$target/release/kprobe-attach"
    done
    unset RUSTFLAGS CARGO_TARGET_DIR
    for kernel in "${arch_kernels[@]}"; do
        printf '\n%s\n' "$kernel"
        # A command of its own: `set -e` would be off inside a condition.
        if ci/run.sh vm-run "$kernel" -- "set -- kprobe/vfs_unlink kretprobe/vfs_unlink; $arch_job"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    done
    tally <<<"$passed $failed"
}
