//! Real objects of `tests/objects`, and the same ones broken by hand.

use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use super::btf::{Btf, DATASEC, ENUM64, FUNC, GLOBAL, STATIC, STRUCT, VAR};
use super::error::Place;
use super::fix::{NEWS, fix, replace};
use super::maps::{MAX_MAPS, MapPlace};
use super::programs::{Function, INSN_LEN};
use super::relocate::Layout;
use super::{Fault, Kind, Object, ObjectProgram};

/// The objects in the byte order of the machine on which the tests run.
#[cfg(target_endian = "little")]
const OBJECTS: [&str; 11] = [
    "count",
    "count-19",
    "core",
    "core-19",
    "kinds",
    "kinds-19",
    "calls",
    "calls-19",
    "macros",
    "macros-19",
    "old",
];
#[cfg(target_endian = "big")]
const OBJECTS: [&str; 1] = ["old-big-endian"];

fn file(name: &str) -> Vec<u8> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/objects");
    let path = format!("{dir}/{name}.o");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns a place for each map, with the file descriptors 100, 101 and so on.
fn places(object: &Object<'_>) -> Vec<MapPlace> {
    let mut places = Vec::new();
    object.for_each_map(&mut |map| {
        let fd = 100 + u32::try_from(places.len()).unwrap();
        places.push(MapPlace {
            section: map.section,
            offset: map.offset,
            fd: Some(fd),
        });
    });
    assert!(places.len() <= MAX_MAPS);
    places
}

/// Returns the instructions of a program, or the fault and where it is.
fn relocated(object: &Object<'_>, program: &ObjectProgram<'_>) -> Result<Vec<u8>, String> {
    let mut memory = vec![0; object.memory_len()];
    let place = Place::default();
    let mut layout = Layout::new(program.function);
    let written = layout.write(object, &places(object), &mut memory, &place);
    written.map_err(|fault| place.error(fault).to_string())?;
    memory.truncate(usize::try_from(layout.insns).unwrap() * INSN_LEN);
    Ok(memory)
}

fn names(object: &Object<'_>) -> Vec<String> {
    let mut names = Vec::new();
    object.for_each_map(&mut |map| names.push(map.name().to_string()));
    names
}

#[test]
#[cfg(target_endian = "little")]
fn maps_are_those_of_the_source() {
    for name in ["count", "count-19"] {
        let bytes = file(name);
        let object = Object::parse(&bytes).unwrap();
        let mut maps = Vec::new();
        let each = &mut |map: &super::MapDefinition<'_>| {
            let sizes = (map.key_size(), map.value_size(), map.max_entries());
            maps.push((map.name().to_string(), map.map_type(), sizes, map.map_flags));
        };
        object.for_each_map(each);
        maps.sort();
        let expected = [
            (".bss", 2, (4, 24, 1), 1 << 10),
            (".data", 2, (4, 24, 1), 1 << 10),
            (".data.more", 2, (4, 8, 1), 1 << 10),
            (".kconfig", 2, (4, 8, 1), 1 << 10 | 1 << 7),
            (".rodata", 2, (4, 8, 1), 1 << 10 | 1 << 7),
            (".rodata.cst16", 2, (4, 16, 1), 1 << 10 | 1 << 7),
            (".rodata.word", 2, (4, 5, 1), 1 << 10 | 1 << 7),
            ("by_cpu", 6, (4, 8, 2), 0),
            ("by_kind", 1, (8, 16, 16), 1),
        ];
        let expected =
            expected.map(|(name, kind, sizes, flags)| (name.to_string(), kind, sizes, flags));
        assert_eq!(maps, expected, "{name}");
        assert_eq!(object.license(), c"GPL");
    }
}

#[test]
fn old_maps_are_structs() {
    let name = OBJECTS.last().unwrap();
    let bytes = file(name);
    let object = Object::parse(&bytes).unwrap();
    assert_eq!(names(&object), ["first", "second"]);
    assert_eq!(object.version(), 0x0004_0900);
    let count = object.program("count").unwrap();
    let code = relocated(&object, &count).unwrap();
    // The two maps are the first two numbers of two halves whose source register says so.
    let maps: Vec<_> = code
        .chunks(INSN_LEN)
        .filter(|insn| insn[0] == 0x18)
        .map(|insn| i32::from_ne_bytes(insn[4..].try_into().unwrap()))
        .collect();
    assert_eq!(maps, [100, 101]);
    assert_eq!(object.elf.section_named(".BTF").map(|it| it.index), None);
}

