//! What a link knows, and pins.

use std::fs;

use kprobe_attach::bpf::{Array, Program};
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::{AttachMode, Errno, KprobeLink, KprobeOpts, Target, TargetBuf};
use rustix::thread::CapabilitySet;

use crate::machine::{
    Counter, FUNCTION, LOCAL_ENTRY, address_of, asked, clean, drop_capabilities, function,
    in_thread, link_modes, pin, promised, tells_place, unlink, version,
};

/// Whether the kernel is at least of this version.
fn at_least(major: u32, minor: u32) -> bool {
    version() >= (major, minor)
}

#[test]
fn info_tells_what_the_kernel_tells_and_nothing_else() {
    let kernel = asked();
    for mode in promised() {
        clean(|| {
            let counter = Counter::new();
            let cookie = if mode.uses_link() { 7 } else { 0 };
            let opts = KprobeOpts::new()
                .retprobe(true)
                .attach_mode(mode)
                .bpf_cookie(cookie);
            let link = counter.attach(&kernel, function(), &opts);
            let info = link.info().unwrap();
            assert_eq!(info.mode, mode);
            assert_eq!(info.retprobe, tells_place(mode).then_some(true), "{mode}");
            assert_eq!(info.offset, tells_place(mode).then_some(0), "{mode}");
            let told = tells_place(mode).then(|| function().into());
            assert_eq!(info.function, told, "{mode}");
            let tells_cookie = mode.uses_link() && at_least(6, 9);
            assert_eq!(info.cookie, tells_cookie.then_some(cookie), "{mode}");
            assert_eq!(info.link_id.is_some(), mode.uses_link());
            assert_eq!(info.prog_id, Some(counter.program.id().unwrap()));
            if at_least(6, 6) {
                assert_eq!(info.address, Some(address_of(FUNCTION)), "{info:x?}");
            } else {
                assert_eq!(info.address, None);
            }
        });
    }
}

#[test]
fn info_of_a_probe_at_an_address_has_the_address() {
    let kernel = asked();
    let address = address_of(FUNCTION) + LOCAL_ENTRY;
    for mode in promised() {
        clean(|| {
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode);
            let link = counter.attach(&kernel, Target::address(address), &opts);
            let info = link.info().unwrap();
            let told = info.function.as_ref().map(TargetBuf::as_target);
            assert_eq!(told.is_some(), tells_place(mode), "{mode}: {info:x?}");
            // Some kernels have found the name of it.
            let entry = [address, address + 4].map(Target::address);
            let fits = |told| entry.contains(&told) || told == function();
            assert!(told.is_none_or(fits), "{mode}: {info:x?}");
        });
    }
}

#[test]
fn info_of_a_perf_event_takes_cap_sys_admin_for_the_place() {
    let kernel = asked();
    // What of an ioctl mode nobody may be told is left open, and no failure.
    let modes = promised().into_iter().filter(|mode| !mode.uses_link());
    for mode in modes {
        clean(|| {
            let counter = Counter::new();
            let opts = KprobeOpts::new().retprobe(true).attach_mode(mode);
            let link = counter.attach(&kernel, function(), &opts);
            let info = in_thread(|| {
                drop_capabilities(CapabilitySet::SYS_ADMIN);
                link.info().unwrap()
            });
            assert_eq!((info.mode, info.prog_id), (mode, None));
            assert_eq!((info.retprobe, info.offset), (None, None), "{mode}");
            assert_eq!((info.function, info.cookie), (None, None), "{mode}");
        });
    }
}

#[test]
fn missed_is_told_where_the_kernel_can() {
    let kernel = asked();
    for mode in promised() {
        clean(|| {
            let counter = Counter::new();
            let link = counter.attach(&kernel, function(), &KprobeOpts::new().attach_mode(mode));
            unlink(2);
            let tells = mode.uses_tracefs() || (mode.uses_link() && at_least(6, 7));
            assert_eq!(link.missed(), Ok(tells.then_some(0)), "{mode}");
            assert_eq!(kernel.missed(&link), Ok(tells.then_some(0)), "{mode}");
            assert_eq!(link.info().unwrap().missed, tells.then_some(0), "{mode}");
        });
    }
}

#[test]
fn a_program_tells_what_it_missed_where_the_kernel_counts() {
    let kernel = asked();
    let map = Array::create(1).unwrap();
    let in_a_map = Target::symbol("array_map_update_elem").unwrap();
    for mode in promised() {
        clean(|| {
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode);
            let link = counter.attach(&kernel, in_a_map, &opts);
            // The system call has the CPU marked as in a program.
            (0..3).for_each(|_| map.set(0, 1).unwrap());
            assert_eq!(counter.hits(), 0, "{mode}");
            let misses = if at_least(6, 7) { 3 } else { 0 };
            assert_eq!(
                counter.program.recursion_misses(),
                Ok(at_least(5, 12).then_some(misses)),
                "{mode}"
            );
            // The probe itself missed nothing.
            assert_eq!(link.missed().unwrap().unwrap_or(0), 0, "{mode}");
        });
    }
}

