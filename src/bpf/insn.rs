//! The instructions of BPF programs, as [`Load`](super::Load) takes them. Source:
//! `Documentation/bpf/standardization`.

use rustix::fd::{AsFd, AsRawFd};

pub use crate::sys::Insn;

/// Names a register of the BPF machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(u8);

/// Holds the result of a helper, and of the program.
pub const R0: Reg = Reg(0);
/// Holds the first argument of a helper, and at the start the program's context.
pub const R1: Reg = Reg(1);
/// Holds the second argument of a helper.
pub const R2: Reg = Reg(2);
/// Holds the third argument of a helper.
pub const R3: Reg = Reg(3);
/// Holds the fourth argument of a helper.
pub const R4: Reg = Reg(4);
/// Holds the fifth argument of a helper.
pub const R5: Reg = Reg(5);
/// Keeps its value when a helper is called, as the registers up to [`R9`] do.
pub const R6: Reg = Reg(6);
/// Keeps its value when a helper is called.
pub const R7: Reg = Reg(7);
/// Keeps its value when a helper is called.
pub const R8: Reg = Reg(8);
/// Keeps its value when a helper is called.
pub const R9: Reg = Reg(9);
/// Holds the end of the stack, which grows down. It cannot be written.
pub const R10: Reg = Reg(10);

/// Names the width of an access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    U8,
    /// 2 bytes.
    U16,
    /// 4 bytes.
    U32,
    /// 8 bytes.
    U64,
}

impl Width {
    const fn bits(self) -> u8 {
        match self {
            Self::U8 => 0x10,
            Self::U16 => 0x08,
            Self::U32 => 0x00,
            Self::U64 => 0x18,
        }
    }
}

/// Names an operation on a register and an operand. Numbers are unsigned, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alu {
    /// Adds.
    Add = 0x00,
    /// Subtracts.
    Sub = 0x10,
    /// Multiplies.
    Mul = 0x20,
    /// Divides. The quotient by 0 is 0.
    Div = 0x30,
    /// Makes the bits that both have.
    Or = 0x40,
    /// Keeps the bits that both have.
    And = 0x50,
    /// Shifts to the left.
    Lsh = 0x60,
    /// Shifts to the right.
    Rsh = 0x70,
    /// Makes the remainder. The remainder by 0 is the register.
    Mod = 0x90,
    /// Makes the bits that one of the two has.
    Xor = 0xa0,
    /// Shifts to the right, and keeps the sign.
    Arsh = 0xc0,
}

/// Names a comparison. Numbers are unsigned, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cond {
    /// Whether both are equal.
    Eq = 0x10,
    /// Whether the first is greater.
    Gt = 0x20,
    /// Whether the first is greater, or both are equal.
    Ge = 0x30,
    /// Whether there is a bit that both have.
    Set = 0x40,
    /// Whether they differ.
    Ne = 0x50,
    /// Whether the first is greater, of signed numbers.
    Sgt = 0x60,
    /// Whether the first is greater, or both are equal, of signed numbers.
    Sge = 0x70,
    /// Whether the first is less. It takes Linux 4.14, as the next ones do.
    Lt = 0xa0,
    /// Whether the first is less, or both are equal.
    Le = 0xb0,
    /// Whether the first is less, of signed numbers.
    Slt = 0xc0,
    /// Whether the first is less, or both are equal, of signed numbers.
    Sle = 0xd0,
}

/// Names an atomic operation on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Atomic {
    /// Adds the register to memory. Every kernel has it, the others take Linux 5.12.
    Add = 0x00,
    /// Makes the bits in memory that the register has.
    Or = 0x40,
    /// Keeps the bits in memory that the register has.
    And = 0x50,
    /// Makes the bits in memory that one of the two has.
    Xor = 0xa0,
    /// Adds as [`Add`](Self::Add), and puts what was in memory into the register.
    FetchAdd = 0x01,
    /// Works as [`Or`](Self::Or), and puts what was in memory into the register.
    FetchOr = 0x41,
    /// Works as [`And`](Self::And), and puts what was in memory into the register.
    FetchAnd = 0x51,
    /// Works as [`Xor`](Self::Xor), and puts what was in memory into the register.
    FetchXor = 0xa1,
    /// Exchanges memory and the register.
    Xchg = 0xe1,
    /// Writes the register if memory is equal to [`R0`], which then has what was in memory.
    CmpXchg = 0xf1,
}