#[test]
fn the_other_byte_order_is_refused() {
    let other = if cfg!(target_endian = "little") {
        "old-big-endian"
    } else {
        "old"
    };
    let bytes = file(other);
    let error = Object::parse(&bytes).unwrap_err();
    assert_eq!((error.fault(), error.offset()), (Fault::ByteOrder, 5));
}

#[test]
#[cfg(target_endian = "little")]
fn sections_say_how_programs_are_attached() {
    for name in ["kinds", "kinds-19"] {
        let bytes = file(name);
        let object = Object::parse(&bytes).unwrap();
        let said: Vec<_> = object
            .programs()
            .map(|program| {
                let probe = program.probe().unwrap().map(|probe| probe.to_string());
                (
                    program.name(),
                    program.kind(),
                    program.autoload(),
                    probe.unwrap_or_default(),
                )
            })
            .collect();
        let expected = [
            ("entry", Some(Kind::Kprobe), true, "kprobe/vfs_read"),
            (
                "on_return",
                Some(Kind::Kretprobe),
                true,
                "kretprobe/vfs_read",
            ),
            (
                "entry_of_call",
                Some(Kind::Ksyscall),
                true,
                "ksyscall/unlinkat",
            ),
            (
                "return_of_call",
                Some(Kind::Kretsyscall),
                true,
                "kretsyscall/unlinkat",
            ),
            ("multi", Some(Kind::KprobeMulti), true, "kprobe.multi/vfs_*"),
            (
                "multi_return",
                Some(Kind::KretprobeMulti),
                true,
                "kretprobe.multi/vfs_rea?",
            ),
            (
                "session",
                Some(Kind::KprobeSession),
                true,
                "kprobe.session/vfs_read",
            ),
            ("asked", Some(Kind::Kprobe), false, "kprobe/vfs_write"),
            ("bare", Some(Kind::Kprobe), true, ""),
            ("on_switch", None, true, ""),
            ("on_main", None, true, ""),
        ];
        let expected =
            expected.map(|(name, kind, autoload, what)| (name, kind, autoload, what.to_string()));
        assert_eq!(said, expected);
    }
}

/// The table of what libbpf makes of a section's name.
#[test]
#[cfg(target_endian = "little")]
fn targets_are_read_as_libbpf_reads_them() {
    let bytes = file("kinds");
    let object = Object::parse(&bytes).unwrap();
    let program = object.program("entry").unwrap();
    let probe = |section: &'static str| {
        let mut program = program;
        program.function.section.name = section;
        let probe = program.probe();
        probe.map(|probe| probe.map(|probe| probe.to_string()).unwrap_or_default())
    };
    for (section, expected) in [
        ("kprobe/foo", "foo"),
        ("kprobe/foo+", "foo"),
        ("kprobe/foo+x", "foo"),
        ("kprobe/foo-5", "foo"),
        ("kprobe/foo +5", "foo"),
        ("kprobe/foo/bar", "foo"),
        ("kprobe/foo*", "foo"),
        ("kprobe/foo$x", "foo"),
        ("kprobe/mod:foo+3", "mod"),
        ("kprobe/foo+5", "foo+0x5"),
        ("kprobe/foo+0x5", "foo+0x5"),
        ("kprobe/foo++5", "foo+0x5"),
        ("kprobe/foo+ 5", "foo+0x5"),
        ("kprobe/foo+\t7", "foo+0x7"),
        ("kprobe/foo+5abc", "foo+0x5"),
        ("kprobe/foo+010", "foo+0x8"),
        ("kprobe/foo+08", "foo"),
        ("kprobe/foo+0xg", "foo"),
        ("kprobe/foo+1e3", "foo+0x1"),
        ("kprobe/foo+-0", "foo"),
        ("kprobe/foo+18446744073709551615", "foo+0x7fffffffffffffff"),
    ] {
        assert_eq!(
            probe(section),
            Ok(format!("kprobe/{expected}")),
            "{section}"
        );
    }
    for section in [
        "kprobe/",
        "kprobe/ foo",
        "kprobe/+5",
        "kprobe/*",
        "kprobe/@foo",
        "kprobe//foo",
        "kprobe/foo+-5",
    ] {
        let error = probe(section).unwrap_err();
        assert_eq!(error.fault(), Fault::BadTarget, "{section}");
        assert_eq!((error.section(), error.symbol()), (section, "entry"));
    }
    assert_eq!(probe("kretprobe/foo+0"), Ok("kretprobe/foo".to_string()));
    assert_eq!(
        probe("kretprobe/foo+4").unwrap_err().fault(),
        Fault::BadTarget
    );
    for section in [
        "kprobefoo/foo",
        "kprobe./foo",
        "kprobe.s/foo",
        "kprobe",
        "kprobe.multi",
    ] {
        assert_eq!(probe(section), Ok(String::new()), "{section}");
    }
}

