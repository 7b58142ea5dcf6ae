//! Reads any bytes as the `type` of the kprobe PMU in sysfs. The result must be the number in the
//! text.
#![no_main]

use kprobe_attach::fuzz::parse_pmu_type;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Some(pmu_type) = parse_pmu_type(text) {
        assert_eq!(without_zeros(text), format!("{pmu_type}\n").as_bytes());
    }
    if let Some(bytes) = text.first_chunk() {
        let number = u32::from_ne_bytes(*bytes);
        let pmu_type = format!("{number}\n");
        assert_eq!(parse_pmu_type(pmu_type.as_bytes()), Some(number));
    }
});

/// Returns the text without leading zeros.
fn without_zeros(mut text: &[u8]) -> &[u8] {
    while let [b'0', b'0'..=b'9', ..] = text {
        text = &text[1..];
    }
    text
}
