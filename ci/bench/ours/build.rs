//! Links a static program with its own entry point, as tests/embed is linked.

fn main() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
    println!("cargo::rerun-if-changed={root}/src/bin/kprobe-attach/link.ld");
    for option in [
        "-static",
        "-no-pie",
        "-nostdlib",
        "-nostartfiles",
        "-Wl,-e,kprobe_attach_entry,--build-id=none,-z,noexecstack,--no-eh-frame-hdr",
    ] {
        println!("cargo::rustc-link-arg={option}");
    }
    println!("cargo::rustc-link-arg=-T{root}/src/bin/kprobe-attach/link.ld");
}
