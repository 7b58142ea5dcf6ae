//! The program with an object: it attaches by the sections, its maps are read by this program and
//! by bpftool, and what is refused says why.

use std::fs;
use std::process::{Output, Stdio};

use kprobe_attach::bpf::object::{LoadOptions, Object};
use kprobe_attach::bpf::{Array, Map};
use kprobe_attach::fd::{AsFd, AsRawFd};
use kprobe_attach::kernel::Support;
use kprobe_attach::{Errno, Kernel};
use serde_json::Value;

use crate::machine::{
    Counter, FUNCTION, KPROBES, clean, counting, json, link_modes, pin, program, run, text, unlink,
    unmount, version, wait_until, wait_until_attached, with_own_mounts,
};

const COUNT: &[u8] = include_bytes!("../objects/count.o");
const COUNT_19: &[u8] = include_bytes!("../objects/count-19.o");
const CORE: &[u8] = include_bytes!("../objects/core.o");
const CORE_19: &[u8] = include_bytes!("../objects/core-19.o");
const CALLS: &[u8] = include_bytes!("../objects/calls.o");
const CALLS_19: &[u8] = include_bytes!("../objects/calls-19.o");
#[cfg(target_arch = "x86_64")]
const MACROS: &[u8] = include_bytes!("../objects/macros.o");
#[cfg(target_arch = "x86_64")]
const MACROS_19: &[u8] = include_bytes!("../objects/macros-19.o");
const KINDS: &[u8] = include_bytes!("../objects/kinds.o");

const BPFFS: &str = "/tmp/bpf";
const DIR: &str = "/tmp/bpf/dir";

/// Writes an object to a file, and returns its path.
fn file(name: &str, bytes: &[u8]) -> String {
    let path = format!("/tmp/{name}.o");
    fs::write(&path, bytes).unwrap();
    path
}

