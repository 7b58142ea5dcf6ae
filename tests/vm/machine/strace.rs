//! The system calls of a test, as strace sees them.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Set in a process that strace looks at.
const TRACED: &str = "KPROBE_ATTACH_TEST_TRACED";

/// What strace saw of a test.
pub(crate) struct Traced {
    /// The system calls of each [`section`].
    pub(crate) sections: Vec<Vec<String>>,
}

impl Traced {
    /// Runs the test of this name once more, below strace; [`None`] in that process.
    pub(crate) fn by(name: &str) -> Option<Self> {
        const DIR: &str = "/tmp/traced";
        if std::env::var_os(TRACED).is_some() {
            return None;
        }
        fs::create_dir(DIR).unwrap();
        // A file for each thread, so that no line is cut by another.
        let output = Command::new("/bin/strace")
            .args(["-ff", "-v", "-s", "1000", "-o", "/tmp/traced/by"])
            .arg(std::env::current_exe().unwrap())
            .args(["--test-threads=1", "--exact", name])
            .env(TRACED, "")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let passed = output.status.success() && text.contains(" 1 passed;");
        let entries = fs::read_dir(DIR).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort_by_key(|file| thread(file.as_path()));
        let traces = files.iter().map(|file| fs::read_to_string(file).unwrap());
        let sections = traces.flat_map(|trace| sections(&trace)).collect();
        fs::remove_dir_all(DIR).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(passed, "{text}\n{errors}");
        Some(Self { sections })
    }
}

/// The thread that a file is of.
fn thread(file: &Path) -> u32 {
    file.extension().unwrap().to_str().unwrap().parse().unwrap()
}

/// The sections of a thread: what is between the first of two marks and the second.
fn sections(trace: &str) -> Vec<Vec<String>> {
    let mut sections = Vec::new();
    let mut section = None;
    for line in trace.lines() {
        if line.starts_with("getppid(") {
            match section.take() {
                None => section = Some(Vec::new()),
                Some(section) => sections.push(section),
            }
        } else if let Some(section) = &mut section {
            section.push(line.to_owned());
        }
    }
    assert!(section.is_none(), "a section without an end");
    sections
}

/// Runs something whose system calls are looked at.
pub(crate) fn section<T>(run: impl FnOnce() -> T) -> T {
    // Nobody else asks for it.
    let _mark = rustix::process::getppid();
    let result = run();
    let _mark = rustix::process::getppid();
    result
}

/// A system call as both have it: numbers that only the kernel knows, or that are the process's
/// own, left out.
pub(crate) fn normal(call: &str) -> String {
    let (call, answer) = call.rsplit_once(" = ").unwrap_or((call, ""));
    let mut call = call.trim_end().to_owned();
    // Comments of strace, and its names of numbers.
    while let (Some(start), Some(end)) = (call.find(" /*"), call.find("*/")) {
        call.replace_range(start..end + 2, "");
    }
    call = call.replace("PERF_ATTR_SIZE_VER1", "72");
    let name = call.split('(').next().unwrap().to_owned();
    let field = |key: &str| -> String {
        let Some(at) = call.find(&format!("{key}=")) else {
            return String::new();
        };
        let value = &call[at + key.len() + 1..];
        let value = &value[..value.find([',', '}']).unwrap()];
        let hex = value
            .strip_prefix("0x")
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        format!(
            "{key}={}",
            hex.map_or(value.to_owned(), |number| number.to_string())
        )
    };
    match name.as_str() {
        "perf_event_open" => {
            let arguments = call.rsplit_once('}').unwrap().1;
            let tracepoint = call.contains("PERF_TYPE_TRACEPOINT");
            let config = if tracepoint {
                "an id".to_owned()
            } else {
                field("config")
            };
            let named = !field("config1").ends_with("=0");
            let fields = [
                field("type"),
                field("size"),
                config,
                field("disabled"),
                field("config2"),
            ];
            let done = if answer.starts_with('-') {
                "failed"
            } else {
                ""
            };
            format!(
                "{name} {} named {named} {arguments} {done}",
                fields.join(" ")
            )
        }
        "bpf" => {
            let size = call.rsplit_once(", ").unwrap().1;
            let target = if call.contains("target_fd=-1") {
                "none"
            } else {
                ""
            };
            format!(
                "{name} {} {} {} {size} {target}",
                &call[..20],
                field("attach_type"),
                field("bpf_cookie")
            )
        }
        "newfstatat" | "statx" | "openat" | "write" => {
            // The random part of a group, and of an event's name, is another in each process.
            let (_, arguments) = call.split_once(',').unwrap();
            let arguments = match name.as_str() {
                // Without the address of the answer.
                "newfstatat" | "statx" => arguments.split_inclusive('"').take(2).collect(),
                _ => arguments.to_owned(),
            };
            let mut arguments = arguments;
            if let Some(at) = arguments.find("kprobe_attach_") {
                let random = arguments[at + 14..at + 30].to_owned();
                arguments = arguments.replace(&random, "R").replace(&random[..8], "r");
                // So is the event's number: a plan in vain uses one.
                let number = arguments.find("_r_").unwrap() + 3;
                arguments.replace_range(number..=number, "N");
            }
            format!("{name}{arguments}")
        }
        "read" => format!("{name} {}", call.rsplit_once(", ").unwrap().1),
        "ioctl" => format!("{name} {}", call.split(", ").nth(1).unwrap()),
        "fcntl" | "fcntl64" => {
            let (_, arguments) = call.split_once(',').unwrap();
            format!("{name}{}", arguments.split("l_start").next().unwrap())
        }
        _ => name,
    }
}
