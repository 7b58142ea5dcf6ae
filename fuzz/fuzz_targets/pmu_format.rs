//! Reads any bytes as the `type` and the `format/retprobe` of the kprobe PMU in sysfs. The result
//! must be the number in the text.
#![no_main]

use kprobe_attach::fuzz::{parse_pmu_type, parse_retprobe_format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Some(pmu_type) = parse_pmu_type(text) {
        assert_eq!(without_zeros(text), format!("{pmu_type}\n").as_bytes());
    }
    if let Some(bit) = parse_retprobe_format(text) {
        let number = text.strip_prefix(b"config:").expect("the field's name");
        assert!(bit < 64);
        assert_eq!(without_zeros(number), format!("{bit}\n").as_bytes());
    }
    if let Some(bytes) = text.first_chunk() {
        let (number, bit) = (u32::from_ne_bytes(*bytes), bytes[0] % 64);
        let (pmu_type, format) = (format!("{number}\n"), format!("config:{bit}\n"));
        assert_eq!(parse_pmu_type(pmu_type.as_bytes()), Some(number));
        assert_eq!(parse_retprobe_format(format.as_bytes()), Some(bit));
    }
});

/// Returns the text without leading zeros.
fn without_zeros(mut text: &[u8]) -> &[u8] {
    while let [b'0', b'0'..=b'9', ..] = text {
        text = &text[1..];
    }
    text
}
