//! Functions of one name: the one that is meant is attached, in every mode, and no other.

use std::fs;
use std::process::{Command, Output};

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::request::Probe;
use kprobe_attach::symbols::{Resolution, for_each_function, resolve};
use kprobe_attach::{AttachMode, Errno, Error, Kernel, KprobeLink, KprobeOpts, Target};
use rustix::thread::CapabilitySet;
use serde_json::Value;

use super::machine::{
    Counter, Switch, asked, busybox, clean, drop_capabilities, in_thread, json, kallsyms,
    link_modes, program, promised, run, tells_place, text, version,
};

/// A name that two static functions of the kernel have. The first one, of `fs/proc/fd.c`, runs once
/// for each [`read_fdinfo`].
const TWICE: &str = "seq_show";

/// A name that a function of the loopback device has, and one of the module `nlmon`. Each runs once
/// for each [`get_link`] of its device.
const SHADOWED: &str = "always_on";

/// A function that exists under another name only: the compiler has changed its arguments. It runs
/// once for each [`sysinfo`].
const CHANGED: &str = "do_sysinfo";

fn read_fdinfo(times: usize) {
    for _ in 0..times {
        fs::read_to_string("/proc/self/fdinfo/0").unwrap();
    }
}

fn sysinfo(times: usize) {
    for _ in 0..times {
        rustix::system::sysinfo();
    }
}

/// Asks a network device whether it is connected.
fn get_link(device: &str, times: usize) {
    #[repr(C)]
    struct Value {
        cmd: u32,
        data: u32,
    }
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        value: *mut Value,
        rest: [u64; 2],
    }
    const SIOCETHTOOL: u32 = 0x8946;
    const ETHTOOL_GLINK: u32 = 10;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    for _ in 0..times {
        let mut value = Value {
            cmd: ETHTOOL_GLINK,
            data: 0,
        };
        let mut name = [0; 16];
        name[..device.len()].copy_from_slice(device.as_bytes());
        let mut request = Request {
            name,
            value: &raw mut value,
            rest: [0; 2],
        };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        #[allow(unsafe_code, reason = "the C library has no function for it")]
        // SAFETY: the request is one of SIOCETHTOOL, and its value outlives the call.
        let answer = unsafe { libc::syscall(libc::SYS_ioctl, fd, SIOCETHTOOL, &raw mut request) };
        assert_eq!((answer, value.data), (0, 1), "{device}");
    }
}

/// The module whose function shadows one of the kernel, with a device of it.
struct Shadow;

impl Shadow {
    fn load() -> Self {
        busybox("insmod /lib/modules/nlmon.ko");
        let shadow = Self;
        busybox("ip link add nlmon0 type nlmon");
        busybox("ip link set nlmon0 up");
        busybox("ip link set lo up");
        shadow
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // The device holds the module as long as it is up.
        busybox("ip link del nlmon0");
        busybox("rmmod nlmon");
    }
}

/// The functions of a name, in the kernel's order: their addresses and modules.
fn functions(name: &str) -> Vec<(u64, Option<String>)> {
    let symbols = kallsyms().into_iter();
    let named = symbols.filter(|(_, kind, symbol, _)| symbol == name && "tTwW".contains(*kind));
    named
        .map(|(address, _, _, module)| (address, module))
        .collect()
}

fn target(text: &str) -> Target<'_> {
    Probe::parse(text).unwrap().target
}

/// Finds the functions of targets with one reading, which takes seconds in a machine.
fn find<const N: usize>(texts: [&str; N]) -> [Resolution<'_>; N] {
    let mut found = texts.map(|text| Resolution::new(target(text)));
    resolve(&mut found, |_, _| {}).unwrap();
    found
}

/// Attaches to what a probe was resolved to, in a mode, has it run, and answers the hits. Checks
/// what the kernel tells.
fn hits(
    mode: AttachMode,
    text: &str,
    found: &Resolution<'_>,
    address: u64,
    run: impl FnOnce(),
) -> u64 {
    let counter = Counter::new();
    let opts = Probe::parse(text).unwrap().opts.attach_mode(mode);
    let link = counter.attach(&Kernel::new(), found.target().unwrap(), &opts);
    check_info(&link, address, text);
    run();
    counter.hits()
}

fn check_info(link: &KprobeLink, address: u64, text: &str) {
    let info = link.info().unwrap();
    if tells_place(link.mode()) {
        assert_eq!(info.offset, Some(0), "{text} {info:x?}");
    }
    // A kernel before Linux 6.6 tells no address of a function that it has by its name.
    assert!(
        info.address.is_none_or(|told| told == address),
        "{text} {info:x?}"
    );
    let tells_address = info.address.is_some();
    assert!(tells_address || version() < (6, 6), "{text} {info:x?}");
}

