//! Reads the lines of a file with any bytes in it. Every line that is shorter than the buffer must
//! come, whole, and no other.
#![no_main]

use kprobe_attach::fuzz::for_each_line;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};

fuzz_target!(|text: &[u8]| {
    check::<1>(text);
    check::<8>(text);
    check::<64>(text);
});

fn check<const N: usize>(text: &[u8]) {
    let file = memfd_create(c"lines", MemfdFlags::CLOEXEC).unwrap();
    let mut rest = text;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest).unwrap()..];
    }
    seek(&file, SeekFrom::Start(0)).unwrap();
    let mut lines = Vec::new();
    for_each_line::<N>(&file, &mut |line| lines.push(line.to_vec())).unwrap();
    let all = text.split_inclusive(|byte| *byte == b'\n');
    let all = all.map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    let all = all.filter(|line| line.len() < N);
    assert!(lines.iter().map(Vec::as_slice).eq(all), "{N}");
}
