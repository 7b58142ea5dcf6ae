//! System calls: each entry point that the kernel has, and the callers that enter there.

use std::fs;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::symbols::{Resolution, resolve};
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeLink, KprobeOpts, Target, TargetBuf};

use crate::machine::{Counter, Switch, asked, clean, json, kallsyms, promised, run, text};

/// A system call that nobody else makes in the machine.
struct Call {
    name: &'static str,
    number: i64,
    /// Its number for 32-bit callers.
    number32: u32,
    /// Its entry points: that of native callers, and the others by their names.
    entries: &'static [&'static str],
    /// The entry point of 32-bit callers.
    entry32: &'static str,
}

#[cfg(target_arch = "x86_64")]
const CALLS: [Call; 10] = [
    // The kernel converts the arguments of 32-bit callers.
    Call {
        name: "open",
        number: libc::SYS_open,
        number32: 5,
        entries: &[
            "__x64_sys_open",
            "__ia32_compat_sys_open",
            "__ia32_sys_open",
        ],
        entry32: "__ia32_compat_sys_open",
    },
    Call {
        name: "statfs",
        number: libc::SYS_statfs,
        number32: 99,
        entries: &[
            "__x64_sys_statfs",
            "__ia32_compat_sys_statfs",
            "__ia32_sys_statfs",
        ],
        entry32: "__ia32_compat_sys_statfs",
    },
    Call {
        name: "truncate",
        number: libc::SYS_truncate,
        number32: 92,
        entries: &[
            "__x64_sys_truncate",
            "__ia32_compat_sys_truncate",
            "__ia32_sys_truncate",
        ],
        entry32: "__ia32_compat_sys_truncate",
    },
    Call {
        name: "times",
        number: libc::SYS_times,
        number32: 43,
        entries: &[
            "__x64_sys_times",
            "__ia32_compat_sys_times",
            "__ia32_sys_times",
        ],
        entry32: "__ia32_compat_sys_times",
    },
    Call {
        name: "sysinfo",
        number: libc::SYS_sysinfo,
        number32: 116,
        entries: &[
            "__x64_sys_sysinfo",
            "__ia32_compat_sys_sysinfo",
            "__ia32_sys_sysinfo",
        ],
        entry32: "__ia32_compat_sys_sysinfo",
    },
    Call {
        name: "getitimer",
        number: libc::SYS_getitimer,
        number32: 105,
        entries: &[
            "__x64_sys_getitimer",
            "__ia32_compat_sys_getitimer",
            "__ia32_sys_getitimer",
        ],
        entry32: "__ia32_compat_sys_getitimer",
    },
    // It takes their arguments as they are.
    Call {
        name: "rmdir",
        number: libc::SYS_rmdir,
        number32: 40,
        entries: &["__x64_sys_rmdir", "__ia32_sys_rmdir"],
        entry32: "__ia32_sys_rmdir",
    },
    // The entry points have other names than the call.
    Call {
        name: "uname",
        number: libc::SYS_uname,
        number32: 122,
        entries: &["__x64_sys_newuname", "__ia32_sys_newuname"],
        entry32: "__ia32_sys_newuname",
    },
    Call {
        name: "nanosleep",
        number: libc::SYS_nanosleep,
        number32: 162,
        entries: &[
            "__x64_sys_nanosleep",
            "__ia32_sys_nanosleep",
            "__ia32_sys_nanosleep_time32",
            "__x64_sys_nanosleep_time32",
        ],
        entry32: "__ia32_sys_nanosleep_time32",
    },
    // Without arguments, one function serves all callers.
    Call {
        name: "getppid",
        number: libc::SYS_getppid,
        number32: 64,
        entries: &["__x64_sys_getppid"],
        entry32: "__x64_sys_getppid",
    },
];

impl Call {
    fn target(&self) -> Target<'static> {
        Target::syscall(self.name).unwrap()
    }

    /// Calls it as a 64-bit program does. Without arguments it fails, or does nothing.
    fn make(&self, times: u64) {
        for _ in 0..times {
            #[allow(unsafe_code, reason = "the C library may make another call")]
            // SAFETY: no call of the table reads or writes memory at address 0.
            unsafe {
                libc::syscall(self.number, 0, 0, 0, 0);
            }
        }
    }
}

