//! The entry point, to which the kernel jumps.

use core::panic::PanicInfo;

kprobe_attach::entry!(crate::main, panic = panicked);

fn panicked(info: &PanicInfo<'_>) -> u8 {
    crate::out::bug(info);
    crate::FAILURE
}
