//! Probes fire, in every mode, and stop when they are detached.

use std::fs;

use kprobe_attach::bpf::Array;
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::tracefs::EventLine;
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts, Target, TargetBuf, attach_kprobe};
use rustix::thread::CpuSet;

use crate::machine::{
    Counter, FUNCTION, LOCAL_ENTRY, OTHER_FUNCTION, address_of, asked, busybox, clean, counting,
    counting_by_cookie, fds, function, in_thread, link_modes, mkdir, promised, tells_place, unlink,
    version,
};

#[test]
fn entry_and_return_probes_fire_until_detached() {
    let kernel = asked();
    for mode in promised() {
        for retprobe in [false, true] {
            clean(|| {
                let counter = Counter::new();
                let opts = KprobeOpts::new().retprobe(retprobe).attach_mode(mode);
                let link = counter.attach(&kernel, function(), &opts);
                assert_eq!(link.mode(), mode);
                unlink(3);
                assert_eq!(counter.hits(), 3, "{mode}");
                link.detach().unwrap();
                unlink(3);
                assert_eq!(counter.hits(), 3, "{mode}: after detach");
            });
        }
    }
}

#[test]
fn dropping_a_link_detaches() {
    let kernel = asked();
    for mode in promised() {
        clean(|| {
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode);
            drop(counter.attach(&kernel, function(), &opts));
            unlink(1);
            assert_eq!(counter.hits(), 0, "{mode}");
        });
    }
}

#[test]
fn the_default_mode_is_the_first_that_is_promised() {
    clean(|| {
        let counter = Counter::new();
        let link = attach_kprobe(&counter.program, function(), &KprobeOpts::new()).unwrap();
        assert_eq!(link.mode(), promised()[0]);
        unlink(1);
        assert_eq!(counter.hits(), 1);
    });
}

#[test]
fn one_program_attached_twice_sees_both_cookies() {
    let kernel = asked();
    for mode in link_modes() {
        clean(|| {
            let counters = Array::create(4).unwrap();
            let program = counting_by_cookie(&counters);
            let opts = KprobeOpts::new().attach_mode(mode);
            let attach =
                |cookie| kernel.attach_kprobe(&program, function(), &opts.bpf_cookie(cookie));
            let (one, three) = (attach(1).unwrap(), attach(3).unwrap());
            unlink(2);
            let counts = [0, 1, 2, 3].map(|index| counters.get(index).unwrap());
            assert_eq!(counts, [0, 2, 0, 2], "{mode}");
            one.detach().unwrap();
            unlink(1);
            let counts = [1, 3].map(|index| counters.get(index).unwrap());
            assert_eq!(counts, [2, 3], "{mode}");
            drop(three);
        });
    }
}

#[test]
fn a_cookie_is_refused_where_nothing_carries_it() {
    let kernel = asked();
    for mode in AttachMode::ALL {
        let opts = KprobeOpts::new().bpf_cookie(7).attach_mode(mode);
        clean(
            || match kernel.attach_kprobe(&Counter::new().program, function(), &opts) {
                Ok(link) => assert!(link.mode().uses_link() && promised().contains(&mode)),
                Err(error) if mode.uses_link() => {
                    assert_eq!(error.step(), Step::ProbeKernel);
                    assert_eq!(error.cause(), Cause::NoPerfLink);
                    assert!(!promised().contains(&mode));
                }
                Err(error) => {
                    assert_eq!(error.step(), Step::Request);
                    assert_eq!(error.errno(), Errno::OPNOTSUPP);
                }
            },
        );
    }
}

#[test]
fn an_offset_fires_on_instruction_boundaries_only() {
    let kernel = asked();
    let first = if LOCAL_ENTRY == 0 { 1 } else { LOCAL_ENTRY };
    for mode in promised() {
        let mut fired = 0;
        let mut refused = 0;
        for offset in first..=24 {
            clean(|| {
                let counter = Counter::new();
                let opts = KprobeOpts::new().offset(offset).attach_mode(mode);
                match kernel.attach_kprobe(&counter.program, function(), &opts) {
                    Ok(link) => {
                        unlink(2);
                        assert_eq!(counter.hits(), 2, "{mode}: {FUNCTION}+{offset}");
                        let told = link.info().unwrap().offset;
                        assert_eq!(told, tells_place(mode).then_some(offset), "{mode}");
                        fired += 1;
                    }
                    Err(error) => {
                        assert!(
                            matches!(
                                error.cause(),
                                Cause::NotInstructionBoundary | Cause::NotProbeable
                            ),
                            "{error}"
                        );
                        assert!(
                            error
                                .to_string()
                                .starts_with(&format!("{FUNCTION}+{offset:#x}: "))
                        );
                        refused += usize::from(error.cause() == Cause::NotInstructionBoundary);
                    }
                }
            });
        }
        assert!(fired > 0, "{mode}: no offset could be probed");
        assert!(
            refused > 0 || cfg!(not(any(target_arch = "x86_64", target_arch = "x86"))),
            "{mode}: every offset was taken"
        );
    }
}