/// Runs a test with a bpf file system.
fn with_bpffs(test: impl FnOnce() + Send) {
    clean(|| {
        with_own_mounts(|| {
            fs::create_dir_all(BPFFS).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("none", BPFFS, "bpf", flags, None).unwrap();
            test();
            unmount(BPFFS);
        });
        wait_until(|| !fs::read_to_string(KPROBES).unwrap().contains(FUNCTION));
    });
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Returns the elements of a map: the key, and the values of all CPUs.
fn dump(map: &str) -> Vec<(String, Vec<String>)> {
    let output = run(&["maps", "dump", map, "--json"]);
    succeeded(&output);
    let string = |value: &Value| value.as_str().unwrap().to_owned();
    let element = |line: &Value| {
        let values = match &line["values"] {
            Value::Array(values) => values.iter().map(string).collect(),
            _ => vec![string(&line["value"])],
        };
        (string(&line["key"]), values)
    };
    json(&output.stdout).iter().map(element).collect()
}

/// Returns a number as the bytes of a map have it.
fn bytes(number: u64) -> String {
    format!("{:016x}", u64::from_be_bytes(number.to_ne_bytes()))
}

#[test]
fn an_object_is_pinned_by_its_sections_and_its_maps_are_read() {
    if link_modes().is_empty() {
        // Nothing can be pinned.
        return;
    }
    let path = file("count", COUNT);
    with_bpffs(|| {
        let output = run(&["attach", "--object", &path, "--pin", DIR, "--json"]);
        succeeded(&output);
        let lines = json(&output.stdout);
        let pins = |field: &str| -> Vec<(String, String)> {
            let named = lines.iter().filter(|line| !line[field].is_null());
            let string = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
            named
                .map(|line| (string(line, field), string(line, "pinned")))
                .collect()
        };
        for (name, pin) in pins("program") {
            assert_eq!(pin, format!("{DIR}/{name}"));
        }
        let programs: Vec<_> = pins("program").into_iter().map(|(name, _)| name).collect();
        assert_eq!(programs, ["entry", "entry_too", "on_return"]);
        for (name, pin) in pins("map") {
            assert_eq!(pin, format!("{DIR}/{}", name.replace('.', "_")));
            assert!(fs::exists(&pin).unwrap(), "{pin}");
        }
        unlink(3);
        // Four kinds of hits, in a hash map with a key of two words and a value of two.
        let mut by_kind = dump(&format!("{DIR}/by_kind"));
        by_kind.sort();
        let mut expected: Vec<_> = (0..4)
            .map(|kind| (bytes(kind), vec![bytes(3) + &bytes(6)]))
            .collect();
        expected.sort();
        assert_eq!(by_kind, expected);
        // Two counters, each of which has a number for each of the two CPUs.
        let by_cpu = dump(&format!("{DIR}/by_cpu"));
        assert_eq!(by_cpu.len(), 2);
        for (_, values) in by_cpu {
            let number = |value: &String| {
                let value = u64::from_str_radix(value, 16).unwrap();
                u64::from_be_bytes(value.to_ne_bytes())
            };
            assert_eq!(
                values.len(),
                std::thread::available_parallelism().unwrap().get()
            );
            assert_eq!(values.iter().map(number).sum::<u64>(), 3);
        }
        let data = dump(&format!("{DIR}/_data_more"));
        assert_eq!(data[0].1, [bytes(5 + 7 + 8 + 9)]);
        // The same by its id, and for people.
        let line = lines.iter().find(|line| line["map"] == "by_kind").unwrap();
        let id = format!("id:{}", line["map_id"]);
        assert_eq!(dump(&id).len(), 4);
        let shown = run(&["maps", "dump", &id]);
        let shown = text(&shown.stdout);
        let value = "  value: 03 00 00 00 00 00 00 00 06 00 00 00 00 00 00 00\n";
        assert_eq!(shown.matches(value).count(), 4, "{shown}");
        bpftool_reads(&by_kind);
        // A second object with the same names is refused as a whole, and leaves nothing.
        let again = run(&["attach", "--object", &path, "--pin", DIR]);
        assert_eq!(again.status.code(), Some(1));
        assert!(text(&again.stderr).contains("EEXIST"), "{again:?}");
        let other = file("calls", CALLS);
        if version() >= (5, 13) {
            let before = fs::read_dir(DIR).unwrap().count();
            // Its map `.bss` has a pin already.
            let refused = run(&["attach", "--object", &other, "--pin", DIR, "--json"]);
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            assert_eq!(json(&refused.stdout)[0]["error"]["errno"], "EEXIST");
            assert_eq!(fs::read_dir(DIR).unwrap().count(), before);
        }
        fs::remove_dir_all(DIR).unwrap();
    });
}

/// Compares what bpftool reads of a pinned map.
#[cfg(target_arch = "x86_64")]
fn bpftool_reads(by_kind: &[(String, Vec<String>)]) {
    let output = bpftool(&["-j", "map", "dump", "pinned", &format!("{DIR}/by_kind")]);
    let elements: Value = serde_json::from_slice(&output.stdout).unwrap();
    let string = |bytes: &Value| -> String {
        let bytes = bytes.as_array().unwrap().iter();
        bytes
            .map(|byte| byte.as_str().unwrap().trim_start_matches("0x").to_owned())
            .collect()
    };
    let mut theirs: Vec<_> = elements
        .as_array()
        .unwrap()
        .iter()
        .map(|element| (string(&element["key"]), vec![string(&element["value"])]))
        .collect();
    theirs.sort();
    assert_eq!(theirs, by_kind);
}

#[cfg(not(target_arch = "x86_64"))]
fn bpftool_reads(_: &[(String, Vec<String>)]) {}

#[cfg(target_arch = "x86_64")]
fn bpftool(args: &[&str]) -> Output {
    let output = std::process::Command::new("/bin/bpftool")
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    output
}

/// Returns the instructions that the kernel made of a program, with the ids of its maps in the
/// order in which they are used.
#[cfg(target_arch = "x86_64")]
fn translated(which: &[&str]) -> Vec<[u8; 8]> {
    const LD_IMM64: u8 = 0x18;
    let path = "/tmp/translated";
    bpftool(&[&["prog", "dump", "xlated"], which, &["file", path]].concat());
    let insns = fs::read(path).unwrap();
    let mut insns: Vec<[u8; 8]> = insns
        .chunks_exact(8)
        .map(|insn| insn.try_into().unwrap())
        .collect();
    let mut ids = Vec::new();
    for insn in &mut insns {
        // The source register says that it is a map, or a value in one.
        if insn[0] != LD_IMM64 || !matches!(insn[1] >> 4, 1 | 2) {
            continue;
        }
        let id: [u8; 4] = insn[4..].try_into().unwrap();
        let index = ids.iter().position(|known| *known == id);
        let index = index.unwrap_or_else(|| {
            ids.push(id);
            ids.len() - 1
        });
        insn[4..].copy_from_slice(&u32::try_from(index).unwrap().to_ne_bytes());
    }
    insns
}

#[test]
#[cfg(target_arch = "x86_64")]
fn libbpf_loads_the_same_programs() {
    // libbpf wants it, even if it has no answer.
    fs::create_dir_all("/boot").unwrap();
    let release = rustix::system::uname();
    let release = release.release().to_str().unwrap();
    fs::write(format!("/boot/config-{release}"), "").unwrap();
    let has_wrapper = kprobe_attach::symbols::has_syscall_wrapper().unwrap();
    let options = LoadOptions::new().syscall_wrapper(has_wrapper);
    let mut compared = 0;
    with_bpffs(|| {
        for (name, bytes, since) in [
            ("count", COUNT, (0, 0)),
            ("count-19", COUNT_19, (0, 0)),
            // libbpf does the relocations itself.
            ("core", CORE, (5, 17)),
            ("core-19", CORE_19, (5, 17)),
            ("calls", CALLS, (5, 13)),
            ("calls-19", CALLS_19, (5, 13)),
            ("macros", MACROS, (5, 17)),
            ("macros-19", MACROS_19, (5, 17)),
        ] {
            if version() < since {
                continue;
            }
            let path = file(name, bytes);
            bpftool(&["prog", "loadall", &path, DIR]);
            let object = Object::parse(bytes).unwrap();
            let mut memory = vec![0; object.memory_len()];
            let loaded = object.load(&mut memory, &options).unwrap();
            for program in object.programs() {
                let ours = loaded.program(&program, &mut memory, &mut []).unwrap();
                let ours = translated(&["id", &ours.id().unwrap().to_string()]);
                let theirs = translated(&["pinned", &format!("{DIR}/{}", program.name())]);
                assert_eq!(ours, theirs, "{name}: {}", program.name());
                assert!(ours.len() > 10, "{name}: {}", program.name());
                compared += 1;
            }
            fs::remove_dir_all(DIR).unwrap();
        }
    });
    assert!(compared >= 6, "{compared}");
}

#[test]
fn programs_are_chosen_by_their_names() {
    let path = file("kinds", KINDS);
    clean(|| {
        let features = Kernel::new().features();
        let multi = features.kprobe_multi == Support::Yes;
        let session = features.kprobe_session == Support::Yes;
        for (names, has) in [
            (&["entry", "on_return"][..], true),
            // It is loaded only if it is asked for.
            (&["asked"], true),
            (&["entry_of_call", "return_of_call"], true),
            (&["multi", "multi_return"], multi),
            (&["session"], session),
            // A system call beside a pattern.
            (&["entry_of_call", "multi"], multi),
        ] {
            let mut args = vec!["attach", "--object", &path, "--json", "--for", "0"];
            for name in names {
                args.extend(["--program", name]);
            }
            let output = run(&args);
            if !has {
                assert_eq!(output.status.code(), Some(1), "{names:?}: {output:?}");
                continue;
            }
            succeeded(&output);
            let lines = json(&output.stdout);
            for name in names {
                let of_it = lines.iter().filter(|line| line["program"] == *name);
                assert!(of_it.count() > 0, "{name}: {lines:?}");
            }
        }
        // Sections can be explained and planned too.
        let sections = [
            "--object",
            &path,
            "--program=entry",
            "--program=on_return",
            "--json",
        ];
        for (command, verdict) in [("explain", "would_attach"), ("plan", "steps")] {
            let output = run(&[&[command], &sections[..]].concat());
            succeeded(&output);
            let lines = json(&output.stdout);
            let probes: Vec<_> = lines.iter().map(|line| &line["probe"]).collect();
            assert_eq!(probes, ["kprobe/vfs_read", "kretprobe/vfs_read"]);
            assert!(
                lines.iter().all(|line| !line[verdict].is_null()),
                "{lines:?}"
            );
        }
        // A probe that is given takes the place of the section.
        let args = [
            "attach",
            "--object",
            &path,
            "--program",
            "bare",
            "--json",
            "--for",
            "0",
        ];
        let output = run(&[&args[..], &[FUNCTION, "kretprobe/vfs_unlink"]].concat());
        succeeded(&output);
        assert_eq!(json(&output.stdout).len(), 2);
    });
}

#[test]
fn a_program_that_was_handed_over_is_attached() {
    clean(|| {
        let counter = Counter::new();
        let fd = counter.program.as_fd().as_raw_fd();
        #[allow(
            unsafe_code,
            reason = "the standard library has file descriptors of its own"
        )]
        // SAFETY: the program keeps it open.
        let handed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let handed = handed.try_clone_to_owned().unwrap();
        let mut command = program();
        command
            .args(["attach", "--program", "fd:0", FUNCTION])
            .stdin(Stdio::from(handed))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait_until_attached(&mut child);
        unlink(2);
        let output = crate::machine::interrupt(child, "INT");
        succeeded(&output);
        assert_eq!(counter.hits(), 2);
        for (fd, errno) in [("fd:77", "EBADF"), ("fd:1", "EINVAL")] {
            let output = run(&["attach", "--json", "--program", fd, FUNCTION]);
            let line = &json(&output.stdout)[0];
            assert_eq!(line["error"]["errno"], errno, "{line}");
        }
    });
}

