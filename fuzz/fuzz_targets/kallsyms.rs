//! Reads any bytes as a line of `/proc/kallsyms`. The result must print as a line that reads the
//! same, and a target of its name must mean it.
#![no_main]

use kprobe_attach::{Target, symbols::Symbol};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let Some(symbol) = Symbol::parse(line) else {
        return;
    };
    assert_eq!(Symbol::parse(symbol.to_string().as_bytes()), Some(symbol));
    let target = match symbol.module {
        Some(module) => Target::in_module(module, symbol.name),
        None => Target::symbol(symbol.name),
    };
    // No symbol's name has a colon. In a target, a colon ends the module's name.
    if let Ok(target) = target
        && !symbol.name.contains(':')
    {
        assert_eq!(symbol.is(&target), b"tTwW".contains(&symbol.kind));
    }
});