/// Calls of 32-bit callers.
#[cfg(target_arch = "x86_64")]
mod narrow {
    use std::arch::asm;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::Call;

    /// Makes a call by the table of 32-bit callers, though the process is a 64-bit one.
    pub(super) fn int80(call: &Call, times: u64) {
        for _ in 0..times {
            #[allow(unsafe_code, reason = "a system call")]
            // SAFETY: the instruction changes no register but rax, and before Linux 4.17 r8 to r11.
            // Without arguments, no call of the table reads or writes memory. LLVM keeps rbx for
            // itself, so it is put back.
            unsafe {
                asm!(
                    "xchg {first}, rbx",
                    "int 0x80",
                    "xchg {first}, rbx",
                    first = inout(reg) 0_u64 => _,
                    inout("rax") u64::from(call.number32) => _,
                    in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                );
            }
        }
    }

    /// The 32-bit program, which makes the calls of a table without arguments.
    const CODE: [u8; 25] = [
        0xbd, 0, 0, 0, 0, // mov ebp, the address of the table
        0x8b, 0x45, 0, // mov eax, [ebp]
        0x83, 0xc5, 4, // add ebp, 4
        0x31, 0xdb, // xor ebx, ebx
        0x31, 0xc9, // xor ecx, ecx
        0x31, 0xd2, // xor edx, edx
        0x31, 0xf6, // xor esi, esi
        0x31, 0xff, // xor edi, edi
        0xcd, 0x80, // int 0x80
        0xeb, 0xec, // jmp to the second instruction
    ];

    /// Runs a 32-bit program that makes a call.
    pub(super) fn program(call: &Call, times: u64) {
        let path = write(call, times);
        let status = Command::new(path).status().unwrap();
        assert!(status.success(), "{status}");
        fs::remove_file(path).unwrap();
    }

    /// Writes that program, and returns its path.
    pub(super) fn write(call: &Call, times: u64) -> &'static str {
        const EXIT: u32 = 1;
        const BASE: u32 = 0x0804_8000;
        const HEADERS: u32 = 52 + 32;
        let mut code = CODE;
        let table = BASE + HEADERS + u32::try_from(CODE.len()).unwrap();
        code[1..5].copy_from_slice(&table.to_le_bytes());
        let mut numbers = vec![call.number32; times as usize];
        numbers.push(EXIT);
        let numbers: Vec<_> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        let size = HEADERS + u32::try_from(code.len() + numbers.len()).unwrap();

        let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(); // 32-bit, little endian
        let half = |elf: &mut Vec<u8>, number: u16| elf.extend(number.to_le_bytes());
        let word = |elf: &mut Vec<u8>, number: u32| elf.extend(number.to_le_bytes());
        half(&mut elf, 2); // ET_EXEC
        half(&mut elf, 3); // EM_386
        for number in [1, BASE + HEADERS, 52, 0, 0] {
            word(&mut elf, number); // version, entry, program header, no section header, flags
        }
        for number in [52, 32, 1, 40, 0, 0] {
            half(&mut elf, number); // sizes and numbers of the headers
        }
        for number in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
            word(&mut elf, number); // PT_LOAD of the file, read and run
        }
        elf.extend(code);
        elf.extend(numbers);

        let path = "/tmp/narrow";
        fs::write(path, elf).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// A program at the entry of a function and one at its return.
struct Both {
    entry: (Counter, KprobeLink),
    ret: (Counter, KprobeLink),
}

impl Both {
    fn attach(kernel: &Kernel, target: Target<'_>, opts: KprobeOpts) -> Self {
        let attach = |opts: KprobeOpts| {
            let counter = Counter::new();
            let link = counter.attach(kernel, target, &opts);
            (counter, link)
        };
        Self {
            entry: attach(opts),
            ret: attach(opts.retprobe(true)),
        }
    }

