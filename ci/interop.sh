# shellcheck shell=bash
# The crate and the program beside other loaders. Sourced by run.sh.

interop_kernels='6.1 7.3' # each has every mode

# build_interop_tests: linked with the host's libraries, for libelf has no static one everywhere.
build_interop_tests() {
    local json path
    need gcc libc6-dev libelf-dev zlib1g-dev make pkg-config
    cmd_build
    json=$(cargo test --locked --no-run --manifest-path tests/interop/Cargo.toml \
        --target-dir target/interop --message-format=json-render-diagnostics)
    path=$(sed -n '/"name":"interop"/s/.*"executable":"\([^"]*\)".*/\1/p' <<<"$json")
    [[ -n $path ]] || die "cargo built no test binary interop"
    ln -sf "$path" "$vm_tests"
}

# cmd_interop [KERNEL...]: a machine each, two at a time.
cmd_interop() {
    local kernel kernels=("$@")
    [[ $(uname -m) = x86_64 ]] || die "interop needs an x86_64 host"
    [[ ${#kernels[@]} -gt 0 ]] || read -ra kernels <<<"$interop_kernels"
    vm_dir=target/interop vm_tests=target/interop/tests-bin
    vm_programs+=(perf)
    need linux-perf
    build_interop_tests
    make_scratch
    for kernel in "${kernels[@]}"; do
        vm_prepare "$kernel"
        while [[ $(jobs -rp | wc -l) -ge 2 ]]; do wait -n || true; done
        echo 0 1 >"$scratch/$kernel.count" # until the machine has another verdict
        {
            set +e
            rm -f "$vm_dir/$kernel".{log,console,report}
            (set -e; vm_test "$kernel" ordinary) >"$vm_dir/$kernel.report" 2>&1
            cat "$vm_dir/$kernel.report"
        } &
    done
    wait
    cat "$scratch"/*.count | tally
}
