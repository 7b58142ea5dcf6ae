//! Objects that a compiler made: loaded without libbpf, attached as their sections say, and counted
//! through their maps.

use kprobe_attach::bpf::Map;
use kprobe_attach::bpf::object::{Fault, LoadOptions, Loaded, Object};
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::fd::{AsFd, AsRawFd};
use kprobe_attach::{Errno, Kernel, KprobeLink};

use crate::machine::{clean, unlink, version};

const COUNT: [&[u8]; 2] = [
    include_bytes!("../objects/count.o"),
    include_bytes!("../objects/count-19.o"),
];
const CORE: [&[u8]; 2] = [
    include_bytes!("../objects/core.o"),
    include_bytes!("../objects/core-19.o"),
];
const CALLS: [&[u8]; 2] = [
    include_bytes!("../objects/calls.o"),
    include_bytes!("../objects/calls-19.o"),
];
#[cfg(target_arch = "x86_64")]
const MACROS: [&[u8]; 2] = [
    include_bytes!("../objects/macros.o"),
    include_bytes!("../objects/macros-19.o"),
];
const KINDS: &[u8] = include_bytes!("../objects/kinds.o");
const OLD: &[u8] = include_bytes!("../objects/old.o");
const SIZELESS: &[u8] = include_bytes!("../objects/sizeless.o");

pub(crate) const BPF_MAP_LOOKUP_ELEM: i32 = 1;
pub(crate) const BPF_MAP_UPDATE_ELEM: i32 = 2;

/// Reads or writes an element of a map, by a second hand than the library's.
pub(crate) fn element(command: i32, map: &Map, key: &[u8], value: &mut [u8]) -> Result<(), Errno> {
    assert_eq!(key.len(), map.key_size() as usize);
    assert!(value.len() >= map.value_size() as usize);
    let attr = [
        u64::try_from(map.as_fd().as_raw_fd()).unwrap(),
        key.as_ptr().expose_provenance() as u64,
        value.as_mut_ptr().expose_provenance() as u64,
        0,
    ];
    #[allow(unsafe_code, reason = "an independent witness of bpf(2)")]
    // SAFETY: the attribute of the command, with a key and a value of the map's sizes, or a value
    // for each CPU of the machine.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), 32) };
    let error = std::io::Error::last_os_error().raw_os_error();
    match answer {
        0 => Ok(()),
        _ => Err(Errno::from_raw_os_error(error.unwrap())),
    }
}

/// Returns the words of an element.
fn words(map: &Map, key: &[u8], count: usize) -> Vec<u64> {
    let mut value = vec![0; count * 8];
    element(BPF_MAP_LOOKUP_ELEM, map, key, &mut value).unwrap();
    let words = value.chunks_exact(8);
    words
        .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}

/// Loads the programs of an object and attaches them as their sections say.
pub(crate) fn attach_all(
    object: &Object<'_>,
    loaded: &Loaded<'_>,
    memory: &mut [u8],
) -> Vec<KprobeLink> {
    let kernel = Kernel::new();
    let mut links = Vec::new();
    for program in object.programs() {
        let mut log = vec![0; 1 << 20];
        let fd = loaded.program(&program, memory, &mut log);
        let fd = fd.unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&log)));
        let probe = program.probe().unwrap().unwrap();
        let link = kernel.attach_kprobe(&fd, probe.target, &probe.opts);
        links.push(link.unwrap_or_else(|error| panic!("{}: {error}", program.name())));
    }
    links
}

