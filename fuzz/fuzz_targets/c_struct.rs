//! Reads any bytes as a `struct bpf_kprobe_opts`. The result must follow libbpf's rules for `sz`,
//! and must be the same after it is written and read again.
#![no_main]

use kprobe_attach::{AttachMode, KprobeOpts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let read = KprobeOpts::from_c_struct(bytes);
    assert_eq!(read.ok(), libbpf(bytes));
    match read {
        Ok(opts) => {
            let written = opts.as_c_struct().expect("what C has, C can be given");
            assert_eq!(KprobeOpts::from_c_struct(&written), Ok(opts));
        }
        Err(error) => assert!(error.at <= bytes.len()),
    }
});

/// Reads the options as `OPTS_VALID` and `OPTS_GET` of `src/libbpf_internal.h` do, with the end of
/// each field as a number.
fn libbpf(bytes: &[u8]) -> Option<KprobeOpts> {
    let sz = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
    // libbpf would read beyond the bytes.
    if sz < 8 || sz > bytes.len() as u64 {
        return None;
    }
    let number = |from: usize, end: u64| match sz >= end {
        true => u64::from_ne_bytes(bytes[from..from + 8].try_into().unwrap()),
        false => 0,
    };
    let retprobe = sz >= 25 && bytes[24] != 0;
    let mode = match sz >= 32 {
        true => u32::from_ne_bytes(bytes[28..32].try_into().unwrap()),
        false => 0,
    };
    if (32..sz).any(|at| bytes[at as usize] != 0) {
        return None;
    }
    let opts = KprobeOpts::new()
        .bpf_cookie(number(8, 16))
        .offset(number(16, 24))
        .retprobe(retprobe);
    match mode {
        0 => Some(opts),
        1 => Some(opts.attach_mode(AttachMode::Legacy)),
        2 => Some(opts.attach_mode(AttachMode::Perf)),
        3 => Some(opts.attach_mode(AttachMode::Link)),
        _ => None,
    }
}
