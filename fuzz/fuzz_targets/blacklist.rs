//! Reads any bytes as a line of `kprobes/blacklist`. The result must be the same after it is
//! written as the kernel writes it.
#![no_main]

use kprobe_attach::fuzz::blacklist_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((range, name)) = blacklist_line(bytes) {
        assert!(!name.is_empty() && !name.iter().any(|byte| b" \t".contains(byte)));
        let written = line(range.start, range.end, name);
        assert_eq!(blacklist_line(&written), Some((range, name)));
    }
    if let Some((numbers, name)) = bytes.split_first_chunk::<16>() {
        let number = u128::from_ne_bytes(*numbers);
        let (start, end) = (number as u64, (number >> 64) as u64);
        let words = name.split(|byte| b" \t".contains(byte));
        let name = words.into_iter().find(|word| !word.is_empty());
        let written = line(start, end, name.unwrap_or_default());
        assert_eq!(
            blacklist_line(&written),
            name.map(|name| (start..end, name))
        );
    }
});

/// Writes a line as `kprobe_blacklist_seq_show()` of `kernel/kprobes.c` does.
fn line(start: u64, end: u64, name: &[u8]) -> Vec<u8> {
    [format!("{start:#018x}-{end:#018x}\t").as_bytes(), name].concat()
}