#[test]
fn one_of_two_static_functions_is_attached_by_its_number() {
    let found = functions(TWICE);
    assert_eq!(found.len(), 2, "{found:x?}");
    let probes = [
        ("seq_show@first", 0, 3),
        ("seq_show@2", 1, 0),
        ("vmlinux:seq_show@2", 1, 0),
        ("kretprobe/seq_show@first", 0, 3),
    ];
    let resolved = find(probes.map(|(text, ..)| text));
    for mode in promised() {
        clean(|| {
            for ((text, at, expected), resolved) in probes.iter().zip(&resolved) {
                let hits = hits(mode, text, resolved, found[*at].0, || read_fdinfo(3));
                assert_eq!(hits, *expected, "{mode} {text}");
            }
        });
    }
    // An attach resolves by itself.
    let counter = Counter::new();
    let link = counter.attach(&Kernel::new(), target("seq_show@2"), &KprobeOpts::new());
    check_info(&link, found[1].0, "seq_show@2");
}

#[test]
fn a_name_that_is_not_unique_is_refused_with_what_has_it() {
    let found = functions(TWICE);
    let addresses: Vec<_> = found.iter().map(|(address, _)| *address).collect();
    let (counter, kernel) = (Counter::new(), asked());
    let check = |error: Error, step: Option<Step>| {
        assert_eq!(error.cause(), Cause::NotUnique, "{error}");
        assert!(step.is_none_or(|step| step == error.step()), "{error}");
        assert_eq!(error.functions(), Some(2), "{error}");
        assert_eq!(error.addresses().collect::<Vec<_>>(), addresses, "{error}");
        let shown = error.to_string();
        assert!(shown.contains("2 functions: 0x"), "{shown}");
    };
    let not_unique = ["seq_show@unique", "vmlinux:seq_show", "seq_show,base"];
    for resolved in find(not_unique) {
        check(resolved.target().unwrap_err(), Some(Step::ResolveSymbol));
    }
    let error = find(["seq_show@3"])[0].target().unwrap_err();
    assert_eq!((error.errno(), error.functions()), (Errno::NOENT, Some(2)));
    for mode in promised() {
        let opts = KprobeOpts::new().attach_mode(mode);
        let refused = |text| kernel.attach_kprobe(&counter.program, target(text), &opts);
        clean(|| {
            // More than one is not for one link.
            let error = refused("seq_show@all").unwrap_err();
            check(error, Some(Step::ResolveSymbol));
            // Without a choice, the kernel decides. An older one takes the first.
            match refused("seq_show") {
                Err(error) => check(error, None),
                Ok(_) => assert!(version() < (6, 1)),
            }
        });
    }
}

#[test]
fn a_function_that_a_module_shadows_is_reached_both_ways() {
    let _shadow = Shadow::load();
    let found = functions(SHADOWED);
    assert!(
        matches!(&found[..], [(_, None), (_, Some(module))] if module == "[nlmon]"),
        "{found:x?}"
    );
    let probes = [
        ("vmlinux:always_on", 0, 2),
        ("always_on@2", 1, 5),
        ("nlmon:always_on", 1, 5),
        ("nlmon:always_on@unique", 1, 5),
    ];
    let resolved = find(probes.map(|(text, ..)| text));
    for mode in promised() {
        clean(|| {
            for ((text, at, expected), resolved) in probes.iter().zip(&resolved) {
                let hits = hits(mode, text, resolved, found[*at].0, || {
                    get_link("lo", 2);
                    get_link("nlmon0", 5);
                });
                assert_eq!(hits, *expected, "{mode} {text}");
            }
        });
    }
}

#[test]
fn a_base_name_is_that_of_the_copy_that_the_compiler_made() {
    let name = kallsyms().into_iter().find_map(|(address, _, name, _)| {
        let is_copy = name.starts_with("do_sysinfo.") && !name.contains("cold");
        is_copy.then_some((name, address))
    });
    let (name, address) = name.unwrap();
    let exact = format!("{name},base");
    let found = find(["do_sysinfo,base", &exact]);
    let function = found[0].function().unwrap();
    assert_eq!(function.function(), Some(&*name));
    assert!(found[0].is_copy(&function));
    assert_eq!(
        (found[0].address(), found[0].functions()),
        (Some(address), 1)
    );
    let error = Kernel::new()
        .attach_kprobe(&Counter::new().program, target(CHANGED), &KprobeOpts::new())
        .unwrap_err();
    assert_eq!(error.cause(), Cause::NoSuchFunction);
    for mode in promised() {
        clean(|| {
            // An exact name is taken before its copies.
            for (text, found) in ["do_sysinfo,base", &exact].into_iter().zip(&found) {
                let hits = hits(mode, text, found, address, || sysinfo(4));
                assert_eq!(hits, 4, "{mode} {text}");
            }
        });
    }
}

