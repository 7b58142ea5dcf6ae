//! Nothing need be mounted, and nothing that is mounted for it is ever seen.

use std::fs;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::kernel::Support;
use kprobe_attach::tracefs::{sweep, sweep_dry_run};
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts, Mount, attach_kprobe};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::machine::process::Child;
use crate::machine::{
    Counter, FUNCTION, KPROBES, Switch, TRACEFS, Traced, clean, drop_capabilities, function, hide,
    in_thread, kernel_name, link_modes, mount, promised, section, tells_place, unlink, unmount,
    unmount_all, version, wait_until, with_filter, with_own_mounts,
};

/// The mount table of this thread, for which procfs is mounted for a moment where there is none.
fn mount_table() -> String {
    const TABLE: &str = "/proc/thread-self/mountinfo";
    fs::read_to_string(TABLE).unwrap_or_else(|_| {
        mount("proc", "/proc");
        let table = fs::read_to_string(TABLE).unwrap();
        unmount("/proc");
        table
            .lines()
            .filter(|line| !line.contains(" /proc "))
            .fold(String::new(), |lines, line| lines + line + "\n")
    })
}

/// Every promised mode attaches and fires, by one `Kernel` that may make detached mounts and is
/// asked here, and the mount table is what it was.
#[track_caller]
fn every_promised_mode_fires() {
    let before = mount_table();
    let kernel = Kernel::with_detached_mounts();
    assert_eq!(kernel.features().default_mode(), Some(promised()[0]));
    for mode in promised() {
        let counter = Counter::new();
        let opts = KprobeOpts::new().retprobe(true).attach_mode(mode);
        let link = counter.attach(&kernel, function(), &opts);
        assert_eq!(mount_table(), before, "{mode}");
        unlink(2);
        assert_eq!(counter.hits(), 2, "{mode}");
        let told = kernel.missed(&link).unwrap();
        let by_link = mode.uses_link() && version() >= (6, 7);
        assert_eq!(
            told,
            (by_link || mode.uses_tracefs()).then_some(0),
            "{mode}"
        );
        // The link alone looks for one that is mounted, and where debugfs has one to be mounted
        // that shows.
        let is_mounted = kernel.tracefs().unwrap().path().is_some();
        if is_mounted || !fs::exists("/sys/kernel/debug/kprobes").unwrap() {
            let alone = if is_mounted || by_link || !mode.uses_tracefs() {
                Ok(told)
            } else {
                Err((Step::LinkInfo, Errno::NOENT))
            };
            let missed = link.missed();
            assert_eq!(missed.map_err(|error| (error.step(), error.errno())), alone);
            let info = link.info().unwrap();
            assert_eq!(info.missed, alone.unwrap_or(None), "{mode}");
        }
    }
    kernel.sweep(|event| panic!("{event}")).unwrap();
    kernel.sweep_dry_run(|event| panic!("{event}")).unwrap();
    drop(kernel);
    assert_eq!(mount_table(), before);
}

/// Runs a test as on a kernel before Linux 5.2, which has no `fsopen(2)`.
pub(crate) fn without_fsopen<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    with_filter(libc::SYS_fsopen, None, Errno::NOSYS, test)
}

#[test]
fn with_nothing_mounted_every_promised_mode_still_attaches() {
    clean(|| {
        with_own_mounts(|| {
            unmount_all();
            assert_eq!(Mount::tracefs().unwrap().path(), None);
            assert_eq!(Mount::sysfs().unwrap().path(), None);
            assert_eq!(Mount::bpffs().unwrap().path(), None);
            every_promised_mode_fires();
        });
    });
}

#[test]
fn without_leave_nothing_is_mounted_or_forked_and_the_tracefs_modes_are_missing() {
    let Some(traced) = Traced::by(
        "mounts::without_leave_nothing_is_mounted_or_forked_and_the_tracefs_modes_are_missing",
    ) else {
        return clean(|| {
            with_own_mounts(|| {
                unmount_all();
                look_without_leave();
                without_fsopen(look_without_leave);
            });
        });
    };
    let mounts = |calls: &[String]| {
        let mut names = calls.iter().map(|call| call.split('(').next().unwrap());
        names.any(|name| {
            let mount = ["fsopen", "fsmount", "open_tree", "mount", "move_mount"];
            let fork = ["unshare", "setns", "clone", "clone3", "fork", "vfork"];
            mount.contains(&name) || fork.contains(&name)
        })
    };
    let sections = &traced.sections;
    assert_eq!(sections.len(), 2 * (WITHOUT_LEAVE + 1));
    for sections in sections.chunks(WITHOUT_LEAVE + 1) {
        let (with_leave, without) = sections.split_last().unwrap();
        assert!(!without[0].is_empty());
        for calls in without {
            assert!(!mounts(calls), "{calls:#?}");
        }
        // It would be seen.
        assert!(mounts(with_leave), "{with_leave:#?}");
    }
}

