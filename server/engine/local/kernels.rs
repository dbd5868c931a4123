//! Products of packed weights with rows of activations, and attention: one source, several instruction sets.
//!
//! Reading order: [`pack`] (how weights are stored in memory), [`activations`] (how rows are quantized), [`gemv`] and
//! [`gemm`] (the two matrix kernels), `amx` (the tile kernel for many rows), [`attention`], [`elementwise`]; [`isa`] is
//! what an instruction set must offer.
//!
//! All kernels but AMX do the same operations in the same order. Their results are equal bit for bit, with each other
//! and for any number of rows evaluated at once. Cached, speculative and chunked runs therefore give exactly what a
//! fresh run gives. AMX does the same for fewer than 16 rows and wherever drafts are verified, so speculation changes
//! nothing. It multiplies prompts of 16 and more tokens in bfloat16: closer to the exact products than the other
//! kernels, but not with the same bits. There a cached run may differ from a fresh one by rounding.

use crate::EngineError;

pub(super) mod activations;
#[cfg(any(target_arch = "x86_64", test))]
mod amx;
#[cfg(test)]
pub(super) use amx::tests as amx_tests;
pub(super) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dense;
pub(super) mod elementwise;
mod gemm;
pub(super) mod gemv;
mod isa;
pub(super) mod pack;
mod portable;
pub(super) mod quant_format;

/// The instruction set that the CPU decoder runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust; the reference for the others.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with the 256-bit int8 dot product.
    AvxVnni,
    /// AVX-512 (F, BW, VL) with the int8 dot product.
    Avx512Vnni,
    /// The bfloat16 tiles of AMX for many rows, AVX-512 VNNI for the rest.
    Amx,
}

/// Rows that share one pass over the weights without unpacking them to memory first; more rows take the tiled product.
pub(super) const GEMV_MAX_ROWS: usize = 8;

impl Kernel {
    /// All kernels, the best one last.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::AvxVnni, Self::Avx512Vnni, Self::Amx];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Amx => "amx",
        }
    }

    /// The name for people.
    pub fn display_name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "AVX2",
            Self::AvxVnni => "AVX-VNNI",
            Self::Avx512Vnni => "AVX-512 VNNI",
            Self::Amx => "AMX",
        }
    }

    /// What this processor, its system or this build lacks to run it.
    pub fn missing_features(self) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            macro_rules! need {
                ($($feature:tt)*) => {
                    $(if !is_x86_feature_detected!($feature) {
                        lacks.push($feature);
                    })*
                };
            }
            if self != Self::Portable {
                need!("avx2" "fma" "f16c");
            }
            if self == Self::AvxVnni {
                need!("avxvnni");
            }
            if matches!(self, Self::Avx512Vnni | Self::Amx) {
                need!("avx512f" "avx512bw" "avx512vl" "avx512vnni");
            }
            if self == Self::Amx {
                lacks.extend(amx::missing_features());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        if self != Self::Portable {
            lacks.push("an x86-64 processor");
        }
        lacks
    }

    /// Whether this processor and this build can run it.
    pub fn is_available(self) -> bool {
        self.missing_features().is_empty()
    }

    /// The kernels that this processor and this build can run, the best one last. `TAPER_TEST_KERNEL` limits the tests
    /// to the named kernel and those before it.
    pub(super) fn available_kernels() -> impl DoubleEndedIterator<Item = Self> {
        #[cfg(test)]
        let most = tests::testable_kernel_count();
        #[cfg(not(test))]
        let most = Self::ALL.len();
        Self::ALL.into_iter().take(most).filter(|kernel| kernel.is_available())
    }

    /// The best kernel whose products have the same bits for any number of rows.
    #[cfg(test)]
    pub(super) fn best_exact() -> Self {
        Self::available_kernels().rfind(|&kernel| kernel != Self::Amx).unwrap_or(Self::Portable)
    }

    /// The best kernel that this processor has.
    pub fn best_available() -> Self {
        Self::available_kernels().next_back().unwrap_or(Self::Portable)
    }

    /// The kernel named `asked`, or the best one (`None`, an empty name, or `auto`), and the reason, as a phrase for
    /// `taper doctor`.
    ///
    /// # Errors
    /// The name is unknown, or this processor cannot run that kernel.
    pub fn choose_by_name(asked: Option<&str>) -> Result<(Self, String), EngineError> {
        let Some(name) = asked.filter(|name| !name.is_empty() && *name != "auto") else {
            let best = Self::best_available();
            return Ok((best, format!("{}: the best that this processor has", best.display_name())));
        };
        let refuse = |problem: String| EngineError::Device {
            device: format!("kernel {name:?}"),
            source: problem.into(),
        };
        let Some(kernel) = Self::ALL.into_iter().find(|kernel| kernel.name() == name) else {
            let names = Self::ALL.map(Self::name).join(", ");
            return Err(refuse(format!("unknown kernel; the CPU kernels are {names}")));
        };
        if !kernel.is_available() {
            let best = Self::best_available();
            return Err(refuse(format!(
                "this machine cannot run {}: it lacks {}; remove the setting or choose {}",
                kernel.display_name(),
                kernel.missing_features().join(", "),
                best.name()
            )));
        }
        Ok((kernel, format!("{}: selected by name", kernel.display_name())))
    }

    /// The functions of this kernel; the portable ones if the processor cannot run it, so the result is always
    /// safe to call.
    pub(super) fn kernel_table(self) -> &'static KernelTable {
        if !self.is_available() {
            return &portable::KERNEL_TABLE;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => &avx2::AVX2_TABLE,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => &avx2::AVX_VNNI_TABLE,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => &avx512::KERNEL_TABLE,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => &amx::KERNEL_TABLE,
            _ => &portable::KERNEL_TABLE,
        }
    }
}