#[test]
fn all_functions_are_listed_in_order_with_one_reading() {
    let _shadow = Shadow::load();
    let mut all = Vec::new();
    for_each_function(&target(SHADOWED), |symbol| {
        all.push((
            symbol.address,
            symbol.module.map(|module| format!("[{module}]")),
        ));
    })
    .unwrap();
    assert_eq!(all, functions(SHADOWED));
}

/// From whom the kernel hides addresses.
const RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";

#[test]
fn hidden_addresses_are_no_missing_function() {
    let check = |why: &str| {
        let hidden = (Step::ResolveSymbol, Errno::PERM, Cause::NoPermission);
        let found = find([
            "seq_show@first",
            "seq_show@2",
            "seq_show@all",
            // A name that is enough needs no address.
            "vmlinux:vfs_unlink",
            "vfs_unlink@first",
            "vfs_unlink,base",
            "no_such_function@first",
        ]);
        for found in &found[..3] {
            let error = found.target().unwrap_err();
            let told = (error.step(), error.errno(), error.cause());
            assert_eq!(told, hidden, "{why} {error}");
        }
        for found in &found[3..6] {
            let target = found.target().unwrap().to_string();
            assert_eq!(target, "vfs_unlink", "{why}");
        }
        let error = found[6].target().unwrap_err();
        assert_eq!(error.cause(), Cause::NoSuchFunction, "{why}");
        for mode in promised() {
            clean(|| {
                let counter = Counter::new();
                let opts = KprobeOpts::new().attach_mode(mode);
                let target = found[3].target().unwrap();
                let link = counter.attach(&Kernel::new(), target, &opts);
                super::machine::unlink(2);
                assert_eq!(counter.hits(), 2, "{why} {mode}");
                // What is hidden is not guessed.
                assert_eq!(link.info().unwrap().address, None, "{why} {mode}");
            });
        }
    };
    {
        let _nobody = Switch::set(RESTRICT, "2").unwrap();
        check("kptr_restrict=2");
    }
    let _privileged = Switch::set(RESTRICT, "1").unwrap();
    in_thread(|| {
        drop_capabilities(CapabilitySet::SYSLOG);
        check("without CAP_SYSLOG");
    });
}

/// The names of the probes and the addresses that the program reports.
fn resolved(lines: &[Value]) -> Vec<(String, String, Value, u64)> {
    let line = |line: &Value| {
        let resolved = &line["resolved"];
        let address = resolved["address"].as_str().unwrap();
        let address = u64::from_str_radix(address.strip_prefix("0x").unwrap(), 16).unwrap();
        (
            line["probe"].as_str().unwrap().to_owned(),
            resolved["symbol"].as_str().unwrap().to_owned(),
            resolved["module"].clone(),
            address,
        )
    };
    lines.iter().map(line).collect()
}

/// The modes at both ends: which function a name means does not depend on them.
fn two_modes() -> [AttachMode; 2] {
    let modes = promised();
    [modes[0], *modes.last().unwrap()]
}

#[test]
fn the_program_counts_each_function_of_a_name() {
    let _shadow = Shadow::load();
    let [found, twice] = [SHADOWED, TWICE].map(functions);
    for mode in two_modes() {
        clean(|| {
            let output = run(&[
                "count",
                "--json",
                "--mode",
                mode.name(),
                "always_on@all",
                "seq_show@2",
                "do_sysinfo,base",
                "vfs_unlink",
                "--",
                "/bin/busybox",
                "true",
            ]);
            assert!(output.status.success(), "{output:?}");
            let lines = json(&output.stdout);
            assert_eq!(lines.len(), 5, "{lines:?}");
            let named = resolved(&lines[..4]);
            let name = |at: usize| (&*named[at].0, &*named[at].1, named[at].3);
            assert_eq!(name(0), ("always_on@1", SHADOWED, found[0].0));
            assert_eq!(name(1), ("always_on@2", SHADOWED, found[1].0));
            assert_eq!(name(2), ("seq_show@2", TWICE, twice[1].0));
            assert_eq!(
                (&named[0].2, &named[1].2),
                (&Value::Null, &Value::from("nlmon"))
            );
            assert!(named[3].1.starts_with("do_sysinfo."));
            assert_eq!(lines[3]["resolved"]["copy"], true);
            assert_eq!(lines[0]["resolved"]["of"], 2);
            assert_eq!(lines[4].get("resolved"), None);
            let warned = text(&output.stderr);
            assert!(
                warned.contains("do_sysinfo,base: the function is do_sysinfo."),
                "{warned}"
            );
        });
    }
}

