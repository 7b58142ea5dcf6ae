//! The addresses of many functions, with one reading of `/proc/kallsyms`.

use rustix::io::Errno;

use super::kallsyms::Kallsyms;
use crate::request::Functions;

/// The number of keys. A line whose name has the key of no function is not compared with any.
const KEYS: usize = 1 << 14;

/// Puts the address of each function into the element at its index, or 0 if none was found, or the
/// kernel hides it. Of several functions with one name it takes the first, as the kernel does.
// In a frame of its own: it has a buffer for lines and the table of keys.
#[inline(never)]
pub(crate) fn addresses_of(functions: &Functions<'_>, addresses: &mut [u64]) -> Result<(), Errno> {
    addresses.fill(0);
    let mut keys = [0_u64; KEYS / 64];
    let name = |index| functions.get(index).ok()??.function();
    for index in 0..functions.len() {
        let key = name(index).map_or(0, key);
        if let Some(word) = keys.get_mut(key / 64) {
            *word |= 1 << (key % 64);
        }
    }
    Kallsyms::open()?.for_each(&mut |symbol| {
        let key = key(symbol.name);
        let word = keys.get(key / 64).copied().unwrap_or_default();
        if word >> (key % 64) & 1 == 0 {
            return;
        }
        for (index, address) in addresses.iter_mut().enumerate() {
            if *address == 0 {
                if let Ok(Some(target)) = functions.get(index) {
                    if symbol.is(&target) {
                        *address = symbol.address;
                    }
                }
            }
        }
    })
}

/// Returns a key of a name.
fn key(name: &str) -> usize {
    let hash = |hash: usize, byte: u8| hash.wrapping_mul(31) ^ usize::from(byte);
    name.bytes().fold(0, hash) % KEYS
}
