//! Runs the kernel's real tile instructions on a processor without tiles: each raises SIGILL, and the handler
//! decodes it and does on the model of the registers what the bytes say.
//! It knows nothing of the kernel. Where there are tiles, nothing is raised and the processor itself is tested.
//!
//! Encodings: Intel's Software Developer's Manual, volume 2, "VEX prefix" and the pages of the instructions.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::model::Model;
use super::support;
use super::tiles::Shapes;

thread_local! {
    static TILES: RefCell<Model> = const { RefCell::new(Model::new()) };
}

/// Instructions that the handler did, of all threads.
static DONE: AtomicUsize = AtomicUsize::new(0);

/// Instructions that were done for the processor so far.
pub(super) fn done() -> usize {
    DONE.load(Ordering::Relaxed)
}

/// Whether this thread has tiles configured in the model.
pub(super) fn configured() -> bool {
    TILES.with_borrow(|tiles| tiles.shapes.is_some())
}

/// From now on tile instructions run in this process, one way or the other.
pub(super) fn set() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        if support::lacks().is_empty() {
            return;
        }
        // SAFETY: an action of zeros is a valid one; the handler has the type that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal as extern "C" fn(_, _, _) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, ptr::null_mut()), 0);
        }
    });
}

extern "C" fn on_illegal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system hands over the thread's registers; it goes on with them as they are left here.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let at = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: the instruction was fetched from there; the longest has 15 bytes, and ours never end a page of code.
    let bytes: [u8; 15] = unsafe { ptr::with_exposed_provenance::<[u8; 15]>(at).read() };
    let register = |number: u8| {
        const ORDER: [c_int; 16] = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        registers[ORDER[usize::from(number)] as usize] as usize
    };
    let Some((instruction, length)) = decode(&bytes, register) else {
        // Another one, which is illegal indeed: it is met again, and ends the process.
        // SAFETY: the default action needs no handler.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
        return;
    };
    TILES.with_borrow_mut(|tiles| {
        // SAFETY: what the instruction would read or write itself.
        unsafe {
            match instruction {
                Instruction::Configure { from } => {
                    tiles.configure(ptr::with_exposed_provenance::<Shapes>(from).read_unaligned());
                }
                Instruction::Release => tiles.release(),
                Instruction::Zero { tile } => tiles.zero(tile),
                Instruction::Load { tile, from, stride } => {
                    tiles.load(tile, ptr::with_exposed_provenance(from), stride);
                }
                Instruction::Store { tile, to, stride } => {
                    tiles.store(tile, ptr::with_exposed_provenance_mut(to), stride);
                }
                Instruction::Dot { c, a, b } => tiles.dot(c, a, b),
            }
        }
    });
    DONE.fetch_add(1, Ordering::Relaxed);
    registers[libc::REG_RIP as usize] += length as i64;
}

/// A tile instruction with the addresses that it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instruction {
    Configure { from: usize },
    Release,
    Zero { tile: usize },
    Load { tile: usize, from: usize, stride: usize },
    Store { tile: usize, to: usize, stride: usize },
    Dot { c: usize, a: usize, b: usize },
}

/// The instruction that starts there, and its length; none if it is not one of ours.
pub(super) fn decode(bytes: &[u8; 15], register: impl Fn(u8) -> usize) -> Option<(Instruction, usize)> {
    // Three bytes of VEX: R, X and B (inverted) and the opcode map, then W, vvvv (inverted), L and the prefix.
    let [0xc4, first, second, opcode, form, ..] = *bytes else { return None };
    let (r, x, b) = (!first >> 7 & 1, !first >> 6 & 1, !first >> 5 & 1);
    let (wide, v, long, prefix) = (second >> 7, !second >> 3 & 15, second >> 2 & 1, second & 3);
    if first & 31 != 2 || wide != 0 || long != 0 || r != 0 {
        return None;
    }
    let (kind, reg, rm) = (form >> 6, form >> 3 & 7, form & 7);
    let tile = usize::from(reg);
    if kind == 3 {
        let instruction = match (opcode, prefix, form) {
            (0x49, 0, 0xc0) if v == 0 => Instruction::Release,
            (0x49, 3, _) if v == 0 && rm == 0 => Instruction::Zero { tile },
            (0x5c, 2, _) if v < 8 && b == 0 => Instruction::Dot { c: tile, a: rm.into(), b: v.into() },
            _ => return None,
        };
        return Some((instruction, 5));
    }
    // Base, index times scale, displacement; no instruction relative to its own place.
    let (base, index, mut length) = if rm == 4 {
        let (scale, index, base) = (bytes[5] >> 6, bytes[5] >> 3 & 7, bytes[5] & 7);
        let index = index | x << 3;
        (base, (index != 4).then(|| register(index) << scale), 6)
    } else {
        (rm, None, 5)
    };
    let displacement = match kind {
        0 if base == 5 => return None,
        0 => 0,
        1 => {
            length += 1;
            isize::from(bytes[length - 1] as i8)
        }
        _ => {
            length += 4;
            let at = &bytes[length - 4..length];
            i32::from_le_bytes(at.try_into().ok()?) as isize
        }
    };
    let place = register(base | b << 3).wrapping_add_signed(displacement);
    let stride = index.unwrap_or(0);
    let instruction = match (opcode, prefix) {
        (0x49, 0) if v == 0 && reg == 0 => Instruction::Configure { from: place.wrapping_add(stride) },
        (0x4b, 3) if v == 0 && rm == 4 => Instruction::Load { tile, from: place, stride },
        (0x4b, 2) if v == 0 && rm == 4 => Instruction::Store { tile, to: place, stride },
        _ => return None,
    };
    Some((instruction, length))
}