/// A program's functions, as the calls between them lead from one to the other.
#[test]
#[cfg(target_endian = "little")]
fn called_functions_follow_in_the_order_of_libbpf() {
    for name in ["calls", "calls-19"] {
        let bytes = file(name);
        let object = Object::parse(&bytes).unwrap();
        let text = object.elf.section_named(".text").unwrap();
        let function = |name: &str| {
            let mut symbols = object.elf.symbols();
            let symbol = symbols.find(|symbol| symbol.name == name).unwrap();
            Function::of_symbol(&text, &symbol).unwrap()
        };
        let walk = object.program("walk").unwrap();
        let code = relocated(&object, &walk).unwrap();
        // add, whose address is taken first; then first, and what it calls.
        let order = ["add", "first", "second", "third"].map(function);
        let mut at = walk.function.code.len();
        let mut starts = vec![("walk", 0)];
        for function in &order {
            starts.push((function.name, at / INSN_LEN));
            at += function.code.len();
        }
        assert_eq!(code.len(), at);
        let target = |index: usize| {
            let imm = i32::from_ne_bytes(code[index * 8 + 4..index * 8 + 8].try_into().unwrap());
            i64::try_from(index).unwrap() + 1 + i64::from(imm)
        };
        let calls: Vec<_> = (0..code.len() / INSN_LEN)
            .filter(|index| {
                let insn = &code[index * 8..];
                insn[0] == 0x85 && insn[1] >> 4 == 1 || insn[0] == 0x18 && insn[1] >> 4 == 4
            })
            .map(|index| {
                let to = usize::try_from(target(index)).unwrap();
                starts
                    .iter()
                    .find(|(_, start)| *start == to)
                    .expect("a function")
                    .0
            })
            .collect();
        let expected = [
            "add", "first", "second", "second", "third", "third", "third",
        ];
        assert_eq!(calls, expected, "{name}");
        // A weak extern that is missing: its address is 0, its call is one that no kernel has.
        let poisoned = code.chunks(8).filter(|insn| insn[..4] == [0x85, 0, 0, 0]);
        let helpers: Vec<_> = poisoned
            .map(|insn| u32::from_ne_bytes(insn[4..].try_into().unwrap()))
            .collect();
        assert_eq!(helpers, [164, 2_002_000_000]);
    }
}

/// Checks that each instruction is that of the object, unless it is at a relocation or refers to
/// another function.
fn differs_only_at_relocations(object: &Object<'_>, program: &ObjectProgram<'_>, code: &[u8]) {
    let function = program.function;
    let relocations: Vec<_> = object.elf.relocations(function.section.index).collect();
    for (index, (insn, from)) in code.chunks(8).zip(function.code.chunks(8)).enumerate() {
        let at = function.start + index as u64 * 8;
        let is_call = from[0] == 0x85 && (from[1] >> 4 == 1 || from[1] & 15 == 1);
        let is_relocated = relocations
            .iter()
            .any(|r| r.offset == at || r.offset.wrapping_add(8) == at);
        assert!(
            insn == from || is_call || is_relocated,
            "{}+{at:#x}",
            program.name()
        );
    }
}

