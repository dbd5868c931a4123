//! Tests of corrupt files, and of files that change while they are read.

use std::fs::{self, File};
use std::ops::ControlFlow;

use super::testing::{GgufWriter, ModelDims, random_llama, random_qwen2};
use super::*;
use crate::local::{DeviceChoice, Kernel, KernelChoice, Local, Options};
use crate::{Engine, GenerationLimits, Prompt};

fn parse_bytes(bytes: Vec<u8>) -> Result<Gguf, EngineError> {
    Gguf::from_bytes(Path::new("a model"), bytes)
}

#[track_caller]
fn assert_refused(bytes: Vec<u8>, field: &str, problem: &str) {
    let error = parse_bytes(bytes).unwrap_err();
    assert!(matches!(&error, EngineError::Model { field: named, .. } if named == field), "{error}");
    assert!(error.to_string().contains(problem), "{error}");
}

/// A handmade header: the metadata as stored, and for each tensor its name, number of `f32` values and offset.
fn header_bytes(metadata: &[(&str, &[u8])], tensors: &[(&str, u64, u64)], data: usize) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    let name = |out: &mut Vec<u8>, name: &str| {
        out.extend((name.len() as u64).to_le_bytes());
        out.extend(name.as_bytes());
    };
    for (key, value) in metadata {
        name(&mut out, key);
        out.extend_from_slice(value);
    }
    for (tensor, values, offset) in tensors {
        name(&mut out, tensor);
        out.extend(1_u32.to_le_bytes());
        out.extend(values.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32) + data, 0);
    out
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    assert_eq!(parse_bytes(header_bytes(&[], &[("a", 8, 0), ("b", 8, 32)], 64)).unwrap().tensor_bytes(), 64);
    assert_eq!(parse_bytes(header_bytes(&[], &[("b", 8, 32), ("a", 8, 0)], 64)).unwrap().tensor_bytes(), 64);
    assert_refused(header_bytes(&[], &[("a", 16, 0), ("b", 16, 0)], 64), "b", "the same bytes as a");
    assert_refused(header_bytes(&[], &[("a", 9, 0), ("b", 7, 32)], 64), "b", "the same bytes as a");
    assert_refused(header_bytes(&[], &[("a", 1, 60), ("b", 16, 0)], 64), "a", "the same bytes as b");
    // A small file that demands a huge amount of memory.
    let many: Vec<(String, u64, u64)> = (0..6000).map(|at| (format!("t{at}"), 1 << 18, 0)).collect();
    let many: Vec<_> = many.iter().map(|(name, values, at)| (name.as_str(), *values, *at)).collect();
    assert!(
        parse_bytes(header_bytes(&[], &many, 1 << 20)).unwrap_err().to_string().contains("the same bytes as")
    );
    // One tensor inside another that begins before it, with a third between them in file order.
    assert_refused(
        header_bytes(&[], &[("a", 16, 0), ("b", 2, 8), ("c", 2, 56)], 64),
        "b",
        "the same bytes as a",
    );
}

#[test]
fn tensors_beyond_end_of_file_are_refused() {
    assert_refused(header_bytes(&[], &[("a", 17, 0)], 64), "a", "needs 68 bytes at 0");
    assert_refused(header_bytes(&[], &[("a", 1, 64)], 64), "a", "at 64");
    for offset in [u64::MAX, u64::MAX - 3, 1 << 63, u64::MAX - 64] {
        assert_refused(header_bytes(&[], &[("a", 8, offset)], 64), "a", "needs 32 bytes");
    }
    assert_refused(header_bytes(&[], &[("a", u64::MAX / 2, 0)], 64), "a", "overflows");
}

