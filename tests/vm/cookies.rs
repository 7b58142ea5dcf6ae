//! One link to a thousand functions, of which many are called: each hit is counted once, with the
//! cookie and the address of its function.

use std::collections::BTreeSet;
use std::ffi::{CString, c_long};

use kprobe_attach::bpf::insn::Insn;
use kprobe_attach::bpf::{Array, AttachType, Load, Program, insn};
use kprobe_attach::request::{Functions, SymbolRef};
use kprobe_attach::symbols::{Resolution, resolve};
use kprobe_attach::{KprobeMultiOpts, Target};

use crate::machine::{asked, clean, has_multi, probeable};

/// The number of functions of the link.
const COUNT: usize = 1000;

/// The names and numbers of system calls.
macro_rules! calls {
    ($($number:ident)*) => {
        [$((stringify!($number), libc::$number)),*]
    };
}

/// System calls that do nothing if every argument is -1, and that nothing else here makes: it is no
/// file descriptor, no process, no address, and no set of flags.
const CALLS: [(&str, c_long); 122] = calls![
    SYS_accept4 SYS_bind SYS_capget SYS_capset SYS_chroot SYS_clock_adjtime SYS_clock_getres
    SYS_clock_settime SYS_close_range SYS_connect SYS_copy_file_range SYS_delete_module SYS_dup3
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_eventfd2 SYS_faccessat
    SYS_fallocate SYS_fanotify_init SYS_fanotify_mark SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown
    SYS_fchownat SYS_fdatasync SYS_fgetxattr SYS_finit_module SYS_flistxattr
    SYS_fremovexattr SYS_fsconfig SYS_fsetxattr SYS_fsmount SYS_fspick SYS_fstatfs SYS_fsync
    SYS_ftruncate SYS_getdents64 SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid
    SYS_getpriority SYS_getsid SYS_getsockname SYS_getsockopt SYS_getxattr SYS_inotify_add_watch
    SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy SYS_io_getevents
    SYS_io_setup SYS_io_submit SYS_io_uring_enter SYS_io_uring_register SYS_ioprio_get
    SYS_ioprio_set SYS_kcmp SYS_keyctl SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr
    SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_memfd_create SYS_mkdirat SYS_mknodat
    SYS_mlock2 SYS_move_mount SYS_mq_getsetattr SYS_mq_notify SYS_open_tree SYS_pidfd_getfd
    SYS_pidfd_send_signal SYS_pipe2 SYS_pivot_root SYS_preadv SYS_preadv2 SYS_prlimit64
    SYS_process_vm_readv SYS_process_vm_writev SYS_pwritev SYS_pwritev2 SYS_readahead SYS_recvmmsg
    SYS_recvmsg SYS_removexattr SYS_renameat2 SYS_sched_get_priority_max SYS_sched_get_priority_min
    SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler SYS_sched_rr_get_interval
    SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler SYS_sendfile SYS_sendmmsg
    SYS_sendmsg SYS_setitimer SYS_setns SYS_setpriority SYS_setsockopt SYS_setxattr SYS_shutdown
    SYS_signalfd4 SYS_splice SYS_statfs SYS_syncfs SYS_tee SYS_timer_delete SYS_timer_getoverrun
    SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime
];

/// The number of times that the system call at an index is made.
const fn times(index: usize) -> u64 {
    1 + index as u64 % 7
}

/// Makes each system call.
fn call_all(numbers: &[c_long]) {
    for (index, number) in numbers.iter().enumerate() {
        for _ in 0..times(index) {
            #[allow(unsafe_code, reason = "a function of the kernel runs for each of them")]
            // SAFETY: the kernel refuses these arguments before it does anything.
            let answer = unsafe { libc::syscall(*number, -1_i64, -1_i64, -1_i64, -1, -1, -1) };
            assert_eq!(answer, -1, "{number}");
        }
    }
}

/// Names and addresses of functions of system calls, and the numbers of these. One that this kernel
/// does not have, or cannot trace, is not among them.
fn of_calls() -> (Vec<CString>, Vec<u64>, Vec<c_long>) {
    let traceable = "/sys/kernel/tracing/available_filter_functions";
    let traceable = std::fs::read_to_string(traceable).unwrap();
    let traceable: BTreeSet<&str> = traceable.lines().collect();
    let target = |(name, _): (&'static str, _)| {
        let name = name.strip_prefix("SYS_").unwrap();
        Resolution::new(Target::syscall(name).unwrap())
    };
    let mut found = CALLS.map(target);
    resolve(&mut found, |_, _| {}).unwrap();
    let (mut names, mut addresses, mut numbers) = (vec![], vec![], vec![]);
    for (found, (_, number)) in found.iter().zip(CALLS) {
        let Ok(target) = found.target() else { continue };
        let Some(name) = target.function().filter(|name| traceable.contains(name)) else {
            continue;
        };
        names.push(CString::new(name).unwrap());
        addresses.push(found.address().unwrap());
        numbers.push(number);
    }
    (names, addresses, numbers)
}

