//! Reads any bytes as an auxiliary vector. The address must be in the first pair whose key is
//! `AT_SYSINFO_EHDR`, and must not be 0.
#![no_main]

use kprobe_attach::fuzz::sysinfo_ehdr;
use libfuzzer_sys::fuzz_target;

const AT_SYSINFO_EHDR: usize = 33;

fuzz_target!(|bytes: &[u8]| {
    let words = bytes.chunks_exact(size_of::<usize>());
    let words = words.map(|word| usize::from_ne_bytes(word.try_into().unwrap()));
    let words: Vec<_> = words.collect();
    let mut pairs = words.chunks_exact(2);
    let pair = pairs.find(|pair| pair[0] == AT_SYSINFO_EHDR);
    let address = pair.map(|pair| pair[1] as u64);
    assert_eq!(sysinfo_ehdr(bytes), address.filter(|address| *address != 0));
});
