//! Any bytes as a line of `/proc/kallsyms`: what is read prints as a line that reads the same, and
//! is what a target of its name means.
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
    // No symbol's name has a colon; one in a target parts off the module.
    if let Ok(target) = target
        && !symbol.name.contains(':')
    {
        assert_eq!(symbol.is(&target), b"tTwW".contains(&symbol.kind));
    }
});
