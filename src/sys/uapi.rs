//! The bytes of `bpf(2)` and `perf_event_open(2)`: one struct for each command and union arm.
//! Sources: `include/uapi/linux/bpf.h` and `include/uapi/linux/perf_event.h`.
//!
//! A kernel accepts an attribute that is shorter than its own, and takes the rest as zero. It
//! accepts a longer one if the unknown tail is zero. Each struct therefore ends at the last field
//! that this crate uses, and works on every kernel that knows the command. Pointers are `u64` on
//! every architecture.

use core::mem::{offset_of, size_of};
use static_assertions::const_assert_eq;

/// Asserts a struct's size and the offset of each of its fields. It does not compile if a field is
/// left out.
macro_rules! layout {
    ($name:ident: $size:literal { $($field:ident @ $offset:literal),+ $(,)? }) => {
        const_assert_eq!(size_of::<$name>(), $size);
        $(const_assert_eq!(offset_of!($name, $field), $offset);)+
        const _: fn($name) = |value| {
            let $name { $($field: _),+ } = value;
        };
    };
}

pub(super) const BPF_MAP_CREATE: u32 = 0;
pub(super) const BPF_MAP_LOOKUP_ELEM: u32 = 1;
pub(super) const BPF_MAP_UPDATE_ELEM: u32 = 2;
#[cfg(feature = "object")]
pub(super) const BPF_MAP_GET_NEXT_KEY: u32 = 4;
pub(super) const BPF_PROG_LOAD: u32 = 5;
pub(super) const BPF_OBJ_PIN: u32 = 6;
pub(super) const BPF_OBJ_GET: u32 = 7;
pub(super) const BPF_PROG_GET_FD_BY_ID: u32 = 13;
#[cfg(feature = "object")]
pub(super) const BPF_MAP_GET_FD_BY_ID: u32 = 14;
pub(super) const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
pub(super) const BPF_BTF_LOAD: u32 = 18;
pub(super) const BPF_TASK_FD_QUERY: u32 = 20;
/// Linux 5.2 (commit 87df15de441b)
#[cfg(feature = "object")]
pub(super) const BPF_MAP_FREEZE: u32 = 22;
pub(super) const BPF_LINK_CREATE: u32 = 28;
pub(super) const BPF_LINK_UPDATE: u32 = 29;
pub(super) const BPF_PROG_BIND_MAP: u32 = 35;

/// Linux 6.5 (commit cb8edce28073)
pub(super) const BPF_F_PATH_FD: u32 = 1 << 14;

pub(crate) const BPF_PROG_TYPE_KPROBE: u32 = 2;
pub(super) const BPF_MAP_TYPE_ARRAY: u32 = 2;
/// `enum bpf_map_type`
pub(super) const BPF_MAP_TYPE_HASH: u32 = 1;
/// `enum bpf_attach_type`: Linux 5.15 (commit b89fbfbb854c)
pub(super) const BPF_PERF_EVENT: u32 = 41;
/// `enum bpf_attach_type`: Linux 5.18 (commit 0dcac2725406)
pub(crate) const BPF_TRACE_KPROBE_MULTI: u32 = 42;
/// `enum bpf_attach_type`: Linux 6.10 (commit 535a3692ba72)
pub(crate) const BPF_TRACE_KPROBE_SESSION: u32 = 56;
/// `enum bpf_link_type`
pub(crate) const BPF_LINK_TYPE_PERF_EVENT: u32 = 7;
pub(crate) const BPF_LINK_TYPE_KPROBE_MULTI: u32 = 8;
/// The flag of a link that runs its program on return
pub(crate) const BPF_F_KPROBE_MULTI_RETURN: u32 = 1 << 0;
/// `enum bpf_perf_event_type`: zero before Linux 6.6 (commit 1b715e1b0ec5)
pub(crate) const BPF_PERF_EVENT_KPROBE: u32 = 3;
pub(crate) const BPF_PERF_EVENT_KRETPROBE: u32 = 4;

