# shellcheck shell=bash
# The examples, which tests/vm/examples.rs runs in the machines. Sourced by run.sh.

examples=target/examples # what the machines have of them

# clippy_examples, build_examples: those without libc, those with std, and the library for C; then
# programs of C, with the libc of gnu, with musl's and with none.
clippy_examples() {
    local dir
    for dir in embed std c; do
        cargo clippy --locked --manifest-path "tests/$dir/Cargo.toml" --target-dir "target/$dir" \
            -- -D warnings
    done
}

build_examples() {
    local library=target/c/release/libkprobe_attach_c.a headers
    local flags=(-O2 -Wall -Wextra -Werror -s -I tests/c)
    need gcc libc6-dev musl-tools
    build_embed
    cargo build --locked --manifest-path tests/std/Cargo.toml --target-dir target/std
    cargo build --release --locked --manifest-path tests/c/Cargo.toml --target-dir target/c
    rm -rf "$examples"
    mkdir -p "$examples"
    install -s target/embed/release/arguments target/std/debug/{agent,daemon} "$examples"
    gcc "${flags[@]}" tests/c/attach.c "$library" -o "$examples/attach-gnu"
    gcc "${flags[@]}" tests/c/opts.c "$library" -o "$examples/opts"
    # musl-gcc does not find the kernel's headers, which are those of gnu's libc.
    headers=(-idirafter /usr/include -idirafter "/usr/include/$(gcc -print-multiarch)")
    musl-gcc -static "${flags[@]}" "${headers[@]}" tests/c/attach.c "$library" \
        -o "$examples/attach-musl"
    gcc -nostdlib -static -ffreestanding -fno-stack-protector -fno-tree-loop-distribute-patterns \
        "${flags[@]}" tests/c/nostdlib.c "$library" -o "$examples/nostdlib"
}
