//! Reads any bytes as a vDSO, and as the notes of one. The version must be that of Linux's note.
#![no_main]

use kprobe_attach::bpf::kern_version;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(version) = kern_version(bytes) {
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(bytes.starts_with(b"\x7fELF") && has(b"Linux\0") && has(&version.to_ne_bytes()));
    }
    let _ = kern_version(&image(bytes));
    let (other, linux) = (note(b"GNU\0", 3, bytes), note(b"Linux\0", 0, &[1, 2, 3, 4]));
    let found = kern_version(&image(&[other, linux].concat()));
    assert_eq!(found, Some(u32::from_ne_bytes([1, 2, 3, 4])));
});

/// Makes an ELF image with one segment, which holds these notes.
fn image(notes: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 64 + 56];
    let mut put = |at: usize, field: &[u8]| image[at..at + field.len()].copy_from_slice(field);
    put(0, b"\x7fELF\x02");
    put(32, &64_u64.to_ne_bytes());
    put(54, &56_u16.to_ne_bytes());
    put(56, &1_u16.to_ne_bytes());
    put(64, &4_u32.to_ne_bytes());
    put(64 + 8, &120_u64.to_ne_bytes());
    put(64 + 32, &(notes.len() as u64).to_ne_bytes());
    image.extend_from_slice(notes);
    image
}

/// Makes a note, with its name and descriptor padded to 4 bytes.
fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [name.len() as u32, descriptor.len() as u32, kind] {
        note.extend_from_slice(&word.to_ne_bytes());
    }
    for part in [name, descriptor] {
        note.extend_from_slice(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}
