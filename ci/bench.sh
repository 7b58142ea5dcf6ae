# shellcheck shell=bash
# What an attach costs, beside other libraries; see ci/bench/harness/src/work.rs. Sourced by run.sh.

bench_dir=target/bench
bench_run=$bench_dir/run # what the machines get
bench_results=ci/bench/results
bench_peers=(kprobe-attach raw libbpf libbpf-rs aya cilium)
bench_target=x86_64-unknown-linux-gnu

# bench_cargo PACKAGE FLAGS ARGUMENTS...: builds a package below ci/bench.
bench_cargo() {
    RUSTFLAGS=$2 cargo build --release --locked --manifest-path "ci/bench/$1/Cargo.toml" \
        --target "$bench_target" --target-dir "$bench_dir/build/$1" "${@:3}"
}

# bench_version CRATE PACKAGE: the version that the package is built with.
bench_version() {
    awk -v crate="\"$1\"" '$1 == "name" && $3 == crate { getline; gsub(/"/, "", $3); print $3 }' \
        "ci/bench/$2/Cargo.lock"
}

# A Go compiler and cilium/ebpf, not installed.
fetch_go() {
    local dir package root=$cache/go
    [[ ! -e $root ]] || return 0
    dir=$(mktemp -d -p "$scratch")
    for package in golang-1.24-{go,src} golang-golang-x-{exp,sys}-dev golang-github-cilium-ebpf-dev
    do
        fetch_package amd64 "$package" "$dir" trixie -- || die "cannot fetch $package"
    done
    sed 's/.*=//; s/-.*//' <<<"$fetched" >"$dir/version"
    mv "$dir" "$root"
}

# bench_driver PEER: builds its driver, as $bench_run/PEER.full, and prints the peer's version.
bench_driver() {
    local static='-D warnings -C target-feature=+crt-static -C relocation-model=static'
    local build=$bench_dir/build library
    case $1 in
        kprobe-attach)
            bench_cargo ours ''
            build+=/ours/$bench_target/release/ours
            bench_version kprobe-attach . >&3
            ;;
        raw)
            build+=/raw
            gcc -O2 -Wall -Wextra -Werror -static -o "$build" ci/bench/raw.c
            echo "C, glibc $(dpkg-query -W -f '${Version}' libc6-dev)" >&3
            ;;
        libbpf | libbpf-rs)
            need libelf-dev zlib1g-dev make pkg-config
            library=$(gcc -print-file-name=libelf.a)
            LIBBPF_SYS_LIBRARY_PATH=${library%/*} bench_cargo libbpf-rs "$static"
            if [[ $1 = libbpf ]]; then
                # There may be one of an older build, too.
                library=$(find "$build/libbpf-rs" -path '*/out/libbpf.a' -printf '%T@ %p\n' |
                    sort -n | sed -n '$s/.* //p')
                build+=/libbpf
                gcc -O2 -Wall -Wextra -Werror -static -I "${library%/*}/include" -o "$build" \
                    ci/bench/libbpf.c "$library" -lelf -lz
                bench_version libbpf-sys libbpf-rs | sed 's/.*+v//' >&3
            else
                build+=/libbpf-rs/$bench_target/release/libbpf-rs
                bench_version libbpf-rs libbpf-rs >&3
            fi
            ;;
        aya)
            bench_cargo aya "$static"
            build+=/aya/$bench_target/release/aya
            bench_version aya aya >&3
            ;;
        cilium)
            locked fetch_go
            build+=/cilium
            env GOROOT="$cache/go/usr/lib/go-1.24" GOPATH="$cache/go/usr/share/gocode" \
                GOCACHE="$PWD/$bench_dir/build/go" GO111MODULE=off GOTOOLCHAIN=local CGO_ENABLED=0 \
                "$cache/go/usr/lib/go-1.24/bin/go" build -o "$build" ci/bench/cilium/main.go
            cat "$cache/go/version" >&3
            ;;
    esac
    cp "$build" "$bench_run/$1.full"
}

