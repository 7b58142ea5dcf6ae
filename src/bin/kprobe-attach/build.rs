//! Link arguments of the program, and of nothing else: static, at a fixed address, with its own
//! entry point.

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // rustix then brings std, whose programs start in libc.
    if std::env::var_os("CARGO_FEATURE_STD").is_some() {
        return;
    }
    // Cargo watches the flags by itself, but not the linker of another target than the host.
    let target = variable("TARGET").to_uppercase().replace(['-', '.'], "_");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_{target}_LINKER");
    println!("cargo::rerun-if-changed=src/bin/kprobe-attach/build.rs");
    for script in ["link.ld", "rare.ld"] {
        println!("cargo::rerun-if-changed=src/bin/kprobe-attach/{script}");
    }

    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    // rustc is given `-C linker=NAME` of the flags behind the one of cargo, and takes the last.
    let mut in_flags = flags.split('\u{1f}').filter_map(|flag| {
        let option = flag.trim_start_matches("--codegen=");
        option.trim_start_matches("-C").strip_prefix("linker=")
    });
    let linker = in_flags.next_back().map(str::to_owned);
    let linker = linker.unwrap_or_else(|| variable("RUSTC_LINKER"));
    let name = linker.rsplit('/').next().unwrap_or_default();
    let is_bare = name.contains("ld.")
        || name.ends_with("lld")
        || name.ends_with("-ld")
        || ["ld", "mold", "wild"].contains(&name);

    // Drivers and bare linkers take these alike.
    let dir = variable("CARGO_MANIFEST_DIR") + "/src/bin/kprobe-attach";
    let [script, rare] = ["link.ld", "rare.ld"].map(|name| format!("{dir}/{name}"));
    let mut options = vec!["-static", "-no-pie", "-nostdlib"];
    let mut linker_options = vec![
        "-e,kprobe_attach_entry",
        "--build-id=none",
        "-z,noexecstack",
        // Nobody relocates a static program, and so nobody would make its relocations read-only.
        "-z,norelro",
        "--no-eh-frame-hdr",
    ];
    // A smaller program, and no more than that: only where the linker is sure to take it, as GNU ld
    // and lld do.
    let other = ["mold", "wild", "gold"];
    if !other
        .iter()
        .any(|other| linker.contains(other) || flags.contains(other))
    {
        options.extend(["-T", &script]);
        // There lld finds no place for it.
        if variable("CARGO_CFG_TARGET_ARCH") != "powerpc64" {
            options.extend(["-T", &rare]);
        }
        // GNU ld would fill the file up to a page, 7 KB in all, where the rights change.
        linker_options.extend(["-z,noseparate-code", "-z,common-page-size=64"]);
    }
    if !is_bare {
        options.push("-nostartfiles");
    }
    for option in options {
        println!("cargo::rustc-link-arg-bin=kprobe-attach={option}");
    }
    for option in linker_options {
        // A compiler driver takes linker options behind `-Wl,`; a bare linker takes their words.
        if is_bare {
            for word in option.split(',') {
                println!("cargo::rustc-link-arg-bin=kprobe-attach={word}");
            }
        } else {
            println!("cargo::rustc-link-arg-bin=kprobe-attach=-Wl,{option}");
        }
    }
}