#[test]
fn hits_are_exact_in_every_kind_of_map_and_of_data() {
    for bytes in COUNT {
        clean(|| {
            let object = Object::parse(bytes).unwrap();
            let mut memory = vec![0; object.memory_len()];
            let loaded = object.load(&mut memory, &LoadOptions::new()).unwrap();
            let links = attach_all(&object, &loaded, &mut memory);
            unlink(3);
            drop(links);
            unlink(1);
            let map = |name| loaded.map(name).unwrap();
            let zero = 0_u32.to_ne_bytes();
            let [kernel, hits, returns] = words(map(".bss"), &zero, 3).try_into().unwrap();
            assert_eq!((hits, returns), (3, 3));
            let (major, minor) = version();
            assert_eq!(
                (kernel >> 16, kernel >> 8 & 255),
                (major.into(), minor.into())
            );
            // `start`, `absent` and `odd`, which is 7 at first, and what was added of it.
            assert_eq!(words(map(".data"), &zero, 3), [1003, 0, 10]);
            assert_eq!(words(map(".data.more"), &zero, 1), [5 + 7 + 8 + 9]);
            for kind in 0..4_u32 {
                let key = [kind.to_ne_bytes(), zero].concat();
                assert_eq!(words(map("by_kind"), &key, 2), [3, 6], "{kind}");
            }
            for index in 0..2_u32 {
                let cpus = words(map("by_cpu"), &index.to_ne_bytes(), 64);
                assert_eq!(cpus.iter().sum::<u64>(), 3);
            }
            // The constants are.
            let mut value = [0; 8];
            let written = element(BPF_MAP_UPDATE_ELEM, map(".rodata"), &zero, &mut value);
            assert_eq!(written, Err(Errno::PERM));
        });
    }
}

#[test]
fn fields_are_read_where_the_running_kernel_has_them() {
    for bytes in CORE {
        let object = Object::parse(bytes).unwrap();
        let mut memory = vec![0; object.memory_len()];
        let loaded = object.load(&mut memory, &LoadOptions::new()).unwrap();
        let program = object.program("read_task").unwrap();
        if version() < (5, 17) {
            let error = loaded.program(&program, &mut memory, &mut []).unwrap_err();
            assert_eq!(error.fault(), Fault::NoCoRe);
            assert_eq!(error.errno(), Errno::OPNOTSUPP);
            let text = error.to_string();
            assert!(text.contains("CO-RE") && text.contains("5.17"), "{text}");
            assert!(text.starts_with("kprobe/vfs_unlink: read_task: "), "{text}");
            continue;
        }
        let bss = loaded.map(".bss").unwrap();
        let zero = 0_u32.to_ne_bytes();
        let fields = |bytes: &[u8]| -> Vec<u32> {
            let fields = bytes.chunks_exact(4);
            fields
                .map(|field| u32::from_ne_bytes(field.try_into().unwrap()))
                .collect()
        };
        // tgid_wanted, hits, tgid, leader and size
        let mut value = [0; 20];
        let process = std::process::id();
        value[..4].copy_from_slice(&process.to_ne_bytes());
        element(BPF_MAP_UPDATE_ELEM, bss, &zero, &mut value).unwrap();
        let links = attach_all(&object, &loaded, &mut memory);
        unlink(2);
        drop(links);
        element(BPF_MAP_LOOKUP_ELEM, bss, &zero, &mut value).unwrap();
        let [wanted, hits, tgid, leader, size] = fields(&value).try_into().unwrap();
        assert_eq!([wanted, hits, tgid, leader], [process, 2, process, process]);
        assert!(size > 1000, "{size}");
        let mut missing = [0; 4];
        let data = loaded.map(".data").unwrap();
        element(BPF_MAP_LOOKUP_ELEM, data, &zero, &mut missing).unwrap();
        assert_eq!(missing, [0; 4]);
    }
}