// The classes of instructions, and where an operand comes from.
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ALU32: u8 = 0x04;
const JMP64: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
const MEM: u8 = 0x60;
const MEMSX: u8 = 0x80;
const ATOMIC: u8 = 0xc0;
const FROM_REG: u8 = 0x08;
const MOV: u8 = 0xb0;
const NEG: u8 = 0x80;
const END: u8 = 0xd0;

/// Makes a `struct bpf_insn`: code, two registers of 4 bits each, offset, and immediate value.
const fn insn(code: u8, dst: Reg, src: Reg, off: i16, imm: i32) -> Insn<'static> {
    let [off0, off1] = off.to_ne_bytes();
    let [imm0, imm1, imm2, imm3] = imm.to_ne_bytes();
    // The two registers are bit-fields of C, whose order is reversed on a big endian machine.
    let regs = if cfg!(target_endian = "big") {
        dst.0 << 4 | src.0
    } else {
        src.0 << 4 | dst.0
    };
    Insn::new(u64::from_ne_bytes([
        code, regs, off0, off1, imm0, imm1, imm2, imm3,
    ]))
}

/// Makes any instruction, of code, two registers, offset, and immediate value.
///
/// It is [`None`] for a register that does not exist, and for an instruction that names a file
/// descriptor or a BTF object by its number, as [`load_map`] makes it. The kernel would take that
/// from the whole process.
#[must_use]
pub const fn raw(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Option<Insn<'static>> {
    const PSEUDO_FUNC: u8 = 4;
    let is_wide = code == LD | Width::U64.bits();
    if dst > R10.0 || src > R10.0 || (is_wide && src != 0 && src != PSEUDO_FUNC) {
        return None;
    }
    Some(insn(code, Reg(dst), Reg(src), off, imm))
}

/// Makes `dst = imm`.
#[must_use]
pub const fn mov_imm(dst: Reg, imm: i32) -> Insn<'static> {
    insn(ALU64 | MOV, dst, R0, 0, imm)
}

/// Makes `dst = src`.
#[must_use]
pub const fn mov(dst: Reg, src: Reg) -> Insn<'static> {
    insn(ALU64 | MOV | FROM_REG, dst, src, 0, 0)
}

/// Makes `dst = src` of the lower 32 bits. The upper ones become 0.
#[must_use]
pub const fn mov32(dst: Reg, src: Reg) -> Insn<'static> {
    insn(ALU32 | MOV | FROM_REG, dst, src, 0, 0)
}

/// Makes the two instructions for `dst = value`.
#[must_use]
pub const fn mov_imm64(dst: Reg, value: u64) -> [Insn<'static>; 2] {
    let [low0, low1, low2, low3, high0, high1, high2, high3] = value.to_le_bytes();
    let low = i32::from_le_bytes([low0, low1, low2, low3]);
    let high = i32::from_le_bytes([high0, high1, high2, high3]);
    let code = LD | Width::U64.bits();
    [insn(code, dst, R0, 0, low), insn(0, R0, R0, 0, high)]
}

/// Makes `dst = dst op src`.
#[must_use]
pub const fn alu(op: Alu, dst: Reg, src: Reg) -> Insn<'static> {
    insn(ALU64 | op as u8 | FROM_REG, dst, src, 0, 0)
}

/// Makes `dst = dst op imm`.
#[must_use]
pub const fn alu_imm(op: Alu, dst: Reg, imm: i32) -> Insn<'static> {
    insn(ALU64 | op as u8, dst, R0, 0, imm)
}

/// Makes `dst = dst op src` of the lower 32 bits. The upper ones become 0.
#[must_use]
pub const fn alu32(op: Alu, dst: Reg, src: Reg) -> Insn<'static> {
    insn(ALU32 | op as u8 | FROM_REG, dst, src, 0, 0)
}

