//! Link arguments of the program, and of nothing else: static, at a fixed address, with its own
//! entry point.

fn main() {
    println!("cargo::rerun-if-changed=src/bin/kprobe-attach/build.rs");
    let linker = std::env::var("RUSTC_LINKER").unwrap_or_default();
    let name = linker.rsplit('/').next().unwrap_or_default();
    let is_bare = name.contains("ld.")
        || name.ends_with("lld")
        || name.ends_with("-ld")
        || ["ld", "mold", "wild"].contains(&name);
    // A compiler driver takes linker options behind `-Wl,`; a bare linker takes them as they are.
    let (driver, prefix) = if is_bare {
        (&[][..], "")
    } else {
        (&["-nostartfiles"][..], "-Wl,")
    };
    let options = ["-static", "-no-pie", "-nostdlib"];
    for option in options.iter().chain(driver) {
        println!("cargo::rustc-link-arg-bin=kprobe-attach={option}");
    }
    // A smaller program, and no more than that: only where the linker is sure to take it, as GNU ld
    // and lld do. Drivers and bare linkers take the option alike.
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let other = ["mold", "wild", "gold"];
    if !other
        .iter()
        .any(|other| linker.contains(other) || flags.contains(other))
    {
        let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        let script = format!("-T{dir}/src/bin/kprobe-attach/link.ld");
        println!("cargo::rustc-link-arg-bin=kprobe-attach={script}");
    }
    println!("cargo::rerun-if-changed=src/bin/kprobe-attach/link.ld");
    let linker_options: [&[&str]; 5] = [
        &["-e", "kprobe_attach_entry"],
        &["--build-id=none"],
        &["-z", "noexecstack"],
        // Nobody relocates a static program, and so nobody would make its relocations read-only.
        &["-z", "norelro"],
        &["--no-eh-frame-hdr"],
    ];
    for option in linker_options {
        if prefix.is_empty() {
            for word in option {
                println!("cargo::rustc-link-arg-bin=kprobe-attach={word}");
            }
        } else {
            let words = option.join(",");
            println!("cargo::rustc-link-arg-bin=kprobe-attach={prefix}{words}");
        }
    }
}
