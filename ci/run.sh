#!/usr/bin/env bash
# The one entry to everything that is checked; see usage below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=target/release/kprobe-attach
# The tests that take minutes in all, since they repeat, attach to hundreds of functions, or read
# the kernel's symbols dozens of times.
slow_tests='--skip thorough:: --skip why::place:: --skip suggestions:: --skip explaining::
    --skip functions::what_can_be --skip functions::a_name_is_answered --skip functions::a_pattern_'
size_limit=$((211 * 1024)) # the whole program
embed_limit=9216           # the smallest program around the library, tests/embed
memory_limit=128           # KiB of memory that `count vfs_read` takes at its peak (VmHWM)

usage() {
    cat <<'EOF'
usage: ci/run.sh COMMAND
  test                 what every change must pass: fmt, lint, unit, build, size, and vm on the
                       oldest and the newest amd64 kernel, but for the tests that take minutes
                       (thorough, why::place, suggestions, explaining and some of functions) and the
                       boots that are locked down
  all                  every check below but deny, semver and soak: on the oldest and the newest
                       amd64 kernel every test, on those between none that takes minutes
  fmt lint unit build  cargo fmt --check; clippy and doc without warnings; host tests; release build
  asan                 the host tests with an address sanitizer
  nolibc               library and program need no libc, and the program nothing at all
  size                 how large program and library are, with and without their features, and
                       whether that is too large
  msrv                 Rust 1.85 builds it, and so it does with the oldest dependencies
  package              the package holds what it must, installs the same program to the byte, and
                       docs.rs can show it
  deny                 licences, sources and versions of the dependencies
  semver [TAG]         the public surface against the last release, or TAG
  targets              the other targets build, without a C compiler
  arch                 they do, and the tests run on their kernels
  recipes [TARGET...]  the guide's recipes build for every target, word for word
  fuzz [SECONDS | --runs N]
                       each fuzz target for SECONDS (5), or N times
  vm [KERNEL...]       the tests on real kernels in virtual machines: the amd64 ones of
                       ci/kernels.txt, or those named
                       (KPROBE_ATTACH_FILTER='NAME...': only tests whose name contains NAME;
                       KPROBE_ATTACH_BRIEF='KERNEL...': there, none that takes minutes)
  initramfs [KERNEL...]
                       the program where nothing is mounted: as /init, beside an init, and across
                       switch_root
  interop [KERNEL...]
                       beside other loaders in machines: aya, libbpf-rs, bpftool, and perf's list
                       of events
  soak [CYCLES [KERNEL...]]
                       20,000 cycles of attaching and detaching, or so many, on each kernel, and
                       all sorts of them at once;
                       with the default it takes about an hour on two cores
  vm-run KERNEL -- COMMAND...
                       a shell command as root in such a machine, with what target/ holds now
                       (KPROBE_ATTACH_EXTRA=DIR: its files are there under /extra)
  bench [--write] [PEER...]
                       what an attach costs, beside other libraries, or those named, on each
                       kernel; --write keeps the results in ci/bench/results, and makes the guide's
                       page of them. It takes an hour on two cores
                       (KPROBE_ATTACH_KERNELS='KERNEL...': only these;
                       KPROBE_ATTACH_FUNCTIONS='COUNT...': so many functions, not 100 and 1000)
  demo [KERNEL]        ci/demo.sh on KERNEL; unless named, on this machine if it can, else on 6.12
Kernels are kept in KPROBE_ATTACH_CACHE (~/.cache/kprobe-attach). A machine may take
KPROBE_ATTACH_TIMEOUT (2700) seconds.
EOF
}

note() { echo "ci: $*" >&2; }
die() {
    note "$*"
    exit 1
}

# shellcheck source=ci/vm.sh
. ci/vm.sh
# shellcheck source=ci/arch.sh
. ci/arch.sh
# shellcheck source=ci/recipes.sh
. ci/recipes.sh
# shellcheck source=ci/release.sh
. ci/release.sh
# shellcheck source=ci/initramfs.sh
. ci/initramfs.sh
# shellcheck source=ci/interop.sh
. ci/interop.sh
# shellcheck source=ci/examples.sh
. ci/examples.sh
# shellcheck source=ci/arrows.sh
. ci/arrows.sh
# shellcheck source=ci/bench.sh
. ci/bench.sh