/// How many sections [`look_without_leave`] has before the last.
const WITHOUT_LEAVE: usize = 11;

/// All that looks for a file system where none is mounted, each a section; in the last one
/// detached mounts are allowed.
fn look_without_leave() {
    let missing = |support: Support| {
        let Support::No(reason) = support else {
            panic!("{support:?}");
        };
        assert_eq!(
            (reason.errno, reason.cause),
            (Errno::NOENT, Cause::NoTracefs)
        );
    };
    let counter = Counter::new();
    let kernel = Kernel::new();
    let features = section(|| kernel.features());
    missing(features.tracefs);
    missing(features.kprobe_events);
    assert_eq!(features.pmu_type_in_sysfs, None);
    assert_eq!(kernel.tracefs().err(), Some(Errno::NOENT));
    assert_eq!(kernel.sysfs().err(), Some(Errno::NOENT));
    for mode in AttachMode::ALL {
        let opts = KprobeOpts::new().retprobe(true).attach_mode(mode);
        let attached = section(|| Kernel::new().attach_kprobe(&counter.program, function(), &opts));
        match attached {
            Ok(link) => {
                assert!(promised().contains(&mode) && !mode.uses_tracefs(), "{mode}");
                unlink(1);
                drop(link);
            }
            Err(error) if promised().contains(&mode) => {
                assert!(mode.uses_tracefs(), "{error}");
                assert_eq!(
                    (error.step(), error.errno(), error.cause()),
                    (Step::ProbeKernel, Errno::OPNOTSUPP, Cause::NoTracefs)
                );
            }
            Err(_) => {}
        }
    }
    let pmu_modes = promised().into_iter().filter(|mode| !mode.uses_tracefs());
    assert_eq!(counter.hits(), pmu_modes.count() as u64);
    let opts = KprobeOpts::new();
    let link = section(|| attach_kprobe(&counter.program, function(), &opts)).unwrap();
    section(|| link.info()).unwrap();
    section(|| link.missed()).unwrap();
    let swept = [section(|| sweep(|_| ())), section(|| sweep_dry_run(|_| ()))];
    for error in swept.map(Result::unwrap_err) {
        assert_eq!(
            (error.step(), error.errno(), error.cause()),
            (Step::RemoveEvent, Errno::NOENT, Cause::NoTracefs)
        );
    }
    let found = section(|| [Mount::find_tracefs(), Mount::find_sysfs()]);
    assert_eq!(found.map(Result::err), [Some(Errno::NOENT); 2], "find");
    let kernel = Kernel::with_detached_mounts();
    assert!(section(|| kernel.features()).tracefs.is_yes());
}

#[test]
fn with_nothing_mounted_and_no_fsopen_a_private_namespace_does() {
    clean(|| {
        with_own_mounts(|| {
            unmount_all();
            without_fsopen(|| {
                for open in [Mount::tracefs, Mount::sysfs, Mount::bpffs] {
                    assert_eq!(open().unwrap().path(), None);
                }
                every_promised_mode_fires();
                // The child that mounted it is gone, and nobody's who waits for children of any
                // kind.
                let options = rustix::process::WaitOptions::from_bits_retain(0x4000_0000); // __WALL
                let child = rustix::process::waitpid(None, options);
                assert_eq!(child.err(), Some(Errno::CHILD));
            });
        });
    });
}

#[test]
fn a_private_namespace_sends_nothing_to_where_the_root_is_shared() {
    clean(|| {
        with_own_mounts(|| {
            unmount(TRACEFS);
            unmount("/sys/kernel/debug");
            let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", shared).unwrap();
            let before = mount_table();
            without_fsopen(|| {
                let tracefs = Mount::tracefs().unwrap();
                assert_eq!(tracefs.path(), None);
                assert_eq!(mount_table(), before);
            });
        });
    });
}

