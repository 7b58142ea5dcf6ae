//! What a C library would do for the program: its entry, its memory functions, and the few system calls that neither the
//! library nor rustix has. The program's one unsafe room.
//!
//! # Safety
//!
//! [`kprobe_attach_entry`] is jumped to by the kernel, once, with the stack as `execve(2)` leaves it, and by nobody else.
//! There is one thread, so the functions on signals and processes race with nobody.

#![allow(unsafe_code)]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "moving a pointer and reading there is safe for one and the same reason"
)]

#[path = "../../../sys/arch/mod.rs"]
mod arch;

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

use kprobe_attach::ErrnoName;

use crate::out::{Shown, message};
use linux_raw_sys::general::{
    __NR_clone, __NR_execve, __NR_exit_group, __NR_rt_sigaction, __NR_rt_sigprocmask,
    CLOCK_MONOTONIC, SIGCHLD,
};
// Those of the system calls on time whose seconds have 64 bits, as a `Timespec` has them: on 32-bit machines Linux 5.1.
#[cfg(target_pointer_width = "64")]
use linux_raw_sys::general::{
    __NR_clock_gettime as CLOCK_GETTIME, __NR_rt_sigtimedwait as SIGTIMEDWAIT,
};
#[cfg(target_pointer_width = "32")]
use linux_raw_sys::general::{
    __NR_clock_gettime64 as CLOCK_GETTIME, __NR_rt_sigtimedwait_time64 as SIGTIMEDWAIT,
};
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::time::Timespec;

// The kernel leaves argc at the stack pointer, above it argv, envp and the auxiliary vector. The frame pointer and the return
// address are made zero, where a debugger stops unwinding; the stack pointer is 16-byte aligned already, and a call keeps
// the alignment that the ABI wants.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    "xor ebp, ebp",  // no caller's frame
    "mov rdi, rsp",  // the first argument: what the kernel left
    "call {start}",  // pushes a return address, which makes the stack what a function expects
    "ud2",           // it does not return
    start = sym start,
);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    "mov x29, xzr", // no caller's frame
    "mov x30, xzr", // and no return address
    "mov x0, sp",   // the first argument: what the kernel left
    "b {start}",
    start = sym start,
);
#[cfg(target_arch = "riscv64")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    ".option push",
    ".option norelax",         // gp cannot be reached through gp
    "la gp, __global_pointer$",
    ".option pop",
    "mv a0, sp",               // the first argument: what the kernel left
    "mv fp, zero",             // no caller's frame
    "mv ra, zero",             // and no return address
    "tail {start}",
    start = sym start,
);
#[cfg(target_arch = "x86")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    "xor ebp, ebp", // no caller's frame
    "mov eax, esp",
    "sub esp, 12",  // what makes a multiple of 16 with
    "push eax",     // the first argument: what the kernel left
    "call {start}",
    "ud2",          // it does not return
    start = sym start,
);
#[cfg(target_arch = "arm")]
core::arch::global_asm!(
    ".arm", // every processor that runs Thumb code for Linux runs this as well, and the linker knows how to call one from the other
    ".globl kprobe_attach_entry",
    ".type kprobe_attach_entry, %function",
    "kprobe_attach_entry:",
    "mov r7, #0",  // no caller's frame, in Thumb
    "mov r11, #0", // and in ARM code
    "mov r0, sp",  // the first argument: what the kernel left
    "bl {start}",
    // It does not return; and nothing unwinds, though the tables for it refer to these two. Functions of Rust would be merged with
    // `rust_eh_personality`, and LLVM know that no longer.
    ".globl __aeabi_unwind_cpp_pr0",
    "__aeabi_unwind_cpp_pr0:",
    ".globl __aeabi_unwind_cpp_pr1",
    "__aeabi_unwind_cpp_pr1:",
    "udf #0",
    start = sym start,
);
#[cfg(target_arch = "s390x")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    "lgr %r2, %r15",          // the first argument: what the kernel left
    "aghi %r15, -160",        // where a function saves the registers of its caller
    "xc 0(8,%r15), 0(%r15)",  // no caller's frame
    "brasl %r14, {start}",
    ".short 0",               // no instruction: it does not return
    start = sym start,
);
#[cfg(target_arch = "powerpc64")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    // The kernel leaves the address of the entry in r12.
    "addis 2, 12, .TOC.-kprobe_attach_entry@ha",
    "addi 2, 2, .TOC.-kprobe_attach_entry@l",
    "mr 3, 1",       // the first argument: what the kernel left
    "li 0, 0",
    "stdu 0, -32(1)", // where a function saves its caller's link register; no caller's frame
    "bl {start}",
    "nop",
    "trap",          // it does not return
    start = sym start,
);

