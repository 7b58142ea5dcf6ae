//! The cost of looking for functions in `/proc/kallsyms`.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use kprobe_attach::Target;
use kprobe_attach::symbols::{Resolution, resolve};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::machine::{FUNCTION, address_of, kallsyms, report};

/// The least time on a CPU that something takes in this thread, of several times.
fn least(mut run: impl FnMut()) -> Duration {
    let now = || {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(tv_sec.try_into().unwrap(), tv_nsec.try_into().unwrap())
    };
    let times = (0..5).map(|_| {
        let start = now();
        run();
        now().saturating_sub(start)
    });
    times.min().unwrap()
}

/// Reads the whole list, and does nothing with it.
fn read_only() {
    let mut file = File::open("/proc/kallsyms").unwrap();
    let mut buffer = vec![0; 64 * 1024];
    while file.read(&mut buffer).unwrap() > 0 {}
}

fn look_for(names: &[&str]) {
    let targets = names.iter().map(|name| Target::symbol(name).unwrap());
    let mut found: Vec<_> = targets
        .map(|target| Resolution::new(target.unique()))
        .collect();
    resolve(&mut found, |_, _| {}).unwrap();
    assert!(found.iter().all(|found| found.functions() > 0));
}

#[test]
fn a_name_costs_little_more_than_reading_the_list() {
    let symbols = kallsyms();
    let end = address_of("_etext");
    let functions = symbols.iter().filter(|(address, kind, name, module)| {
        // The functions behind it are those of the boot.
        let is_plain = *address < end
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        module.is_none() && matches!(kind, 't' | 'T') && is_plain && name.starts_with("vfs_")
    });
    let many: Vec<_> = functions.map(|(_, _, name, _)| &**name).collect();
    // The first reading can be slower.
    read_only();
    let reading = least(read_only);
    let one = least(|| look_for(&[FUNCTION]));
    let several = least(|| look_for(&many));
    let ratio = one.as_secs_f64() / reading.as_secs_f64();
    report(format_args!(
        "reading /proc/kallsyms takes {reading:?}, looking for one name {one:?} ({ratio:.3} \
         times), for {} names {several:?}",
        many.len()
    ));
    // The figure is for people: it should be at most 1.2. Another load on this machine can make it
    // more, but not as much as a second reading.
    assert!(ratio < 1.8, "{ratio}");
}
