//! Tables of names: of one function, and of the functions of a kernel on each architecture.

use super::*;
use std::string::{String, ToString};
use std::vec::Vec;

/// Returns the native entry point and all of them, by these lines of `/proc/kallsyms`.
fn entries(call: &str, lines: &[&str]) -> (Option<String>, Vec<String>) {
    let mut entries = Entries::new();
    for line in lines {
        let symbol = Symbol::parse(line.as_bytes()).unwrap();
        if let Some(name) = EntryName::of(symbol.name.as_bytes()) {
            entries.see(call.as_bytes(), name, &symbol);
        }
    }
    let mut names = |native| {
        let mut names = Vec::new();
        entries.for_each(call.as_bytes(), native, &mut |symbol| {
            names.push(symbol.name.to_string());
        });
        names
    };
    (names(true).pop(), names(false))
}

#[track_caller]
fn check(lines: &[&str], cases: &[(&str, &[&str])]) {
    for (call, expected) in cases {
        let (native, mut all) = entries(call, lines);
        // The cases have the native one first.
        assert_eq!(native.as_deref(), expected.first().copied(), "{call}");
        all.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(all, expected, "{call}");
    }
}

/// Names the groups of prefixes.
#[derive(Debug, PartialEq, Eq)]
enum Group {
    Native,
    Narrow,
    Bare,
    Compat,
    BareCompat,
    X32,
}

impl Group {
    fn of(entry: Entry) -> Self {
        match entry.prefix {
            0..=3 => Self::Native,
            4..=5 => Self::Narrow,
            6..=7 => Self::Bare,
            8..=11 => Self::Compat,
            12..=13 => Self::BareCompat,
            _ => Self::X32,
        }
    }
}

#[test]
fn a_name_is_that_of_one_entry_point() {
    use Group::{Bare, BareCompat, Compat, Narrow, Native, X32};
    for (function, call, expected) in [
        ("__x64_sys_openat", "openat", Some(Native)),
        ("__ia32_sys_openat", "openat", Some(Narrow)),
        ("__ia32_compat_sys_openat", "openat", Some(Compat)),
        ("__x32_compat_sys_execve", "execve", Some(X32)),
        ("__x64_compat_sys_execve", "execve", Some(X32)),
        ("__arm64_sys_openat", "openat", Some(Native)),
        ("__arm64_compat_sys_openat", "openat", Some(Compat)),
        ("__riscv_sys_openat", "openat", Some(Native)),
        ("__riscv_compat_sys_openat", "openat", Some(Compat)),
        ("__s390x_sys_openat", "openat", Some(Native)),
        ("__s390_sys_openat", "openat", Some(Narrow)),
        ("__s390_compat_sys_openat", "openat", Some(Compat)),
        ("sys_openat", "openat", Some(Bare)),
        ("SyS_openat", "openat", Some(Bare)),
        ("compat_sys_openat", "openat", Some(BareCompat)),
        ("compat_SyS_openat", "openat", Some(BareCompat)),
        ("__x64_sys_newuname", "uname", Some(Native)),
        ("__ia32_sys_nanosleep_time32", "nanosleep", Some(Narrow)),
        ("__ia32_compat_sys_ia32_mmap", "mmap", Some(Compat)),
        ("__arm64_compat_sys_aarch32_mmap2", "mmap2", Some(Compat)),
        ("__x64_sys_umount", "umount2", Some(Native)),
        // Functions that entry points call.
        ("__se_sys_openat", "openat", None),
        ("__do_sys_openat", "openat", None),
        ("__se_compat_sys_openat", "openat", None),
        ("do_sys_open", "open", None),
        ("SYSC_openat", "openat", None),
        ("ksys_read", "read", None),
        ("__sys_socket", "socket", None),
        ("compat_ksys_ipc", "ipc", None),
        // What stands beside them.
        ("__pfx___x64_sys_openat", "openat", None),
        ("__cfi___x64_sys_openat", "openat", None),
        ("__x64_sys_openat.cold", "openat", None),
        ("__probestub_sys_enter", "enter", None),
        ("trace_sys_enter", "enter", None),
        // Other calls.
        ("__x64_sys_openat2", "openat", None),
        ("__x64_sys_openat", "open", None),
        ("__x64_sys_syncfs", "sync", None),
        ("__x64_sys_fsync", "sync", None),
        ("__x64_sys_getdents64", "getdents", None),
        ("__ia32_compat_sys_fcntl64", "fcntl", None),
        ("__x64_sys_", "", None),
        ("sys_", "", None),
    ] {
        let name = EntryName::of(function.as_bytes());
        let entry = name.and_then(|name| name.entry_of(call.as_bytes()));
        assert_eq!(entry.map(Group::of), expected, "{function} {call}");
        if let Some(entry) = entry {
            let name = entry.name(call.as_bytes()).concat();
            assert_eq!(name, function.as_bytes());
        }
    }
}

