//! Reads any bytes as a line of `mountinfo`, and as a path in one. The path must come back
//! unchanged.
#![no_main]

use kprobe_attach::fuzz::mount_point;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(path) = mount_point(bytes, b"tracefs") {
        let path = str::from_utf8(path.as_bytes()).expect("a path to be opened is text");
        assert!(!path.is_empty());
    }
    let path = [b"/", bytes].concat();
    let line = [
        b"29 25 0:12 / ",
        &*escaped(&path),
        b" rw,nosuid shared:11 master:2 - tracefs tracefs rw",
    ]
    .concat();
    let taken = path.len() <= 255 && str::from_utf8(&path).is_ok();
    assert_eq!(
        mount_point(&line, b"tracefs").map(|path| path.as_bytes().to_vec()),
        taken.then_some(path)
    );
    assert!(mount_point(&line, b"debugfs").is_none());
});

/// Escapes a path as `mangle_path()` of `fs/seq_file.c` does for `show_mountinfo()`.
fn escaped(path: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        byte => vec![*byte],
    };
    path.iter().flat_map(escape).collect()
}