#[test]
fn the_program_lists_the_functions_that_a_name_may_mean() {
    let _shadow = Shadow::load();
    let found = functions(SHADOWED);
    for mode in two_modes() {
        clean(|| {
            let refused = ["count", "--mode", mode.name(), "always_on@unique"];
            let output = run(&refused);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let shown = text(&output.stderr);
            for line in [
                format!("always_on@1: always_on at {:#x}", found[0].0),
                format!("always_on@2: nlmon:always_on at {:#x}", found[1].0),
            ] {
                assert!(shown.contains(&line), "{shown}");
            }
            let lines = json(&run(&[&refused[..], &["--json"]].concat()).stdout);
            let error = &lines[0]["error"];
            assert_eq!(
                (lines.len(), &error["cause"]),
                (1, &Value::from("not-unique"))
            );
            let listed = serde_json::json!([
                {"symbol": SHADOWED, "module": null, "address": format!("{:#x}", found[0].0)},
                {"symbol": SHADOWED, "module": "nlmon", "address": format!("{:#x}", found[1].0)},
            ]);
            assert_eq!(error["functions"], listed);
            let plan = run(&["plan", "--mode", mode.name(), "always_on@2+0"]);
            let planned = text(&plan.stdout);
            assert!(planned.contains(&format!("{:#x}", found[1].0)), "{planned}");
            assert!(
                planned.contains("function nlmon:always_on at 0x"),
                "{planned}"
            );
        });
    }
}

/// How often a run of the program opens `/proc/kallsyms`.
fn readings(args: &[&str]) -> (usize, Output) {
    const TRACE: &str = "/tmp/readings";
    let output = Command::new("/bin/strace")
        .args(["-f", "-e", "trace=open,openat", "-o", TRACE])
        .arg(program().get_program())
        .args(args)
        .output()
        .unwrap();
    let trace = fs::read_to_string(TRACE).unwrap();
    fs::remove_file(TRACE).unwrap();
    (trace.matches("/proc/kallsyms").count(), output)
}

#[test]
fn one_reading_serves_a_command_line_and_none_a_plain_name() {
    clean(|| {
        let many = [
            "seq_show@all",
            "do_sysinfo,base",
            "vmlinux:vfs_unlink",
            "vfs_mkdir@first",
        ];
        for command in ["plan", "count"] {
            let args = [
                &[command, "--json"][..],
                &["--for", "0"][..2 * usize::from(command == "count")],
            ]
            .concat();
            let (count, output) = readings(&[&args, &many[..]].concat());
            assert!(output.status.success(), "{output:?}");
            assert_eq!((count, json(&output.stdout).len()), (1, 5), "{command}");
            let (count, output) = readings(&[&args, &["vfs_unlink", "vfs_mkdir"][..]].concat());
            assert!(output.status.success(), "{output:?}");
            assert_eq!(count, 0, "{command}");
        }
    });
}

#[test]
fn a_pin_of_each_function_has_a_name_of_its_own() {
    if link_modes().is_empty() {
        // Only a link can be pinned.
        let output = run(&["count", "--pin", "/sys/fs/bpf/each", "seq_show@all"]);
        assert_eq!(output.status.code(), Some(1));
        return;
    }
    clean(|| {
        const DIR: &str = "/sys/fs/bpf/each";
        let output = run(&["count", "--json", "--pin", DIR, "seq_show@all"]);
        assert!(output.status.success(), "{output:?}");
        let lines = json(&output.stdout);
        let pins: Vec<_> = lines
            .iter()
            .map(|line| line["pinned"].as_str().unwrap())
            .collect();
        let expected: Vec<_> = functions(TWICE)
            .into_iter()
            .map(|(address, _)| format!("{DIR}/kprobe_seq_show_{address:#x}"))
            .collect();
        assert_eq!(pins, expected);
        read_fdinfo(3);
        let mut counts: Vec<_> = json(&run(&["count", "--json", "--pin", DIR]).stdout)
            .iter()
            .map(|line| {
                (
                    line["probe"].as_str().unwrap().to_owned(),
                    line["hits"].as_u64().unwrap(),
                )
            })
            .collect();
        counts.sort();
        assert_eq!(
            counts,
            [("seq_show@1".to_owned(), 3), ("seq_show@2".to_owned(), 0)]
        );
        for entry in fs::read_dir(DIR).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::remove_dir(DIR).unwrap();
    });
}