#[test]
fn duplicate_names_are_refused() {
    let one = [4, 0, 0, 0, 1, 0, 0, 0];
    assert_refused(header_bytes(&[("x", &one), ("x", &one)], &[], 0), "x", "twice");
    let list = [9, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_refused(header_bytes(&[("x", &one), ("x", &list)], &[], 0), "x", "twice");
    assert_refused(header_bytes(&[("x", &list), ("x", &one)], &[], 0), "x", "twice");
    assert_refused(header_bytes(&[], &[("a", 8, 0), ("a", 8, 32)], 64), "a", "twice");
}

#[test]
fn implausible_counts_are_refused_before_allocation() {
    let counts = |tensors: u64, metadata: u64, len: usize| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(metadata.to_le_bytes());
        bytes.resize(len, 0);
        bytes
    };
    assert_refused(counts(u64::MAX, 0, 1000), "tensor_count", "entries, but only");
    assert_refused(counts(0, u64::MAX, 1000), "metadata_kv_count", "entries, but only");
    assert_refused(counts(100_000, 0, 4 << 20), "tensor_count", "at most");
    assert_refused(counts(0, 100_000, 4 << 20), "metadata_kv_count", "at most");
    // A list of five million bytes that are all in the file.
    let mut list = [9_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat();
    list.extend(5_000_000_u64.to_le_bytes());
    list.resize(16 + 5_000_000, 0);
    assert_refused(header_bytes(&[("x", &list)], &[], 0), "x", "elements, at most");
    // A string longer than any header.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut string = 8_u32.to_le_bytes().to_vec();
    string.extend((200_u64 << 20).to_le_bytes());
    fs::write(&path, header_bytes(&[("x", &string)], &[], 0)).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(300 << 20).unwrap();
    let error = Gguf::open(&path).unwrap_err().to_string();
    assert!(error.contains("longer than that of any model"), "{error}");
}

#[test]
fn unreadable_format_is_named_with_readable_ones() {
    for (number, name) in [(18, "IQ3_XXS"), (35, "TQ2_0"), (1000, "the unknown ggml type 1000")] {
        let mut bytes = header_bytes(&[], &[("a", 256, 0)], 1024);
        let at = 24 + 8 + 1 + 4 + 8;
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
        assert_refused(
            bytes.clone(),
            "a",
            &format!("is stored as {name}, which taper cannot read; use another"),
        );
        assert_refused(bytes, "a", "Q4_K_M");
    }
}

/// Headers of whole models and of parts, with formats that are converted.
#[test]
fn no_mutated_header_panics_or_demands_memory() {
    const MUTATIONS: usize = 1000;
    let folder = tempfile::tempdir().unwrap();
    let dims = ModelDims { layers: 1, ..ModelDims::stored_as(GgmlDType::Q2K) };
    let model = random_qwen2(1, &dims).unwrap().with_tensor(
        "blk.0.ffn_up.weight",
        TensorFormat::Iq4Xs,
        &[dims.intermediate, dims.hidden],
        vec![7; dims.intermediate * dims.hidden / 256 * 136],
    );
    let paths =
        ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"].map(|name| folder.path().join(name));
    let mut random = fastrand::Rng::with_seed(5);
    let (mut refused, mut read) = (0, 0);
    for (count, mutated) in [(1, 0), (2, 0), (2, 1)] {
        let parts: Vec<_> = model.clone().split(count).iter().map(GgufWriter::to_bytes).collect();
        for (bytes, path) in parts.iter().zip(&paths) {
            fs::write(path, bytes).unwrap();
        }
        let whole = Gguf::from_bytes(&paths[mutated], parts[mutated].clone()).unwrap();
        let header = whole.first_file().header.len();
        // Most of a header is the vocabulary; its ends have the counts, the tensors and the numbers of the parts.
        let ends = [0..400.min(header), header.saturating_sub(1500)..header];
        for _ in 0..MUTATIONS {
            let mut bytes = parts[mutated].clone();
            for _ in 0..random.usize(1..4) {
                let end = random.usize(..2);
                let at = random.usize(ends[end].clone());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes[at] ^= 1 << random.u8(..8),
                    _ => bytes[at..(at + 8).min(header)].fill([0, 0xff][random.usize(..2)]),
                }
            }
            fs::write(&paths[mutated], &bytes).unwrap();
            let Ok(gguf) = Gguf::open(&paths[0]) else {
                refused += 1;
                continue;
            };
            read += 1;
            let views = gguf.tensor_names().filter_map(|name| gguf.tensor(name));
            let in_memory: usize = views.map(|view| view.with_kernel_format().data.len()).sum();
            assert!(in_memory as u64 <= 3 * gguf.file_len());
            let _ = crate::local::ModelConfig::from_gguf(&gguf);
        }
    }
    assert!(refused > 500 && read > 500, "{refused} refused, {read} read");
}