#[test]
fn only_relocations_change_instructions() {
    for name in OBJECTS {
        let bytes = file(name);
        let object = Object::parse(&bytes).unwrap();
        for program in object.programs() {
            let code = relocated(&object, &program).unwrap();
            differs_only_at_relocations(&object, &program, &code);
        }
    }
}

#[test]
#[cfg(target_endian = "little")]
fn type_information_has_the_sizes_and_offsets_of_the_sections() {
    for name in ["count", "count-19", "calls", "calls-19"] {
        let bytes = file(name);
        let object = Object::parse(&bytes).unwrap();
        let btf = object.btf.unwrap();
        let mut memory = vec![0; object.memory_len()];
        let fixed = fix(&object, &btf, &mut memory, &Place::default())
            .unwrap()
            .to_vec();
        let fixed = Btf::parse(&fixed, &Place::default()).unwrap();
        let mut sections = 0;
        for r#type in fixed.types().filter(|it| it.kind() == DATASEC) {
            sections += 1;
            let mut end = 0;
            for [variable, offset, size] in r#type.words() {
                let variable = fixed.type_of(variable).unwrap();
                assert_eq!(variable.kind(), VAR);
                assert!(offset >= end, "{}", fixed.name(&variable));
                end = offset + size;
            }
            assert!(end <= r#type.size_or_id(), "{}", fixed.name(&r#type));
        }
        assert!(sections >= 3, "{name}");
        assert!(fixed.section(".ksyms").is_none());
        let linkage = |name: &str| {
            let mut types = fixed.types();
            let found = types.find(|it| it.kind() == FUNC && fixed.name(it) == name);
            found.map(|it| it.linkage())
        };
        if name.starts_with("calls") {
            assert_eq!(linkage("walk"), Some(GLOBAL));
            assert_eq!(linkage("first"), Some(STATIC), "it is hidden");
            assert_eq!(linkage("no_function_of_any_kernel"), None);
        }
    }
}

#[test]
#[cfg(target_endian = "little")]
fn types_that_a_kernel_does_not_know_are_replaced_by_others_of_the_same_size() {
    for name in OBJECTS {
        let bytes = file(name);
        let object = Object::parse(&bytes).unwrap();
        let Some(btf) = object.btf else {
            continue;
        };
        let mut memory = vec![0; object.memory_len()];
        let memory = fix(&object, &btf, &mut memory, &Place::default()).unwrap();
        let any: Vec<_> = NEWS.map(|news| replace(&btf, news, memory)).to_vec();
        assert!(any[4] && any[5], "functions and variables");
        let replaced = Btf::parse(memory, &Place::default()).unwrap();
        let kinds: Vec<_> = replaced.types().map(|it| it.kind()).collect();
        assert_eq!(kinds.len(), btf.types().count());
        assert!(!kinds.contains(&VAR) && !kinds.contains(&DATASEC) && !kinds.contains(&ENUM64));
        for (new, old) in replaced
            .types()
            .zip(btf.types())
            .filter(|it| it.1.kind() == DATASEC)
        {
            assert_eq!(
                (new.kind(), new.name(), new.vlen()),
                (STRUCT, 0, old.vlen())
            );
        }
    }
}

/// Parses an object and relocates its programs, and returns the faults.
fn faults(bytes: &[u8]) -> Vec<String> {
    let object = match Object::parse(bytes) {
        Ok(object) => object,
        Err(error) => return vec![error.to_string()],
    };
    let mut memory = vec![0; object.memory_len()];
    let mut faults = Vec::new();
    if let Some(btf) = &object.btf {
        let place = Place::default();
        let fixed = fix(&object, btf, &mut memory, &place).err();
        faults.extend(fixed.map(|fault| place.error(fault).to_string()));
    }
    for program in object.programs() {
        match relocated(&object, &program) {
            Ok(code) => differs_only_at_relocations(&object, &program, &code),
            Err(error) => faults.push(error),
        }
        faults.extend(program.probe().err().map(|error| error.to_string()));
    }
    faults
}

#[test]
fn no_part_of_an_object_is_an_object() {
    for name in OBJECTS {
        let bytes = file(name);
        assert!(faults(&bytes).is_empty(), "{name}: {:?}", faults(&bytes));
        // The section headers are at the end.
        for len in (0..bytes.len()).step_by(7) {
            assert!(!faults(&bytes[..len]).is_empty(), "{name}: {len}");
        }
    }
}

