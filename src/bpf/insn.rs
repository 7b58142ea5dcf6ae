//! The instructions of a counting program, as [`Load`](super::Load) takes them. Source:
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
/// Keeps its value when a helper is called.
pub const R6: Reg = Reg(6);
/// Holds the end of the stack, which grows down.
pub const R10: Reg = Reg(10);

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

/// Makes `dst = imm`.
#[must_use]
pub const fn mov_imm(dst: Reg, imm: i32) -> Insn<'static> {
    insn(0xb7, dst, R0, 0, imm)
}

/// Makes `dst = src`.
#[must_use]
pub const fn mov(dst: Reg, src: Reg) -> Insn<'static> {
    insn(0xbf, dst, src, 0, 0)
}

/// Makes `dst += imm`.
#[must_use]
pub const fn add_imm(dst: Reg, imm: i32) -> Insn<'static> {
    insn(0x07, dst, R0, 0, imm)
}

/// Makes `dst >>= imm`, of an unsigned number.
#[must_use]
pub const fn rsh_imm(dst: Reg, imm: i32) -> Insn<'static> {
    insn(0x77, dst, R0, 0, imm)
}

/// Makes `*(u32 *)(dst + off) = imm`.
#[must_use]
pub const fn store_imm_u32(dst: Reg, off: i16, imm: i32) -> Insn<'static> {
    insn(0x62, dst, R0, off, imm)
}

/// Makes `dst = *(u32 *)(src + off)`.
#[must_use]
pub const fn load_u32(dst: Reg, src: Reg, off: i16) -> Insn<'static> {
    insn(0x61, dst, src, off, 0)
}

/// Makes `dst = *(u64 *)(src + off)`.
#[must_use]
pub const fn load_u64(dst: Reg, src: Reg, off: i16) -> Insn<'static> {
    insn(0x79, dst, src, off, 0)
}

/// Makes `*(u32 *)(dst + off) = src`.
#[must_use]
pub const fn store_u32(dst: Reg, off: i16, src: Reg) -> Insn<'static> {
    insn(0x63, dst, src, off, 0)
}

/// Makes `*(u64 *)(dst + off) = src`.
#[must_use]
pub const fn store_u64(dst: Reg, off: i16, src: Reg) -> Insn<'static> {
    insn(0x7b, dst, src, off, 0)
}

/// Makes `lock *(u64 *)(dst + off) += src`.
#[must_use]
pub const fn atomic_add_u64(dst: Reg, off: i16, src: Reg) -> Insn<'static> {
    insn(0xdb, dst, src, off, 0)
}

/// Makes `if dst == imm goto +skip`.
#[must_use]
pub const fn jump_if_eq_imm(dst: Reg, imm: i32, skip: i16) -> Insn<'static> {
    insn(0x15, dst, R0, skip, imm)
}

/// Makes `if dst != imm goto +skip`.
#[must_use]
pub const fn jump_if_ne_imm(dst: Reg, imm: i32, skip: i16) -> Insn<'static> {
    insn(0x55, dst, R0, skip, imm)
}

/// Makes `r0 = helper(r1, ...)`, with the helper's number in `enum bpf_func_id`.
#[must_use]
pub const fn call(helper: i32) -> Insn<'static> {
    insn(0x85, R0, R0, 0, helper)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_of_the_kernels_headers() {
        // BPF_MOV64_IMM(BPF_REG_0, 0), BPF_ST_MEM(BPF_W, BPF_REG_10, -4, 7), BPF_EXIT_INSN()
        assert_eq!(
            mov_imm(R0, 0).raw().to_ne_bytes(),
            [0xb7, 0, 0, 0, 0, 0, 0, 0]
        );
        if cfg!(target_endian = "little") {
            assert_eq!(
                store_imm_u32(R10, -4, 7).raw().to_le_bytes(),
                [0x62, 0x0a, 0xfc, 0xff, 7, 0, 0, 0]
            );
            // BPF_ALU64_IMM(BPF_RSH, BPF_REG_2, 32)
            assert_eq!(
                rsh_imm(R2, 32).raw().to_le_bytes(),
                [0x77, 2, 0, 0, 32, 0, 0, 0]
            );
            assert_eq!(
                mov(R2, R10).raw().to_le_bytes(),
                [0xbf, 0xa2, 0, 0, 0, 0, 0, 0]
            );
            // BPF_LDX_MEM(BPF_DW, BPF_REG_3, BPF_REG_6, 80), and BPF_W; BPF_STX_MEM(BPF_W, ...)
            for (insn, code) in [(load_u64(R3, R6, 80), 0x79), (load_u32(R3, R6, 80), 0x61)] {
                assert_eq!(insn.raw().to_le_bytes(), [code, 0x63, 80, 0, 0, 0, 0, 0]);
            }
            assert_eq!(
                store_u32(R10, -8, R4).raw().to_le_bytes(),
                [0x63, 0x4a, 0xf8, 0xff, 0, 0, 0, 0]
            );
            // BPF_JMP_IMM(BPF_JNE, BPF_REG_0, 0, 2)
            assert_eq!(
                jump_if_ne_imm(R0, 0, 2).raw().to_le_bytes(),
                [0x55, 0, 2, 0, 0, 0, 0, 0]
            );
        }
        assert_eq!(exit().raw().to_ne_bytes(), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }
}