/// Makes `dst = dst op imm` of the lower 32 bits. The upper ones become 0.
#[must_use]
pub const fn alu32_imm(op: Alu, dst: Reg, imm: i32) -> Insn<'static> {
    insn(ALU32 | op as u8, dst, R0, 0, imm)
}

/// Makes `dst = -dst`.
#[must_use]
pub const fn neg(dst: Reg) -> Insn<'static> {
    insn(ALU64 | NEG, dst, R0, 0, 0)
}

/// Makes `dst` big-endian, or of that the machine's order: its lower `width`. Of one byte there is
/// no order, so [`Width::U8`] is refused by the verifier.
#[must_use]
pub const fn to_big_endian(width: Width, dst: Reg) -> Insn<'static> {
    let bits = match width {
        Width::U8 => 8,
        Width::U16 => 16,
        Width::U32 => 32,
        Width::U64 => 64,
    };
    insn(ALU32 | END | FROM_REG, dst, R0, 0, bits)
}

/// Makes `dst = *(width *)(src + off)`.
#[must_use]
pub const fn load(width: Width, dst: Reg, src: Reg, off: i16) -> Insn<'static> {
    insn(LDX | MEM | width.bits(), dst, src, off, 0)
}

/// Makes `dst = *(width *)(src + off)` of a signed number. It takes Linux 6.6.
#[must_use]
pub const fn load_signed(width: Width, dst: Reg, src: Reg, off: i16) -> Insn<'static> {
    insn(LDX | MEMSX | width.bits(), dst, src, off, 0)
}

/// Makes `*(width *)(dst + off) = src`.
#[must_use]
pub const fn store(width: Width, dst: Reg, off: i16, src: Reg) -> Insn<'static> {
    insn(STX | MEM | width.bits(), dst, src, off, 0)
}

/// Makes `*(width *)(dst + off) = imm`.
#[must_use]
pub const fn store_imm(width: Width, dst: Reg, off: i16, imm: i32) -> Insn<'static> {
    insn(ST | MEM | width.bits(), dst, R0, off, imm)
}

/// Makes `lock *(width *)(dst + off) op= src`. The width is 4 or 8 bytes.
#[must_use]
pub const fn atomic(width: Width, op: Atomic, dst: Reg, off: i16, src: Reg) -> Insn<'static> {
    insn(STX | ATOMIC | width.bits(), dst, src, off, op as i32)
}

/// Makes `goto +skip`.
#[must_use]
pub const fn jump(skip: i16) -> Insn<'static> {
    insn(JMP64, R0, R0, skip, 0)
}

/// Makes `if dst cond src goto +skip`.
#[must_use]
pub const fn jump_if(cond: Cond, dst: Reg, src: Reg, skip: i16) -> Insn<'static> {
    insn(JMP64 | cond as u8 | FROM_REG, dst, src, skip, 0)
}

/// Makes `if dst cond imm goto +skip`.
#[must_use]
pub const fn jump_if_imm(cond: Cond, dst: Reg, imm: i32, skip: i16) -> Insn<'static> {
    insn(JMP64 | cond as u8, dst, R0, skip, imm)
}

/// Makes `if dst cond src goto +skip` of the lower 32 bits. It takes Linux 5.1.
#[must_use]
pub const fn jump32_if(cond: Cond, dst: Reg, src: Reg, skip: i16) -> Insn<'static> {
    insn(JMP32 | cond as u8 | FROM_REG, dst, src, skip, 0)
}

/// Makes `if dst cond imm goto +skip` of the lower 32 bits. It takes Linux 5.1.
#[must_use]
pub const fn jump32_if_imm(cond: Cond, dst: Reg, imm: i32, skip: i16) -> Insn<'static> {
    insn(JMP32 | cond as u8, dst, R0, skip, imm)
}

/// Makes `r0 = helper(r1, ...)`, with a number of [`helper`].
#[must_use]
pub const fn call(helper: i32) -> Insn<'static> {
    insn(0x85, R0, R0, 0, helper)
}

