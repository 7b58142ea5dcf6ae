//! Link arguments of the program, and of nothing else: static, at a fixed address, with its own entry point.

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
    // Drivers and bare linkers take this one alike.
    let script = concat!(
        "-T",
        env!("CARGO_MANIFEST_DIR"),
        "/src/bin/kprobe-attach/link.ld"
    );
    println!("cargo::rerun-if-changed=src/bin/kprobe-attach/link.ld");
    println!("cargo::rustc-link-arg-bin=kprobe-attach={script}");
    let linker_options: [&[&str]; 4] = [
        &["-e", "kprobe_attach_entry"],
        &["--build-id=none"],
        &["-z", "noexecstack"],
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