/// Values, weight, bias, epsilon and result of [`elementwise::layer_norm`].
type LayerNormFn = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

/// The functions of a kernel. All are unsafe for two reasons: they need their instruction set, which
/// [`Kernel::kernel_table`] has checked, and they take the pointers that their argument types describe.
#[derive(Debug)]
pub(super) struct KernelTable {
    /// Activation rows that one pass over the weights serves.
    pub(super) panel: usize,
    /// Groups of weight rows that the tiled product works on at once.
    pub(super) gemm_groups: usize,
    /// See [`gemv::gemv`].
    pub(super) gemv: unsafe fn(&gemv::GemvArgs<'_>),
    /// See [`gemv::dispatch_screen`].
    pub(super) screen: unsafe fn(&gemv::GemvArgs<'_>),
    /// See [`gemm::gemm`].
    pub(super) gemm: unsafe fn(&gemv::GemmArgs<'_>, &mut gemv::UnpackedTile),
    /// See [`dense::dense`].
    pub(super) dense: unsafe fn(&gemv::DenseArgs<'_>),
    /// See [`attention::attend`].
    pub(super) attend: unsafe fn(&attention::AttentionArgs<'_>, &mut attention::AttentionScratch),
    /// See [`activations::quantize`].
    pub(super) quantize: unsafe fn(&[f32], &mut activations::PanelMut<'_>),
    /// See [`elementwise::norm`].
    pub(super) norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    /// See [`elementwise::layer_norm`].
    pub(super) layer_norm: LayerNormFn,
    /// See [`elementwise::geglu`].
    pub(super) geglu: unsafe fn(&[f32], &[f32], &mut [f32]),
    /// See [`elementwise::gelu`].
    pub(super) gelu: unsafe fn(&[f32], &mut [f32]),
    /// See [`elementwise::soft_cap`].
    pub(super) soft_cap: unsafe fn(&mut [f32], f32),
    /// See [`elementwise::gate`].
    pub(super) gate: unsafe fn(&[f32], &[f32], &mut [f32]),
    /// See [`elementwise::softmax`].
    pub(super) softmax: unsafe fn(&[f32]) -> (f32, f32),
    /// The kernel for products of many rows, if there is one.
    pub(super) tile_gemm: Option<TileGemm>,
}

impl KernelTable {
    /// The kernel that replaces `panel`, `gemm_groups`, `gemm` and `quantize` for products of `rows` rows: it takes
    /// bfloat16, in panels of [`activations::TILE_ROWS`].
    pub(super) fn tile_gemm(&self, rows: usize) -> Option<&TileGemm> {
        self.tile_gemm.as_ref().filter(|tile_gemm| rows >= tile_gemm.min_rows)
    }
}

/// A kernel for products of many rows only: see [`KernelTable`].
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AMX alone is one"))]
#[derive(Debug)]
pub(super) struct TileGemm {
    /// The smallest number of rows that it is used for.
    pub(super) min_rows: usize,
    pub(super) gemm_groups: usize,
    pub(super) gemm: unsafe fn(&gemv::GemmArgs<'_>, &mut gemv::UnpackedTile),
    /// See [`activations::panel_to_bf16`].
    pub(super) to_bf16: unsafe fn(&[f32], &mut activations::PanelMut<'_>),
}

/// See [`elementwise::softmax`]; runs on the best kernel of this processor.
pub(super) fn best_softmax(x: &[f32]) -> (f32, f32) {
    // SAFETY: the table is that of an available instruction set.
    unsafe { (Kernel::best_available().kernel_table().softmax)(x) }
}

/// The functions of one instruction set: the generic bodies, compiled with its features.
macro_rules! kernel_table {
    ($isa:ty, [$($features:literal)?], $panel:literal, $vectors:literal) => {{
        use $crate::local::kernels::{KernelTable, activations, attention, dense, elementwise, quant_format, isa::Isa, gemv, gemm};

        struct GemvRows;
        impl gemv::GemvKernel for GemvRows {
            $(#[target_feature(enable = $features)])?
            unsafe fn run<F: quant_format::QuantFormat, const R: usize>(
                args: &gemv::GemvArgs<'_>,
                group: usize,
                panel: &activations::PanelRef<'_>,
            ) {
                // SAFETY: by the caller's contract.
                unsafe { gemv::gemv::<$isa, F, R>(args, group, panel) }
            }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn gemv(args: &gemv::GemvArgs<'_>) {
            // SAFETY: by the caller's contract.
            unsafe { gemv::dispatch_gemv::<GemvRows, $panel>(args) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn screen(args: &gemv::GemvArgs<'_>) {
            // SAFETY: by the caller's contract.
            unsafe { gemv::dispatch_screen::<GemvRows, $panel>(args) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn gemm(args: &gemv::GemmArgs<'_>, tile: &mut gemv::UnpackedTile) {
            struct Rows;
            impl gemv::GemmKernel for Rows {
                $(#[target_feature(enable = $features)])?
                unsafe fn expand<F: quant_format::QuantFormat>(args: &gemv::GemmArgs<'_>, tile: &mut gemv::UnpackedTile) {
                    // SAFETY: by the caller's contract.
                    unsafe { gemm::expand::<$isa, F>(args, tile) }
                }

                $(#[target_feature(enable = $features)])?
                unsafe fn run<F: quant_format::QuantFormat, const R: usize>(
                    args: &gemv::GemmArgs<'_>,
                    tile: &gemv::UnpackedTile,
                    panel: &activations::PanelRef<'_>,
                ) {
                    // SAFETY: by the caller's contract.
                    unsafe { gemm::gemm::<$isa, F, R, $vectors>(args, tile, panel) }
                }
            }
            // SAFETY: by the caller's contract.
            unsafe { gemv::dispatch_gemm::<Rows, $panel>(args, tile) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn dense(args: &gemv::DenseArgs<'_>) {
            // SAFETY: by the caller's contract.
            unsafe { dense::dense::<$isa>(args) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn attend(args: &attention::AttentionArgs<'_>, scratch: &mut attention::AttentionScratch) {
            // SAFETY: by the caller's contract.
            unsafe { attention::attend::<$isa>(args, scratch) }
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn quantize(row: &[f32], slot: &mut activations::PanelMut<'_>) {
            activations::quantize(row, slot);
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
            elementwise::norm(x, weight, epsilon, out);
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
            elementwise::layer_norm(x, weight, bias, epsilon, out);
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn geglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
            elementwise::geglu(gate, up, out);
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn gelu(x: &[f32], out: &mut [f32]) {
            elementwise::gelu(x, out);
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn soft_cap(x: &mut [f32], limit: f32) {
            elementwise::soft_cap(x, limit);
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
            elementwise::gate(gate, up, out);
        }

        $(#[target_feature(enable = $features)])?
        unsafe fn softmax(x: &[f32]) -> (f32, f32) {
            elementwise::softmax(x)
        }

        KernelTable {
            panel: $panel,
            gemm_groups: if $vectors > <$isa>::PARTS { $vectors / <$isa>::PARTS } else { 1 },
            gemv,
            screen,
            gemm,
            dense,
            attend,
            quantize,
            norm,
            layer_norm,
            gate,
            geglu,
            gelu,
            soft_cap,
            softmax,
            tile_gemm: None,
        }
    }};
}
use kernel_table;

#[cfg(test)]
mod tests {

    use std::sync::OnceLock;

    use super::*;

    /// The number of kernels that the tests may use: all, or those up to the one that `TAPER_TEST_KERNEL` names.
    pub(super) fn testable_kernel_count() -> usize {
        static KERNEL_LIMIT: OnceLock<usize> = OnceLock::new();
        *KERNEL_LIMIT.get_or_init(|| {
            let Ok(name) = std::env::var("TAPER_TEST_KERNEL") else { return Kernel::ALL.len() };
            let at = Kernel::ALL.iter().position(|kernel| kernel.name() == name);
            let at = at.filter(|&at| Kernel::ALL[at].is_available());
            1 + at.unwrap_or_else(|| panic!("TAPER_TEST_KERNEL is {name}, which cannot run here"))
        })
    }

    /// Prints the tested and the untested kernels for the output of CI.
    #[test]
    fn tested_and_untested_kernels_are_reported() {
        let tested: Vec<_> = Kernel::available_kernels().map(Kernel::name).collect();
        let lack = |kernel: Kernel| match kernel.missing_features()[..] {
            [] => format!("{} (left out by TAPER_TEST_KERNEL)", kernel.name()),
            _ => format!("{} (no {})", kernel.name(), kernel.missing_features().join(", ")),
        };
        let others = Kernel::ALL.into_iter().filter(|kernel| !tested.contains(&kernel.name()));
        let others: Vec<_> = others.map(lack).collect();
        let others = if others.is_empty() { "none".to_owned() } else { others.join("; ") };
        let tested_names = tested.join(", ");
        crate::testing::print_notice(&format!(
            "kernels that this machine tests: {tested_names}; NOT TESTED: {others}"
        ));
        assert_eq!(tested[0], "portable");
        assert_eq!(tested.last(), Some(&Kernel::best_available().name()));
    }

    #[test]
    fn best_kernel_is_the_default_choice() {
        for nothing in [None, Some(""), Some("auto")] {
            let (kernel, why) = Kernel::choose_by_name(nothing).unwrap();
            assert!(kernel == Kernel::best_available() && why.contains("best"), "{why}");
        }
        let (kernel, why) = Kernel::choose_by_name(Some("portable")).unwrap();
        assert_eq!((kernel, why.as_str()), (Kernel::Portable, "portable: selected by name"));
    }

    #[test]
    fn unknown_or_unavailable_kernel_error_has_remedy() {
        let error = Kernel::choose_by_name(Some("mmx")).unwrap_err().to_string();
        assert_eq!(
            error,
            "kernel \"mmx\": unknown kernel; the CPU kernels are portable, avx2, avx-vnni, avx512-vnni, amx"
        );
        for kernel in Kernel::ALL {
            match Kernel::choose_by_name(Some(kernel.name())) {
                Ok((chosen, _)) => assert!(chosen == kernel && kernel.is_available()),
                Err(error) => {
                    assert!(!kernel.is_available());
                    assert!(error.to_string().contains(Kernel::best_available().name()), "{error}");
                }
            }
        }
    }
}
