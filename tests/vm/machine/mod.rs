//! The helpers of the tests: the machine that they run in, and what they do with it.

mod counter;
mod end;
mod functions;
mod kernel;
mod mounts;
mod probed;
pub(crate) mod process;
mod program;
mod rights;
mod strace;
pub(crate) mod supervise;
mod trace;

pub(crate) use counter::{
    Counter, counting, counting_by_cookie, counting_by_cookie_for, load_as, pin,
};
pub(crate) use end::{at_once, ends_soon, send, shell};
pub(crate) use functions::{has_multi, probeable, with_counted};
pub(crate) use kernel::{
    LOCAL_ENTRY, PARANOID, Switch, address_of, asked, kallsyms, kernel_name, link_modes, promised,
    tells_place, version,
};
pub(crate) use mounts::{
    TRACEFS, hide, mount, names_in, unmount, unmount_all, unmount_sys, with_own_mounts,
    without_symbols,
};
pub(crate) use probed::{FUNCTION, OTHER_FUNCTION, function, mkdir, unlink, unlink_own};
pub(crate) use program::{
    attached, busybox, interrupt, json, program, run, text, wait_until_attached,
};
pub(crate) use rights::{drop_capabilities, in_thread, with_filter};
pub(crate) use strace::{Traced, normal, section};
pub(crate) use trace::{KPROBE_EVENTS, KPROBES, Trace, beside_others, clean, define, fds, ours};

#[allow(unsafe_code, reason = "libtest calls nothing before the first test")]
// SAFETY: the C library calls what is in this section once, before main.
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = require_machine;

/// Ends the process outside a machine: the tests load modules, take a CPU offline, and lock the
/// kernel down.
extern "C" fn require_machine() {
    if std::env::var_os("KPROBE_ATTACH_KERNEL").is_none() {
        eprintln!(
            "these tests change the kernel under them: `ci/run.sh vm` runs them in a machine"
        );
        std::process::exit(1);
    }
}

/// Waits for what comes in a moment.
pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    // Counted, because the clock of an emulated machine can jump while its host is busy.
    for _ in 0..24_000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("it does not come");
}

/// A figure for the one who reads the log of the machine; what a test that passes prints otherwise
/// is not shown.
pub(crate) fn report(text: std::fmt::Arguments<'_>) {
    let line = format!("\nmeasured: {text}\n");
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
}
