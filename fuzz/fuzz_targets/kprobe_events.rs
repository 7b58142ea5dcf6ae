//! Reads any bytes as a line of `kprobe_events`. The result must print as a line that reads the
//! same.
#![no_main]

use kprobe_attach::tracefs::EventLine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let Some(event) = EventLine::parse(line) else {
        return;
    };
    assert_eq!(EventLine::parse(event.to_string().as_bytes()), Some(event));
    assert!(event.retprobe || event.maxactive == 0);
    assert!(![event.group, event.event, event.place].contains(&""));
    assert!(!event.is_ours() || event.group.len() == 30);
});
