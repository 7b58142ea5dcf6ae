//! Early in boot, before the kernel's random source is ready.

use std::collections::BTreeSet; // a HashSet asks the random source
use std::sync::atomic::Ordering;

use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts, Plan};
use rustix::thread::UnshareFlags;

use crate::machine::process::{Child, shared};
use crate::machine::{Counter, clean, function, in_thread, promised, unlink, with_filter};

/// The random source is not ready: `EAGAIN`.
fn unready<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    with_filter(libc::SYS_getrandom, None, Errno::AGAIN, test)
}

fn legacy() -> KprobeOpts {
    KprobeOpts::new().attach_mode(AttachMode::Legacy)
}

/// The group and the name of an event of this plan.
fn name(plan: &Plan<'_>) -> String {
    let text = plan.to_string();
    let start = text.find("kprobe_attach_").unwrap();
    let name = &text[start..];
    name[..name.find('"').unwrap()].to_owned()
}

#[test]
fn a_thousand_kernels_of_a_process_never_meet() {
    let names = unready(|| {
        let name = |_| name(&Kernel::new().plan(function(), &legacy()).unwrap());
        (0..1000).map(name).collect::<BTreeSet<_>>()
    });
    assert_eq!(names.len(), 1000);
    // The part that kprobe_profile has differs too.
    let events: BTreeSet<_> = names.iter().map(|name| name.split('/').nth(1)).collect();
    assert_eq!(events.len(), 1000);
}

#[test]
fn two_kernels_of_a_process_attach_beside_each_other() {
    clean(|| {
        unready(|| {
            for mode in promised() {
                let opts = KprobeOpts::new().attach_mode(mode);
                let (first, second) = (Counter::new(), Counter::new());
                let links = [&first, &second]
                    .map(|counter| counter.attach(&Kernel::new(), function(), &opts));
                unlink(3);
                assert_eq!((first.hits(), second.hits()), (3, 3), "{mode}");
                for link in links {
                    link.detach().unwrap();
                }
            }
        });
    });
}

/// Processes that know nothing of each other, and have all in common: memory, stack and process id.
#[test]
fn processes_with_one_id_and_one_memory_never_meet() {
    const PROCESSES: usize = 50;
    let groups = shared::<PROCESSES>();
    unready(|| {
        for group in groups {
            in_thread(|| {
                #[allow(deprecated, reason = "only what this thread forks is in it")]
                rustix::thread::unshare(UnshareFlags::NEWPID).unwrap();
                let child = Child::fork(|| {
                    assert_eq!(rustix::process::getpid().as_raw_pid(), 1);
                    let name = name(&Kernel::new().plan(function(), &legacy()).unwrap());
                    let digits = &name["kprobe_attach_".len()..][..16];
                    group.store(u64::from_str_radix(digits, 16).unwrap(), Ordering::Relaxed);
                });
                assert_eq!(child.wait().exit_status(), Some(0));
            });
        }
    });
    let groups: BTreeSet<_> = groups
        .iter()
        .map(|group| group.load(Ordering::Relaxed))
        .collect();
    assert_eq!(groups.len(), PROCESSES);
}
