//! Reads any bytes as an object. What a loader of it does before it asks the kernel must hold: only
//! relocations change instructions, and the type information keeps its form.
#![no_main]

use kprobe_attach::bpf::object::{Object, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(object) = Object::parse(bytes) {
        check(&object, &mut vec![0; object.memory_len()]);
    }
});
