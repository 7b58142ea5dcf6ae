//! Reads any bytes as a file of one number, such as `kernel.perf_event_paranoid`. The result must
//! be that of the standard library, which also takes a plus sign and the least number.
#![no_main]

use kprobe_attach::fuzz::number;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = std::str::from_utf8(bytes.trim_ascii());
    let expected = text.ok().filter(|text| !text.starts_with('+'));
    let expected = expected.and_then(|text| text.parse().ok());
    assert_eq!(number(bytes), expected.filter(|number| *number != i32::MIN));
    if let Some(value) = bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        let written = format!("{value}\n");
        assert_eq!(
            number(written.as_bytes()),
            (value != i32::MIN).then_some(value)
        );
    }
});