#[test]
fn an_address_fires_in_every_mode() {
    let kernel = asked();
    let target = Target::address(address_of(FUNCTION) + LOCAL_ENTRY);
    for mode in promised() {
        for retprobe in [false, true] {
            clean(|| {
                let counter = Counter::new();
                let opts = KprobeOpts::new().attach_mode(mode).retprobe(retprobe);
                let link = counter.attach(&kernel, target, &opts);
                unlink(2);
                assert_eq!(counter.hits(), 2, "{mode}");
                link.detach().unwrap();
                unlink(2);
                assert_eq!(counter.hits(), 2, "{mode}: after detach");
            });
        }
    }
}

#[test]
fn two_programs_on_one_function_both_fire() {
    let kernel = asked();
    for mode in promised() {
        clean(|| {
            let counters = Array::create(2).unwrap();
            let programs = [counting(&counters, 0), counting(&counters, 1)];
            let opts = KprobeOpts::new().attach_mode(mode);
            let links = programs
                .each_ref()
                .map(|program| kernel.attach_kprobe(program, function(), &opts).unwrap());
            unlink(2);
            assert_eq!(
                [0, 1].map(|index| counters.get(index).unwrap()),
                [2, 2],
                "{mode}"
            );
            drop(links);
        });
    }
}

#[test]
fn the_longest_function_name_is_attached_under_an_event_name_of_its_own() {
    let kernel = asked();
    // What ftrace can trace can be probed; a module's function has a second word.
    let traceable = fs::read_to_string("/sys/kernel/tracing/available_filter_functions").unwrap();
    let mut names: Vec<&str> = traceable
        .lines()
        .filter(|name| !name.contains(' '))
        .collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for mode in promised() {
        let opts = KprobeOpts::new().attach_mode(mode);
        let counter = Counter::new();
        // A name may stand for several functions.
        let attached = names.iter().take(100).find_map(|name| {
            let target = Target::symbol(name).unwrap();
            let link = kernel.attach_kprobe(&counter.program, target, &opts).ok()?;
            Some((name, link))
        });
        let (name, link) = attached.expect("a long function that can be probed");
        assert!(name.len() > 46, "{name}");
        let events = fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap();
        let listed = EventLine::parse(events.trim_end().as_bytes());
        assert_eq!(listed.is_some(), mode.uses_tracefs(), "{events}");
        if let Some(listed) = listed {
            assert!(listed.is_ours());
            // Whatever its length, the function's name is no part of the event's: some kernels have
            // one that leaves no room.
            let has_longer = cfg!(any(
                target_arch = "x86_64",
                target_arch = "aarch64",
                target_arch = "riscv64"
            ));
            assert!(name.len() + 11 >= 63 || !has_longer, "{name}");
            assert_eq!(listed.place, *name, "{events}");
            let upper_half = &listed.group["kprobe_attach_".len()..][..8];
            let number = listed.event.strip_prefix(&format!("probe_{upper_half}_"));
            assert!(number.unwrap().parse::<u32>().is_ok(), "{events}");
        }
        link.detach().unwrap();
        let events = fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap();
        assert_eq!(events, "");
    }
}

#[test]
fn a_function_of_a_module_is_attached_by_its_module() {
    if std::env::var("KPROBE_ATTACH_MODULES").unwrap().is_empty() {
        // Of a kernel that it has replaced, Debian keeps the image and not the modules; these it
        // has in one package.
        assert!(![(5, 10), (6, 1), (6, 12)].contains(&version()));
        println!("not run here: there are no modules of this kernel");
        return;
    }
    let kernel = asked();
    // Runs when a network device of the module's kind is made.
    let target = Target::in_module("dummy", "dummy_dev_init").unwrap();
    for mode in promised() {
        clean(|| {
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode);
            if !mode.uses_tracefs() {
                // tracefs takes a module that is not there yet.
                let error = kernel
                    .attach_kprobe(&counter.program, target, &opts)
                    .unwrap_err();
                assert_eq!(
                    (error.errno(), error.cause()),
                    (Errno::NOENT, Cause::ModuleNotLoaded)
                );
            }
            busybox("insmod /lib/modules/dummy.ko");
            let link = counter.attach(&kernel, target, &opts);
            busybox("ip link add probed type dummy");
            assert_eq!(counter.hits(), 1, "{mode}");
            let told = link.info().unwrap().function;
            assert_eq!(told.is_some(), tells_place(mode), "{mode}");
            let told = told.as_ref().map(TargetBuf::as_target);
            let told = told.map(|told| told.function().unwrap());
            assert!([None, Some("dummy_dev_init")].contains(&told), "{told:?}");
            drop(link);
            busybox("rmmod dummy");
        });
    }
}

