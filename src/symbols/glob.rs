//! Patterns of names, as a shell has them.

/// Returns whether a pattern matches the whole of a name.
///
/// `*` stands for any bytes, also for none, and `?` for one byte. `[a-cx]` stands for one of these
/// bytes, and `[!a-cx]` or `[^a-cx]` for any other one. A `[` without its `]` matches nothing.
///
/// It never goes back further than to the last `*`, so it takes at most as many steps as the
/// lengths multiplied.
pub fn glob_matches(mut glob: &[u8], mut name: &[u8]) -> bool {
    // The pattern after the last `*`, and the rest of the name that it was last tried on.
    let mut last_star = None;
    loop {
        if let [b'*', rest @ ..] = glob {
            glob = rest;
            last_star = Some((rest, name));
            continue;
        }
        let Some((byte, after)) = name.split_first() else {
            return glob.is_empty();
        };
        if let Some(rest) = after_byte(glob, *byte) {
            (glob, name) = (rest, after);
            continue;
        }
        // The `*` takes one byte more.
        let Some((rest, [_, shorter @ ..])) = last_star else {
            return false;
        };
        (glob, name) = (rest, shorter);
        last_star = Some((rest, shorter));
    }
}

/// Returns the rest of a pattern, if its first part, which is no `*`, stands for a byte.
fn after_byte(glob: &[u8], byte: u8) -> Option<&[u8]> {
    match glob {
        [b'?', rest @ ..] => Some(rest),
        [b'[', set @ ..] => after_set(set, byte),
        [first, rest @ ..] if *first == byte => Some(rest),
        _ => None,
    }
}

/// Returns what follows a set of bytes, if the set has a byte.
fn after_set(set: &[u8], byte: u8) -> Option<&[u8]> {
    let (mut rest, is_inverted) = match set {
        [b'!' | b'^', rest @ ..] => (rest, true),
        _ => (set, false),
    };
    let (mut is_in, mut is_first) = (false, true);
    loop {
        rest = match rest {
            // A `]` at the start is one of the bytes.
            [b']', after @ ..] if !is_first => return (is_in != is_inverted).then_some(after),
            [low, b'-', high, after @ ..] if *high != b']' => {
                is_in |= (*low..=*high).contains(&byte);
                after
            }
            [one, after @ ..] => {
                is_in |= *one == byte;
                after
            }
            [] => return None,
        };
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        glob_matches(glob.as_bytes(), name.as_bytes())
    }

    #[test]
    fn a_pattern_matches_as_in_a_shell() {
        for (glob, yes, no) in [
            (
                "vfs_read",
                &["vfs_read"][..],
                &["vfs_readv", "xvfs_read", ""][..],
            ),
            ("*", &["", "vfs_read"], &[]),
            ("vfs_*", &["vfs_", "vfs_read"], &["vfs", "xvfs_read"]),
            (
                "*_read",
                &["_read", "vfs_read", "a_read_read"],
                &["vfs_reads"],
            ),
            ("v*s*d", &["vsd", "vfs_read"], &["vfs_reads", "vd"]),
            ("**a**", &["a", "bab"], &["", "b"]),
            (
                "vfs_?ead",
                &["vfs_read", "vfs_head"],
                &["vfs_ead", "vfs_rread"],
            ),
            ("?", &["a"], &["", "ab"]),
            ("a[bc]d", &["abd", "acd"], &["aad", "ad", "abcd"]),
            ("a[!bc]d", &["aad"], &["abd", "ad"]),
            ("a[^b-d]e", &["aae", "aee"], &["ace"]),
            ("a[b-dx]*", &["ac", "axx"], &["ae", "a-"]),
            ("a[-x]", &["a-", "ax"], &["ab"]),
            ("a[x-]", &["a-", "ax"], &["ay"]),
            ("a[]x]", &["a]", "ax"], &["a", "a[]x]"]),
            ("a[!]]", &["ax"], &["a]"]),
            ("a[d-b]", &[], &["ac", "ad"]),
            ("a[b", &[], &["ab", "a[b"]),
            ("a[", &[], &["a", "a["]),
            ("*[0-9]", &["foo.isra.0"], &["foo"]),
        ] {
            for name in yes {
                assert!(matches(glob, name), "{glob} {name}");
            }
            for name in no {
                assert!(!matches(glob, name), "{glob} {name}");
            }
        }
    }

    /// Matches by trying everything that a `*` can stand for.
    fn matches_slowly(glob: &[u8], name: &[u8]) -> bool {
        match glob {
            [] => name.is_empty(),
            [b'*', rest @ ..] => (0..=name.len()).any(|at| matches_slowly(rest, &name[at..])),
            _ => name.split_first().is_some_and(|(byte, after)| {
                after_byte(glob, *byte).is_some_and(|rest| matches_slowly(rest, after))
            }),
        }
    }

    #[test]
    fn every_short_pattern_matches_what_trying_everything_matches() {
        let texts = |letters: &[u8], longest: u32| {
            let base = letters.len();
            let all = (0..=longest).flat_map(move |len| (0..base.pow(len)).map(move |n| (len, n)));
            let letters = letters.to_vec();
            all.map(move |(len, n)| {
                let letter = |at| letters[n / base.pow(at) % base];
                (0..len).map(letter).collect::<std::vec::Vec<u8>>()
            })
        };
        let names: std::vec::Vec<_> = texts(b"ab", 5).collect();
        for glob in texts(b"ab*?", 5) {
            for name in &names {
                let expected = matches_slowly(&glob, name);
                assert_eq!(glob_matches(&glob, name), expected, "{glob:?} {name:?}");
            }
        }
        // What takes a matcher that goes back to every `*` longer than the universe lasts.
        let (glob, name) = ("*a".repeat(200) + "b", "a".repeat(511));
        assert!(!matches(&glob, &name));
    }
}