#[test]
fn a_program_that_is_refused_shows_the_log_of_the_verifier() {
    // `r0 = 0; exit` becomes `r0 = r9; exit`, and nothing was written to r9.
    let mut broken = KINDS.to_vec();
    let nothing = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95];
    let start = (0..broken.len()).find(|at| broken[*at..].starts_with(&nothing));
    let start = start.unwrap();
    broken[start..start + 2].copy_from_slice(&[0xbf, 0x90]);
    let path = file("broken", &broken);
    clean(|| {
        let object = Object::parse(&broken).unwrap();
        let mut memory = vec![0; object.memory_len()];
        let loaded = object.load(&mut memory, &LoadOptions::new()).unwrap();
        let mut programs = object.programs().filter(|program| program.kind().is_some());
        let refused = programs.find(|program| {
            loaded.program(program, &mut memory, &mut []).is_err() && !program.name().is_empty()
        });
        let name = refused.unwrap().name();
        for option in [None, Some("--verifier-log")] {
            let mut args = vec!["attach", "--object", &path, "--program", name];
            args.extend(option);
            let output = run(&[&args[..], &[FUNCTION]].concat());
            assert_eq!(output.status.code(), Some(1));
            let messages = text(&output.stderr);
            // `R9 !read_ok`, or in words.
            assert!(messages.contains("R9 "), "{messages}");
            assert!(messages.contains(name), "{messages}");
        }
    });
}