/// Loads a program for the hits of this process: `hits[cookie] += 1; places[cookie] += address`,
/// with the address of the function that was hit.
fn program(hits: &Array, places: &Array, attach_type: AttachType) -> Program {
    // The key is the low half of the cookie.
    let key = if cfg!(target_endian = "little") {
        -8
    } else {
        -4
    };
    let add = |array, number: Insn<'static>| -> Vec<Insn<'_>> {
        let [map, map_end] = insn::load_map(insn::R1, array);
        vec![
            map,
            map_end,
            insn::mov(insn::R2, insn::R10),
            insn::alu_imm(insn::Alu::Add, insn::R2, key),
            insn::call(insn::helper::MAP_LOOKUP_ELEM),
            insn::jump_if_imm(insn::Cond::Eq, insn::R0, 0, 2),
            number,
            insn::atomic(insn::Width::U64, insn::Atomic::Add, insn::R0, 0, insn::R1),
        ]
    };
    let process = i32::try_from(std::process::id()).unwrap();
    let start = [
        insn::mov(insn::R6, insn::R1),
        insn::call(insn::helper::GET_CURRENT_PID_TGID),
        insn::alu_imm(insn::Alu::Rsh, insn::R0, 32),
        insn::jump_if_imm(insn::Cond::Eq, insn::R0, process, 2),
        insn::mov_imm(insn::R0, 0),
        insn::exit(),
        insn::mov(insn::R1, insn::R6),
        insn::call(insn::helper::GET_ATTACH_COOKIE),
        insn::store(insn::Width::U64, insn::R10, -8, insn::R0),
        insn::mov(insn::R1, insn::R6),
        insn::call(insn::helper::GET_FUNC_IP),
        insn::store(insn::Width::U64, insn::R10, -16, insn::R0),
    ];
    let one = add(hits, insn::mov_imm(insn::R1, 1));
    let place = add(
        places,
        insn::load(insn::Width::U64, insn::R1, insn::R10, -16),
    );
    let end = [insn::mov_imm(insn::R0, 0), insn::exit()];
    let insns = [&start[..], &one, &place, &end].concat();
    let load = Load::new(&insns, c"GPL").attach_type(attach_type);
    load.load().unwrap()
}

#[test]
fn each_hit_of_a_thousand_functions_is_counted_at_its_own() {
    const ENTRY: KprobeMultiOpts = KprobeMultiOpts::new();
    if !has_multi() {
        return;
    }
    let (mut names, mut addresses, numbers) = of_calls();
    assert!(numbers.len() > 100, "{names:?}");
    // Functions of system calls run, and so do some of the others.
    let others = probeable(COUNT);
    for (name, address) in others.names.into_iter().zip(others.addresses) {
        if names.len() < COUNT && !names.contains(&name) {
            names.push(name);
            addresses.push(address);
        }
    }
    let symbols: Vec<_> = names.iter().map(|name| SymbolRef::new(name)).collect();
    // The kernel sorts functions and cookies by address.
    let cookies: Vec<u64> = (0..COUNT as u64).rev().collect();
    for (opts, runs, attach_type) in [
        (ENTRY, 1, AttachType::KprobeMulti),
        (ENTRY.retprobe(true), 1, AttachType::KprobeMulti),
        (ENTRY.session(true), 2, AttachType::KprobeSession),
    ] {
        for functions in [
            Functions::symbols(&symbols),
            Functions::addresses(&addresses),
        ] {
            clean(|| {
                let [hits, places] = [(); 2].map(|()| Array::create(COUNT as u32).unwrap());
                let program = program(&hits, &places, attach_type);
                let functions = functions.cookies(&cookies);
                let link = asked().attach_kprobe_multi(&program, functions, &opts);
                let link = link.unwrap();
                call_all(&numbers);
                link.detach();
                call_all(&numbers);
                for (index, cookie) in cookies.iter().enumerate() {
                    let at = |array: &Array| array.get(*cookie as u32).unwrap();
                    let name = &names[index];
                    let counted = at(&hits);
                    if index < numbers.len() {
                        assert_eq!(counted, times(index) * runs, "{name:?} {opts:?}");
                    }
                    let expected = addresses[index].wrapping_mul(counted);
                    assert_eq!(at(&places), expected, "{name:?} {opts:?}");
                }
            });
        }
    }
}
