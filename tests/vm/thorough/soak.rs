//! The same over and over, and all at once: `ci/run.sh soak` does it for as long as anybody likes,
//! `ci/run.sh vm` for a moment.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use kprobe_attach::tracefs::sweep;
use kprobe_attach::{Kernel, KprobeOpts, Target};
use rustix::process::Signal;

use crate::machine::process::{Child, shared};
use crate::machine::{
    Counter, KPROBES, OTHER_FUNCTION, Trace, beside_others, fds, function, kernel_name, mkdir,
    ours, promised, report, unlink, unlink_own,
};

/// How many cycles of attaching and detaching a test makes.
pub(super) fn cycles() -> usize {
    let given = std::env::var("KPROBE_ATTACH_SOAK").unwrap_or_default();
    given.parse().unwrap_or(100)
}

/// What may not grow from cycle to cycle.
#[derive(Debug)]
pub(super) struct Size {
    pub(super) fds: usize,
    /// Of this process, its own memory, in KiB.
    pub(super) process: u64,
    /// Of the kernel, what it cannot give back: slabs, memory for each CPU, page tables and stacks,
    /// in KiB.
    pub(super) kernel: u64,
}

impl Size {
    pub(super) fn now() -> Self {
        // What the kernel can give back it does.
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let of = |file: &str, keys: &[&str]| -> u64 {
            let text = fs::read_to_string(file).unwrap();
            let value = |key: &&str| {
                let line = text.lines().find(|line| line.starts_with(*key)).unwrap();
                let value = line.split_ascii_whitespace().nth(1).unwrap();
                value.parse::<u64>().unwrap()
            };
            keys.iter().map(value).sum()
        };
        let of_kernel = [
            "SUnreclaim:",
            "Percpu:",
            "PageTables:",
            "KernelStack:",
            "VmallocUsed:",
        ];
        Self {
            fds: fds().len(),
            process: of("/proc/self/status", &["RssAnon:"]),
            kernel: of("/proc/meminfo", &of_kernel),
        }
    }
}

#[test]
fn attaching_and_detaching_many_times_grows_nothing() {
    let kernel = Kernel::new();
    let modes = promised();
    let (unlinks, mkdirs) = (Counter::new(), Counter::new());
    let other = Target::symbol(OTHER_FUNCTION).unwrap();
    let cycle = |number: usize| {
        let opts = KprobeOpts::new()
            .attach_mode(modes[number % modes.len()])
            .retprobe(number / modes.len() % 2 == 1);
        let (counter, target) = match number / (2 * modes.len()) % 2 {
            0 => (&unlinks, function()),
            _ => (&mkdirs, other),
        };
        let before = counter.hits();
        let link = counter.attach(&kernel, target, &opts);
        unlink(1);
        mkdir(1);
        assert_eq!(counter.hits(), before + 1, "{target} {opts:?}");
        link.detach().unwrap();
    };
    // Or small pages become a huge one meanwhile.
    fs::write("/sys/kernel/mm/transparent_hugepage/enabled", "never").unwrap();
    let cycles = cycles();
    // Until every cache that grows once has grown.
    let warm_up = (cycles / 10).max(4 * modes.len());
    (0..warm_up).for_each(&cycle);
    let (trace, before, start) = (Trace::now(), Size::now(), Instant::now());
    (warm_up..cycles).for_each(&cycle);
    let (after, seconds) = (Size::now(), start.elapsed().as_secs());
    assert_eq!(Trace::now(), trace);
    assert_eq!(fs::read_to_string(KPROBES).unwrap(), "");
    report(format_args!(
        "{}: {cycles} cycles in {} modes, {seconds} s after {warm_up}: {} to {} fds, \
         {} to {} KiB of the process's, {} to {} KiB of the kernel's, no event, no probe",
        kernel_name(),
        modes.len(),
        before.fds,
        after.fds,
        before.process,
        after.process,
        before.kernel,
        after.kernel,
    ));
    assert_eq!(after.fds, before.fds);
    // Noise; a leak of 100 bytes a cycle is more from 20,000 cycles on.
    assert!(
        after.process <= before.process + 256,
        "{before:?} {after:?}"
    );
    assert!(after.kernel <= before.kernel + 1536, "{before:?} {after:?}");
}