#[test]
fn a_pinned_link_outlives_its_process_and_ends_with_the_pin() {
    const PIN: &str = "/sys/fs/bpf/links/probe";
    let kernel = asked();
    if link_modes().is_empty() {
        // Nothing can be pinned here; what is refused is tested below.
        return;
    }
    clean(|| {
        let counter = Counter::new();
        let opts = KprobeOpts::new().bpf_cookie(9);
        let link = counter.attach(&kernel, function(), &opts);
        link.pin(PIN).unwrap();
        let taken = link.pin(PIN).unwrap_err();
        assert_eq!(
            (taken.step(), taken.errno(), taken.cause()),
            (Step::Pin, Errno::EXIST, Cause::NameTaken)
        );
        drop(link);
        unlink(2);
        assert_eq!(counter.hits(), 2);

        let opened = KprobeLink::open_pinned(PIN).unwrap();
        let info = opened.info().unwrap();
        assert_eq!(info.mode, AttachMode::Link);
        assert_eq!(info.function, at_least(6, 6).then(|| function().into()));
        assert_eq!(info.offset, at_least(6, 6).then_some(0));
        assert_eq!(info.retprobe, at_least(6, 6).then_some(false));
        assert_eq!(info.cookie, at_least(6, 9).then_some(9));
        // The removal of the pin is itself a hit.
        fs::remove_file(PIN).unwrap();
        fs::remove_dir("/sys/fs/bpf/links").unwrap();
        opened.detach().unwrap();
        unlink(2);
        assert_eq!(counter.hits(), 3);
    });
}

#[test]
fn a_pin_that_fails_leaves_no_directory() {
    let kernel = asked();
    for mode in promised() {
        clean(|| {
            let counter = Counter::new();
            let link = counter.attach(&kernel, function(), &KprobeOpts::new().attach_mode(mode));
            // Not a bpf file system; two directories to make; and a mode that cannot be pinned at
            // all.
            for (path, errno) in [
                ("/tmp/made/pin", Errno::INVAL),
                ("/tmp/pin", Errno::INVAL),
                ("/sys/fs/bpf/a/b/pin", Errno::NOENT),
            ] {
                let error = link.pin(path).unwrap_err();
                assert_eq!(error.step(), Step::Pin);
                if mode == AttachMode::Link {
                    assert_eq!(error.errno(), errno, "{path}");
                } else {
                    assert_eq!(error.cause(), Cause::InvalidRequest);
                }
            }
            assert!(!fs::exists("/tmp/made").unwrap());
            assert!(!fs::exists("/sys/fs/bpf/a").unwrap());
        });
    }
}

#[test]
fn a_program_is_opened_by_pin_and_by_id() {
    const PIN: &str = "/sys/fs/bpf/program";
    let kernel = asked();
    clean(|| {
        let counter = Counter::new();
        pin(&counter.program, PIN);
        let id = counter.program.id().unwrap();
        let by_pin = Program::open_pinned(PIN).unwrap();
        let by_id = Program::open_id(id).unwrap();
        fs::remove_file(PIN).unwrap();
        assert_eq!(by_pin.id().unwrap(), id);
        let links = [&by_pin, &by_id].map(|program| {
            kernel
                .attach_kprobe(program, function(), &KprobeOpts::new())
                .unwrap()
        });
        drop((by_pin, by_id));
        unlink(1);
        assert_eq!(counter.hits(), 2);
        drop(links);

        let gone = Program::open_pinned(PIN).unwrap_err();
        assert_eq!(
            (gone.step(), gone.errno()),
            (Step::OpenProgram, Errno::NOENT)
        );
        let gone = Program::open_id(u32::MAX - 1).unwrap_err();
        assert_eq!(
            (gone.step(), gone.errno()),
            (Step::OpenProgram, Errno::NOENT)
        );
    });
}

#[test]
fn a_pin_of_another_kind_is_not_opened() {
    const PIN: &str = "/sys/fs/bpf/other";
    let kernel = asked();
    clean(|| {
        let counter = Counter::new();
        // The type of an array map has the number of the kprobe program's.
        pin(&counter.counters, PIN);
        let error = Program::open_pinned(PIN).unwrap_err();
        assert_eq!(
            (error.step(), error.cause()),
            (Step::OpenProgram, Cause::WrongProgram)
        );
        fs::remove_file(PIN).unwrap();
        // A path outside of a bpf file system is no question of permission.
        let error = Program::open_pinned("/init").unwrap_err();
        assert_eq!(
            (error.errno(), error.cause()),
            (Errno::INVAL, Cause::WrongProgram)
        );
        assert!(error.to_string().contains("not a pin"), "{error}");
        pin(&counter.program, PIN);
        let error = KprobeLink::open_pinned(PIN).unwrap_err();
        assert_eq!(
            (error.step(), error.cause()),
            (Step::OpenLink, Cause::WrongProgram)
        );
        fs::remove_file(PIN).unwrap();
        let error = KprobeLink::open_pinned(PIN).unwrap_err();
        assert_eq!(
            (error.step(), error.errno()),
            (Step::OpenLink, Errno::NOENT)
        );
        assert!(
            error.to_string().starts_with("open-link: ENOENT: "),
            "{error}"
        );
        if promised()[0].uses_link() {
            let link = counter.attach(
                &kernel,
                Target::symbol(FUNCTION).unwrap(),
                &KprobeOpts::new(),
            );
            link.pin(PIN).unwrap();
            assert_eq!(
                Program::open_pinned(PIN).unwrap_err().cause(),
                Cause::WrongProgram
            );
            fs::remove_file(PIN).unwrap();
        }
    });
}
