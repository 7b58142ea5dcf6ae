//! Finding tracefs: mounted where it usually is, or anywhere, or not at all.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::text::{Buf, LINE_LEN, for_each_line, words};

/// The longest mount point that is remembered.
pub(crate) const MAX_MOUNT_POINT_LEN: usize = 255;

/// tracefs, held by its root directory.
#[derive(Debug)]
pub(crate) struct Tracefs {
    pub(crate) dir: OwnedFd,
    /// [`None`] for a mount that is in no mount table and goes away with `dir`.
    pub(crate) path: Option<Buf<MAX_MOUNT_POINT_LEN>>,
}

impl Tracefs {
    /// Finds tracefs at its usual places, then at any other in the mount table, and else mounts it where nobody sees it.
    pub(crate) fn open() -> core::result::Result<Self, Errno> {
        // The second is an automount in debugfs, to be opened rather than asked about; it is deprecated.
        for path in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            if let Some(tracefs) = Self::at(path) {
                return Ok(tracefs);
            }
        }
        if let Some(tracefs) = Self::in_mount_table() {
            return Ok(tracefs);
        }
        Self::detached()
    }

    fn at(path: &str) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let magic = rustix::fs::fstatfs(&dir).ok()?.f_type;
        let path = Buf::of(path).ok()?;
        (i64::from(linux_raw_sys::general::TRACEFS_MAGIC) == magic).then_some(Self {
            dir,
            path: Some(path),
        })
    }

    fn in_mount_table() -> Option<Self> {
        // A thread may have mounts of its own.
        let table = open_read(rustix::fs::CWD, "/proc/thread-self/mountinfo").ok()?;
        let mut found = None;
        // What cannot be read holds no mount for us.
        let _ = for_each_line::<LINE_LEN>(&table, &mut |line| {
            if found.is_none() {
                found = mount_point(line, b"tracefs").and_then(|path| Self::at(path.as_str()));
            }
        });
        found
    }

    /// `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`: Linux 5.2, `CAP_SYS_ADMIN`.
    fn detached() -> Result<Self> {
        let context = rustix::mount::fsopen(c"tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        let dir = rustix::mount::fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )?;
        Ok(Self { dir, path: None })
    }
}

/// The mount point in a line of `/proc/[pid]/mountinfo` (`proc_pid_mountinfo(5)`) if the root of a file system of this type
/// is mounted there.
pub fn mount_point(line: &[u8], fs_type: &[u8]) -> Option<Buf<MAX_MOUNT_POINT_LEN>> {
    // 36 35 98:0 /root /mount/point options optional-fields... - type source super-options
    let mut fields = words(line).skip(3);
    let root = fields.next()?;
    let path = fields.next()?;
    let found_type = fields.skip_while(|field| *field != b"-").nth(1)?;
    if root != b"/" || found_type != fs_type {
        return None;
    }
    let mut unescaped = Buf::new();
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        // Blanks and backslashes are written as a backslash and three octal digits.
        if let [
            b'\\',
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            after @ ..,
        ] = rest
        {
            unescaped
                .push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
                .ok()?;
            rest = after;
        } else {
            unescaped.push(*byte).ok()?;
            rest = after;
        }
    }
    // A path that is not UTF-8 would come out empty.
    (!unescaped.as_str().is_empty()).then_some(unescaped)
}

pub(crate) fn open_read(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_mount_point_is_that_of_a_root_of_the_type() {
        let found = |line: &str| {
            mount_point(line.as_bytes(), b"tracefs").map(|path| path.as_str().to_string())
        };
        let line = "29 25 0:12 / /sys/kernel/tracing rw,nosuid shared:11 - tracefs tracefs rw";
        assert_eq!(found(line).unwrap(), "/sys/kernel/tracing");
        let no_optional_fields = "29 25 0:12 / /t rw - tracefs none rw";
        assert_eq!(found(no_optional_fields).unwrap(), "/t");
        let escaped = r"29 25 0:12 / /a\040b\134c\011 rw master:1 shared:2 - tracefs t rw";
        assert_eq!(found(escaped).unwrap(), "/a b\\c\t");
        for other in [
            "",
            "29 25 0:12 / /t rw - tmpfs tracefs rw",
            "29 25 0:12 /instances/a /t rw - tracefs t rw",
            "29 25 0:12 / /t rw shared:1",
            "29 25 0:12 / /t rw shared:1 -",
            "29 25 0:12 /",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
