//! Reads any bytes as a line of `kprobe_profile`. The result must be the third column of the line
//! of the event that is asked for.
#![no_main]

use kprobe_attach::fuzz::profile_missed;
use libfuzzer_sys::fuzz_target;

const EVENT: &str = "probe_01234567_12";

fuzz_target!(|bytes: &[u8]| {
    if let Some(missed) = profile_missed(bytes, EVENT) {
        let columns = bytes.split(|byte| b" \t".contains(byte));
        let columns: Vec<_> = columns.filter(|column| !column.is_empty()).collect();
        assert_eq!(columns[0], EVENT.as_bytes());
        let number = str::from_utf8(columns[2]).expect("digits");
        assert_eq!(number.parse(), Ok(missed));
    }
    if let Some(numbers) = bytes.first_chunk::<16>() {
        let number = u128::from_ne_bytes(*numbers);
        let (hits, missed) = (number as u64, (number >> 64) as u64);
        // As `probes_profile_seq_show()` of `kernel/trace/trace_kprobe.c` writes it.
        let line = format!("  {EVENT:<44} {hits:>15} {missed:>15}");
        assert_eq!(profile_missed(line.as_bytes(), EVENT), Some(missed));
        assert_eq!(profile_missed(line.as_bytes(), "probe_01234567_1"), None);
    }
});