# bench_build PEER...: fills $bench_run. A peer that cannot be built is a line of the results.
bench_build() {
    local section peer version file log
    need gcc libc6-dev binutils clang
    cmd_build
    rm -rf "$bench_run"
    mkdir -p "$bench_run" "$bench_dir/build"
    bench_cargo harness '-C target-feature=+crt-static'
    cp "$bench_dir/build/harness/$bench_target/release/harness" "$bench_run/"
    for section in kprobe kprobe.multi; do
        clang -target bpf -O2 -Wall -Wno-unused-parameter -DSECTION="\"$section\"" \
            -c ci/bench/programs.c -o "$bench_run/$section.o"
    done
    clang -target bpf -O2 -g -Wall -Wno-unused-parameter "-I/usr/include/$(uname -m)-linux-gnu" \
        -c ci/bench/object.c -o "$bench_run/object.o"
    for peer; do
        file=$bench_run/$peer log=$bench_dir/build/$peer.log
        # A shell of its own: `set -e` would be off inside a condition.
        bench_driver "$peer" >"$log" 2>&1 3>"$file.version" &
        if wait "$!"; then
            nm "$file.full" | awk '
                $3 ~ /^(malloc|calloc|realloc|memalign|aligned_alloc|runtime\.mallocgc)$/ {
                    print $1
                }' >"$file.allocators"
            strip -o "$file" "$file.full"
            version=$(<"$file.version")
            echo "$peer $(stat -c %s "$file") $version"
        else
            note "$peer: cannot be built, see $log"
            echo "$peer 0 not built"
        fi
        rm -f "$file.full" "$file.version"
    done >"$bench_run/peers"
}

# bench_machine KERNEL: measures in a machine of its own, into $bench_dir/KERNEL.json.
bench_machine() {
    local console=$bench_dir/$1.console job status=0
    local counts=${KPROBE_ATTACH_FUNCTIONS:-100 1000}
    # One instruction of the machine is one nanosecond, whatever else this host does. With one CPU,
    # grace periods are as long each time. Two do not come up on 5.10 and 6.1.
    local machine_options=(-icount 'shift=0,sleep=off' -smp 1)
    # Grace periods are as long as on other machines. The functions are those that both kinds of
    # links take, and that are not called meanwhile.
    job="echo 0 >/sys/kernel/rcu_expedited
        cd /extra
        kprobe-attach functions --quiet 'acpi_*' 'ext4_*' 'nvme_*' 'pci_*' |
            grep -Fxf - /sys/kernel/tracing/available_filter_functions | sort >functions
        ./harness $1 $(date -u +%F) $counts 2>/dev/console"
    vm_prepare "$1"
    KPROBE_ATTACH_EXTRA=$bench_run initramfs "$scratch/initrd" "$job"
    boot "$scratch/initrd" "$console" "$bench_dir/$1.json" nokaslr || status=$?
    [[ $status -eq 0 ]] || die "kernel $1: see $bench_dir/$1.json and $console"
}

# cmd_bench [--write] [PEER...]: measures, and prints the tables; --write keeps the results, and
# makes the guide's page of all that are kept.
cmd_bench() {
    local kernels kernel write=''
    [[ ${1:-} != --write ]] || { write=1; shift; }
    read -ra kernels <<<"${KPROBE_ATTACH_KERNELS:-$(amd64_kernels | xargs)}"
    make_scratch
    bench_build "${@:-${bench_peers[@]}}"
    for kernel in "${kernels[@]}"; do
        bench_machine "$kernel"
        "$bench_run/harness" table "$bench_dir/$kernel.json"
        if [[ -n $write ]]; then
            cp "$bench_dir/$kernel.json" "$bench_results/"
            bench_page
        fi
    done
}

# Writes the guide's page.
bench_page() {
    local kernel files=()
    for kernel in $(amd64_kernels); do
        [[ ! -e $bench_results/$kernel.json ]] || files+=("$bench_results/$kernel.json")
    done
    {
        cat ci/bench/page.md
        "$bench_run/harness" table "${files[@]}"
    } >src/guide/peers.md
}