#[test]
fn x86_64() {
    let lines = [
        "10 t __do_sys_ni_syscall",
        "10 T __ia32_sys_ni_syscall",
        "10 T __x64_sys_ni_syscall",
        "10 T __x64_sys_timer_delete",
        "11 T __x64_sys_timer_create",
        "11 T sys_ni_posix_timers",
        "20 T __x64_sys_ia32_pread64",
        "21 T __ia32_sys_ia32_pread64",
        "22 T __ia32_compat_sys_ia32_mmap",
        "30 t __do_sys_getpid",
        "30 T __ia32_sys_getpid",
        "30 T __x64_sys_getpid",
        "40 T __x64_sys_newuname",
        "41 T __ia32_sys_newuname",
        "42 T __x64_sys_uname",
        "43 T __ia32_sys_uname",
        "50 T sys_ni_syscall",
        "51 W __x64_sys_ipc",
        "52 W __ia32_sys_ipc",
        "53 T __ia32_compat_sys_ipc",
        "60 T __x64_sys_nanosleep",
        "61 T __ia32_sys_nanosleep",
        "62 T __x64_sys_nanosleep_time32",
        "63 T __ia32_sys_nanosleep_time32",
        "70 T do_sys_open",
        "71 T __pfx___x64_sys_openat",
        "72 T __x64_sys_openat",
        "73 T __ia32_sys_openat",
        "74 T __ia32_compat_sys_openat",
        "80 T __x64_sys_sendfile",
        "81 T __ia32_sys_sendfile",
        "82 T __x64_sys_sendfile64",
        "83 T __ia32_compat_sys_sendfile",
        "90 T __x64_sys_execve",
        "91 T __ia32_compat_sys_execve",
        "92 T __x64_compat_sys_execve",
        "93 T __x64_sys_mmap",
        "a0 T sys_info",
        "a1 t sys_fillrect\t[sysfillrect]",
        "a2 W __x64_sys_swapon",
    ];
    check(
        &lines,
        &[
            (
                "openat",
                &[
                    "__x64_sys_openat",
                    "__ia32_sys_openat",
                    "__ia32_compat_sys_openat",
                ],
            ),
            // One function for all callers.
            ("getpid", &["__x64_sys_getpid"]),
            ("uname", &["__x64_sys_newuname", "__ia32_sys_newuname"]),
            (
                "nanosleep",
                &[
                    "__x64_sys_nanosleep",
                    "__x64_sys_nanosleep_time32",
                    "__ia32_sys_nanosleep",
                    "__ia32_sys_nanosleep_time32",
                ],
            ),
            (
                "pread64",
                &["__x64_sys_ia32_pread64", "__ia32_sys_ia32_pread64"],
            ),
            ("mmap", &["__x64_sys_mmap", "__ia32_compat_sys_ia32_mmap"]),
            (
                "execve",
                &[
                    "__x64_sys_execve",
                    "__ia32_compat_sys_execve",
                    "__x64_compat_sys_execve",
                ],
            ),
            ("ipc", &["__ia32_compat_sys_ipc"]),
            // The kernel was built without them, or they are no system calls.
            ("swapon", &[]),
            ("timer_create", &[]),
            ("timer_delete", &[]),
            ("ni_syscall", &[]),
            ("info", &[]),
            ("fillrect", &[]),
        ],
    );
    #[cfg(target_pointer_width = "64")]
    check(
        &lines,
        &[(
            "sendfile",
            &[
                "__x64_sys_sendfile64",
                "__x64_sys_sendfile",
                "__ia32_sys_sendfile",
                "__ia32_compat_sys_sendfile",
            ],
        )],
    );
    // Without the emulation of 32-bit callers.
    check(&lines[20..21], &[("nanosleep", &["__x64_sys_nanosleep"])]);
}