#[test]
fn processes_and_threads_attach_detach_die_and_sweep_at_once_and_nothing_is_lost() {
    const PROCESSES: usize = 3;
    const THREADS: usize = 2;
    let modes = promised();
    let [attached, swept, sweeps] = shared::<3>();
    let each = (cycles() / 20).max(2 * modes.len());
    let other = Target::symbol(OTHER_FUNCTION).unwrap();
    let attach = |kernel: &Kernel, first: usize| {
        let counter = Counter::new();
        for cycle in first..first + each {
            let opts = KprobeOpts::new()
                .attach_mode(modes[cycle % modes.len()])
                .retprobe(cycle % 3 == 0);
            // On the same functions as everybody: one that runs, and one that does not.
            let idle = counter.attach(kernel, other, &opts);
            let link = counter.attach(kernel, function(), &opts);
            let hits = counter.hits_or_misses();
            unlink_own(2);
            assert!(counter.hits_or_misses() >= hits + 2, "{opts:?}");
            link.detach().unwrap();
            idle.detach().unwrap();
            attached.fetch_add(2, Ordering::Relaxed);
        }
    };
    let sweep_until = |done: &dyn Fn() -> bool| {
        while !done() {
            swept.fetch_add(sweep(|_| ()).unwrap().removed as u64, Ordering::Relaxed);
            sweeps.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut killed = 0;
    beside_others(|| {
        let workers: Vec<_> = (0..PROCESSES)
            .map(|_| {
                Child::fork(|| {
                    // Threads share a kernel, its answers, and the names that it gives.
                    let kernel = Kernel::new();
                    let done = AtomicBool::new(false);
                    std::thread::scope(|scope| {
                        let sweeper = scope.spawn(|| sweep_until(&|| done.load(Ordering::Relaxed)));
                        let threads: Vec<_> = (0..THREADS)
                            .map(|first| {
                                scope.spawn({
                                    let kernel = &kernel;
                                    move || attach(kernel, first)
                                })
                            })
                            .collect();
                        let joined: Vec<_> =
                            threads.into_iter().map(ScopedJoinHandle::join).collect();
                        done.store(true, Ordering::Relaxed);
                        sweeper.join().unwrap();
                        assert!(joined.iter().all(Result::is_ok));
                    });
                })
            })
            .collect();
        while workers.iter().any(Child::is_running) {
            let victim = Child::fork(|| {
                let (kernel, counter) = (Kernel::new(), Counter::new());
                loop {
                    for mode in &modes {
                        drop(counter.attach(
                            &kernel,
                            function(),
                            &KprobeOpts::new().attach_mode(*mode),
                        ));
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(50 + 37 * (killed % 11)));
            victim.kill();
            let status = victim.wait();
            assert_eq!(status.terminating_signal(), Some(Signal::KILL.as_raw()));
            killed += 1;
        }
        for worker in workers {
            assert_eq!(worker.wait().exit_status(), Some(0));
        }
        swept.fetch_add(sweep(|_| ()).unwrap().removed as u64, Ordering::Relaxed);
        assert_eq!(ours(), Vec::<String>::new());
    });
    let attached = attached.load(Ordering::Relaxed);
    assert_eq!(attached, (2 * PROCESSES * THREADS * each) as u64);
    report(format_args!(
        "{}: {attached} attaches by {PROCESSES} processes of {THREADS} threads, {} sweeps \
         beside them, {killed} processes killed and {} of their events swept",
        kernel_name(),
        sweeps.load(Ordering::Relaxed),
        swept.load(Ordering::Relaxed),
    ));
}
