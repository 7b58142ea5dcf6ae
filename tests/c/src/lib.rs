//! The functions of `kprobe_attach.h`.

#![no_std]

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::offset_of;
use core::panic::PanicInfo;
use core::slice;

use kprobe_attach::fd::{AsFd, AsRawFd, BorrowedFd};
use kprobe_attach::{Errno, Error, KprobeLink, KprobeOpts, Target, entry};

/// The first fields of `struct bpf_kprobe_opts`.
#[repr(C)]
struct Fields {
    sz: usize,
    bpf_cookie: u64,
    offset: usize,
}

const OFFSET: usize = offset_of!(Fields, offset);

// `struct kprobe_link` has room for it.
const _: () =
    assert!(size_of::<KprobeLink>() <= 48 && align_of::<KprobeLink>() <= align_of::<u64>());

/// Attaches a program. Returns 0 or a negative errno.
///
/// # Safety
///
/// `prog_fd` stays open during the call. `func_name` is NULL or a string. `opts` is NULL or a
/// `struct bpf_kprobe_opts` of as many bytes as its `sz` says. `link` is a `struct kprobe_link`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kprobe_attach(
    prog_fd: c_int,
    func_name: *const c_char,
    opts: *const c_void,
    link: *mut KprobeLink,
) -> c_int {
    if prog_fd < 0 {
        return -Errno::BADF.raw_os_error();
    }
    // SAFETY: the caller keeps it open.
    let prog = unsafe { BorrowedFd::borrow_raw(prog_fd) };
    let func_name = if func_name.is_null() {
        None
    } else {
        // SAFETY: the caller's string.
        Some(unsafe { CStr::from_ptr(func_name) })
    };
    let opts = if opts.is_null() {
        None
    } else {
        // SAFETY: the struct begins with `sz`.
        let sz = unsafe { opts.cast::<usize>().read() };
        // SAFETY: the struct has so many bytes, and `sz` itself if that says less.
        Some(unsafe { slice::from_raw_parts(opts.cast(), sz.max(size_of::<usize>())) })
    };
    match attach(prog, func_name, opts) {
        Ok(attached) => {
            // SAFETY: the struct has room for it, see above.
            unsafe { link.write(attached) };
            0
        }
        Err(error) => -error.errno().raw_os_error(),
    }
}

fn attach(
    prog: BorrowedFd<'_>,
    func_name: Option<&CStr>,
    opts: Option<&[u8]>,
) -> Result<KprobeLink, Error> {
    // Without a name, the offset is an address.
    let address = opts.and_then(|opts| opts.get(OFFSET..)?.first_chunk());
    let address = address.map_or(0, |bytes| usize::from_ne_bytes(*bytes));
    let opts = opts.map_or(Ok(KprobeOpts::new()), KprobeOpts::from_c_struct)?;
    match func_name {
        // Every name is UTF-8: text of another kind names no function.
        Some(name) => {
            let target = Target::parse(name.to_str().unwrap_or_default())?;
            kprobe_attach::attach_kprobe(prog, target, &opts)
        }
        None => {
            let target = Target::address(address as u64);
            kprobe_attach::attach_kprobe(prog, target, &opts.offset(0))
        }
    }
}

/// Returns the file descriptor that holds the program attached.
///
/// # Safety
///
/// `link` was filled by [`kprobe_attach`], and not detached since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kprobe_link_fd(link: *const KprobeLink) -> c_int {
    // SAFETY: it is a link.
    let link = unsafe { &*link };
    link.as_fd().as_raw_fd()
}

/// Detaches a program. Returns 0 or a negative errno.
///
/// # Safety
///
/// `link` was filled by [`kprobe_attach`], and not detached since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kprobe_detach(link: *mut KprobeLink) -> c_int {
    // SAFETY: it is a link, which nobody uses from now on.
    let link = unsafe { link.read() };
    let detached = link.detach();
    detached.map_or_else(|error| -error.errno().raw_os_error(), |()| 0)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    entry::exit(entry::print_panic(info))
}