#[test]
fn i386_and_arm() {
    check(
        &[
            "10 T __ia32_sys_ni_syscall",
            "20 T __ia32_sys_openat",
            "21 T __ia32_sys_nanosleep_time32",
            "22 T __ia32_sys_clock_nanosleep",
            "23 T __ia32_sys_clock_nanosleep_time32",
            "30 T sys_ni_syscall",
            "30 W compat_sys_ipc",
            "31 T __ia32_sys_ipc",
        ],
        &[
            ("openat", &["__ia32_sys_openat"]),
            ("nanosleep", &["__ia32_sys_nanosleep_time32"]),
            (
                "clock_nanosleep",
                &[
                    "__ia32_sys_clock_nanosleep",
                    "__ia32_sys_clock_nanosleep_time32",
                ],
            ),
            ("ipc", &["__ia32_sys_ipc"]),
        ],
    );
    check(
        &[
            "10 T sys_ni_syscall",
            "10 W sys_ipc",
            "10 W compat_sys_ipc",
            "20 T sys_openat",
            "20 T __se_sys_openat",
            "30 T sys_getpid",
            "40 t sys_mmap2",
        ],
        &[
            ("openat", &["sys_openat"]),
            ("getpid", &["sys_getpid"]),
            ("mmap2", &["sys_mmap2"]),
            ("ipc", &[]),
        ],
    );
}

#[test]
fn arm64_and_riscv() {
    check(
        &[
            "10 T __arm64_sys_mmap",
            "11 T __arm64_compat_sys_aarch32_mmap2",
            "20 T sys_ni_syscall",
            "21 W __arm64_sys_ipc",
            "22 W __arm64_compat_sys_ipc",
            "30 T __arm64_sys_openat",
            "31 T __arm64_compat_sys_openat",
            "32 T __arm64_compat_sys_sigreturn",
            "40 T __arm64_sys_fadvise64_64",
        ],
        &[
            (
                "openat",
                &["__arm64_sys_openat", "__arm64_compat_sys_openat"],
            ),
            ("mmap", &["__arm64_sys_mmap"]),
            ("mmap2", &["__arm64_compat_sys_aarch32_mmap2"]),
            ("sigreturn", &["__arm64_compat_sys_sigreturn"]),
            ("fadvise64", &["__arm64_sys_fadvise64_64"]),
            ("ipc", &[]),
        ],
    );
    check(
        &[
            "10 T __riscv_sys_openat",
            "11 T __riscv_compat_sys_openat",
            "20 T sys_ni_syscall",
            "20 W compat_sys_ipc",
            "21 W __riscv_sys_ipc",
        ],
        &[
            (
                "openat",
                &["__riscv_sys_openat", "__riscv_compat_sys_openat"],
            ),
            ("ipc", &[]),
        ],
    );
    // Before Linux 6.6.
    check(
        &[
            "10 T sys_openat",
            "10 t __se_sys_openat",
            "11 T compat_sys_openat",
        ],
        &[("openat", &["sys_openat", "compat_sys_openat"])],
    );
}

