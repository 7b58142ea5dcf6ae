//! Reads any bytes as a line of `error_log`. An error and a command must be all that follows their
//! prefix, and only a text of the kernel's own has an errno.
#![no_main]

use kprobe_attach::fuzz::{ErrorLogLine, error_log_errno, error_log_line};
use libfuzzer_sys::fuzz_target;

const ERROR: &[u8] = b": error: ";
const COMMAND: &[u8] = b"  Command: ";

fuzz_target!(|bytes: &[u8]| {
    let has_error = bytes.windows(ERROR.len()).any(|window| window == ERROR);
    match error_log_line(bytes) {
        Some(ErrorLogLine::Command(line)) => assert_eq!([COMMAND, line].concat(), bytes),
        Some(ErrorLogLine::Error(text)) => {
            assert!(bytes.ends_with(&[ERROR, text].concat()));
            assert!(!bytes.starts_with(COMMAND));
        }
        None => assert!(!has_error && !bytes.starts_with(COMMAND)),
    }
    let error = [b"[   12.345678] trace_kprobe", ERROR, bytes].concat();
    assert_eq!(error_log_line(&error), Some(ErrorLogLine::Error(bytes)));
    let command = [COMMAND, bytes].concat();
    assert_eq!(error_log_line(&command), Some(ErrorLogLine::Command(bytes)));
    if error_log_errno(bytes).is_some() {
        assert!(bytes.is_ascii() && error_log_errno(&error).is_none());
    }
});