/// Makes `r0 = function(r1, ...)`, of a function in the same program. `skip` counts from the next
/// instruction. It takes Linux 4.16.
#[must_use]
pub const fn call_local(skip: i32) -> Insn<'static> {
    const PSEUDO_CALL: Reg = Reg(1);
    insn(0x85, R0, PSEUDO_CALL, 0, skip)
}

/// Makes the two instructions for `dst = map`.
///
/// They borrow the map, which therefore stays open until they are loaded:
///
/// ```no_run
/// # use kprobe_attach::bpf::{Array, Load, insn};
/// let map = Array::create(1)?;
/// let [first, second] = insn::load_map(insn::R1, &map);
/// let program = Load::new(&[first, second, insn::exit()], c"GPL").load()?;
/// drop(map);
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
///
/// Otherwise they would refer to whatever has the number of the map's file descriptor next. So this
/// does not compile:
///
/// ```compile_fail,E0505
/// # use kprobe_attach::bpf::{Array, Load, insn};
/// let map = Array::create(1)?;
/// let [first, second] = insn::load_map(insn::R1, &map);
/// drop(map);
/// let program = Load::new(&[first, second, insn::exit()], c"GPL").load()?;
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
#[must_use]
pub fn load_map(dst: Reg, map: &impl AsFd) -> [Insn<'_>; 2] {
    const PSEUDO_MAP_FD: Reg = Reg(1);
    let fd = map.as_fd().as_raw_fd();
    [insn(0x18, dst, PSEUDO_MAP_FD, 0, fd), Insn::new(0)]
}

/// Ends the program. [`R0`] is its result.
#[must_use]
pub const fn exit() -> Insn<'static> {
    insn(0x95, R0, R0, 0, 0)
}