# need PACKAGE...: Debian packages, installed where missing.
need() {
    local package missing=()
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) = installed ]] ||
            missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ $EUID -eq 0 ]] || die "needs root, or these packages installed: ${missing[*]}"
    note "installing ${missing[*]}"
    # A mirror of something else that is down must not stop us: the install tells.
    [[ -n ${updated:-} ]] || apt-get update -qq >&2 || true
    updated=1
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "${missing[@]}" >/dev/null ||
        die "cannot install ${missing[*]}"
}

# No line of a text is longer than 100 columns, unless it is a URL. Left out are licences, and what
# programs write: lock files, seeds, the man page and the completions.
check_width() {
    local long
    long=$(git ls-files -z -- ':!*Cargo.lock' ':!LICENSE-*' ':!fuzz/corpus' \
        ':!src/bin/kprobe-attach/share' |
        LC_ALL=C.UTF-8 xargs -0 grep -nIE '.{101,}' | grep -vE ':[0-9]+:\W*https?://\S+$') || true
    [[ -z $long ]] || die "longer than 100 columns:"$'\n'"$(cut -c 1-100 <<<"$long")"
}

cmd_fmt() {
    local dir
    check_width
    cargo fmt --all --check
    for dir in c embed interop schema std; do
        cargo fmt --check --manifest-path "tests/$dir/Cargo.toml"
    done
    [[ ! -e fuzz/Cargo.toml ]] || cargo fmt --check --manifest-path fuzz/Cargo.toml
    cargo fmt --all --check --manifest-path ci/bench/Cargo.toml
    cargo fmt --check --manifest-path ci/bench/aya/Cargo.toml
    cargo fmt --check --manifest-path ci/bench/libbpf-rs/Cargo.toml
}

cmd_lint() {
    check_arrows src "${library_rooms[@]}"
    check_arrows src/bin/kprobe-attach "${program_rooms[@]}"
    need gcc libc6-dev shellcheck
    shellcheck -x ci/run.sh
    check_hooks
    cargo clippy --all-targets --locked -- -D warnings
    cargo clippy -p kprobe-attach-vm --test vm --locked -- -D warnings
    cargo clippy --locked --no-default-features -- -D warnings
    cargo clippy --locked --all-features -- -D warnings
    clippy_examples
    # Of the bench only what uses this crate: the rest takes forty packages to check.
    cargo clippy --locked --manifest-path ci/bench/Cargo.toml -p ours \
        --target-dir target/bench/lint -- -D warnings
    gcc -Wall -Wextra -Werror -fsyntax-only ci/bench/raw.c
    RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked
}

# host_tests ARGUMENTS...: cargo with each of these words, which run the host tests, and the sum.
host_tests() {
    local log arguments status=0
    need gcc libc6-dev
    log=$(mktemp -p "$scratch")
    for arguments; do
        # shellcheck disable=SC2086 # words they are
        cargo $arguments 2>&1 | tee -a "$log" || status=$?
    done
    awk -v broken="$status" '
        /^test result:/ { print $4, $6; failed += $6 }
        END { if (broken && !failed) print 0, 1 }' "$log" | tally
}

cmd_unit() {
    make_scratch
    cmd_build
    host_tests 'test --locked' 'test --locked --all-features --lib error::into_std::' \
        'test --locked --manifest-path tests/schema/Cargo.toml --target-dir target/schema'
}

# Sets nightly, cargo's and rustc's first arguments where unstable flags follow: the nightly that is
# installed; else there are none, and the stable compiler is told to take such flags.
use_nightly() {
    # shellcheck disable=SC2031 # arch.sh has a subshell with a variable of that name
    if [[ $(rustup toolchain list 2>/dev/null) = *nightly* ]]; then
        nightly=(+nightly)
    else
        export RUSTC_BOOTSTRAP=1
    fi
}