#[test]
#[cfg(target_arch = "x86_64")] // the registers are
fn arguments_and_names_are_read_by_the_macros_of_libbpf() {
    let has_wrapper = kprobe_attach::symbols::has_syscall_wrapper().unwrap();
    let options = LoadOptions::new().syscall_wrapper(has_wrapper);
    for bytes in MACROS {
        let object = Object::parse(bytes).unwrap();
        assert!(object.needs_syscall_wrapper());
        let mut memory = vec![0; object.memory_len()];
        let refused = object.load(&mut memory, &LoadOptions::new()).unwrap_err();
        assert_eq!(refused.fault(), Fault::ExternNotServed);
        assert_eq!(refused.symbol(), "LINUX_HAS_SYSCALL_WRAPPER");
        if version() < (5, 17) {
            continue;
        }
        let loaded = object.load(&mut memory, &options).unwrap();
        let links = attach_all(&object, &loaded, &mut memory);
        for _ in 0..3 {
            std::fs::write("/tmp/a_name_to_read", "").unwrap();
            let flags = rustix::fs::AtFlags::empty();
            rustix::fs::unlinkat(rustix::fs::CWD, "/tmp/a_name_to_read", flags).unwrap();
        }
        drop(links);
        let zero = 0_u32.to_ne_bytes();
        // Each of the four, and two questions about the kernel's types.
        let counts = words(loaded.map(".bss").unwrap(), &zero, 8);
        assert_eq!(counts, [3, 3, 0, 3, 3, 3, 3, 0]);
        let mut event = [0; 32];
        element(
            BPF_MAP_LOOKUP_ELEM,
            loaded.map("last").unwrap(),
            &zero,
            &mut event,
        )
        .unwrap();
        let number = |at: usize| u32::from_ne_bytes(event[at..at + 4].try_into().unwrap());
        assert_eq!(number(0), std::process::id());
        assert_eq!(number(4), std::os::unix::process::parent_id());
        assert!(event[8..].starts_with(b"a_name_to_read\0"), "{event:?}");
        let by_flags = words(loaded.map("by_flags").unwrap(), &zero, 64);
        assert_eq!(by_flags.iter().sum::<u64>(), 3);
    }
}

#[test]
fn functions_call_each_other() {
    for bytes in CALLS {
        let object = Object::parse(bytes).unwrap();
        let mut memory = vec![0; object.memory_len()];
        let loaded = object.load(&mut memory, &LoadOptions::new()).unwrap();
        // Its helper takes the address of a function: Linux 5.13.
        if version() < (5, 13) {
            let walk = object.program("walk").unwrap();
            let mut log = vec![0; 1 << 16];
            let error = loaded.program(&walk, &mut memory, &mut log).unwrap_err();
            let found = (error.step(), error.errno(), error.cause());
            assert_eq!(
                found,
                (Step::LoadProgram, Errno::INVAL, Cause::WrongProgram)
            );
            assert!(log.iter().position(|byte| *byte == 0).unwrap() > 0);
            let back = object.program("walk_back").unwrap();
            loaded.program(&back, &mut memory, &mut []).unwrap();
            continue;
        }
        let links = attach_all(&object, &loaded, &mut memory);
        unlink(1);
        drop(links);
        // The last call of `third` is that of `second(3)`, at the return.
        let bss = loaded.map(".bss").unwrap();
        assert!(words(bss, &0_u32.to_ne_bytes(), 2).contains(&5));
    }
}

#[test]
fn an_object_for_a_kernel_without_types_loads() {
    let object = Object::parse(OLD).unwrap();
    let mut memory = vec![0; object.memory_len()];
    let loaded = object.load(&mut memory, &LoadOptions::new()).unwrap();
    let links = attach_all(&object, &loaded, &mut memory);
    unlink(4);
    drop(links);
    let map = |name| loaded.map(name).unwrap();
    assert_eq!(words(map("first"), &0_u32.to_ne_bytes(), 1), [4]);
    assert_eq!(words(map("second"), &3_u32.to_ne_bytes(), 1), [8]);
}

#[test]
fn a_map_that_the_kernel_does_not_make_is_named() {
    let object = Object::parse(SIZELESS).unwrap();
    let mut memory = vec![0; object.memory_len()];
    let refused = object.load(&mut memory, &LoadOptions::new()).unwrap_err();
    assert_eq!(refused.fault(), Fault::MapRefused);
    let found = (refused.step(), refused.errno(), refused.cause());
    assert_eq!(found, (Step::Map, Errno::INVAL, Cause::Unknown));
    let text = refused.to_string();
    assert!(text.starts_with(".maps: sizeless: at 0x0: "), "{text}");
}

#[test]
fn each_kind_of_section_loads() {
    let object = Object::parse(KINDS).unwrap();
    let mut memory = vec![0; object.memory_len()];
    let loaded = object.load(&mut memory, &LoadOptions::new()).unwrap();
    for program in object.programs() {
        let fd = loaded.program(&program, &mut memory, &mut []);
        if program.kind().is_none() {
            assert_eq!(fd.unwrap_err().fault(), Fault::SectionNotServed);
            continue;
        }
        // A kernel without links to many functions does not look at what a program is loaded for.
        assert!(fd.is_ok(), "{}: {fd:?}", program.name());
    }
}
