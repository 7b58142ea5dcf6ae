//! Signals, which end the program by detaching.

use core::ffi::c_int;
use core::ptr;

use linux_raw_sys::general::{
    __NR_rt_sigaction, __NR_rt_sigpending, __NR_rt_sigprocmask, __NR_timer_create, CLOCK_MONOTONIC,
    SIGCHLD, SIGCONT, SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH,
};
// The system calls whose times are two numbers of 64 bits: on 32-bit machines since Linux 5.1.
use kprobe_attach::entry::exit;
#[cfg(target_pointer_width = "64")]
use linux_raw_sys::general::{
    __NR_rt_sigtimedwait as SIGTIMEDWAIT, __NR_timer_settime as TIMER_SETTIME,
};
#[cfg(target_pointer_width = "32")]
use linux_raw_sys::general::{
    __NR_rt_sigtimedwait_time64 as SIGTIMEDWAIT, __NR_timer_settime64 as TIMER_SETTIME,
};
use rustix::time::Timespec;

use super::arch;

/// A set of signals. It has 64 bits on the architectures that are supported.
pub(crate) type SignalSet = u64;

/// Returns the set of one signal.
const fn set_of(signal: u32) -> SignalSet {
    1 << (signal - 1)
}

/// The signals that are held back: all of `signal(7)` except those that stop or continue a process,
/// and the one for a new window size. The kernel does not hold back `SIGKILL`, `SIGSTOP`, and the
/// signal of a fault.
const HELD: SignalSet =
    !(set_of(SIGCONT) | set_of(SIGTSTP) | set_of(SIGTTIN) | set_of(SIGTTOU) | set_of(SIGWINCH));

/// The signals that are waited for. [`ticking`] uses `SIGURG`, which a process ignores by default.
const TAKEN: SignalSet = HELD & !set_of(SIGURG);

/// The signals that ask the program to end.
const ENDING: SignalSet = TAKEN & !set_of(SIGCHLD);

/// The time between the ticks of [`ticking`].
pub(crate) const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Holds back the signals that end a process, until they are [waited for](wait_for_signal). Returns
/// the mask that was set before.
pub(crate) fn hold_signals() -> SignalSet {
    const SIG_BLOCK: usize = 0;
    change_mask(SIG_BLOCK, HELD)
}

/// Makes a call that can take seconds, while nothing is attached. Meanwhile a signal that asks the
/// program to end does so at once. The exit status is 128 and the number of the signal.
pub(crate) fn ending_at_once<T>(call: impl FnOnce() -> T) -> T {
    extern "C" fn end(signal: c_int) {
        exit(u8::try_from(128 + signal).unwrap_or(u8::MAX))
    }
    for signal in 1..=SignalSet::BITS {
        if ENDING & set_of(signal) != 0 && !is_ignored(signal) {
            disposition(signal, Some(handled_by(end)));
        }
    }
    let_through(ENDING, call)
}

/// Restores the mask.
pub(crate) fn restore_signals(mask: SignalSet) {
    const SIG_SETMASK: usize = 2;
    change_mask(SIG_SETMASK, mask);
}

/// Makes the kernel report a child's end, even if the caller ignores it, and starts the timer of
/// [`ticking`].
pub(crate) fn take_signals() {
    extern "C" fn interrupt(_: c_int) {}
    disposition(SIGCHLD, Some([0; SIGACTION_WORDS]));
    disposition(SIGURG, Some(handled_by(interrupt)));
    // A `struct sigevent`: a value as large as a pointer, the signal, and SIGEV_SIGNAL, which is 0.
    let mut event = [0_u32; 16];
    if let Some(signal) = event.get_mut(size_of::<usize>() / size_of::<u32>()) {
        *signal = SIGURG;
    }
    let mut timer: c_int = 0;
    let clock = CLOCK_MONOTONIC as usize;
    let event = ptr::from_ref(&event).expose_provenance();
    let timer_at = ptr::from_mut(&mut timer).expose_provenance();
    // SAFETY: the event has the 64 bytes of the struct, and the number is written to `timer`.
    unsafe { arch::syscall5(__NR_timer_create, [clock, event, timer_at, 0, 0]) };
    // The interval, and the time until the first tick. While the signal is held back, the timer
    // waits.
    let interval = ptr::from_ref(const { &[TICK; 2] }).expose_provenance();
    // A kernel may have no timers. Then nothing is interrupted.
    let timer = timer.unsigned_abs() as usize;
    // SAFETY: a `struct itimerspec` is two times, each two numbers of 64 bits.
    unsafe { arch::syscall5(TIMER_SETTIME, [timer, 0, interval, 0, 0]) };
}

/// Makes a system call. If it waits, it fails with `EINTR` at the next tick.
pub(crate) fn ticking<T>(call: impl FnOnce() -> T) -> T {
    let_through(set_of(SIGURG), call)
}