#[test]
fn header_longer_than_initial_read_is_parsed() {
    let texts: Vec<MetadataValue> =
        (0..200_000).map(|at| MetadataValue::String(format!("token number {at}"))).collect();
    let writer = GgufWriter::new()
        .with_metadata("texts", MetadataValue::Array(texts))
        .with_metadata("last", MetadataValue::Unsigned(7))
        .with_tensor("t", GgmlDType::F32, &[2], vec![1; 8]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write(&path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    assert!(gguf.first_file().header.len() > 2 * INITIAL_READ_BYTES);
    assert_eq!(gguf.get_strings("texts").unwrap().unwrap()[199_999], b"token number 199999");
    assert_eq!(gguf.get_usize("last").unwrap(), Some(7));
    assert_eq!(*gguf.tensor("t").unwrap().data.read_all().unwrap(), [1; 8]);
}

#[test]
fn text_from_file_is_sanitized_in_messages() {
    let evil = format!("\x1b]0;owned\x07\x1b[31m\u{202e}{}\r\n", "x".repeat(1 << 20));
    let check = |text: &str| {
        assert!(text.len() < 2000, "{} bytes", text.len());
        assert!(text.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{text:?}");
    };
    let text = || MetadataValue::String(evil.clone());
    let dims = ModelDims::default();
    let model = || random_qwen2(1, &dims).unwrap();
    let engine = |writer: GgufWriter| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        writer.write(&path).unwrap();
        Local::open(&path, &Options { device: DeviceChoice::Cpu, context: 64, ..Options::default() })
    };
    let about = engine(model().with_metadata("general.name", text())).unwrap().engine_info().clone();
    check(&about.model);
    assert!(about.model.starts_with("]0;owned[31mxxx") && about.model.chars().count() < 130);
    let nameless =
        engine(model().with_metadata("general.name", MetadataValue::String("\x1b\u{200b}\n".into())))
            .unwrap();
    assert_eq!(nameless.engine_info().model, "model");
    let wrong = [
        model().with_metadata("general.architecture", text()),
        model().with_metadata("tokenizer.ggml.model", text()),
        model().with_metadata("qwen2.rope.scaling.type", text()),
        model().with_metadata("general.alignment", text()),
        model().with_metadata("qwen2.block_count", text()),
        model().with_metadata("tokenizer.ggml.merges", MetadataValue::Array(vec![text()])),
        model().with_tensor(&evil, GgmlDType::F32, &[1], vec![0; 4]),
        random_llama(1, &dims).unwrap().with_metadata("tokenizer.ggml.scores", text()),
    ];
    for writer in wrong {
        check(&engine(writer).unwrap_err().to_string());
    }
    let bytes = header_bytes(&[(&evil, &[99, 0, 0, 0])], &[], 0);
    check(&parse_bytes(bytes).unwrap_err().to_string());
    let bytes = header_bytes(&[], &[(&evil, 8, 0), (&evil[1..], 8, 0)], 64);
    check(&parse_bytes(bytes).unwrap_err().to_string());
}

#[test]
fn folders_pipes_and_devices_are_refused_without_blocking() {
    let folder = tempfile::tempdir().unwrap();
    let error = Gguf::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
    #[cfg(unix)]
    {
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let link = folder.path().join("link.gguf");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [&pipe, &link, Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = Gguf::open(path).unwrap_err().to_string();
            assert!(error.contains("is not a plain file"), "{error}");
        }
    }
}

/// A model file that a test can change at any moment.
struct ModelFixture {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl ModelFixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let dims =
            ModelDims { layers: 3, output: Some(GgmlDType::Q8_0), ..ModelDims::stored_as(GgmlDType::Q4_0) };
        random_qwen2(1, &dims).unwrap().write(&path).unwrap();
        Self { path, _folder: folder }
    }

    fn truncate(&self, len: u64) {
        File::options().write(true).open(&self.path).unwrap().set_len(len).unwrap();
    }
}

#[test]
fn file_truncated_while_loading_is_error() {
    use crate::local::{CandleDecoder, CpuDecoder, ModelConfig};
    let whole = fs::metadata(ModelFixture::new().path).unwrap().len();
    for len in [0, 100, 5000, whole / 2, whole - 1] {
        let written = ModelFixture::new();
        let gguf = Gguf::open(&written.path).unwrap();
        let config = ModelConfig::from_gguf(&gguf).unwrap();
        // After the header was read, before the tensors are.
        written.truncate(len);
        let own = CpuDecoder::new(&gguf, &config, 64, Kernel::Portable, 2).unwrap_err().to_string();
        let candle = CandleDecoder::load(&gguf, &config, 64, &candle_core::Device::Cpu);
        for error in [own, candle.unwrap_err().to_string()] {
            assert!(error.contains("became shorter while it was read"), "{len}: {error}");
            assert!(error.contains("get it again from where you have it"), "{error}");
        }
        let changed = gguf.check_unchanged().unwrap_err().to_string();
        assert!(changed.contains("was changed while it was read"), "{changed}");
    }
}

#[test]
fn file_overwritten_while_loading_is_error() {
    let written = ModelFixture::new();
    let gguf = Gguf::open(&written.path).unwrap();
    assert!(gguf.check_unchanged().is_ok());
    let file = File::options().write(true).open(&written.path).unwrap();
    // The same length, and a minute newer.
    file.set_modified(
        fs::metadata(&written.path).unwrap().modified().unwrap() + std::time::Duration::from_secs(60),
    )
    .unwrap();
    assert!(gguf.check_unchanged().is_err());
    // A file renamed over it is another file; the open one is unchanged.
    let other = ModelFixture::new();
    let gguf = Gguf::open(&other.path).unwrap();
    fs::rename(&written.path, &other.path).unwrap();
    assert!(gguf.check_unchanged().is_ok());
}

#[test]
fn loaded_model_is_independent_of_its_file() {
    for kernel in [KernelChoice::Own(Kernel::Portable), KernelChoice::Candle] {
        let written = ModelFixture::new();
        let options = Options { device: DeviceChoice::Cpu, kernel, context: 256, ..Options::default() };
        let mut engine = Local::open(&written.path, &options).unwrap();
        let prompt =
            Prompt { tokens: (0..90).collect(), healing_bytes: b"ret".to_vec(), ..Prompt::default() };
        let limits = GenerationLimits { max_tokens: 9, ..GenerationLimits::default() };
        let mut generate = |watch: &mut dyn FnMut()| {
            engine.clear();
            let mut watch = |_: crate::PartialOutput<'_>| {
                watch();
                ControlFlow::Continue(())
            };
            engine.generate(&prompt, &limits, &mut watch).unwrap().text
        };
        let expected = generate(&mut || ());
        let mut len = fs::metadata(&written.path).unwrap().len();
        // The file shrinks at each callback, is then overwritten, then deleted.
        let cut = generate(&mut || {
            len /= 2;
            written.truncate(len);
        });
        fs::write(&written.path, vec![0xff; 1 << 20]).unwrap();
        let other = generate(&mut || ());
        fs::remove_file(&written.path).unwrap();
        assert_eq!((&cut, &other, &generate(&mut || ())), (&expected, &expected, &expected));
    }
}