#[test]
fn s390_and_powerpc() {
    check(
        &[
            "10 T __s390_sys_s390_personality",
            "11 T __s390x_sys_s390_personality",
            "12 T __s390_sys_personality",
            "13 T __s390x_sys_personality",
            "20 T __s390_sys_getpid",
            "20 T __s390x_sys_getpid",
            "30 T __s390_sys_openat",
            "31 T __s390x_sys_openat",
            "31 T __se_sys_openat",
            "32 T __s390_compat_sys_openat",
            "32 T __se_compat_sys_openat",
            "40 T __s390_sys_old_mmap",
            "41 T __s390x_sys_old_mmap",
            "42 T __s390_compat_sys_s390_old_mmap",
        ],
        &[
            (
                "openat",
                &[
                    "__s390x_sys_openat",
                    "__s390_sys_openat",
                    "__s390_compat_sys_openat",
                ],
            ),
            ("getpid", &["__s390x_sys_getpid"]),
            (
                "personality",
                &[
                    "__s390x_sys_s390_personality",
                    "__s390_sys_s390_personality",
                ],
            ),
            (
                "mmap",
                &[
                    "__s390x_sys_old_mmap",
                    "__s390_sys_old_mmap",
                    "__s390_compat_sys_s390_old_mmap",
                ],
            ),
        ],
    );
    check(
        &[
            "10 T sys_ppc64_personality",
            "11 T sys_personality",
            "20 T sys_openat",
            "21 T compat_sys_openat",
            "30 T sys_ni_syscall",
            "30 W compat_sys_s390_ipc",
            "31 W sys_s390_ipc",
            "32 T sys_ipc",
        ],
        &[
            ("openat", &["sys_openat", "compat_sys_openat"]),
            ("personality", &["sys_ppc64_personality"]),
            ("ipc", &["sys_ipc"]),
        ],
    );
}

#[test]
fn before_linux_4_17() {
    check(
        &[
            "10 T sys_ni_syscall",
            "10 W sys_swapon",
            "20 T SyS_openat",
            "20 T sys_openat",
            "21 T compat_SyS_openat",
            "21 T compat_sys_openat",
            "30 T sys_getpid",
            "40 T SyS_read",
        ],
        &[
            ("openat", &["sys_openat", "compat_sys_openat"]),
            ("getpid", &["sys_getpid"]),
            ("read", &["SyS_read"]),
            ("swapon", &[]),
        ],
    );
}

#[test]
fn a_name_of_any_kernel_means_a_call() {
    for (name, call) in [
        ("openat", "openat"),
        ("sys_openat", "openat"),
        ("SyS_openat", "openat"),
        ("compat_SyS_openat", "openat"),
        ("__arm64_sys_openat", "openat"),
        ("__se_sys_openat", "openat"),
        ("do_sys_open", "open"),
        ("ksys_read", "read"),
        ("vfs_read", "vfs_read"),
        ("sys_", ""),
    ] {
        assert_eq!(call_of(name.as_bytes()), call.as_bytes(), "{name}");
    }
}

#[test]
fn the_guide_has_every_prefix_and_names_that_are_found() {
    let guide = include_str!("../../guide/syscalls.md");
    for prefix in PREFIXES.lines() {
        assert!(guide.contains(&std::format!("`{prefix}`")), "{prefix}");
    }
    let (_, table) = guide.split_once("| call | function |").unwrap();
    let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
    let names = |cell: &'static str| cell.split('`').skip(1).step_by(2);
    let mut affixes = std::collections::BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.split('|').collect();
        for function in names(cells[2]) {
            let rest = function.as_bytes();
            let name = EntryName { prefix: 0, rest };
            let entry = names(cells[1]).find_map(|call| name.entry_of(call.as_bytes()));
            let is_wide = function == "sendfile64" && cfg!(target_pointer_width = "32");
            assert!(entry.is_some() || is_wide, "{function}");
            affixes.extend(entry.map(|entry| entry.affix));
        }
    }
    assert!(affixes.len() > 8, "{affixes:?}");
}