#[test]
fn maxactive_reaches_the_kernel() {
    let kernel = asked();
    for mode in promised().into_iter().filter(|mode| mode.uses_tracefs()) {
        clean(|| {
            let counter = Counter::new();
            let opts = KprobeOpts::new().retprobe(true).maxactive(64);
            let link = counter.attach(&kernel, function(), &opts.attach_mode(mode));
            let events = fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap();
            let listed = EventLine::parse(events.trim_end().as_bytes()).unwrap();
            assert!(listed.is_ours() && listed.retprobe);
            assert_eq!((listed.maxactive, listed.place), (64, FUNCTION));
            unlink(2);
            assert_eq!(counter.hits(), 2);
            drop(link);
            // Unset, the first mode that can carry it is taken.
            let link = counter.attach(&kernel, function(), &opts);
            assert!(link.mode().uses_tracefs());
        });
    }
}

#[test]
fn a_link_holds_one_file_descriptor_and_a_tracefs_event_two() {
    let kernel = asked();
    for mode in promised() {
        let counter = Counter::new();
        let before = fds().len();
        let opts = KprobeOpts::new().attach_mode(mode);
        let links = [(); 3].map(|()| counter.attach(&kernel, function(), &opts));
        let each = if mode.uses_tracefs() { 2 } else { 1 };
        assert_eq!(fds().len(), before + 3 * each, "{mode}");
        drop(links);
        assert_eq!(fds().len(), before, "{mode}");
    }
}

#[test]
fn many_probes_are_told_apart() {
    let kernel = asked();
    for mode in promised() {
        clean(|| {
            let (one, other) = (Counter::new(), Counter::new());
            let opts = KprobeOpts::new().attach_mode(mode);
            let links = [
                one.attach(&kernel, function(), &opts),
                one.attach(&kernel, function(), &opts.retprobe(true)),
                other.attach(&kernel, Target::symbol(OTHER_FUNCTION).unwrap(), &opts),
            ];
            unlink(1);
            mkdir(3);
            assert_eq!((one.hits(), other.hits()), (2, 3), "{mode}");
            drop(links);
        });
    }
}

#[test]
fn a_thread_that_may_not_run_on_cpu_0_opens_events_on_one_of_its_own() {
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let mut cpus = (0..CpuSet::MAX_CPU).rev();
    // Where there is but one, that.
    let last = cpus.find(|cpu| all.is_set(*cpu)).unwrap();
    let mut only = CpuSet::new();
    only.set(last);
    in_thread(|| {
        rustix::thread::sched_setaffinity(None, &only).unwrap();
        let kernel = Kernel::new();
        for mode in promised() {
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode);
            let link = counter.attach(&kernel, function(), &opts);
            // The program runs on every CPU all the same.
            rustix::thread::sched_setaffinity(None, &all).unwrap();
            for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)) {
                let mut here = CpuSet::new();
                here.set(cpu);
                rustix::thread::sched_setaffinity(None, &here).unwrap();
                let before = counter.hits();
                unlink(1);
                assert_eq!(counter.hits(), before + 1, "{mode}: CPU {cpu}");
            }
            drop(link);
        }
        assert_eq!(kernel.features().cpu as usize, last);
        rustix::thread::sched_setaffinity(None, &only).unwrap();
        assert_eq!(Kernel::new().features().cpu as usize, last);
    });
}

#[test]
fn cpu_0_offline_is_no_obstacle() {
    const ONLINE: &str = "/sys/devices/system/cpu/cpu0/online";
    // x86 lost the offlining of CPU 0 in Linux 6.5 (commit e59e74dc48a3); before, the machine is
    // booted with cpu0_hotplug.
    let may = version() < (6, 5) || cfg!(not(any(target_arch = "x86_64", target_arch = "x86")));
    if !may {
        assert!(
            !fs::exists(ONLINE).unwrap(),
            "CPU 0 can go offline here: test it"
        );
        return;
    }
    if std::thread::available_parallelism().unwrap().get() == 1 {
        // These machines are emulated with one, which stays.
        let emulated = ["arm", "s390x", "powerpc64"];
        assert!(emulated.contains(&std::env::consts::ARCH));
        fs::write(ONLINE, "0").unwrap_err();
        return;
    }
    fs::write(ONLINE, "0").unwrap();
    let kernel = Kernel::new();
    let counts = promised().into_iter().map(|mode| {
        let counter = Counter::new();
        let link = kernel.attach_kprobe(
            &counter.program,
            function(),
            &KprobeOpts::new().attach_mode(mode),
        );
        unlink(2);
        (link.map(|link| link.mode()), counter.hits())
    });
    let counts: Vec<_> = counts.collect();
    fs::write(ONLINE, "1").unwrap();
    assert_eq!(kernel.features().cpu, 1);
    let expected: Vec<_> = promised().into_iter().map(|mode| (Ok(mode), 2)).collect();
    assert_eq!(counts, expected);
}