/// What the kernel hands to a program.
#[derive(Debug)]
pub(crate) struct Start {
    /// `argc`, and above it everything else.
    stack: *const usize,
}

/// # Safety
///
/// To be entered from [`kprobe_attach_entry`] alone, with the initial stack.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    open_standard_fds();
    exit(crate::main(&Start { stack }))
}

impl Start {
    fn argc(&self) -> usize {
        // SAFETY: the initial stack begins with argc.
        unsafe { *self.stack }
    }

    /// One of the arguments; the first is the program's name.
    pub(crate) fn arg(&self, index: usize) -> Option<&CStr> {
        let arg = self.argv().get(index).filter(|arg| !arg.is_null())?;
        // SAFETY: each of argv is a string that lives as long as the process.
        Some(unsafe { CStr::from_ptr(*arg) })
    }

    fn argv(&self) -> &[*const c_char] {
        // SAFETY: argv, of argc pointers, is above argc.
        let argv = unsafe { self.stack.add(1) };
        // SAFETY: as above; nobody writes to it.
        unsafe { core::slice::from_raw_parts(argv.cast(), self.argc()) }
    }

    /// The environment, up to its NULL.
    fn envp(&self) -> *const *const c_char {
        // SAFETY: envp is above argv and its NULL.
        unsafe { self.stack.add(self.argc() + 2) }.cast()
    }

    /// The value of an environment variable.
    pub(crate) fn env(&self, name: &str) -> Option<&CStr> {
        let mut variable = self.envp();
        loop {
            // SAFETY: envp ends with a NULL, and this goes no further.
            let text = unsafe { *variable };
            if text.is_null() {
                return None;
            }
            // SAFETY: each of envp is a string that lives as long as the process.
            let text = unsafe { CStr::from_ptr(text) };
            let bytes = text.to_bytes_with_nul();
            if let Some([b'=', value @ ..]) = bytes.strip_prefix(name.as_bytes()) {
                return CStr::from_bytes_until_nul(value).ok();
            }
            // SAFETY: not at the NULL yet.
            variable = unsafe { variable.add(1) };
        }
    }

    /// The first page of the vDSO, if the kernel mapped one.
    pub(crate) fn vdso(&self) -> Option<&[u8]> {
        const AT_NULL: usize = 0;
        const AT_SYSINFO_EHDR: usize = 33;
        let mut end_of_env = self.envp();
        // SAFETY: envp ends with a NULL, and this goes no further.
        while !unsafe { *end_of_env }.is_null() {
            // SAFETY: not at the NULL yet.
            end_of_env = unsafe { end_of_env.add(1) };
        }
        // SAFETY: the auxiliary vector is above the NULL: pairs of words up to AT_NULL.
        let mut pair: *const [usize; 2] = unsafe { end_of_env.add(1) }.cast();
        loop {
            // SAFETY: not beyond AT_NULL.
            match unsafe { *pair } {
                [AT_NULL, _] => return None,
                [AT_SYSINFO_EHDR, address] => {
                    let page = ptr::with_exposed_provenance::<u8>(address);
                    // SAFETY: the kernel mapped the vDSO there, at least a page of it, readable, never changed.
                    return Some(unsafe { core::slice::from_raw_parts(page, 4096) });
                }
                // SAFETY: not at AT_NULL yet.
                _ => pair = unsafe { pair.add(1) },
            }
        }
    }

