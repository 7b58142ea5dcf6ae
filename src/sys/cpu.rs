//! `sched_getaffinity(2)`. rustix has it for sets of at most 1,024 CPUs, which a larger kernel
//! refuses.

use core::mem::size_of_val;
use core::ptr;

use linux_raw_sys::general::__NR_sched_getaffinity;

use super::arch;
use super::call::result;

/// Returns the first CPU that this thread may run on, which is online; 0 where the kernel does not
/// say.
pub(crate) fn first_allowed_cpu() -> u32 {
    // As many CPUs as a kernel can be built for (NR_CPUS).
    let mut set = [0_usize; 8192 / usize::BITS as usize];
    let address = ptr::from_mut(&mut set).expose_provenance();
    // SAFETY: the set is writable for the size that is named.
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