#[test]
fn a_refused_private_namespace_leaves_nothing() {
    clean(|| {
        with_own_mounts(|| {
            unmount(TRACEFS);
            unmount("/sys/kernel/debug");
            // The child meets the first refusal, this process the second.
            for syscall in [libc::SYS_mount, libc::SYS_dup3, libc::SYS_clone] {
                without_fsopen(|| {
                    with_filter(syscall, None, Errno::PERM, || {
                        assert_eq!(Mount::tracefs().unwrap_err(), Errno::PERM);
                    });
                });
            }
        });
    });
}

#[test]
fn with_one_file_system_masked_every_promised_mode_still_attaches() {
    for paths in [
        &["/sys"][..],
        &[TRACEFS],
        &["/sys/kernel/debug"],
        &[TRACEFS, "/sys/kernel/debug"],
        &["/sys/bus"],
        &["/sys/fs/bpf"],
        &["/proc"],
    ] {
        clean(|| {
            with_own_mounts(|| {
                for path in paths {
                    hide(path);
                }
                every_promised_mode_fires();
            });
        });
    }
}

#[test]
fn file_systems_are_found_at_their_places_and_anywhere_else() {
    with_own_mounts(|| {
        let path = || Mount::tracefs().unwrap().path().map(str::to_owned);
        let found = || Mount::find_tracefs().map(|found| found.path().map(str::to_owned));
        let is_found = |at: &str| {
            assert_eq!(path().as_deref(), Some(at));
            assert_eq!(found(), Ok(Some(at.to_owned())));
        };
        is_found(TRACEFS);
        assert_eq!(Mount::sysfs().unwrap().path(), Some("/sys"));
        assert_eq!(Mount::find_sysfs().unwrap().path(), Some("/sys"));
        assert_eq!(Mount::bpffs().unwrap().path(), Some("/sys/fs/bpf"));
        unmount(TRACEFS);
        // The automount in debugfs is not woken; one that is awake is taken.
        let before = mount_table();
        assert_eq!(path(), None);
        assert_eq!(mount_table(), before);
        drop(fs::read_dir("/sys/kernel/debug/tracing").unwrap());
        is_found("/sys/kernel/debug/tracing");
        unmount("/sys/kernel/debug");
        assert_eq!((path(), found()), (None, Err(Errno::NOENT)));
        fs::create_dir_all("/tmp/a b").unwrap();
        mount("tracefs", "/tmp/a b");
        is_found("/tmp/a b");
        unmount("/tmp/a b");
        // A directory that is there and is no tracefs does not count.
        hide(TRACEFS);
        assert_eq!((path(), found()), (None, Err(Errno::NOENT)));
        hide("/sys");
        assert_eq!(Mount::sysfs().unwrap().path(), None);
        assert_eq!(Mount::find_sysfs().err(), Some(Errno::NOENT));
    });
}

#[test]
fn a_read_only_sysfs_with_nothing_below_it_is_enough() {
    clean(|| {
        with_own_mounts(|| {
            rustix::mount::mount_bind("/sys", "/sys").unwrap();
            let read_only = MountFlags::BIND | MountFlags::RDONLY;
            rustix::mount::mount_remount("/sys", read_only, c"").unwrap();
            assert_eq!(Mount::sysfs().unwrap().path(), Some("/sys"));
            assert_eq!(Mount::tracefs().unwrap().path(), None);
            every_promised_mode_fires();
        });
    });
}

#[test]
fn the_automount_in_debugfs_is_woken_where_nothing_else_is_left() {
    let _paranoid = Switch::paranoid("2");
    with_own_mounts(|| {
        unmount(TRACEFS);
        drop_capabilities(CapabilitySet::SYS_ADMIN);
        let tracefs = Mount::tracefs().unwrap();
        assert_eq!(tracefs.path(), Some("/sys/kernel/debug/tracing"));
    });
    // Without a detached mount that is all there is left.
    with_own_mounts(|| {
        unmount(TRACEFS);
        let tracefs = Mount::find_tracefs().unwrap();
        assert_eq!(tracefs.path(), Some("/sys/kernel/debug/tracing"));
    });
}

