//! Tests of models in several files: whole, incomplete, mixed.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use crate::gguf::testing::{GgufWriter, ModelDims, random_qwen2};
use crate::gguf::{Gguf, MetadataValue};

/// Splits the tensors of `whole` into files in `folder`, as `gguf-split` does.
fn write_parts(whole: &GgufWriter, folder: &Path, count: usize) -> Vec<PathBuf> {
    let parts = whole.clone().split(count);
    let paths = (1..=count).map(|number| folder.join(format!("model-{number:05}-of-{count:05}.gguf")));
    let paths: Vec<_> = paths.collect();
    for (part, path) in parts.iter().zip(&paths) {
        part.write(path).unwrap();
    }
    paths
}

fn random_model(seed: u64) -> GgufWriter {
    random_qwen2(seed, &ModelDims::stored_as(GgmlDType::Q8_0)).unwrap()
}

fn open_error(path: &Path) -> String {
    Gguf::open(path).unwrap_err().to_string()
}

#[track_caller]
fn assert_names(error: &str, expected: &[&str]) {
    for text in expected {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
    assert!(!error.contains("delete"), "{error}");
}

#[test]
fn parts_are_read_as_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let writer = random_model(1);
    let whole = Gguf::from_bytes(Path::new("whole"), writer.to_bytes()).unwrap();
    for count in [2, 3, 7] {
        let paths = write_parts(&writer, folder.path(), count);
        // Any part stands for the model.
        for path in &paths {
            let joined = Gguf::open(path).unwrap();
            assert_eq!(joined.path(), paths[0]);
            assert_eq!(joined.tensor_bytes(), whole.tensor_bytes());
            assert_eq!(joined.tensor_names().count(), whole.tensor_names().count());
            assert_eq!(
                joined.file_len(),
                paths.iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>()
            );
            assert_eq!(joined.get_str("general.architecture"), Some("qwen2"));
            assert_eq!(
                joined.get_strings("tokenizer.ggml.tokens").unwrap(),
                whole.get_strings("tokenizer.ggml.tokens").unwrap()
            );
            for name in whole.tensor_names() {
                let (ours, expected) = (joined.tensor(name).unwrap(), whole.tensor(name).unwrap());
                assert_eq!(ours.data.read_all().unwrap(), expected.data.read_all().unwrap(), "{name}");
            }
            joined.check_unchanged().unwrap();
        }
    }
    // One part is a whole model, under any name.
    let single = writer.clone().split(1).remove(0);
    let path = folder.path().join("any.gguf");
    single.write(&path).unwrap();
    assert_eq!(Gguf::open(&path).unwrap().tensor_bytes(), whole.tensor_bytes());
}

#[test]
fn missing_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(&random_model(1), folder.path(), 3);
    fs::remove_file(&paths[1]).unwrap();
    assert_names(
        &open_error(&paths[2]),
        &["00003-of-00003.gguf is not", "part 3 of 3", "part 2 (model-00002-of-00003.gguf)", "one folder"],
    );
    fs::remove_file(&paths[2]).unwrap();
    let error = open_error(&paths[0]);
    assert_names(&error, &["part 2 (model-00002-of-00003.gguf), part 3 (model-00003-of-00003.gguf)"]);
    let renamed = folder.path().join("model.gguf");
    fs::rename(&paths[0], &renamed).unwrap();
    assert_names(
        &open_error(&renamed),
        &["model.gguf", "does not end in -00001-of-00003.gguf", "give all parts"],
    );
}

#[test]
fn damaged_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(&random_model(1), folder.path(), 3);
    let second = fs::read(&paths[1]).unwrap();
    for len in [0, 10, 100, second.len() / 2, second.len() - 1] {
        fs::write(&paths[1], &second[..len]).unwrap();
        assert_names(&open_error(&paths[0]), &["model-00002-of-00003.gguf is not a usable model"]);
    }
    fs::write(&paths[1], &second).unwrap();
    let gguf = Gguf::open(&paths[0]).unwrap();
    fs::File::options().write(true).open(&paths[2]).unwrap().set_len(50).unwrap();
    assert_names(
        &gguf.check_unchanged().unwrap_err().to_string(),
        &["model-00003-of-00003.gguf", "was changed"],
    );
}

#[test]
fn parts_that_do_not_belong_together_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(&random_model(1), folder.path(), 3);
    let original: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let with_second = |bytes: &[u8]| {
        fs::write(&paths[1], bytes).unwrap();
        open_error(&paths[0])
    };
    // The wrong part, a whole model, a part of another split, a part of another model.
    assert_names(
        &with_second(&original[2]),
        &["00002-of-00003.gguf", "is part 3 of 3", "its name says part 2 of 3"],
    );
    let whole = random_model(1);
    assert_names(&with_second(&whole.to_bytes()), &["00002-of-00003.gguf", "is a whole model"]);
    assert_names(
        &with_second(&whole.clone().split(4)[1].to_bytes()),
        &["00002-of-00003.gguf", "is part 2 of 4"],
    );
    let larger = ModelDims { layers: 3, ..ModelDims::stored_as(GgmlDType::Q8_0) };
    let larger = random_qwen2(1, &larger).unwrap().split(3);
    assert_names(
        &with_second(&larger[1].to_bytes()),
        &["00002-of-00003.gguf", "split.tensors.count", "two models", "get all parts again"],
    );
    // A part with the right numbers and other tensors: one too few, and one that another part has.
    let second = whole.split(3).remove(1);
    let name = Gguf::from_bytes(&paths[1], second.to_bytes()).unwrap();
    let lacking = second.without_tensor(name.tensor_names().next().unwrap());
    assert_names(&with_second(&lacking.to_bytes()), &["split.tensors.count", "but the parts have"]);
    let overlapping = lacking.with_tensor("token_embd.weight", GgmlDType::F32, &[1], vec![0; 4]);
    assert_names(
        &with_second(&overlapping.to_bytes()),
        &["00002-of-00003.gguf", "token_embd.weight", "in another part too"],
    );
}

#[test]
fn implausible_part_numbers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model-00001-of-00002.gguf");
    let number = MetadataValue::Unsigned;
    for (index, count, field) in [
        (number(0), number(257), "split.count"),
        (number(0), number(u64::MAX), "split.count"),
        (number(0), MetadataValue::Signed(-1), "split.count"),
        (number(2), number(2), "split.no"),
        (MetadataValue::Bool(true), number(2), "split.no"),
    ] {
        let writer = random_model(1).with_metadata("split.no", index).with_metadata("split.count", count);
        writer.write(&path).unwrap();
        assert_names(&open_error(&path), &[field, "is not a number from"]);
    }
    random_model(1).with_metadata("split.count", number(2)).write(&path).unwrap();
    assert_names(&open_error(&path), &["split.no"]);
}