    /// Starts a command, looked for in `PATH` as a shell does, with the signal mask of [`Signals::block`] undone. The
    /// arguments are those of this program from `first` on.
    ///
    /// It returns when the child is the command, and has closed its copies of this program's file descriptors: before that
    /// they would keep what is detached here alive. A child that cannot become the command says so and ends with 127 if
    /// there is no such command, else with 126.
    pub(crate) fn spawn(&self, first: usize, signals: &Signals) -> Result<Pid, Errno> {
        let command = self.arg(first).unwrap_or_default();
        let (closed_by_exec, held_until_exec) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: clone with no new stack is fork(2): the child has a copy of everything, and shares nothing.
        let pid = unsafe { arch::syscall5(__NR_clone, arch::clone_args(SIGCHLD)) };
        let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
        if pid < 0 {
            return Err(Errno::from_raw_os_error(-pid));
        }
        if let Some(pid) = Pid::from_raw(pid) {
            drop(held_until_exec);
            // The end of the pipe, by exec or exit; nobody writes to it.
            let _ = rustix::io::read(&closed_by_exec, &mut [0; 1]);
            return Ok(pid);
        }
        signals.restore();
        let errno = self.exec(command, first);
        message(format_args!("{}: {}", Shown(command), ErrnoName(errno)));
        exit(if errno == Errno::NOENT { 127 } else { 126 })
    }

    fn exec(&self, command: &CStr, first: usize) -> Errno {
        if command.is_empty() {
            return Errno::NOENT;
        }
        if command.to_bytes().contains(&b'/') {
            return self.execve(command, first);
        }
        let path = self
            .env("PATH")
            .map_or(&b"/usr/sbin:/usr/bin:/sbin:/bin"[..], CStr::to_bytes);
        let mut worst = Errno::NOENT;
        for dir in path.split(|byte| *byte == b':') {
            // An empty part is the current directory.
            let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
            let mut file = [0; 4096];
            let bytes = dir.iter().chain(slash).chain(command.to_bytes_with_nul());
            for (to, from) in file.iter_mut().zip(bytes) {
                *to = *from;
            }
            // Without its NUL it was too long.
            let file = CStr::from_bytes_until_nul(&file);
            match file.map_or(Errno::NAMETOOLONG, |file| self.execve(file, first)) {
                Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => {}
                errno => worst = errno,
            }
        }
        worst
    }

    /// Becomes another program, or says why not.
    fn execve(&self, file: &CStr, first: usize) -> Errno {
        let argv = self.argv().get(first..).unwrap_or_default().as_ptr();
        let (file, argv, envp) = (file.as_ptr(), argv, self.envp());
        // SAFETY: file is a string; argv is the tail of this program's own, which ends with a NULL, and so does envp.
        let errno = unsafe {
            arch::syscall5(
                __NR_execve,
                [
                    file.expose_provenance(),
                    argv.expose_provenance(),
                    envp.expose_provenance(),
                    0,
                    0,
                ],
            )
        };
        Errno::from_raw_os_error(i32::try_from(-errno).unwrap_or_default())
    }
}

/// The signals that end the program, and the one of a child that ended, kept back until they are [waited for](Self::wait).
#[derive(Debug)]
pub(crate) struct Signals {
    set: u64,
    /// The mask before, for a command.
    old: u64,
}

/// The signals of `signal(7)` that a program which must clean up has to take itself.
const TAKEN: [u32; 6] = [
    linux_raw_sys::general::SIGHUP,
    linux_raw_sys::general::SIGINT,
    linux_raw_sys::general::SIGQUIT,
    linux_raw_sys::general::SIGPIPE,
    linux_raw_sys::general::SIGTERM,
    SIGCHLD,
];

