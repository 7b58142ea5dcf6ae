//! Links a static program with its own entry point.

fn main() {
    let script = "../../src/bin/kprobe-attach/link.ld";
    println!("cargo::rerun-if-changed={script}");
    for option in [
        "-static",
        "-no-pie",
        "-nostdlib",
        "-nostartfiles",
        "-Wl,-e,kprobe_attach_entry,--build-id=none,-z,noexecstack,-z,norelro,--no-eh-frame-hdr",
    ] {
        println!("cargo::rustc-link-arg={option}");
    }
    println!("cargo::rustc-link-arg=-T{script}");
}
