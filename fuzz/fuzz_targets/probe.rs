//! Reads any bytes as a probe. A probe must print as a text that means the same. An error must be
//! shown under its byte.
#![no_main]

use kprobe_attach::request::Probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| match Probe::from_bytes(text) {
    Ok(probe) => {
        let printed = probe.to_string();
        assert_eq!(Probe::parse(&printed), Ok(probe));
        assert!(has_only(&printed, b"_.$:/+,=-@*?[]!^"), "{printed}");
        // What reaches the kernel as it is has the bytes of names alone.
        let target = probe.target.to_string();
        let is_name = has_only(&target, b"_.$:");
        assert!(is_name || !probe.target.is_resolved(), "{printed}");
        assert!(has_only(&target, b"_.$:@*?[]!^-"), "{printed}");
    }
    Err(error) => {
        assert!(error.at <= text.len());
        let shown = error.in_text(text).to_string();
        let lines: Vec<_> = shown.split('\n').collect();
        let caret = format!("{}^ {}", " ".repeat(error.at), error.invalid);
        let allowed = format!("allowed: {}", error.invalid.allowed());
        assert_eq!(lines[1..], [caret, allowed]);
        assert_eq!(lines[0].len(), text.len());
    }
});

fn has_only(text: &str, signs: &[u8]) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || signs.contains(&byte))
}