impl Signals {
    /// Keeps the signals back, but those that were to be ignored when this program was started, as `nohup` does.
    pub(crate) fn block() -> Self {
        const SIG_BLOCK: usize = 0;
        const SIG_IGN: usize = 1;
        // A kernel that does not tell the time is met before anything is attached.
        if cfg!(target_pointer_width = "32") {
            monotonic_clock();
        }
        // Ignored, a child's end would neither be told nor leave a status.
        disposition(SIGCHLD, Some([0; SIGACTION_WORDS]));
        let taken = TAKEN
            .iter()
            .filter(|signal| disposition(**signal, None) != SIG_IGN);
        let set = taken.fold(0, |set, signal| set | 1 << (signal - 1));
        let mut signals = Self { set, old: 0 };
        let old = ptr::from_mut(&mut signals.old);
        // SAFETY: a sigset of the kernel is 64 bits on the architectures served, and a u64 in memory; the old one is written to `signals.old`.
        unsafe {
            arch::syscall5(
                __NR_rt_sigprocmask,
                [
                    SIG_BLOCK,
                    ptr::from_ref(&set).expose_provenance(),
                    old.expose_provenance(),
                    size_of::<u64>(),
                    0,
                ],
            )
        };
        signals
    }

    /// Puts the mask back as it was.
    fn restore(&self) {
        const SIG_SETMASK: usize = 2;
        // SAFETY: as in `block`; the mask is only read.
        unsafe {
            arch::syscall5(
                __NR_rt_sigprocmask,
                [
                    SIG_SETMASK,
                    ptr::from_ref(&self.old).expose_provenance(),
                    0,
                    size_of::<u64>(),
                    0,
                ],
            )
        };
    }

    /// Waits for one of the signals, or for the time to pass: `sigtimedwait(2)`.
    pub(crate) fn wait(&self, timeout: Option<Timespec>) -> Option<u32> {
        let timeout = timeout
            .as_ref()
            .map_or(0, |timeout| ptr::from_ref(timeout).expose_provenance());
        // SAFETY: set is 64 bits, the info is not asked for, and a Timespec is what this system call takes.
        let signal = unsafe {
            arch::syscall5(
                SIGTIMEDWAIT,
                [
                    ptr::from_ref(&self.set).expose_provenance(),
                    0,
                    timeout,
                    size_of::<u64>(),
                    0,
                ],
            )
        };
        // EAGAIN: the time is up. EINTR: a signal that is not ours; the caller looks at the clock.
        u32::try_from(signal).ok().filter(|signal| *signal > 0)
    }
}

/// The kernel's `struct sigaction` in words: handler, flags, on some architectures a restorer, and the mask of 64 bits.
const SIGACTION_WORDS: usize = 3 + size_of::<u64>() / size_of::<usize>();

/// `rt_sigaction(2)`: the handler of a signal, which may be `SIG_DFL` (0) or `SIG_IGN` (1), before it is replaced.
fn disposition(signal: u32, new: Option<[usize; SIGACTION_WORDS]>) -> usize {
    let mut old = [0; SIGACTION_WORDS];
    let new = new
        .as_ref()
        .map_or(0, |new| ptr::from_ref(new).expose_provenance());
    let old_address = ptr::from_mut(&mut old).expose_provenance();
    // SAFETY: both are at least as large as the struct, whose first word is the handler; no handler is installed but the
    // kernel's own.
    unsafe {
        arch::syscall5(
            __NR_rt_sigaction,
            [signal as usize, new, old_address, size_of::<u64>(), 0],
        )
    };
    let [handler, ..] = old;
    handler
}