/// `enum bpf_task_fd_type`: Linux 4.18 (commit 41bdc4b40ed6)
pub(crate) const BPF_FD_TYPE_KPROBE: u32 = 2;
pub(crate) const BPF_FD_TYPE_KRETPROBE: u32 = 3;

pub(super) const PERF_FLAG_FD_CLOEXEC: usize = 8;
pub(super) const PERF_EVENT_IOC_SET_BPF: u32 = rustix::ioctl::opcode::write::<u32>(b'$', 8);
#[cfg(not(target_arch = "powerpc64"))]
const_assert_eq!(PERF_EVENT_IOC_SET_BPF, 0x4004_2408);
#[cfg(target_arch = "powerpc64")] // where "write" is bit 31
const_assert_eq!(PERF_EVENT_IOC_SET_BPF, 0x8004_2408);

/// The system call `fcntl(2)` that takes a [`Flock`].
#[cfg(target_pointer_width = "64")]
pub(super) const NR_FCNTL: u32 = linux_raw_sys::general::__NR_fcntl;
#[cfg(target_pointer_width = "32")]
pub(super) const NR_FCNTL: u32 = linux_raw_sys::general::__NR_fcntl64;

/// The number of padding words that C puts before and after 64-bit fields. 32-bit x86 needs none.
const PADDING: usize = if cfg!(target_arch = "x86") { 0 } else { 1 };

/// `struct flock64` of `fcntl(2)`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flock {
    pub(super) l_type: i16,
    pub(super) l_whence: i16,
    pub(super) pad: [u32; PADDING],
    pub(super) l_start: i64,
    pub(super) l_len: i64,
    pub(super) l_pid: i32,
    pub(super) pad2: [u32; PADDING],
}
#[cfg(not(target_arch = "x86"))]
layout!(Flock: 32 {
    l_type @ 0, l_whence @ 2, pad @ 4, l_start @ 8, l_len @ 16, l_pid @ 24, pad2 @ 28,
});
#[cfg(target_arch = "x86")]
layout!(Flock: 24 {
    l_type @ 0, l_whence @ 2, pad @ 4, l_start @ 4, l_len @ 12, l_pid @ 20, pad2 @ 24,
});
const_assert_eq!(
    size_of::<Flock>(),
    size_of::<linux_raw_sys::general::flock64>()
);
pub(super) const F_RDLCK: i16 = 0;
pub(super) const F_WRLCK: i16 = 1;
pub(super) const F_UNLCK: i16 = 2;
const_assert_eq!(F_RDLCK as u32, linux_raw_sys::general::F_RDLCK);
const_assert_eq!(F_WRLCK as u32, linux_raw_sys::general::F_WRLCK);
const_assert_eq!(F_UNLCK as u32, linux_raw_sys::general::F_UNLCK);

/// Returns one of the bit-fields in the u64 at offset 40 of `perf_event_attr`. C puts the first at
/// the lowest bit of a little endian machine, and at the highest bit of a big endian one.
const fn perf_attr_bit(index: u32, big_endian: bool) -> u64 {
    if big_endian {
        1 << (63 - index)
    } else {
        1 << index
    }
}
pub(super) const PERF_ATTR_DISABLED: u64 = perf_attr_bit(0, cfg!(target_endian = "big"));
pub(super) const PERF_ATTR_EXCLUDE_KERNEL: u64 = perf_attr_bit(5, cfg!(target_endian = "big"));
// In either byte order, bit 0 is in the byte at offset 40: as its lowest bit (little endian), or as
// its highest (big endian).
const_assert_eq!(perf_attr_bit(0, false).to_le_bytes()[0], 0x01);
const_assert_eq!(perf_attr_bit(0, true).to_be_bytes()[0], 0x80);

/// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER1`, the first version with `config2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PerfEventAttr {
    pub(super) r#type: u32,
    pub(super) size: u32,
    pub(super) config: u64,
    pub(super) sample_period: u64,
    pub(super) sample_type: u64,
    pub(super) read_format: u64,
    pub(super) flags: u64,
    pub(super) wakeup_events: u32,
    pub(super) bp_type: u32,
    /// `kprobe_func`
    pub(super) config1: u64,
    /// `probe_offset`, or `kprobe_addr` if there is no `kprobe_func`
    pub(super) config2: u64,
}
layout!(PerfEventAttr: 72 {
    r#type @ 0, size @ 4, config @ 8, sample_period @ 16, sample_type @ 24, read_format @ 32,
    flags @ 40, wakeup_events @ 48, bp_type @ 52, config1 @ 56, config2 @ 64,
});

/// `BPF_MAP_CREATE`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MapCreate {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
}
layout!(MapCreate: 20 {
    map_type @ 0, key_size @ 4, value_size @ 8, max_entries @ 12, map_flags @ 16,
});

/// `BPF_MAP_CREATE` up to `map_extra` (Linux 5.16)
#[cfg(feature = "object")]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MapCreateNamed {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: u32,
    pub(super) numa_node: u32,
    pub(super) map_name: [u8; 16],
    pub(super) map_ifindex: u32,
    pub(super) btf_fd: u32,
    pub(super) btf_key_type_id: u32,
    pub(super) btf_value_type_id: u32,
    pub(super) btf_vmlinux_value_type_id: u32,
    pub(super) map_extra: u64,
}
#[cfg(feature = "object")]
layout!(MapCreateNamed: 72 {
    map_type @ 0, key_size @ 4, value_size @ 8, max_entries @ 12, map_flags @ 16,
    inner_map_fd @ 20, numa_node @ 24, map_name @ 28, map_ifindex @ 44, btf_fd @ 48,
    btf_key_type_id @ 52, btf_value_type_id @ 56, btf_vmlinux_value_type_id @ 60, map_extra @ 64,
});

/// `BPF_MAP_FREEZE`
#[cfg(feature = "object")]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MapFreeze {
    pub(super) map_fd: u32,
}
#[cfg(feature = "object")]
layout!(MapFreeze: 4 { map_fd @ 0 });

/// `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM`, and `BPF_MAP_GET_NEXT_KEY` with the next key as
/// its value
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MapElem {
    pub(super) map_fd: u32,
    pub(super) pad: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}
layout!(MapElem: 32 { map_fd @ 0, pad @ 4, key @ 8, value @ 16, flags @ 24 });

/// `BPF_PROG_LOAD` up to `expected_attach_type` (Linux 4.17), or for objects up to
/// `core_relo_rec_size` (Linux 5.17)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProgLoad {
    pub(super) prog_type: u32,
    pub(super) insn_cnt: u32,
    pub(super) insns: u64,
    pub(super) license: u64,
    pub(super) log_level: u32,
    pub(super) log_size: u32,
    pub(super) log_buf: u64,
    pub(super) kern_version: u32,
    pub(super) prog_flags: u32,
    pub(super) prog_name: [u8; 16],
    pub(super) prog_ifindex: u32,
    pub(super) expected_attach_type: u32,
    #[cfg(feature = "object")]
    pub(super) btf: ProgLoadBtf,
}
#[cfg(not(feature = "object"))]
layout!(ProgLoad: 72 {
    prog_type @ 0, insn_cnt @ 4, insns @ 8, license @ 16, log_level @ 24, log_size @ 28,
    log_buf @ 32, kern_version @ 40, prog_flags @ 44, prog_name @ 48, prog_ifindex @ 64,
    expected_attach_type @ 68,
});
#[cfg(feature = "object")]
layout!(ProgLoad: 144 {
    prog_type @ 0, insn_cnt @ 4, insns @ 8, license @ 16, log_level @ 24, log_size @ 28,
    log_buf @ 32, kern_version @ 40, prog_flags @ 44, prog_name @ 48, prog_ifindex @ 64,
    expected_attach_type @ 68, btf @ 72,
});