    fn hits(&self) -> (u64, u64) {
        (self.entry.0.hits(), self.ret.0.hits())
    }

    fn detach(self) {
        self.entry.1.detach().unwrap();
        self.ret.1.detach().unwrap();
    }
}

/// Makes calls of each kind of callers. Returns how many there were: of 64-bit callers, and of
/// 32-bit callers.
fn call_by_all(call: &Call) -> (u64, u64) {
    call.make(3);
    narrow::int80(call, 2);
    narrow::program(call, 5);
    (3, 7)
}

/// Finds the functions of targets with one reading of the symbols.
fn find(targets: impl Iterator<Item = Target<'static>>) -> Vec<Resolution<'static>> {
    let mut found: Vec<_> = targets.map(Resolution::new).collect();
    resolve(&mut found, |_, symbol| panic!("{symbol}")).unwrap();
    found
}

/// The modes that differ most: that of links or the PMU, and that of tracefs.
fn modes() -> [AttachMode; 2] {
    let promised = promised();
    [promised[0], promised[promised.len() - 1]]
}

#[test]
fn the_native_entry_point_is_that_of_native_callers() {
    let kernel = asked();
    let found = find(CALLS.iter().map(Call::target));
    for (call, found) in CALLS.iter().zip(&found) {
        let function = found.function().and_then(|target| target.function());
        assert_eq!(function, Some(call.entries[0]));
        assert_eq!(found.functions(), 1);
        for mode in modes() {
            clean(|| {
                let opts = KprobeOpts::new().attach_mode(mode);
                let both = Both::attach(&kernel, found.target().unwrap(), opts);
                let (native, narrow) = call_by_all(call);
                let shared = call.entry32 == call.entries[0];
                let expected = if shared { native + narrow } else { native };
                assert_eq!(both.hits(), (expected, expected), "{} {mode}", call.name);
                both.detach();
            });
        }
    }
}

#[test]
fn an_attach_finds_the_entry_point_by_itself() {
    let kernel = asked();
    for (mode, call) in promised().into_iter().zip(CALLS.iter().cycle()) {
        clean(|| {
            let opts = KprobeOpts::new().attach_mode(mode);
            let both = Both::attach(&kernel, call.target(), opts);
            call.make(2);
            assert_eq!(both.hits(), (2, 2), "{mode}");
            both.detach();
        });
    }
}

#[test]
fn all_entry_points_are_those_of_callers_of_each_kind() {
    let kernel = asked();
    let targets = CALLS
        .iter()
        .map(|call| Resolution::new(call.target().all()));
    let mut resolutions: Vec<_> = targets.collect();
    let mut found: [Vec<TargetBuf>; CALLS.len()] = Default::default();
    resolve(&mut resolutions, |at, symbol| {
        found[at].push(symbol.found().unwrap().into());
    })
    .unwrap();
    for ((call, resolution), mut found) in CALLS.iter().zip(&resolutions).zip(found) {
        assert_eq!(resolution.functions() as usize, found.len());
        found.sort_by_cached_key(TargetBuf::to_string);
        let names: Vec<_> = found.iter().map(TargetBuf::to_string).collect();
        let mut expected = call.entries.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for mode in modes() {
            clean(|| {
                let opts = KprobeOpts::new().attach_mode(mode);
                let attach = |found: &TargetBuf| Both::attach(&kernel, found.as_target(), opts);
                let attached: Vec<_> = found.iter().map(attach).collect();
                let (native, narrow) = call_by_all(call);
                for (name, both) in names.iter().zip(attached) {
                    let mut hits = 0;
                    if name == call.entries[0] {
                        hits += native;
                    }
                    if name == call.entry32 {
                        hits += narrow;
                    }
                    assert_eq!(both.hits(), (hits, hits), "{name} {mode}");
                    both.detach();
                }
            });
        }
    }
}

#[test]
fn a_call_that_the_kernel_does_not_have_is_missing() {
    let symbols = kallsyms();
    let is_compat = |call: &str| {
        let name = format!("__ia32_compat_sys_{call}");
        { symbols.iter() }.any(|(_, kind, symbol, _)| *kind == 'T' && *symbol == name)
    };
    let weak = { symbols.iter() }.filter(|(_, kind, _, _)| *kind == 'W');
    let mut calls: Vec<_> = weak
        .filter_map(|(_, _, name, _)| name.strip_prefix("__x64_sys_"))
        .filter(|call| !is_compat(call))
        .collect();
    assert!(calls.len() > 3, "{calls:?}");
    // A function that does the work of all of them, and one that is no entry point.
    calls.extend(["ni_syscall", "fillrect", "nosuch"]);
    let targets = calls.iter().flat_map(|call| {
        let target = Target::syscall(call).unwrap();
        [target, target.all()]
    });
    let mut found: Vec<_> = targets.map(Resolution::new).collect();
    resolve(&mut found, |_, symbol| panic!("{symbol}")).unwrap();
    for found in &found {
        let error = found.target().expect_err(&found.request().to_string());
        assert_eq!(error.step(), Step::ResolveSymbol);
        assert_eq!(error.errno(), Errno::NOENT);
        assert_eq!(error.cause(), Cause::NoSuchFunction);
    }
    let counter = Counter::new();
    let target = Target::syscall("nosuch").unwrap();
    let attached = Kernel::new().attach_kprobe(&counter.program, target, &KprobeOpts::new());
    assert_eq!(attached.unwrap_err().cause(), Cause::NoSuchFunction);
}

#[test]
fn without_addresses_the_native_entry_point_has_its_name() {
    let call = &CALLS[0];
    let kernel = asked();
    let _hidden = Switch::set("/proc/sys/kernel/kptr_restrict", "2").unwrap();
    let found = find([call.target()].into_iter());
    for mode in promised() {
        clean(|| {
            let opts = KprobeOpts::new().attach_mode(mode);
            let both = Both::attach(&kernel, found[0].target().unwrap(), opts);
            call.make(2);
            assert_eq!(both.hits(), (2, 2));
            both.detach();
        });
    }
    // Without them it cannot be seen which of several names are of one function.
    let counter = Counter::new();
    let all = call.target().all();
    let attached = kernel.attach_kprobe(&counter.program, all, &KprobeOpts::new());
    let error = attached.unwrap_err();
    assert_eq!(
        (error.errno(), error.cause()),
        (Errno::PERM, Cause::NoPermission)
    );
}

#[test]
fn an_offset_is_refused_before_anything_is_read() {
    let counter = Counter::new();
    let opts = KprobeOpts::new().offset(4);
    let attached = Kernel::new().attach_kprobe(&counter.program, CALLS[0].target(), &opts);
    assert_eq!(attached.unwrap_err().step(), Step::Request);
}

#[test]
fn the_program_counts_each_entry_point_and_names_it() {
    let call = &CALLS[1];
    let path = narrow::write(call, 6);
    let all = format!("ksyscall/{}@all", call.name);
    let native = format!("kretsyscall/{}", call.name);
    for mode in modes() {
        clean(|| {
            let args = [
                "count",
                "--json",
                "--mode",
                mode.name(),
                &all,
                &native,
                "--",
                path,
            ];
            let output = run(&args);
            assert!(output.status.success(), "{}", text(&output.stderr));
            let lines = json(&output.stdout);
            let mut names = Vec::new();
            for line in &lines {
                let name = line["resolved"]["symbol"].as_str().unwrap();
                let narrow = name == call.entry32 && line["retprobe"] == false;
                assert_eq!(line["hits"], if narrow { 6 } else { 0 }, "{line}");
                names.push(name.to_owned());
            }
            assert_eq!(names.pop().as_deref(), Some(call.entries[0]));
            names.sort();
            let mut expected = call.entries.to_vec();
            expected.sort_unstable();
            assert_eq!(names, expected);
        });
    }
    fs::remove_file(path).unwrap();
    let output = run(&["count", "ksyscall/nosuch"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("does not have this system call"),
        "{message}"
    );
    let output = run(&["count", "ksyscall/openat+4"]);
    assert_eq!(output.status.code(), Some(2));
}