/// `clock_gettime(CLOCK_MONOTONIC)`. rustix goes through the vDSO, for which it needs `/proc` on kernels before 6.4.
pub(crate) fn monotonic_clock() -> Timespec {
    let mut now = Timespec::default();
    let address = ptr::from_mut(&mut now).expose_provenance();
    // SAFETY: a Timespec is what this system call writes, and it is written to `now`.
    let answer =
        unsafe { arch::syscall5(CLOCK_GETTIME, [CLOCK_MONOTONIC as usize, address, 0, 0, 0]) };
    if cfg!(target_pointer_width = "32") && answer < 0 {
        message(format_args!("this kernel has no 64-bit time (Linux 5.1)"));
        exit(crate::FAILURE);
    }
    now
}

/// Standard input, output or error.
pub(crate) fn standard_fd(fd: u8) -> BorrowedFd<'static> {
    // SAFETY: `open_standard_fds` saw to it that 0, 1 and 2 are open, and nobody closes them.
    unsafe { BorrowedFd::borrow_raw(fd.into()) }
}

/// Opens what is closed of 0, 1 and 2, as for an init without a console, so that no map or link lands there and is written
/// to as if it were the output.
fn open_standard_fds() {
    for fd in 0..=2 {
        // SAFETY: only asked about, and whether it is open is the question.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if rustix::io::fcntl_getfd(borrowed) == Err(Errno::BADF) {
            // Always there, and refuses to be read and written. It gets the lowest free number, which is `fd`.
            if let Ok(root) = rustix::fs::open(c"/", OFlags::PATH, Mode::empty()) {
                core::mem::forget(root);
            }
        }
    }
}

/// Ends the process.
pub(crate) fn exit(status: u8) -> ! {
    loop {
        // SAFETY: takes a number and does not come back.
        unsafe { arch::syscall5(__NR_exit_group, [status.into(), 0, 0, 0, 0]) };
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::out::bug(info);
    exit(crate::FAILURE)
}

/// The prebuilt core refers to these two where it was not optimised; nothing unwinds with `panic = "abort"`.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(crate::FAILURE)
}

/// # Safety
///
/// As for C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's buffers are len bytes long and do not overlap.
    unsafe { copy_forward(to, from, len) };
    to
}

/// # Safety
///
/// `from` is readable and `to` writable for `len` bytes, and `to` does not begin inside of what is still to be read.
#[inline]
unsafe fn copy_forward(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: copies len bytes upwards; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for index in 0..len {
        // SAFETY: index is below len.
        unsafe { *to.add(index) = *from.add(index) };
        keep_loop();
    }
}

/// # Safety
///
/// As for C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: `to` is below `from`, or behind its end: going up never writes what is still to be read.
        unsafe { copy_forward(to, from, len) };
    } else {
        for index in (0..len).rev() {
            // SAFETY: index is below len.
            unsafe { *to.add(index) = *from.add(index) };
            keep_loop();
        }
    }
    to
}

/// # Safety
///
/// As for C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: c_int, len: usize) -> *mut u8 {
    let [byte, ..] = byte.to_le_bytes();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: fills len bytes upwards; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!(
            "rep stosb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            in("al") byte,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for index in 0..len {
        // SAFETY: index is below len.
        unsafe { *to.add(index) = byte };
        keep_loop();
    }
    to
}

/// # Safety
///
/// As for C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    for index in 0..len {
        // SAFETY: index is below len.
        let a = unsafe { *a.add(index) };
        // SAFETY: index is below len.
        let b = unsafe { *b.add(index) };
        if a != b {
            return c_int::from(a) - c_int::from(b);
        }
        keep_loop();
    }
    0
}

/// # Safety
///
/// As for C's `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const c_void, b: *const c_void, len: usize) -> c_int {
    // SAFETY: the same contract.
    unsafe { memcmp(a.cast(), b.cast(), len) }
}

/// # Safety
///
/// As for C's `strlen`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut len = 0;
    // SAFETY: the text goes on up to its NUL.
    while unsafe { *text.add(len) } != 0 {
        len += 1;
        keep_loop();
    }
    len
}

/// Keeps the compiler from seeing in a loop the very function that it is the body of.
#[inline]
fn keep_loop() {
    // SAFETY: does nothing.
    unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}
