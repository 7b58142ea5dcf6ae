//! The table that `count` draws anew on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;

use crate::machine::{FUNCTION, clean, program, unlink};

/// Opens a terminal of 24 rows and 80 columns; returns its master and its slave.
pub(crate) fn terminal() -> (File, OwnedFd) {
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut master, mut slave) = (-1, -1);
    #[allow(unsafe_code, reason = "a terminal is made by libc")]
    // SAFETY: the three addresses are of values that outlive the call; the others may be null.
    let opened = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(opened, 0);
    #[allow(unsafe_code, reason = "a terminal is made by libc")]
    // SAFETY: the call has just opened it.
    let master = unsafe { File::from_raw_fd(master) };
    #[allow(unsafe_code, reason = "a terminal is made by libc")]
    // SAFETY: the call has just opened it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    (master, slave)
}

/// The lines of a screen that was sent this, as a terminal shows them.
fn screen(sent: &str) -> Vec<String> {
    let mut lines = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut rest = sent.chars();
    while let Some(char) = rest.next() {
        match char {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(rest.next(), Some('['));
                let number: String = rest.clone().take_while(char::is_ascii_digit).collect();
                match rest.nth(number.len()) {
                    Some('A') => row -= number.parse::<usize>().unwrap(),
                    Some('J') => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    other => panic!("{other:?}"),
                }
            }
            char => {
                let line: &mut Vec<char> = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = char;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    lines.into_iter().map(String::from_iter).collect()
}

#[test]
fn a_key_that_the_terminal_echoes_shifts_no_table() {
    clean(|| {
        let (mut master, slave) = terminal();
        let clone = || slave.try_clone().unwrap();
        let mut child = program()
            .args(["count", FUNCTION])
            .env("TERM", "linux")
            .stdin(clone())
            .stdout(clone())
            .stderr(clone())
            .spawn()
            .unwrap();
        drop(slave);
        let mut sent = String::new();
        let mut read_until = |until: &str| {
            let mut bytes = [0; 4096];
            while !sent.contains(until) {
                let Ok(length @ 1..) = master.read(&mut bytes) else {
                    break;
                };
                sent.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
                if sent.contains("MISSED") && !sent.contains("^C") {
                    // It is echoed, and reaches nobody: this is no session's terminal.
                    master.write_all(b"\x03").unwrap();
                }
            }
            sent.len()
        };
        read_until("^C");
        unlink(3);
        let pid = child.id().to_string();
        let killed = Command::new("kill").args(["-INT", &pid]).status();
        assert!(killed.unwrap().success());
        read_until("never sent");
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let screen = screen(&sent);
        let table: Vec<_> = screen
            .iter()
            .skip_while(|line| !line.contains("MODE"))
            .collect();
        assert!(table[0].starts_with("PROBE  "), "{screen:?}");
        let row: Vec<_> = table[1].split_whitespace().collect();
        assert_eq!((row[0], row[2]), (FUNCTION, "3"), "{screen:?}");
        let heads = screen.iter().filter(|line| line.contains("MODE"));
        assert_eq!(heads.count(), 1, "{screen:?}");
        assert!(screen.iter().all(|line| !line.contains("^C")), "{screen:?}");
    });
}
