//! A field that moved between two kernels is read right on both, by one and the same object.

use std::fs;

use kprobe_attach::bpf::object::{Fault, LoadOptions, Object};

use crate::machine::{kernel_name, report, unlink, version};
use crate::objects::{BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, attach_all, element};

const MOVED: [&[u8]; 2] = [
    include_bytes!("../objects/moved.o"),
    include_bytes!("../objects/moved-19.o"),
];

/// The fields, and where the object itself has them.
const FIELDS: [(&str, u32); 3] = [("comm", 0), ("pid", 16), ("tgid", 20)];

/// Where `task_struct` has its `tgid`, on each kernel that the tests run on. It was last looked up
/// in their types on 2026-11-26.
const TGID: [(&str, u32); 3] = [("6.1", 2420), ("6.12", 2436), ("7.3", 2876)];

/// Reads where a structure has a field, in the types of the running kernel.
fn place(types: &[u8], structure: &str, field: &str) -> u32 {
    let number = |at: usize| u32::from_ne_bytes(types[at..at + 4].try_into().unwrap());
    // `struct btf_header`: the two parts, behind it.
    let header = number(4) as usize;
    let [kinds, kinds_len, names] = [8, 12, 16].map(|at| number(at) as usize);
    let is_named = |offset: u32, name: &str| {
        let start = header + names + offset as usize;
        types[start..].starts_with(name.as_bytes()) && types[start + name.len()] == 0
    };
    let mut at = header + kinds;
    while at < header + kinds + kinds_len {
        // `struct btf_type`
        let (name, info) = (number(at), number(at + 4));
        let (kind, count) = (info >> 24 & 0x1f, info as usize & 0xffff);
        at += 12;
        let end = at
            + match kind {
                1 | 14 | 17 => 4,              // INT, VAR, DECL_TAG
                2 | 7..=12 | 16 | 18 => 0,     // PTR, FWD to FUNC, FLOAT, TYPE_TAG
                3 => 12,                       // ARRAY
                4 | 5 | 15 | 19 => count * 12, // STRUCT, UNION, DATASEC, ENUM64
                6 | 13 => count * 8,           // ENUM, FUNC_PROTO
                _ => panic!("no kind {kind}"),
            };
        if kind == 4 && is_named(name, structure) {
            let mut members = (at..end).step_by(12);
            let member = members.find(|at| is_named(number(*at), field)).unwrap();
            // In bits; the upper byte is the size of a bit field.
            return (number(member + 8) & 0x00ff_ffff) / 8;
        }
        at = end;
    }
    panic!("no {structure}");
}

/// The object's variables.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    number_there: u32,
    hits: u32,
    places: [u32; 3],
    pid: u32,
    tgid: u32,
    comm: String,
}

/// Loads the object, has it read the fields of this task, and a number at another place.
fn read(bytes: &[u8], place: u32) -> Found {
    let object = Object::parse(bytes).unwrap();
    let mut memory = vec![0; object.memory_len()];
    let loaded = object.load(&mut memory, &LoadOptions::new()).unwrap();
    let bss = loaded.map(".bss").unwrap();
    let zero = 0_u32.to_ne_bytes();
    let task = rustix::thread::gettid().as_raw_nonzero().get();
    let mut value = [0; 56];
    value[..4].copy_from_slice(&task.to_ne_bytes());
    value[4..8].copy_from_slice(&std::process::id().to_ne_bytes());
    value[8..12].copy_from_slice(&place.to_ne_bytes());
    element(BPF_MAP_UPDATE_ELEM, bss, &zero, &mut value).unwrap();
    let links = attach_all(&object, &loaded, &mut memory);
    unlink(2);
    drop(links);
    element(BPF_MAP_LOOKUP_ELEM, bss, &zero, &mut value).unwrap();
    let number = |at: usize| u32::from_ne_bytes(value[at..at + 4].try_into().unwrap());
    let comm = value[40..].split(|byte| *byte == 0).next().unwrap();
    Found {
        number_there: number(12),
        hits: number(16),
        places: [20, 24, 28].map(number),
        pid: number(32),
        tgid: number(36),
        comm: String::from_utf8(comm.to_vec()).unwrap(),
    }
}

#[test]
fn a_field_that_moved_is_read_right() {
    if version() < (5, 17) {
        for bytes in MOVED {
            let object = Object::parse(bytes).unwrap();
            let mut memory = vec![0; object.memory_len()];
            let loaded = object.load(&mut memory, &LoadOptions::new()).unwrap();
            let program = object.program("read_task").unwrap();
            let refused = loaded.program(&program, &mut memory, &mut []).unwrap_err();
            assert_eq!(refused.fault(), Fault::NoCoRe);
        }
        return;
    }
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let places = FIELDS.map(|(field, compiled)| {
        let place = place(&types, "task_struct", field);
        assert_ne!(place, compiled, "{field}");
        place
    });
    let [.., tgid_at] = places;
    report(format_args!("task_struct has its tgid at {tgid_at}"));
    let process = std::process::id();
    let task = rustix::thread::gettid().as_raw_nonzero().get();
    let comm = fs::read_to_string("/proc/thread-self/comm").unwrap();
    let expected = |number_there| Found {
        number_there,
        hits: 2,
        places,
        pid: task.try_into().unwrap(),
        tgid: process,
        comm: comm.trim_end().to_owned(),
    };
    for bytes in MOVED {
        // Without CO-RE, this kernel's own place is right too.
        assert_eq!(read(bytes, tgid_at), expected(process));
    }
    let kernel = kernel_name();
    if !TGID.iter().any(|(name, _)| *name == kernel) {
        return;
    }
    // And that of another kernel is not: the field moved.
    for (other, place) in TGID.into_iter().filter(|(name, _)| *name != kernel) {
        assert_ne!(
            place, tgid_at,
            "{other} and {kernel} are not to be compared by this field"
        );
        let found = read(MOVED[0], place);
        assert_ne!(found.number_there, process, "{other}");
        let number_there = found.number_there;
        assert_eq!(found, expected(number_there));
    }
}