#[test]
fn sysfs_says_the_same_of_the_pmu_mounted_or_not() {
    let check = || {
        let features = Kernel::with_detached_mounts().features();
        assert_eq!(features.pmu_type_in_sysfs, Some(features.pmu_type));
        assert_eq!(features.retprobe_bit, Some(0));
        features
    };
    let mounted = check();
    let dir = "/sys/bus/event_source/devices/kprobe";
    let sysfs = fs::read_to_string(format!("{dir}/type")).unwrap();
    assert_eq!(format!("{}\n", mounted.pmu_type), sysfs);
    with_own_mounts(|| {
        unmount_all();
        assert_eq!(check(), mounted);
        without_fsopen(|| assert_eq!(check(), mounted));
    });
    // Without a word of sysfs the PMU is found all the same.
    with_own_mounts(|| {
        hide("/sys/bus");
        let features = Kernel::new().features();
        assert_eq!(features.pmu_type_in_sysfs, None);
        assert_eq!(features.pmu_type, mounted.pmu_type);
        assert!(features.kprobe_pmu.is_yes());
    });
}

#[test]
fn a_pid_namespace_of_its_own_changes_nothing() {
    clean(|| {
        in_thread(|| {
            #[allow(deprecated, reason = "only what this thread forks is in it")]
            rustix::thread::unshare(UnshareFlags::NEWPID).unwrap();
            let child = Child::fork(|| {
                assert_eq!(rustix::process::getpid().as_raw_pid(), 1);
                let kernel = Kernel::new();
                for mode in promised() {
                    let counter = Counter::new();
                    let opts = KprobeOpts::new().attach_mode(mode);
                    let link = counter.attach(&kernel, function(), &opts);
                    unlink(2);
                    assert_eq!(counter.hits(), 2, "{mode}");
                    let told = link.info().unwrap().function;
                    let expected = tells_place(mode).then(|| function().into());
                    assert_eq!(told, expected, "{mode}");
                    link.detach().unwrap();
                }
            });
            assert_eq!(child.wait().exit_status(), Some(0));
        });
    });
}

#[test]
fn a_pin_in_a_file_system_out_of_sight_is_made_where_asked_and_ends_with_it() {
    if kernel_name() == "5.10" {
        // No link, so nothing to pin.
        assert!(link_modes().is_empty());
        return;
    }
    clean(|| {
        with_own_mounts(|| {
            unmount("/sys/fs/bpf");
            let kernel = Kernel::new();
            let counter = Counter::new();
            let link = counter.attach(&kernel, function(), &KprobeOpts::new());
            // The second would need a directory, which sysfs does not let anybody make; the third
            // could have one.
            for path in [
                "/sys/fs/bpf/probe",
                "/sys/fs/bpf/dir/probe",
                "/tmp/dir/probe",
            ] {
                let error = link.pin(path).unwrap_err();
                assert_eq!((error.step(), error.errno()), (Step::Pin, Errno::INVAL));
                assert!(error.to_string().contains("mounted"), "{error}");
            }
            let bpffs = Mount::bpffs().unwrap();
            assert_eq!(bpffs.path(), None);
            let pinned = link.pin_at(&bpffs, "probe");
            if version() < (6, 5) {
                let error = pinned.unwrap_err();
                assert_eq!((error.step(), error.errno()), (Step::Pin, Errno::INVAL));
                assert!(error.to_string().contains("by path only"), "{error}");
                return;
            }
            pinned.unwrap();
            let again = link.pin_at(&bpffs, "probe").unwrap_err();
            assert_eq!(
                (again.errno(), again.cause()),
                (Errno::EXIST, Cause::NameTaken)
            );
            let nowhere = rustix::fs::open("/tmp", rustix::fs::OFlags::PATH, 0.into()).unwrap();
            let error = link.pin_at(&nowhere, "probe").unwrap_err();
            assert_eq!((error.step(), error.errno()), (Step::Pin, Errno::INVAL));
            drop(link);
            unlink(1);
            assert_eq!(counter.hits(), 1);
            drop(bpffs);
            // The file system ends with its last file descriptor, in its own time.
            let kprobes = || fs::read_to_string(KPROBES).unwrap();
            wait_until(|| !kprobes().contains(FUNCTION));
            unlink(1);
            assert_eq!(counter.hits(), 1);
        });
    });
}