# Memory errors, and leaks as far as the machine lets a process trace itself. With --target, what
# runs at build time goes without a sanitizer. The program has no libc to give to the sanitizer: it
# is linked with holes, so that the files of tests that run it are left out.
cmd_asan() {
    local host test words nightly=() tests=(--lib)
    make_scratch
    use_nightly
    for test in tests/*.rs; do
        grep -q CARGO_BIN_EXE "$test" || tests+=(--test "$(basename "$test" .rs)")
    done
    host=$(rustc "${nightly[@]}" -vV | sed -n 's/^host: //p')
    words="${nightly[*]} test --locked --target $host --target-dir target/asan"
    RUSTFLAGS='-Zsanitizer=address -Clink-arg=-Wl,--unresolved-symbols=ignore-all' \
        RUSTDOCFLAGS=-Zsanitizer=address host_tests "$words ${tests[*]}" "$words --doc"
}

cmd_build() {
    need gcc libc6-dev
    cargo build --release --locked
}

# check_static PROGRAM: needs nothing at run time, at an address that is fixed, and writes to no
# code and runs no data.
check_static() {
    ! readelf -lW "$1" | grep -E '^ *(INTERP|DYNAMIC)' || die "$1 is not static"
    # After strip there is no symbol table; in a build that is not stripped, undefined symbols would
    # show here.
    [[ -z $(nm -u "$1" 2>/dev/null) ]] || die "$1 has undefined symbols"
    ! readelf -lW "$1" | grep -E '^ *(LOAD|GNU_STACK) .* (RWE|WE) ' ||
        die "$1 has memory that is written and run"
    readelf -lW "$1" | grep -qE '^ *GNU_STACK .* RW ' ||
        die "$1 does not say that its stack is not run"
    echo "$1: static, no undefined symbol, no memory that is both written and run," \
        "$(stat -c %s "$1") bytes"
}

# check_symbols RLIB: nothing comes from outside but what every Rust program without std has to
# bring: core, the crates of Cargo.toml, and the memory functions that the compiler calls.
check_symbols() {
    local outside crates='core|kprobe_attach|rustix|bitflags|linux_raw_sys'
    local primitive='[iu](8|16|32|64|size)\b|str\b|bool\b|char\b'
    outside=$(nm -uC "$1" 2>/dev/null | sed -n 's/^ *U //p' | sort -u |
        grep -vE "^<*(&*(mut )?\[?(\(\) as )?($crates)::|$primitive|&?T as core::)" |
        grep -vxE 'memcpy|memmove|memset|memcmp|bcmp|strlen|_GLOBAL_OFFSET_TABLE_') || true
    [[ -z $outside ]] || die "$1 takes from outside: $outside"
    echo "$1: $(nm -u "$1" 2>/dev/null | grep -c ' U ') undefined symbols," \
        "all of core and its own crates but the memory functions"
}

cmd_nolibc() {
    local target features tree arch_flags
    need gcc libc6-dev binutils
    cmd_build
    for target in "${arch_targets[@]}" "$(rustc -vV | sed -n 's/^host: //p')"; do
        for features in --all-features --no-default-features --features=files; do
            # A tree that cannot be had is no tree without libc.
            tree=$(RUSTFLAGS=$(target_flags "$target") \
                cargo tree --locked -e normal --target "$target" "$features")
            ! grep -w libc <<<"$tree" || die "$target, $features: libc is among the dependencies"
        done
    done
    echo "no libc among the dependencies: ${#arch_targets[@]} targets and this machine's," \
        "each with all features, none and some"
    # A target that has neither libc nor std, and musl; of both there is core alone.
    make_scratch
    local arch_targets=(x86_64-unknown-linux-none x86_64-unknown-linux-musl)
    locked arch_sysroot
    for target in "${arch_targets[@]}"; do
        RUSTFLAGS=$arch_flags CARGO_PROFILE_RELEASE_LTO=off \
            cargo build --lib --release --locked --target "$target" --target-dir target/nolibc
        check_symbols "target/nolibc/$target/release/libkprobe_attach.rlib"
    done
    check_static "$bin"
}

build_embed() {
    cargo build --release --locked --manifest-path tests/embed/Cargo.toml --target-dir target/embed
}

# measure NAME FILE LIMIT: prints a size, and fails if it is above the limit.
measure() {
    local size
    size=$(stat -c %s "$2")
    printf '%-48s %7d bytes, limit %d\n' "$1" "$size" "$3"
    [[ $size -le $3 ]]
}

cmd_size() {
    local status=0 built=release/kprobe-attach
    need gcc libc6-dev
    cmd_build
    # Other features, elsewhere: target/release stays the whole program.
    cargo build --release --locked --target-dir target/size/explain \
        --no-default-features --features files,explain
    cargo build --release --locked --target-dir target/size/files \
        --no-default-features --features files
    cargo build --release --locked --target-dir target/size/none --no-default-features
    build_embed
    measure 'the program' "$bin" "$size_limit" || status=1
    measure 'the program without object' "target/size/explain/$built" "$size_limit" || status=1
    measure 'the program without object, explain' "target/size/files/$built" "$size_limit" ||
        status=1
    measure 'the program without object, explain, files' "target/size/none/$built" "$size_limit" ||
        status=1
    measure 'load, attach, wait (tests/embed), without files' target/embed/release/embed \
        "$embed_limit" || status=1
    measure_memory || status=1
    return "$status"
}

# The most memory that the program takes, with a small stack, in a machine.
measure_memory() {
    local peak job
    # shellcheck disable=SC2016 # for the shell in the machine
    job='kprobe-attach count --quiet vfs_read -- sh -c "grep VmHWM: /proc/\$PPID/status"'
    peak=$(vm_job 6.12 "ulimit -s 64; $job" |
        tr -d '\r' | awk '/^VmHWM:/ { print $2 }')
    printf '%-48s %7s KiB, limit %d\n' 'count vfs_read at its peak, stack of 64 KiB' "$peak" \
        "$memory_limit"
    [[ -n $peak && $peak -le $memory_limit ]]
}

# cmd_fuzz [SECONDS | --runs N]: every target, two at a time, each that long or that often.
# Without a sanitizer, which costs most of the speed: no parser has unsafe code, and an overflow or
# a bad index panics. What is found beyond the seeds is kept in fuzz/target/corpus, where the next
# run goes on.
cmd_fuzz() {
    local limit host dir work=fuzz/target/runs target targets log status args nightly=()
    case $#:${1:-} in
        0:) limit=-max_total_time=5 ;;
        1:[1-9]*) limit=-max_total_time=$1 ;;
        2:--runs) limit=-runs=$2 ;;
    esac
    [[ ${limit:-} =~ =[1-9][0-9]*$ ]] || die "usage: ci/run.sh fuzz [SECONDS | --runs N]"
    [[ -e fuzz/Cargo.toml ]] || die "there is no fuzz/"
    use_nightly
    need gcc g++ libc6-dev
    cargo "${nightly[@]}" fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
    host=$(rustc "${nightly[@]}" -vV | sed -n 's/^host: //p')
    dir=fuzz/target/$host/release
    # cargo-fuzz has no --locked.
    cargo fetch --locked --manifest-path fuzz/Cargo.toml
    cargo "${nightly[@]}" fuzz build --target "$host" --sanitizer none --debug-assertions
    mapfile -t targets < <(cargo "${nightly[@]}" fuzz list)
    mkdir -p "$work"
    rm -f "$work"/*
    for target in "${targets[@]}"; do
        while [[ $(jobs -rp | wc -l) -ge 2 ]]; do wait -n || true; done
        echo 0 1 >"$work/$target.count" # until the target has another verdict
        log=$work/$target.log status=0
        args=("$limit" -timeout=10 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/")
        case $target in
            probe | plan | kprobe_events) args+=(-dict=fuzz/probe.dict) ;;
        esac
        mkdir -p "fuzz/target/corpus/$target" "fuzz/artifacts/$target"
        { # the first corpus is the one that grows
            "$dir/$target" "${args[@]}" "fuzz/target/corpus/$target" "fuzz/corpus/$target" \
                >"$log" 2>&1 || status=$?
            [[ $status -ne 0 ]] || echo 1 0 >"$work/$target.count"
            awk -v name="$target" -v status="$status" -v log_file="$log" '
                /^stat::number_of_executed_units:/ { executed = $2 }
                /^stat::average_exec_per_sec:/ { rate = $2 }
                /Test unit written to/ { artifact = $NF " " }
                END {
                    verdict = status ? "FAILED: " artifact "(" log_file ")" : "ok"
                    printf "%-13s %9d executions %8d/s  %s\n", name, executed, rate, verdict
                }' "$log"
        } &
    done
    wait
    cat "$work"/*.count | tally
}

# build_vm_tests ARCH: the test binary for the machines, static, for they hold no libc that the
# host's would match; and optimised, for they are slow, the library as its users have it. And the
# program.
build_vm_tests() {
    local arch=$1 linker=cc target link=$vm_tests json path
    target=$(target_of "$arch")
    need gcc libc6-dev
    if [[ $arch = amd64 ]]; then
        cmd_build
        build_examples
    else
        arch_cargo "$target" build --release
        linker=$(gnu_of "$arch")-gcc
        need "gcc-${linker%-gcc}" "libc6-dev-$arch-cross"
        link+=-$arch
    fi
    json=$(env "$(linker_variable "$target")=$linker" \
        CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=line-tables-only \
        RUSTFLAGS="$(std_flags "$target") $(target_flags "$target") -C target-feature=+crt-static" \
        cargo test --locked --no-run -p kprobe-attach-vm --test vm --target "$target" \
        --config 'profile.dev.package."kprobe-attach".opt-level=3' \
        --target-dir target/vm-tests --message-format=json-render-diagnostics)
    path=$(sed -n '/"name":"vm"/s/.*"executable":"\([^"]*\)".*/\1/p' <<<"$json")
    [[ -n $path ]] || die "cargo built no test binary vm"
    mkdir -p "$vm_dir"
    ln -sf "$path" "$link"
}