/// The part of `BPF_PROG_LOAD` that starts at its byte 72.
#[cfg(feature = "object")]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProgLoadBtf {
    pub(super) prog_btf_fd: u32,
    pub(super) func_info_rec_size: u32,
    pub(super) func_info: u64,
    pub(super) func_info_cnt: u32,
    pub(super) line_info_rec_size: u32,
    pub(super) line_info: u64,
    pub(super) line_info_cnt: u32,
    pub(super) attach_btf_id: u32,
    pub(super) attach_prog_fd: u32,
    pub(super) core_relo_cnt: u32,
    pub(super) fd_array: u64,
    pub(super) core_relos: u64,
    pub(super) core_relo_rec_size: u32,
    pub(super) pad: u32,
}
#[cfg(feature = "object")]
layout!(ProgLoadBtf: 72 {
    prog_btf_fd @ 0, func_info_rec_size @ 4, func_info @ 8, func_info_cnt @ 16,
    line_info_rec_size @ 20, line_info @ 24, line_info_cnt @ 32, attach_btf_id @ 36,
    attach_prog_fd @ 40, core_relo_cnt @ 44, fd_array @ 48, core_relos @ 56,
    core_relo_rec_size @ 64, pad @ 68,
});

/// `BPF_BTF_LOAD` up to `btf_size`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BtfLoad {
    pub(super) btf: u64,
    pub(super) btf_log_buf: u64,
    pub(super) btf_size: u32,
    pub(super) btf_log_size: u32,
}
layout!(BtfLoad: 24 { btf @ 0, btf_log_buf @ 8, btf_size @ 16, btf_log_size @ 20 });

/// `BPF_OBJ_PIN` and `BPF_OBJ_GET`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Obj {
    pub(super) pathname: u64,
    pub(super) bpf_fd: u32,
    pub(super) file_flags: u32,
}
layout!(Obj: 16 { pathname @ 0, bpf_fd @ 8, file_flags @ 12 });

/// `BPF_OBJ_PIN` at a path relative to a directory
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObjAt {
    pub(super) pathname: u64,
    pub(super) bpf_fd: u32,
    pub(super) file_flags: u32,
    pub(super) path_fd: u32,
    pub(super) pad: u32,
}
layout!(ObjAt: 24 { pathname @ 0, bpf_fd @ 8, file_flags @ 12, path_fd @ 16, pad @ 20 });

/// The first fields of `struct bpf_map_info`, which every kernel since Linux 4.13 has
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MapInfo {
    pub(super) r#type: u32,
    pub(super) id: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
}
layout!(MapInfo: 24 {
    r#type @ 0, id @ 4, key_size @ 8, value_size @ 12, max_entries @ 16, map_flags @ 20,
});

/// `BPF_PROG_GET_FD_BY_ID` and `BPF_MAP_GET_FD_BY_ID`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GetFdById {
    pub(super) id: u32,
}
layout!(GetFdById: 4 { id @ 0 });

/// `BPF_OBJ_GET_INFO_BY_FD`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObjGetInfo {
    pub(super) bpf_fd: u32,
    pub(super) info_len: u32,
    pub(super) info: u64,
}
layout!(ObjGetInfo: 16 { bpf_fd @ 0, info_len @ 4, info @ 8 });

