//! Matches any name with any pattern, and compares with a table of every part of the one and the
//! other. The two are separated by a newline.
#![no_main]

use kprobe_attach::fuzz::glob_matches;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let newline = bytes.iter().position(|byte| *byte == b'\n');
    let (glob, name) = bytes.split_at(newline.unwrap_or(bytes.len()));
    let name = name.strip_prefix(b"\n").unwrap_or(name);
    // The table below is the square of the longest name.
    if glob.len() > 511 || name.len() > 511 {
        return;
    }
    assert_eq!(glob_matches(glob, name), matches(&parts(glob), name));
    assert!(glob_matches(b"*", name));
    let is_plain = !name.iter().any(|byte| b"*?[".contains(byte));
    assert!(!is_plain || glob_matches(name, name));
});

/// Holds a part of a pattern: a star, or the bytes that it stands for.
enum Part {
    Star,
    One(Box<[bool; 256]>),
}

/// Splits a pattern into its parts.
fn parts(glob: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(byte) = glob.get(at) {
        at += 1;
        let mut set = Box::new([false; 256]);
        match byte {
            b'*' => {
                parts.push(Part::Star);
                continue;
            }
            b'?' => set.fill(true),
            b'[' => {
                let inverted = matches!(glob.get(at), Some(b'!' | b'^'));
                at += usize::from(inverted);
                // The first byte of a set does not end it.
                let len = glob.iter().skip(at + 1).position(|byte| *byte == b']');
                let Some(len) = len else {
                    parts.push(Part::One(set));
                    return parts;
                };
                let bytes = &glob[at..=at + len];
                at += len + 2;
                let mut rest = bytes;
                while let [low, after @ ..] = rest {
                    rest = after;
                    let mut high = low;
                    if let [b'-', last, after @ ..] = after {
                        (high, rest) = (last, after);
                    }
                    (*low..=*high).for_each(|byte| set[usize::from(byte)] = true);
                }
                set.iter_mut().for_each(|found| *found ^= inverted);
            }
            byte => set[usize::from(*byte)] = true,
        }
        parts.push(Part::One(set));
    }
    parts
}

fn matches(parts: &[Part], name: &[u8]) -> bool {
    // Whether the parts so far match so many bytes of the name.
    let mut matched = vec![false; name.len() + 1];
    matched[0] = true;
    for part in parts {
        match part {
            Part::Star => {
                for at in 1..matched.len() {
                    matched[at] |= matched[at - 1];
                }
            }
            Part::One(set) => {
                for at in (1..matched.len()).rev() {
                    matched[at] = matched[at - 1] && set[usize::from(name[at - 1])];
                }
                matched[0] = false;
            }
        }
    }
    matched[name.len()]
}
