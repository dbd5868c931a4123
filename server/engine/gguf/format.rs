//! The formats in which a file stores tensors, and those that are converted into another when they are read.
//!
//! Formats: `ggml.h` and `ggml-common.h` of <https://github.com/ggml-org/ggml>.

use candle_core::quantized::GgmlDType;

use super::conversion::{self, Conversion};

/// How a file stores the values of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorFormat {
    /// A format of the tensor library.
    Ggml(GgmlDType),
    /// 32 values with one scale: four-bit indices into a table.
    Iq4Nl,
    /// 256 values as eight times `Iq4Nl`, each with a scale of six bits.
    Iq4Xs,
    /// 32 floats of four bits with a power of two as their scale.
    Mxfp4,
}

impl From<GgmlDType> for TensorFormat {
    fn from(dtype: GgmlDType) -> Self {
        Self::Ggml(dtype)
    }
}

/// The `ggml_type`s: number, name, and the format if taper reads it.
#[rustfmt::skip]
const GGML_TYPES: [(u32, &str, Option<TensorFormat>); 35] = [
    (0, "F32", Some(TensorFormat::Ggml(GgmlDType::F32))),
    (1, "F16", Some(TensorFormat::Ggml(GgmlDType::F16))),
    (2, "Q4_0", Some(TensorFormat::Ggml(GgmlDType::Q4_0))),
    (3, "Q4_1", Some(TensorFormat::Ggml(GgmlDType::Q4_1))),
    (6, "Q5_0", Some(TensorFormat::Ggml(GgmlDType::Q5_0))),
    (7, "Q5_1", Some(TensorFormat::Ggml(GgmlDType::Q5_1))),
    (8, "Q8_0", Some(TensorFormat::Ggml(GgmlDType::Q8_0))),
    (9, "Q8_1", None),
    (10, "Q2_K", Some(TensorFormat::Ggml(GgmlDType::Q2K))),
    (11, "Q3_K", Some(TensorFormat::Ggml(GgmlDType::Q3K))),
    (12, "Q4_K", Some(TensorFormat::Ggml(GgmlDType::Q4K))),
    (13, "Q5_K", Some(TensorFormat::Ggml(GgmlDType::Q5K))),
    (14, "Q6_K", Some(TensorFormat::Ggml(GgmlDType::Q6K))),
    (15, "Q8_K", None),
    (16, "IQ2_XXS", None),
    (17, "IQ2_XS", None),
    (18, "IQ3_XXS", None),
    (19, "IQ1_S", None),
    (20, "IQ4_NL", Some(TensorFormat::Iq4Nl)),
    (21, "IQ3_S", None),
    (22, "IQ2_S", None),
    (23, "IQ4_XS", Some(TensorFormat::Iq4Xs)),
    (24, "I8", None),
    (25, "I16", None),
    (26, "I32", None),
    (27, "I64", None),
    (28, "F64", None),
    (29, "IQ1_M", None),
    (30, "BF16", Some(TensorFormat::Ggml(GgmlDType::BF16))),
    (34, "TQ1_0", None),
    (35, "TQ2_0", None),
    (39, "MXFP4", Some(TensorFormat::Mxfp4)),
    (40, "NVFP4", None),
    (41, "Q1_0", None),
    (42, "Q2_0", None),
];

impl TensorFormat {
    /// The format with this `ggml_type`.
    ///
    /// # Errors
    /// taper cannot read it; the error is its name, or its number if it is unknown.
    pub(super) fn from_ggml_type(number: u32) -> Result<Self, String> {
        match GGML_TYPES.iter().find(|(known, ..)| *known == number) {
            Some((_, _, Some(format))) => Ok(*format),
            Some((_, name, None)) => Err((*name).to_owned()),
            None => Err(format!("the unknown ggml type {number}")),
        }
    }

    /// The `ggml_type` and its name; `None` for formats that occur only in memory.
    fn ggml_type(self) -> Option<(u32, &'static str)> {
        let (number, name, _) = GGML_TYPES.iter().find(|(.., format)| *format == Some(self))?;
        Some((*number, name))
    }

    /// The name of the format in ggml, e.g. `Q4_K`.
    pub fn name(self) -> &'static str {
        self.ggml_type().map_or("a format of computations", |(_, name)| name)
    }

    /// The `ggml_type` of the format.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn number(self) -> u32 {
        self.ggml_type().map_or(u32::MAX, |(number, _)| number)
    }

    /// Values and bytes of a block.
    pub(super) fn block_size(self) -> (usize, usize) {
        match self {
            Self::Ggml(dtype) => (dtype.block_size(), dtype.type_size()),
            Self::Iq4Nl => (32, 18),
            Self::Iq4Xs => (256, 136),
            Self::Mxfp4 => (32, 17),
        }
    }

    /// The format of the tensor library in which the tensor is read, and the conversion into it if it is stored in
    /// another.
    pub(super) fn library_format(self) -> (GgmlDType, Option<Conversion>) {
        let conversion = match self {
            Self::Ggml(dtype) => return (dtype, None),
            Self::Iq4Nl => conversion::IQ4_NL_TO_Q8_0,
            Self::Iq4Xs => conversion::IQ4_XS_TO_Q8_0,
            Self::Mxfp4 => conversion::MXFP4_TO_Q8_0,
        };
        (conversion.target, Some(conversion))
    }

    /// The conversion into a format that taper has kernels for; `None` if this one has kernels.
    pub(super) fn kernel_conversion(self) -> Option<Conversion> {
        match self {
            Self::Ggml(GgmlDType::Q2K) => Some(conversion::Q2K_TO_Q6K),
            Self::Ggml(GgmlDType::Q3K) => Some(conversion::Q3K_TO_Q6K),
            other => other.library_format().1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ggml_types_are_unique_and_ordered() {
        assert!(GGML_TYPES.is_sorted_by(|(number, ..), (next, ..)| number < next));
        for (number, name, format) in GGML_TYPES {
            assert_eq!(TensorFormat::from_ggml_type(number), format.ok_or(name.to_owned()));
            assert!(format.is_none_or(|format| (format.number(), format.name()) == (number, name)));
        }
        assert_eq!(TensorFormat::from_ggml_type(99), Err("the unknown ggml type 99".to_owned()));
    }
}