/// Makes a call. Meanwhile these signals are not held back.
fn let_through<T>(signals: SignalSet, call: impl FnOnce() -> T) -> T {
    const SIG_UNBLOCK: usize = 1;
    let mask = change_mask(SIG_UNBLOCK, signals);
    let answer = call();
    restore_signals(mask);
    answer
}

/// Waits for one of the signals, or until the time has passed: `sigtimedwait(2)`.
pub(crate) fn wait_for_signal(nanoseconds: u64) -> Option<u32> {
    // EAGAIN: the time is up. EINTR: another signal came; the caller looks at the clock.
    timed_wait(TAKEN, nanoseconds).filter(|signal| !is_ignored(*signal))
}

/// Takes the signal that a write to a pipe without a reader has caused.
pub(crate) fn forget_broken_pipe() {
    timed_wait(set_of(SIGPIPE), 0);
}

/// Returns the signal that asks the program to end, if one has come and was not waited for yet.
pub(crate) fn pending_end() -> Option<u8> {
    let mut pending: SignalSet = 0;
    let address = ptr::from_mut(&mut pending).expose_provenance();
    // SAFETY: the set is written to `pending`.
    unsafe {
        arch::syscall5(
            __NR_rt_sigpending,
            [address, size_of::<SignalSet>(), 0, 0, 0],
        )
    };
    let mut signals = (1..=SignalSet::BITS)
        .filter(|signal| pending & ENDING & set_of(*signal) != 0 && !is_ignored(*signal));
    u8::try_from(signals.next()?).ok()
}

/// Returns whether the caller ignores a signal, as `nohup` does, and a script for its `&`.
pub(crate) fn is_ignored(signal: u32) -> bool {
    const SIG_IGN: usize = 1;
    disposition(signal, None) == SIG_IGN
}

fn timed_wait(set: SignalSet, nanoseconds: u64) -> Option<u32> {
    let set = ptr::from_ref(&set).expose_provenance();
    let timeout = [nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000];
    let timeout = ptr::from_ref(&timeout).expose_provenance();
    // SAFETY: set is 64 bits, the info is not asked for, and a time is two numbers of 64 bits.
    let signal =
        unsafe { arch::syscall5(SIGTIMEDWAIT, [set, 0, timeout, size_of::<SignalSet>(), 0]) };
    u32::try_from(signal).ok().filter(|signal| *signal > 0)
}

/// Changes the mask, and returns the one before: `rt_sigprocmask(2)`.
fn change_mask(how: usize, set: SignalSet) -> SignalSet {
    let mut old: SignalSet = 0;
    let old_at = ptr::from_mut(&mut old).expose_provenance();
    let set = ptr::from_ref(&set).expose_provenance();
    let size = size_of::<SignalSet>();
    // SAFETY: a set is 64 bits; this one is read, and the old one is written to `old`.
    unsafe { arch::syscall5(__NR_rt_sigprocmask, [how, set, old_at, size, 0]) };
    old
}

/// The words of the kernel's `struct sigaction`: handler, flags, a restorer on some architectures,
/// and the mask of 64 bits.
const SIGACTION_WORDS: usize = 3 + size_of::<SignalSet>() / size_of::<usize>();

/// Returns the handler that a signal has, and replaces it if `new` is given: `rt_sigaction(2)`. The
/// handler may be `SIG_DFL` (0) or `SIG_IGN` (1).
fn disposition(signal: u32, new: Option<[usize; SIGACTION_WORDS]>) -> usize {
    let mut old = [0; SIGACTION_WORDS];
    let new = new
        .as_ref()
        .map_or(0, |new| ptr::from_ref(new).expose_provenance());
    let old_address = ptr::from_mut(&mut old).expose_provenance();
    // SAFETY: both are at least as large as the struct, whose first word is the handler; no handler
    // is installed but the kernel's own, one that does nothing, and one that ends the process.
    unsafe {
        arch::syscall5(
            __NR_rt_sigaction,
            [signal as usize, new, old_address, size_of::<SignalSet>(), 0],
        )
    };
    let [handler, ..] = old;
    handler
}

/// Returns the action that calls a handler. A system call that it interrupts is not made again.
fn handled_by(function: extern "C" fn(c_int)) -> [usize; SIGACTION_WORDS] {
    let mut action = [0; SIGACTION_WORDS];
    let [handler, _flags, _restorer, ..] = &mut action;
    *handler = function as usize;
    #[cfg(target_arch = "x86_64")]
    {
        const SA_RESTORER: usize = 0x0400_0000;
        unsafe extern "C" {
            safe fn kprobe_attach_restorer();
        }
        *_flags = SA_RESTORER;
        *_restorer = (kprobe_attach_restorer as extern "C" fn()) as usize;
    }
    action
}

// Where a handler returns to. The kernel has this code for every other architecture.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl kprobe_attach_restorer",
    "kprobe_attach_restorer:",
    "mov eax, {rt_sigreturn}",
    "syscall",
    rt_sigreturn = const linux_raw_sys::general::__NR_rt_sigreturn,
);
