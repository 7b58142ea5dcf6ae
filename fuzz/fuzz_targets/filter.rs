//! Reads any bytes as a line of `available_filter_functions`. The result must be the same after it
//! is written as the kernel writes it.
#![no_main]

use kprobe_attach::fuzz::filter_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((function, module)) = filter_line(bytes) {
        let is_word = |word: &[u8]| !word.iter().any(|byte| b" \t".contains(byte));
        assert!(!function.is_empty() && is_word(function) && module.is_none_or(is_word));
        let line = line(function, module);
        assert_eq!(filter_line(&line), Some((function, module)));
    }
    let words = bytes.split(|byte| b" \t".contains(byte));
    let mut words = words.filter(|word| !word.is_empty());
    if let (Some(function), module) = (words.next(), words.next()) {
        assert_eq!(
            filter_line(&line(function, module)),
            Some((function, module))
        );
    }
});

/// Writes a line as `t_show()` of `kernel/trace/ftrace.c` does.
fn line(function: &[u8], module: Option<&[u8]>) -> Vec<u8> {
    match module {
        None => function.to_vec(),
        Some(module) => [function, b" [", module, b"]"].concat(),
    }
}
