# shellcheck shell=bash
# What a release promises beside working: the oldest Rust and the oldest dependencies, its
# documentation, what the package holds. Sourced by run.sh.

# What rustc of Debian's trixie needs beside itself and libc6, where the machine has other versions.
msrv_packages=(libllvm19 libgcc-s1 libstdc++6 zlib1g libzstd1 libxml2 libffi8 libedit2 libtinfo6
    libbsd0 libmd0 libicu76 liblzma5)

# Fills $msrv_dir with rustc $msrv of Debian's trixie, and the script `rustc` that runs it on any
# machine.
fetch_msrv() {
    local package dir lib suites libc_suites
    [[ ! -e $msrv_dir ]] || return 0
    note "fetching rustc $msrv"
    read -ra suites <<<"$(suites_of trixie) forky sid"
    libc_suites=("${suites[@]}")
    dir=$(mktemp -d -p "$scratch")
    for package in {rustc,libstd-rust-dev,'libstd-rust-1.*'}="$msrv*" "${msrv_packages[@]}"; do
        fetch_package amd64 "$package" "$dir" "${suites[@]}" -- './usr/*' ||
            die "cannot fetch $package"
        # With what is newer goes the newest libc6; what is older runs with it, too.
        [[ $fetched_suite = trixie* ]] || libc_suites=(sid)
    done
    fetch_package amd64 libc6 "$dir" "${libc_suites[@]}" -- './usr/*' || die "cannot fetch libc6"
    lib=usr/lib/x86_64-linux-gnu
    "$dir/$lib/ld-linux-x86-64.so.2" --library-path "$dir/$lib" "$dir/usr/bin/rustc" --version \
        >/dev/null || die "rustc $msrv does not run with the libraries that there are"
    cat >"$dir/rustc" <<EOF
#!/bin/sh
exec "$msrv_dir/$lib/ld-linux-x86-64.so.2" --library-path "$msrv_dir/$lib" \\
    "$msrv_dir/usr/bin/rustc" --sysroot "$msrv_dir/usr" "\$@"
EOF
    chmod +x "$dir/rustc"
    mv "$dir" "$msrv_dir"
}

# cmd_msrv: the oldest Rust that Cargo.toml names builds library and program, with the dependencies
# that are locked and with the oldest that Cargo.toml allows.
cmd_msrv() {
    local msrv version dir
    need gcc libc6-dev binutils
    make_scratch
    msrv=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    msrv_dir=$cache/msrv-$msrv
    locked fetch_msrv
    version=$("$msrv_dir/rustc" --version)
    [[ $version = "rustc $msrv."* ]] || die "$version is not Rust $msrv"
    RUSTC=$msrv_dir/rustc cargo build --locked --release --target-dir target/msrv
    check_static target/msrv/release/kprobe-attach
    # Another place, for another lock file. Only the direct dependencies: that the oldest of all fit
    # together is up to them.
    dir=$scratch/minimal
    mkdir "$dir"
    cp -r Cargo.toml src tests README.md "$dir/" # tests/vm is of the workspace
    (
        cd "$dir"
        RUSTC_BOOTSTRAP=1 cargo generate-lockfile -q -Zdirect-minimal-versions
        cargo tree -e normal --depth 1
    )
    RUSTC=$msrv_dir/rustc cargo build --release --manifest-path "$dir/Cargo.toml" \
        --target-dir target/minimal
    echo "builds with $version, and with the oldest dependencies"
}

# cmd_package: it holds what it needs and no more; installed from that, in another directory, the
# program is the same to the byte; and docs.rs can show it for every target that is named.
cmd_package() {
    local listed target host flags unpacked
    need gcc libc6-dev
    # With uncommitted changes there is no .cargo_vcs_info.json, and there need not be one.
    listed=$(cargo package --locked --allow-dirty --list |
        grep -vxF .cargo_vcs_info.json | LC_ALL=C sort)
    diff <({
        printf '%s\n' CHANGELOG.md Cargo.lock Cargo.toml Cargo.toml.orig \
            LICENSE-APACHE LICENSE-MIT README.md
        find src -type f
    } | LC_ALL=C sort) <(echo "$listed") ||
        die "the package does not hold just what is in src/ and beside it"
    cmd_build
    make_scratch
    cargo package --locked --allow-dirty --no-verify --target-dir "$scratch/package"
    unpacked=$(mktemp -d -p "$scratch")
    tar -x -C "$unpacked" --strip-components 1 -f "$scratch"/package/package/*.crate
    cargo install --locked --path "$unpacked" --root "$scratch/installed" \
        --target-dir target/package
    cmp "$scratch/installed/bin/kprobe-attach" "$bin" ||
        die "built in another directory, the program is another one"
    host=$(rustc -vV | sed -n 's/^host: //p')
    locked arch_sysroot
    for target in $(sed -n '/^\[package.metadata.docs.rs\]/,/^$/s/^ *"\([a-z0-9_-]*\)",$/\1/p' \
        Cargo.toml); do
        # docs.rs has a nightly compiler; the flag is one of its.
        flags=
        [[ $target = "$host" ]] || flags=$arch_flags
        RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags \
            RUSTDOCFLAGS="-D warnings -Zunstable-options --generate-link-to-definition $flags" \
            cargo doc --no-deps --locked --lib --target "$target" --target-dir target/docs
    done
    echo "$(wc -l <<<"$listed") files in the package, which installs the same program to the byte"
}

# cmd_deny: licences, sources, duplicate versions, and advisories where their database can be had.
# Not in `test`: the tool itself takes 10 to 20 minutes to build.
cmd_deny() {
    cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
    cargo deny --locked --config ci/deny.toml check bans licenses sources
    cargo deny --locked --config ci/deny.toml check advisories || note "no verdict on advisories"
}

# cmd_semver [TAG]: the public surface against that of a release, the last one unless named.
cmd_semver() {
    local tag=${1:-}
    [[ -n $tag ]] || tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) ||
        die "there is no release yet: nothing to compare with"
    cargo semver-checks --version >/dev/null 2>&1 || cargo install --locked cargo-semver-checks
    cargo semver-checks --baseline-rev "$tag"
}