#[test]
fn any_byte_may_be_wrong() {
    // The fuzz target does more of this.
    for name in OBJECTS.iter().rev().step_by(2) {
        let mut bytes = file(name);
        let mut refused = 0;
        let places = (0..bytes.len()).step_by(1 + bytes.len() / 200);
        let count = places.len();
        for at in places {
            let byte = bytes[at];
            for wrong in [byte ^ 1, !byte] {
                bytes[at] = wrong;
                refused += faults(&bytes).len().min(1);
            }
            bytes[at] = byte;
        }
        assert!(refused > count / 20, "{name}: {refused}");
    }
}

/// Returns the offset of a section in the file.
#[cfg(target_endian = "little")]
fn section_at(bytes: &[u8], name: &str) -> usize {
    let object = Object::parse(bytes).unwrap();
    let section = object.elf.section_named(name).unwrap();
    section.data.as_ptr().addr() - bytes.as_ptr().addr()
}

/// A fault names the section, the symbol and the offset at which it is.
#[test]
#[cfg(target_endian = "little")]
fn a_fault_says_where_it_is() {
    type Break = fn(&mut Vec<u8>);
    fn set(bytes: &mut [u8], section: &str, at: usize, to: &[u8]) {
        let start = section_at(bytes, section) + at;
        bytes[start..start + to.len()].copy_from_slice(to);
    }
    let cases: [(&str, Break, &str); 12] = [
        ("old", |bytes| bytes.truncate(10), "at 0xa: "),
        (
            "old",
            |bytes| bytes[4] = 1,
            "at 0x0: read-object: ENOEXEC: this is not a 64-bit ELF",
        ),
        (
            "old",
            |bytes| bytes[18] = 62,
            "at 0x10: read-object: ENOEXEC: this is not a relocatable",
        ),
        // A relocation refers to a symbol that does not exist.
        (
            "old",
            |bytes| set(bytes, ".relkprobe/vfs_unlink", 12, &[0xff]),
            "kprobe/vfs_unlink: count: at 0x",
        ),
        // A relocation is where no number of two halves is.
        (
            "old",
            |bytes| set(bytes, ".relkprobe/vfs_unlink", 0, &[8]),
            "kprobe/vfs_unlink: first: at 0x8: read-object: ENOEXEC: the instruction takes no",
        ),
        // Two are at one instruction.
        (
            "old",
            |bytes| {
                let start = section_at(bytes, ".relkprobe/vfs_unlink");
                bytes.copy_within(start..start + 8, start + 16);
            },
            "kprobe/vfs_unlink: second: at 0x",
        ),
        // A number that already stands for a file descriptor.
        (
            "kinds",
            |bytes| set(bytes, "kprobe", 0, &[0x18, 0x11, 0, 0, 3]),
            "kprobe: bare: at 0x0: read-object: ENOEXEC: the instruction lacks its relocation",
        ),
        // A call to the middle of a function.
        (
            "calls",
            |bytes| set(bytes, ".text", 2 * 8 + 4, &[6]),
            ".text: at 0x10: read-object: ENOEXEC: the call is not to the start",
        ),
        (
            "old",
            |bytes| set(bytes, "maps", 0, &[12]),
            "maps: first: at 0x0: read-object: ENOEXEC: maps made with maps",
        ),
        (
            "count",
            |bytes| {
                let name = bytes.windows(5).position(|name| name == b".BTF\0");
                bytes[name.unwrap()] = b'_';
            },
            ".maps: at 0x0: read-object: ENOEXEC: the type information is missing (clang -g)",
        ),
        (
            "values",
            |_| (),
            ".maps: jumps: at 0x0: read-object: ENOEXEC: maps made with maps",
        ),
        (
            "old",
            |bytes| set(bytes, "license", 3, b"!"),
            "license: at 0x0: read-object: ENOEXEC: the license lacks its final NUL",
        ),
    ];
    for (name, make, expected) in cases {
        let mut bytes = file(name);
        make(&mut bytes);
        let faults = faults(&bytes);
        let found = faults.iter().any(|fault| fault.starts_with(expected));
        assert!(found, "{name}: {expected}: {faults:?}");
    }
}
