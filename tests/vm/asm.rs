//! The system call instruction amid live values in every class of registers: what it changes it
//! declares, or one of them is lost. It takes no privilege.

#![allow(unsafe_code)]

use std::hint::black_box;

#[path = "../../src/sys/arch/mod.rs"]
#[allow(
    dead_code,
    reason = "of the two users of the file each has its own need"
)]
mod arch;

/// Makes more values than there are registers of their class, which the compiler does not know and
/// so has to keep; calls; and looks at each. Those that have no register are on the stack.
macro_rules! amid_live_values {
    ($make:expr, $call:expr) => {
        amid_live_values!($make, $call;
            a 1 b 2 c 3 d 4 e 5 f 6 g 7 h 8 i 9 j 10 k 11 l 12 m 13 n 14 o 15 p 16 q 17 r 18
            s 19 t 20 u 21 v 22 w 23 x 24 y 25 z 26 aa 27 bb 28 cc 29 dd 30 ee 31 ff 32 gg 33 hh 34
            ii 35 jj 36)
    };
    ($make:expr, $call:expr; $($name:ident $number:literal)*) => {{
        $(let $name = black_box($make($number));)*
        let answer = $call;
        $(assert!($name == $make($number), "value {}", $number);)*
        answer
    }};
}

/// The answers of a system call that works, one that fails, and one that gives the CPU to somebody
/// else meanwhile.
macro_rules! amid {
    ($make:expr) => {{
        let nanoseconds = [0_u64, 1_000_000];
        let address = nanoseconds.as_ptr().expose_provenance();
        let calls = [
            (libc::SYS_getpid, [0; 5], i64::from(std::process::id())),
            (libc::SYS_close, [usize::MAX; 5], -i64::from(libc::EBADF)),
            (libc::SYS_nanosleep, [address, 0, 0, 0, 0], 0),
        ];
        for (number, args, expected) in calls {
            let number = u32::try_from(number).unwrap();
            // SAFETY: the calls take a number, or the address of a timespec and of none.
            let answer = amid_live_values!($make, unsafe { arch::syscall5(number, args) });
            assert_eq!(answer as i64, expected);
        }
    }};
}

/// A number with no two bytes alike but by chance.
#[inline]
fn number(seed: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn a_system_call_keeps_what_is_live_in_general_registers() {
    amid!(number);
}

#[test]
#[allow(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "the very same number is meant"
)]
fn a_system_call_keeps_what_is_live_in_floating_point_registers() {
    amid!(|seed| number(seed) as f64);
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))] // those that have vectors by default
#[test]
fn a_system_call_keeps_what_is_live_in_vector_registers() {
    #[cfg(target_arch = "aarch64")]
    use std::arch::aarch64::uint64x2_t as Lanes;
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::__m128i as Lanes;

    #[derive(Clone, Copy)]
    struct Vector(Lanes);

    impl Vector {
        #[inline]
        fn new(seed: u64) -> Self {
            // SAFETY: two u64 are as long as a vector of two u64, which may be any.
            Self(unsafe { std::mem::transmute::<[u64; 2], Lanes>([number(seed), !number(seed)]) })
        }
    }

    impl PartialEq for Vector {
        fn eq(&self, other: &Self) -> bool {
            // SAFETY: as above, the other way.
            let lanes = |vector: &Self| unsafe { std::mem::transmute::<Lanes, [u64; 2]>(vector.0) };
            lanes(self) == lanes(other)
        }
    }

    amid!(Vector::new);
}
