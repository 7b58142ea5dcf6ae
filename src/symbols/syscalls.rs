//! The names of the entry points of system calls.

/// Returns how well a symbol fits as an entry point of a system call; 0 is best.
pub(super) fn rank(syscall: &[u8], symbol: &[u8]) -> Option<u8> {
    let name = symbol.strip_prefix(b"__x64_sys_")?;
    (name == syscall).then_some(0)
}