#[test]
fn damaged_file_is_reported_by_every_kernel() {
    // Enough that some damaged bytes make a float that is not finite.
    const DAMAGED_BYTES: usize = 12 << 10;
    let dims = ModelDims { output: Some(GgmlDType::Q8_0), ..ModelDims::stored_as(GgmlDType::Q4_0) };
    let good = random_qwen2(1, &dims).unwrap().to_bytes();
    let weights = parse_bytes(good.clone()).unwrap().tensor_bytes() as usize;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut random = fastrand::Rng::with_seed(3);
    let kernels = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()).map(KernelChoice::Own);
    for kernel in kernels.chain([KernelChoice::Auto, KernelChoice::Candle]) {
        // A random part of the file has wrong content, as after a disk fault.
        for _ in 0..8 {
            let mut bytes = good.clone();
            let at = bytes.len() - weights + random.usize(..weights - DAMAGED_BYTES);
            bytes[at..at + DAMAGED_BYTES].iter_mut().for_each(|byte| *byte = random.u8(..));
            fs::write(&path, &bytes).unwrap();
            let options = Options { device: DeviceChoice::Cpu, kernel, context: 64, ..Options::default() };
            let error = Local::open(&path, &options).unwrap_err().to_string();
            assert!(error.contains("model.gguf") && error.contains("the file is damaged"), "{error}");
            assert!(error.contains("NaN or infinite") && error.contains("get it again"), "{error}");
        }
    }
}

/// The fuzzer's seeds: small models of every family, and their vocabularies alone. Rewritten if `UPDATE_EXPECT` is set.
#[test]
fn fuzz_seeds_are_current_and_readable() {
    use super::testing::random_qwen3;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let dims = |dtype| ModelDims {
        layers: 1,
        hidden: 32,
        heads: 2,
        kv_heads: 1,
        intermediate: 32,
        context: 64,
        ..ModelDims::stored_as(dtype)
    };
    let qwen2 = |dtype| random_qwen2(1, &dims(dtype)).unwrap();
    let seeds = [
        ("gguf/qwen2-q4_0", qwen2(GgmlDType::Q4_0)),
        ("gguf/qwen2-f16", qwen2(GgmlDType::F16)),
        ("gguf/qwen3-q8_0", random_qwen3(1, &dims(GgmlDType::Q8_0)).unwrap()),
        ("gguf/llama-q5_1", random_llama(1, &dims(GgmlDType::Q5_1)).unwrap()),
        ("tokenizer/merges", GgufWriter::new().with_byte_level_tokenizer()),
        ("tokenizer/scores", GgufWriter::new().with_sentencepiece_tokenizer()),
    ];
    for (name, writer) in seeds {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            writer.write(&path).unwrap();
        }
        let bytes = fs::read(&path).unwrap();
        assert!(bytes == writer.to_bytes(), "{name} is outdated: run this test with UPDATE_EXPECT=1");
        crate::Tokenizer::from_gguf(&parse_bytes(bytes).unwrap()).unwrap();
    }
}