cmd_vm() {
    local kernels=("$@") ready=() kernel arch boot boots name
    local -A foreign=() # the target of each architecture
    [[ $(uname -m) = x86_64 ]] || die "vm needs an x86_64 host"
    # The newest take longest.
    [[ ${#kernels[@]} -gt 0 ]] || mapfile -t kernels < <(amd64_kernels | tac)
    build_vm_tests amd64 # which lists the tests, too
    make_scratch
    for kernel in "${kernels[@]}"; do
        kernel_row "$kernel"
        # A shell of its own: what cannot be had fails this kernel alone.
        vm_prepare_tests "$kernel" &
        if wait "$!"; then
            ready+=("$kernel")
            [[ $arch = amd64 ]] || foreign[$arch]=$(target_of "$arch")
        else
            printf '%-20s FAILED: cannot be fetched, see above\n' "$kernel"
            echo 0 1 >"$scratch/$kernel.count"
        fi
    done
    if [[ ${#foreign[@]} -gt 0 ]]; then
        locked arch_sysroot # which may have rustup add them
        locked std_sysroot "${foreign[@]}" # all at once is faster
    fi
    boots=$(vm_boots)
    [[ -n $boots ]] || die "no test has ${KPROBE_ATTACH_FILTER:-} in its name"
    for kernel in "${ready[@]}"; do
        kernel_row "$kernel"
        if [[ -n ${foreign[$arch]:-} ]]; then
            build_vm_tests "$arch" # while the machines before it run
            unset "foreign[$arch]"
        fi
        for boot in $boots; do
            while [[ $(jobs -rp | wc -l) -ge 2 ]]; do wait -n || true; done
            name=$(boot_name "$kernel" "$boot")
            echo 0 1 >"$scratch/$name.count" # until the machine has another verdict
            { # the report in one piece, whatever the other machine prints meanwhile
                set +e
                rm -f "$vm_dir/$name".{log,console,report}
                (set -e; vm_test "$kernel" "$boot") >"$vm_dir/$name.report" 2>&1
                cat "$vm_dir/$name.report"
            } &
        done
    done
    wait
    cat "$scratch"/*.count | tally
}

# cmd_soak [CYCLES [KERNEL...]]: the tests that repeat, for longer than `vm` repeats them.
cmd_soak() {
    export KPROBE_ATTACH_SOAK=${1:-20000} KPROBE_ATTACH_FILTER=soak::
    [[ $KPROBE_ATTACH_SOAK =~ ^[1-9][0-9]*$ ]] || die "usage: ci/run.sh soak [CYCLES [KERNEL...]]"
    vm_timeout=${KPROBE_ATTACH_TIMEOUT:-7200}
    cmd_vm "${@:2}"
}

# Adds up lines `PASSED FAILED`, prints the sum and fails if there is a failure.
tally() {
    awk '
        { passed += $1; failed += $2 }
        END {
            printf "%d passed, %d failed\n", passed, failed
            exit failed > 0 || passed == 0
        }'
}

cmd_vm-run() {
    [[ $# -ge 3 && $2 = -- ]] || die "usage: ci/run.sh vm-run KERNEL -- COMMAND..."
    local kernel=$1
    shift 2
    vm_job "$kernel" "$*"
}

cmd_demo() {
    cmd_build
    if [[ $# -eq 0 && $EUID -eq 0 ]] && "$bin" features --json | grep -q '"default":"'; then
        PATH=$PWD/target/release:$PATH sh ci/demo.sh
    else
        vm_job "${1:-6.12}" 'set -o pipefail; sh /demo.sh 2>&1 | cat' # a pipe: no cursor movements
    fi
}

# stage STAGE: a run of its own (`set -e` does not work inside a condition). Leaves its output and
# its time in $out.
stage() {
    local words status=ok wall user sys TIMEFORMAT='%0R %0U %0S'
    read -ra words <<<"$1" # a stage may have arguments
    printf '\n=== %s\n' "$1"
    { time ci/run.sh "${words[@]}" 2>&1 | tee "$out/$1" >&3; } 3>&1 2>"$out/.time-$1" ||
        status=FAILED
    read -r wall user sys <"$out/.time-$1"
    printf '%-11s %-6s %4d s, %4d s of CPU\n' \
        "$1" "$status" "$wall" $((user + sys)) >"$out/.time-$1"
    # A stage that fails without a failed test counts as one.
    if [[ $status = FAILED ]] && ! grep -qE '^[0-9]+ passed, [1-9][0-9]* failed$' "$out/$1"; then
        echo '0 passed, 1 failed' >>"$out/$1"
    fi
}

# stages STAGE...: one after the other; a failed one does not stop the others. `STAGE, STAGE... &`
# are of those that occupy one CPU: they run beside the next ones, up to `wait`, where their output
# is shown.
stages() {
    local stage one beside lane=() out=target/stages
    rm -rf "$out" "$holes"
    mkdir -p "$out"
    need gcc libc6-dev xz-utils # before anything else asks apt
    prefetch >target/prefetch.log 2>&1 & # what it cannot fetch, the stage that needs it tries again
    for stage; do
        case $stage in
            *' &')
                IFS=, read -ra lane <<<"${stage% &}"
                for one in "${lane[@]}"; do stage "${one# }"; done >"$out/.lane" &
                beside=$!
                ;;
            wait)
                wait "$beside"
                cat "$out/.lane"
                ;;
            *) stage "$stage" ;;
        esac
    done
    printf '\n=== all\n'
    cat "$out"/.time-*
    echo "$SECONDS s"
    [[ ! -e $holes ]] ||
        echo "holes in the mirror: $(sort -u "$holes" | paste -sd ';' | sed 's/;/; /g')"
    cat "$out"/* | awk '/^[0-9]+ passed, [0-9]+ failed$/ { print $1, $3 }' | tally
}

cmd_test() {
    local oldest newest
    oldest=$(amd64_kernels | head -n 1)
    newest=$(amd64_kernels | tail -n 1)
    export KPROBE_ATTACH_FILTER="$slow_tests --skip lockdown_"
    fetched_ahead="$newest $oldest" \
        stages fmt build "vm $newest &" lint size unit "vm $oldest" wait
}

cmd_all() {
    local older newest
    older=$(amd64_kernels | sed '$d' | tac | paste -sd ' ')
    newest=$(amd64_kernels | tail -n 1)
    KPROBE_ATTACH_BRIEF=$(amd64_kernels | sed '1d;$d' | paste -sd ' ')
    export KPROBE_ATTACH_BRIEF
    # The newest kernel's machine takes longest, on one CPU. `arch` begins with `targets`.
    fetched_ahead="$newest ${arch_suites[*]} 6.1-ppc64el $older" \
        stages fmt build "vm $newest, recipes &" lint nolibc unit asan size msrv package \
        arch fuzz initramfs interop "vm $older" wait
}

command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

case ${1:-} in
    '' | -h | --help | help) usage ;;
    test | all | fmt | lint | unit | asan | build | nolibc | size | msrv | package | deny | \
        semver | targets | arch | recipes | fuzz | vm | initramfs | interop | soak | vm-run | \
        demo | bench)
        command=cmd_$1
        shift
        "$command" "$@"
        ;;
    *)
        note "no command $1"
        usage >&2
        exit 2
        ;;
esac