/// `struct bpf_prog_info`, up to the last field that is used here
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProgInfo {
    pub(super) r#type: u32,
    pub(super) id: u32,
    /// Lengths and addresses of optional arrays, and numbers that are not used here.
    pub(super) unused: [u64; 25],
    pub(super) recursion_misses: u64,
}
layout!(ProgInfo: 216 { r#type @ 0, id @ 4, unused @ 8, recursion_misses @ 208 });

/// `struct bpf_link_info`, arm `perf_event.kprobe`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkInfoPerfKprobe {
    pub(super) r#type: u32,
    pub(super) id: u32,
    pub(super) prog_id: u32,
    pub(super) pad: u32,
    pub(super) perf_event_type: u32,
    pub(super) pad2: u32,
    pub(super) func_name: u64,
    pub(super) name_len: u32,
    pub(super) offset: u32,
    pub(super) addr: u64,
    pub(super) missed: u64,
    pub(super) cookie: u64,
}
layout!(LinkInfoPerfKprobe: 64 {
    r#type @ 0, id @ 4, prog_id @ 8, pad @ 12, perf_event_type @ 16, pad2 @ 20, func_name @ 24,
    name_len @ 32, offset @ 36, addr @ 40, missed @ 48, cookie @ 56,
});

/// `struct bpf_link_info`, arm `kprobe_multi`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkInfoKprobeMulti {
    pub(super) r#type: u32,
    pub(super) id: u32,
    pub(super) prog_id: u32,
    pub(super) pad: u32,
    pub(super) addrs: u64,
    pub(super) count: u32,
    pub(super) flags: u32,
    pub(super) missed: u64,
    pub(super) cookies: u64,
}
layout!(LinkInfoKprobeMulti: 48 {
    r#type @ 0, id @ 4, prog_id @ 8, pad @ 12, addrs @ 16, count @ 24, flags @ 28, missed @ 32,
    cookies @ 40,
});

/// `BPF_TASK_FD_QUERY`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TaskFdQuery {
    pub(super) pid: u32,
    pub(super) fd: u32,
    pub(super) flags: u32,
    pub(super) buf_len: u32,
    pub(super) buf: u64,
    pub(super) prog_id: u32,
    pub(super) fd_type: u32,
    pub(super) probe_offset: u64,
    pub(super) probe_addr: u64,
}
layout!(TaskFdQuery: 48 {
    pid @ 0, fd @ 4, flags @ 8, buf_len @ 12, buf @ 16, prog_id @ 24, fd_type @ 28,
    probe_offset @ 32, probe_addr @ 40,
});

/// `BPF_LINK_UPDATE`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkUpdate {
    pub(super) link_fd: u32,
    pub(super) new_prog_fd: u32,
    pub(super) flags: u32,
}
layout!(LinkUpdate: 12 { link_fd @ 0, new_prog_fd @ 4, flags @ 8 });

/// `BPF_PROG_BIND_MAP`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProgBindMap {
    pub(super) prog_fd: u32,
    pub(super) map_fd: u32,
    pub(super) flags: u32,
}
layout!(ProgBindMap: 12 { prog_fd @ 0, map_fd @ 4, flags @ 8 });

/// `BPF_LINK_CREATE`, arm `perf_event`: the shortest attribute that carries a cookie
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkCreatePerfEvent {
    pub(super) prog_fd: u32,
    pub(super) target_fd: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
    pub(super) bpf_cookie: u64,
}
layout!(LinkCreatePerfEvent: 24 {
    prog_fd @ 0, target_fd @ 4, attach_type @ 8, flags @ 12, bpf_cookie @ 16,
});

/// `BPF_LINK_CREATE`, arm `kprobe_multi`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkCreateKprobeMulti {
    pub(super) prog_fd: u32,
    pub(super) target_fd: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
    pub(super) multi_flags: u32,
    pub(super) cnt: u32,
    pub(super) syms: u64,
    pub(super) addrs: u64,
    pub(super) cookies: u64,
}
layout!(LinkCreateKprobeMulti: 48 {
    prog_fd @ 0, target_fd @ 4, attach_type @ 8, flags @ 12, multi_flags @ 16, cnt @ 20, syms @ 24,
    addrs @ 32, cookies @ 40,
});
