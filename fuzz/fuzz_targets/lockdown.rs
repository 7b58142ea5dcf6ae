//! Reads any bytes as the list of levels in `/sys/kernel/security/lockdown`. Only the level that is
//! marked counts, whatever stands around it.
#![no_main]

use kprobe_attach::fuzz::is_confidential;
use libfuzzer_sys::fuzz_target;

const MARKED: &[u8] = b"[confidentiality]";

fuzz_target!(|bytes: &[u8]| {
    let is_marked = bytes.windows(MARKED.len()).any(|window| window == MARKED);
    assert_eq!(is_confidential(bytes), is_marked);
    assert!(is_confidential(&[bytes, MARKED].concat()));
    assert!(is_confidential(&[MARKED, bytes].concat()));
    let unmarked: Vec<_> = bytes.iter().copied().filter(|byte| *byte != b'[').collect();
    assert!(!is_confidential(&unmarked));
});
