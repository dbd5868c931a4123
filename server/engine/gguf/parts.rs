//! Joins the files of a model that was split: `NAME-00001-of-00003.gguf` and so on, side by side in a folder.
//!
//! Written by llama.cpp's `gguf-split`: the first part has all metadata, every part has some of the tensors, and
//! `split.no` (from 0), `split.count` and `split.tensors.count` (of all parts together).

use std::collections::HashMap;

use super::{MetadataValue, ModelFile, TensorInfo, model_error};
use crate::EngineError;

/// Maximum number of parts. The largest models that are published have about a hundred.
const MAX_PARTS: u64 = 256;
const MIXED_REMEDY: &str = "get all parts again from one place, and put nothing else under their names";

/// The number of a part, from 1, and the number of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PartNumber {
    number: u64,
    count: u64,
}

impl PartNumber {
    /// What `file` states; `None` if it is a whole model.
    fn from_metadata(file: &ModelFile) -> Result<Option<Self>, EngineError> {
        let key = "split.count";
        let count = match file.metadata.get(key) {
            None | Some(&MetadataValue::Unsigned(0 | 1)) => return Ok(None),
            Some(&MetadataValue::Unsigned(count @ 2..=MAX_PARTS)) => count,
            Some(_) => {
                let problem = format!("is not a number from 1 to {MAX_PARTS}");
                return Err(model_error(&file.path, key, problem, super::PULL_AGAIN_REMEDY));
            }
        };
        match file.metadata.get("split.no") {
            Some(&MetadataValue::Unsigned(index)) if index < count => {
                Ok(Some(Self { number: index + 1, count }))
            }
            _ => {
                let problem = format!("is not a number from 0 to {}", count - 1);
                Err(model_error(&file.path, "split.no", problem, super::PULL_AGAIN_REMEDY))
            }
        }
    }

    /// The end of the part's file name.
    fn name_suffix(self) -> String {
        format!("-{:05}-of-{:05}.gguf", self.number, self.count)
    }
}

/// All parts of the model that `file` belongs to, the first one first; `file` alone if it is a whole model.
///
/// # Errors
/// A part is missing or cannot be read, or the parts do not belong together. The error names the part.
pub(super) fn open_parts(file: ModelFile) -> Result<Vec<ModelFile>, EngineError> {
    let Some(part @ PartNumber { count, .. }) = PartNumber::from_metadata(&file)? else {
        return Ok(vec![file]);
    };
    let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(model_name) = name.strip_suffix(&part.name_suffix()) else {
        let problem = format!(
            "is part {} of {count}, but its name does not end in {}",
            part.number,
            part.name_suffix()
        );
        let remedy = "give all parts the names that they were published with";
        return Err(model_error(&file.path, "file", problem, remedy));
    };
    let part_name = |number| format!("{model_name}{}", PartNumber { number, count }.name_suffix());
    let part_path = |number| file.path.with_file_name(part_name(number));
    let missing = (1..=count).filter(|&number| !part_path(number).exists());
    let missing: Vec<_> = missing.map(|number| format!("part {number} ({})", part_name(number))).collect();
    if !missing.is_empty() {
        let problem =
            format!("is part {} of {count}; missing beside it: {}", part.number, missing.join(", "));
        return Err(model_error(&file.path, "file", problem, "put all parts into one folder"));
    }
    let mut parts = Vec::new();
    for number in (1..part.number).chain(part.number + 1..=count) {
        let other = ModelFile::open(&part_path(number))?;
        let expected = PartNumber { number, count };
        let found = PartNumber::from_metadata(&other)?;
        if found != Some(expected) {
            let found = found
                .map_or("a whole model".to_owned(), |part| format!("part {} of {}", part.number, part.count));
            let problem = format!("is {found}, and its name says part {number} of {count}");
            return Err(model_error(&other.path, "file", problem, MIXED_REMEDY));
        }
        parts.push(other);
    }
    parts.insert(part.number as usize - 1, file);
    check_tensor_counts(&parts)?;
    Ok(parts)
}

/// Checks that all parts state the same number of tensors, and that they have as many together.
fn check_tensor_counts(parts: &[ModelFile]) -> Result<(), EngineError> {
    let key = "split.tensors.count";
    let stated = |part: &ModelFile| match part.metadata.get(key) {
        Some(&MetadataValue::Unsigned(count)) => Some(count),
        Some(&MetadataValue::Signed(count)) => u64::try_from(count).ok(),
        _ => None,
    };
    let expected = stated(&parts[0]);
    if let Some(other) = parts.iter().find(|part| stated(part) != expected) {
        let problem = "differs from that of the first part: they come from two models";
        return Err(model_error(&other.path, key, problem, MIXED_REMEDY));
    }
    let found: usize = parts.iter().map(|part| part.tensors.len()).sum();
    if expected.is_some_and(|expected| expected != found as u64) {
        let problem = format!("is {}, but the parts have {found} tensors", expected.unwrap_or(0));
        return Err(model_error(&parts[0].path, key, problem, MIXED_REMEDY));
    }
    Ok(())
}

/// The tensors of all parts by name; each names its part by its index.
///
/// # Errors
/// Two parts have a tensor of the same name.
pub(super) fn join_tensors(parts: &mut [ModelFile]) -> Result<HashMap<String, TensorInfo>, EngineError> {
    let mut joined: HashMap<String, TensorInfo> = HashMap::new();
    for (index, part) in parts.iter_mut().enumerate() {
        for (name, info) in std::mem::take(&mut part.tensors) {
            if joined.contains_key(&name) {
                return Err(model_error(&part.path, &name, "is in another part too", MIXED_REMEDY));
            }
            joined.insert(name, TensorInfo { part: index, ..info });
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests;