/// Numbers of helpers, which [`call`] takes.
///
/// These are those that a kprobe program can use. Every other number of `enum bpf_func_id` in
/// `include/uapi/linux/bpf.h` is taken too. The man page is [bpf-helpers(7)].
///
/// [bpf-helpers(7)]: https://man7.org/linux/man-pages/man7/bpf-helpers.7.html
pub mod helper {
    /// `bpf_map_lookup_elem`. The result is the address of the value, or 0.
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    /// `bpf_map_update_elem`.
    pub const MAP_UPDATE_ELEM: i32 = 2;
    /// `bpf_map_delete_elem`.
    pub const MAP_DELETE_ELEM: i32 = 3;
    /// `bpf_probe_read`, of which Linux 5.5 distinguishes kernel and user.
    pub const PROBE_READ: i32 = 4;
    /// `bpf_ktime_get_ns`: nanoseconds since the boot, without those of suspends.
    pub const KTIME_GET_NS: i32 = 5;
    /// `bpf_trace_printk`.
    pub const TRACE_PRINTK: i32 = 6;
    /// `bpf_get_prandom_u32`.
    pub const GET_PRANDOM_U32: i32 = 7;
    /// `bpf_get_smp_processor_id`.
    pub const GET_SMP_PROCESSOR_ID: i32 = 8;
    /// `bpf_tail_call`.
    pub const TAIL_CALL: i32 = 12;
    /// `bpf_get_current_pid_tgid`: the process in the upper 32 bits, the thread in the lower ones.
    pub const GET_CURRENT_PID_TGID: i32 = 14;
    /// `bpf_get_current_uid_gid`: the group in the upper 32 bits, the user in the lower ones.
    pub const GET_CURRENT_UID_GID: i32 = 15;
    /// `bpf_get_current_comm`.
    pub const GET_CURRENT_COMM: i32 = 16;
    /// `bpf_perf_event_output`.
    pub const PERF_EVENT_OUTPUT: i32 = 25;
    /// `bpf_get_stackid`.
    pub const GET_STACKID: i32 = 27;
    /// `bpf_get_current_task`: the address of the `task_struct`. Linux 4.8.
    pub const GET_CURRENT_TASK: i32 = 35;
    /// `bpf_probe_read_str`. Linux 4.11.
    pub const PROBE_READ_STR: i32 = 45;
    /// `bpf_override_return`. Linux 4.16.
    pub const OVERRIDE_RETURN: i32 = 58;
    /// `bpf_get_stack`. Linux 4.18.
    pub const GET_STACK: i32 = 67;
    /// `bpf_get_current_cgroup_id`. Linux 4.18.
    pub const GET_CURRENT_CGROUP_ID: i32 = 80;
    /// `bpf_probe_read_user`. Linux 5.5.
    pub const PROBE_READ_USER: i32 = 112;
    /// `bpf_probe_read_kernel`. Linux 5.5.
    pub const PROBE_READ_KERNEL: i32 = 113;
    /// `bpf_probe_read_user_str`. Linux 5.5.
    pub const PROBE_READ_USER_STR: i32 = 114;
    /// `bpf_probe_read_kernel_str`. Linux 5.5.
    pub const PROBE_READ_KERNEL_STR: i32 = 115;
    /// `bpf_ktime_get_boot_ns`: nanoseconds since the boot. Linux 5.8.
    pub const KTIME_GET_BOOT_NS: i32 = 125;
    /// `bpf_ringbuf_output`. Linux 5.8.
    pub const RINGBUF_OUTPUT: i32 = 130;
    /// `bpf_ringbuf_reserve`. Linux 5.8.
    pub const RINGBUF_RESERVE: i32 = 131;
    /// `bpf_ringbuf_submit`. Linux 5.8.
    pub const RINGBUF_SUBMIT: i32 = 132;
    /// `bpf_ringbuf_discard`. Linux 5.8.
    pub const RINGBUF_DISCARD: i32 = 133;
    /// `bpf_get_func_ip`: the address of the function that was hit. Linux 5.15.
    pub const GET_FUNC_IP: i32 = 173;
    /// `bpf_get_attach_cookie`. Linux 5.15.
    pub const GET_ATTACH_COOKIE: i32 = 174;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of an instruction: code, registers, offset, immediate value.
    type Bytes = [u8; 8];

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_those_of_the_kernels_macros() {
        // include/linux/filter.h
        let table: &[(Insn<'_>, Bytes)] = &[
            // BPF_MOV64_IMM, BPF_MOV64_REG, BPF_MOV32_REG
            (mov_imm(R0, -1), [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
            (mov(R2, R10), [0xbf, 0xa2, 0, 0, 0, 0, 0, 0]),
            (mov32(R9, R1), [0xbc, 0x19, 0, 0, 0, 0, 0, 0]),
            // BPF_ALU64_IMM, BPF_ALU64_REG, BPF_ALU32_IMM, BPF_ALU32_REG
            (alu_imm(Alu::Rsh, R2, 32), [0x77, 2, 0, 0, 32, 0, 0, 0]),
            (alu(Alu::Add, R1, R8), [0x0f, 0x81, 0, 0, 0, 0, 0, 0]),
            (alu(Alu::Mod, R1, R2), [0x9f, 0x21, 0, 0, 0, 0, 0, 0]),
            (alu32_imm(Alu::Arsh, R3, 1), [0xc4, 3, 0, 0, 1, 0, 0, 0]),
            (alu32(Alu::Xor, R3, R4), [0xac, 0x43, 0, 0, 0, 0, 0, 0]),
            // BPF_NEG, BPF_ENDIAN(BPF_TO_BE, ..., 16)
            (neg(R7), [0x87, 7, 0, 0, 0, 0, 0, 0]),
            (to_big_endian(Width::U16, R5), [0xdc, 5, 0, 0, 16, 0, 0, 0]),
            // BPF_LDX_MEM, BPF_LDX_MEMSX, BPF_STX_MEM, BPF_ST_MEM
            (
                load(Width::U64, R3, R6, 80),
                [0x79, 0x63, 80, 0, 0, 0, 0, 0],
            ),
            (
                load(Width::U32, R3, R6, 80),
                [0x61, 0x63, 80, 0, 0, 0, 0, 0],
            ),
            (
                load(Width::U16, R3, R6, 80),
                [0x69, 0x63, 80, 0, 0, 0, 0, 0],
            ),
            (load(Width::U8, R3, R6, 80), [0x71, 0x63, 80, 0, 0, 0, 0, 0]),
            (
                load_signed(Width::U32, R3, R6, 4),
                [0x81, 0x63, 4, 0, 0, 0, 0, 0],
            ),
            (
                store(Width::U32, R10, -8, R4),
                [0x63, 0x4a, 0xf8, 0xff, 0, 0, 0, 0],
            ),
            (
                store(Width::U64, R10, -8, R4),
                [0x7b, 0x4a, 0xf8, 0xff, 0, 0, 0, 0],
            ),
            (
                store_imm(Width::U32, R10, -4, 7),
                [0x62, 0x0a, 0xfc, 0xff, 7, 0, 0, 0],
            ),
            (
                store_imm(Width::U8, R10, -4, 7),
                [0x72, 0x0a, 0xfc, 0xff, 7, 0, 0, 0],
            ),
            // BPF_ATOMIC_OP
            (
                atomic(Width::U64, Atomic::Add, R0, 0, R1),
                [0xdb, 0x10, 0, 0, 0, 0, 0, 0],
            ),
            (
                atomic(Width::U32, Atomic::CmpXchg, R0, 0, R1),
                [0xc3, 0x10, 0, 0, 0xf1, 0, 0, 0],
            ),
            // BPF_JMP_A, BPF_JMP_IMM, BPF_JMP_REG, BPF_JMP32_IMM, BPF_JMP32_REG
            (jump(-2), [0x05, 0, 0xfe, 0xff, 0, 0, 0, 0]),
            (jump_if_imm(Cond::Ne, R0, 0, 2), [0x55, 0, 2, 0, 0, 0, 0, 0]),
            (
                jump_if(Cond::Slt, R1, R2, 2),
                [0xcd, 0x21, 2, 0, 0, 0, 0, 0],
            ),
            (
                jump32_if_imm(Cond::Set, R1, 8, 2),
                [0x46, 1, 2, 0, 8, 0, 0, 0],
            ),
            (
                jump32_if(Cond::Le, R1, R2, 2),
                [0xbe, 0x21, 2, 0, 0, 0, 0, 0],
            ),
            // BPF_EMIT_CALL, BPF_CALL_REL, BPF_EXIT_INSN
            (
                call(helper::GET_ATTACH_COOKIE),
                [0x85, 0, 0, 0, 174, 0, 0, 0],
            ),
            (call_local(3), [0x85, 0x10, 0, 0, 3, 0, 0, 0]),
            (exit(), [0x95, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (made, bytes) in table {
            assert_eq!(made.raw().to_le_bytes(), *bytes, "{bytes:x?}");
            let [code, registers, off0, off1, imm @ ..] = *bytes;
            let (off, imm) = (i16::from_le_bytes([off0, off1]), i32::from_le_bytes(imm));
            let raw = raw(code, registers & 15, registers >> 4, off, imm).unwrap();
            assert_eq!(raw.raw(), made.raw(), "{bytes:x?}");
        }
        // BPF_LD_IMM64
        let halves = mov_imm64(R1, 0x1122_3344_8566_7788).map(|half| half.raw().to_le_bytes());
        let expected = [
            [0x18, 1, 0, 0, 0x88, 0x77, 0x66, 0x85],
            [0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11],
        ];
        assert_eq!(halves, expected);
    }

    #[test]
    fn a_raw_instruction_reaches_no_descriptor_and_no_register_that_does_not_exist() {
        for src in [1, 2, 3, 5, 6, 10] {
            assert!(raw(0x18, 1, src, 0, 0).is_none(), "{src}");
        }
        assert!(raw(0x18, 1, 0, 0, 0).is_some() && raw(0x18, 1, 4, 0, 0).is_some());
        assert!(raw(0xb7, 11, 0, 0, 0).is_none() && raw(0xbf, 0, 11, 0, 0).is_none());
    }
}
