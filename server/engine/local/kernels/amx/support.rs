//! Whether this processor has bfloat16 tiles and the system lets this process use them.
//!
//! Sources: Intel's Software Developer's Manual, volume 1, chapter "Programming with Intel AMX", and volume 2,
//! `CPUID`; Linux, `Documentation/arch/x86/xstate.rst`.

use std::sync::OnceLock;

/// What is missing for tiles, as phrases; empty if they can be used. Requests the system's permission once, which then
/// holds for all threads of the process.
pub(in crate::local::kernels) fn missing_features() -> &'static [&'static str] {
    static MISSING_FEATURES: OnceLock<Vec<&'static str>> = OnceLock::new();
    MISSING_FEATURES.get_or_init(|| {
        let mut lacks = missing_in_processor();
        if lacks.is_empty() && !permitted() {
            lacks.push("the system's permission to use tiles");
        }
        lacks
    })
}

/// A leaf of CPUID, which every x86-64 processor has.
fn cpuid(leaf: u32, part: u32) -> std::arch::x86_64::CpuidResult {
    std::arch::x86_64::__cpuid_count(leaf, part)
}

/// What the processor or its system configuration lacks.
fn missing_in_processor() -> Vec<&'static str> {
    if !cfg!(target_os = "linux") {
        return vec!["Linux, the only system with support for tiles"];
    }
    let last_leaf = cpuid(0, 0).eax;
    let bit = |word: u32, bit: u32| word >> bit & 1 == 1;
    let features = if last_leaf >= 7 { cpuid(7, 0).edx } else { 0 };
    let mut lacks = Vec::new();
    if !bit(features, 24) {
        lacks.push("amx-tile");
    }
    if !bit(features, 22) {
        lacks.push("amx-bf16");
    }
    if !lacks.is_empty() {
        return lacks;
    }
    // The system has enabled XGETBV, and with it the tiles' configuration and data.
    let enabled = if bit(cpuid(1, 0).ecx, 27) {
        // SAFETY: the bit just read shows that the instruction is available.
        unsafe { enabled_states() }
    } else {
        0
    };
    if enabled >> 17 & 3 != 3 {
        lacks.push("a system that saves tiles");
    }
    let palette = cpuid(0x1d, 1);
    let (row_bytes, tiles, rows) = (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    if last_leaf < 0x1d || row_bytes < 64 || tiles < 8 || rows < 16 {
        lacks.push("tiles of 16 rows of 64 bytes, eight of them");
    }
    lacks
}

/// The processor states that the system saves (XCR0).
///
/// # Safety
/// XGETBV is enabled.
#[target_feature(enable = "xsave")]
unsafe fn enabled_states() -> u64 {
    // SAFETY: by the caller's contract; register 0 always exists.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

/// Requests the use of tile data from Linux and returns whether it was granted. The first use by a thread makes the
/// system enlarge the thread's register save area; threads that do not touch tiles pay nothing.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const GET_PERMISSION: libc::c_long = 0x1022;
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    let mut granted = 0_u64;
    // SAFETY: the first call takes a number, the second writes one u64 to a valid location.
    unsafe {
        libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0
            && libc::syscall(libc::SYS_arch_prctl, GET_PERMISSION, &raw mut granted) == 0
            && granted >> TILE_DATA & 1 == 1
    }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}