#[test]
fn a_map_that_cannot_be_printed_says_why() {
    for (map, errno) in [
        ("/tmp", "EINVAL"),
        ("/tmp/none", "ENOENT"),
        ("id:4294967295", "ENOENT"),
    ] {
        let output = run(&["maps", "dump", map, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{map}");
        let line = &json(&output.stdout)[0];
        assert_eq!(line["error"]["errno"], errno, "{line}");
        assert_eq!(line["error"]["step"], "map");
    }
}

#[test]
fn only_a_map_is_opened_as_one() {
    // To a program and a link, the first word of their information is a type too.
    with_bpffs(|| {
        let counters = Array::create(1).unwrap();
        pin(&counters, "/tmp/bpf/map");
        assert_eq!(Map::open_pinned("/tmp/bpf/map").unwrap().key_size(), 4);
        let program = counting(&counters, 0);
        pin(&program, "/tmp/bpf/program");
        let mut others = vec!["/tmp/bpf/program"];
        if let Some(mode) = link_modes().first() {
            let output = run(&["count", "--mode", mode.name(), "--pin", DIR, FUNCTION]);
            assert!(output.status.success(), "{output:?}");
            others.push("/tmp/bpf/dir/kprobe_vfs_unlink");
        }
        for other in others {
            let error = Map::open_pinned(other).unwrap_err();
            assert_eq!(error.errno(), Errno::INVAL, "{other}: {error}");
            let output = run(&["maps", "dump", other, "--json"]);
            assert_eq!(output.status.code(), Some(1), "{other}");
            assert_eq!(json(&output.stdout)[0]["error"]["errno"], "EINVAL");
        }
    });
}
