//! `sched_getaffinity(2)` for kernels of more than 1,024 CPUs, which refuse the smaller set of
//! rustix.

use core::mem::size_of_val;
use core::ptr;

use linux_raw_sys::general::__NR_sched_getaffinity;

use super::arch;
use super::call::result;

/// Returns the first CPU on which this thread may run, which is online. Returns 0 if the kernel
/// does not report one.
#[cold]
#[inline(never)]
pub(crate) fn first_allowed_cpu() -> u32 {
    // NR_CPUS of the largest kernel that can be built.
    let mut set = [0_usize; 8192 / usize::BITS as usize];
    let address = ptr::from_mut(&mut set).expose_provenance();
    // SAFETY: the set is writable for the size that is given.
    let answer = unsafe {
        arch::syscall5(
            __NR_sched_getaffinity,
            [0, size_of_val(&set), address, 0, 0],
        )
    };
    let mut words = (0_u32..).zip(&set);
    let first = match result(answer) {
        Ok(_) => words.find(|(_, word)| **word != 0),
        Err(_) => None,
    };
    first.map_or(0, |(index, word)| {
        index * usize::BITS + word.trailing_zeros()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_the_first_that_the_thread_may_run_on() {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
        assert_eq!(Some(first_allowed_cpu() as usize), first);
    }
}
