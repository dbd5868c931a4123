//! Prefill and decode rates of the CPU decoder, by kernel: `cargo bench -p taper-engine --bench engine -- MODEL.gguf
//! [KERNEL …]`. The tokens of prefill are arbitrary, since all cost the same.
//!
//! `TAPER_TEST_MODEL` may also name the model, `TAPER_THREADS` the number of threads. Without a model nothing is
//! measured. Decoding with and without speculation continues this repository's own sources, or the `prefix`es of the
//! tasks in the JSONL file that `TAPER_BENCH_TASKS` names. `TAPER_BENCH_ONLY` limits the run: `prefill` measures only
//! that, for a profile of it; `rates` prefill and decoding, `speculation` those and decoding after code.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is for people at a terminal")]

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use taper_engine::gguf::Gguf;
use taper_engine::local::cpu::CpuDecoder;
use taper_engine::local::kernels::Kernel;
use taper_engine::local::thread_pool::ThreadPool;
use taper_engine::local::{
    Batch, Decoder, DeviceChoice, KernelChoice, Local, LogitsRequest, ModelConfig, Options, Priority,
    SuffixShift,
};
use taper_engine::{Engine, EngineError, GenerationLimits, Prompt};

const PREFILL: usize = 512;
const DECODE: usize = 64;
/// Maximum tasks measured from a file.
const TASKS: usize = 24;
/// Bytes of code before the cursor.
const CODE: usize = 3000;
/// Code with typical repetitions.
const SOURCES: [&str; 3] = [
    include_str!("../server/engine/gguf.rs"),
    include_str!("../server/engine/catalog.rs"),
    include_str!("../server/engine/fetch/wheels.rs"),
];

fn main() -> Result<(), EngineError> {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let model = arguments.next().or_else(|| std::env::var("TAPER_TEST_MODEL").ok());
    let Some(model) = model.map(PathBuf::from) else {
        eprintln!("no model: name a GGUF file as argument or in TAPER_TEST_MODEL; nothing was measured");
        return Ok(());
    };
    let named: Vec<String> = arguments.collect();
    let kernels: Vec<Kernel> = if named.is_empty() {
        // The portable kernel is a reference; it is measured only on demand.
        Kernel::ALL
            .into_iter()
            .filter(|&kernel| kernel != Kernel::Portable && kernel.is_available())
            .collect()
    } else {
        named
            .iter()
            .map(|name| Kernel::choose_by_name(Some(name)).map(|chosen| chosen.0))
            .collect::<Result<_, _>>()?
    };
    let only = std::env::var("TAPER_BENCH_ONLY").ok();
    if let Some(other) = only.as_deref().filter(|it| !["prefill", "rates", "speculation"].contains(it)) {
        eprintln!("TAPER_BENCH_ONLY is prefill, rates or speculation, not {other:?}");
        std::process::exit(2);
    }
    let threads = std::env::var("TAPER_THREADS").ok().and_then(|threads| threads.parse().ok());
    let threads = threads.unwrap_or_else(ThreadPool::default_thread_count);
    println!("{}, {threads} threads", model.file_name().unwrap_or_default().display());
    for kernel in kernels {
        measure(&model, kernel, threads, only.as_deref())?;
        if only.as_deref().is_none_or(|it| it == "speculation") {
            speculate(&model, kernel, threads)?;
        }
    }
    Ok(())
}

const ALL: [LogitsRequest; 1] = [LogitsRequest::All];
const ARGMAX: [LogitsRequest; 8] = [const { LogitsRequest::Argmax }; 8];

/// Appends a batch without interruption.
fn run_batch(decoder: &mut CpuDecoder, batch: &Batch<'_>) -> Result<(), EngineError> {
    let done = decoder.forward_batch(batch, &mut || ControlFlow::Continue(()))?;
    assert!(done.is_continue(), "never interrupted");
    Ok(())
}

fn measure(model: &Path, kernel: Kernel, threads: usize, only: Option<&str>) -> Result<(), EngineError> {
    let start = Instant::now();
    let gguf = Gguf::open(model)?;
    let config = ModelConfig::from_gguf(&gguf)?;
    let mut decoder = CpuDecoder::new(&gguf, &config, 4096, kernel, threads)?;
    drop(gguf);
    let load = start.elapsed();
    let vocabulary = config.vocabulary as u32;
    let tokens: Vec<u32> = (0..PREFILL as u32).map(|i| (i * 7919 + 13) % vocabulary).collect();
    decoder.forward(&tokens[..32], 1)?;
    let mut prefill = f64::MAX;
    for _ in 0..3 {
        decoder.truncate_sequence(0, 0);
        let start = Instant::now();
        decoder.forward(&tokens, 1)?;
        prefill = prefill.min(start.elapsed().as_secs_f64());
    }
    let mut decode = f64::MAX;
    for _ in 0..if only == Some("prefill") { 0 } else { 3 } {
        decoder.truncate_sequence(0, PREFILL);
        let start = Instant::now();
        for &token in &tokens[..DECODE] {
            run_batch(&mut decoder, &Batch { tokens: &[token], logits: &ARGMAX[..1], ..Batch::default() })?;
        }
        decode = decode.min(start.elapsed().as_secs_f64());
    }
    let mut batches = String::new();
    for rows in if only.is_some() { &[][..] } else { &[1, 2, 3, 4, 6, 8] } {
        decoder.truncate_sequence(0, PREFILL);
        let mut least = Duration::MAX;
        for tokens in tokens[..48].chunks_exact(*rows) {
            let start = Instant::now();
            let logits = &ARGMAX[..*rows];
            run_batch(&mut decoder, &Batch { tokens, logits, exact: *rows > 1, ..Batch::default() })?;
            least = least.min(start.elapsed());
        }
        batches += &format!(", {rows} rows {:.1} ms", least.as_secs_f64() * 1e3);
    }
    let bandwidth = decoder.streamed_bytes() as f64 * DECODE as f64 / decode / 1e9;
    println!(
        "{:12} load {:.2} s, {:.0} MB; prefill {:.0} tokens/s; decode {:.1} tokens/s ({bandwidth:.1} GB/s){batches}",
        kernel.name(),
        load.as_secs_f64(),
        decoder.weight_bytes() as f64 / 1e6,
        PREFILL as f64 / prefill,
        DECODE as f64 / decode,
    );
    if only.is_none() {
        background(&mut decoder, &tokens, kernel)?;
        chunks(&mut decoder, &tokens, kernel)?;
    }
    Ok(())
}

/// Prefills the same prompt in the background, in chunks of several lengths.
fn background(decoder: &mut CpuDecoder, tokens: &[u32], kernel: Kernel) -> Result<(), EngineError> {
    let mut report = String::new();
    for rows in [16, 32, 64, 128, 256] {
        decoder.truncate_sequence(0, 0);
        let start = Instant::now();
        for chunk in tokens.chunks(rows) {
            run_batch(decoder, &Batch { tokens: chunk, priority: Priority::Background, ..Batch::default() })?;
        }
        let rate = tokens.len() as f64 / start.elapsed().as_secs_f64();
        report += &format!(", {rows} at a time {rate:.0}");
    }
    println!("{:12} prefill in the background, tokens/s{}", kernel.name(), report.replacen(',', ":", 1));
    Ok(())
}

/// Measures a chunk of a prompt, the longest time between two interruption checks in it, and a suffix shift.
fn chunks(decoder: &mut CpuDecoder, tokens: &[u32], kernel: Kernel) -> Result<(), EngineError> {
    let mut report = String::new();
    for rows in [1, 8, 16, 32, 64, 128, 256] {
        let (mut whole, mut longest) = (Duration::MAX, Duration::ZERO);
        for _ in 0..3 {
            decoder.truncate_sequence(0, PREFILL);
            let (start, mut last) = (Instant::now(), Instant::now());
            let batch = Batch { tokens: &tokens[..rows], logits: &ALL, ..Batch::default() };
            let done = decoder.forward_batch(&batch, &mut || {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                ControlFlow::Continue(())
            })?;
            assert!(done.is_continue(), "never interrupted");
            whole = whole.min(start.elapsed());
        }
        let [whole, longest] = [whole, longest].map(|time| time.as_secs_f64() * 1e3);
        report += &format!(", {rows} tokens {whole:.0} ms ({longest:.1})");
    }
    decoder.resize_sequences(2);
    decoder.truncate_sequence(0, PREFILL);
    decoder.fork_sequence(0, 1, PREFILL - 128..PREFILL);
    let mut least = [Duration::MAX; 2];
    for _ in 0..5 {
        for (time, moved) in least.iter_mut().zip([false, true]) {
            decoder.truncate_sequence(0, PREFILL - 128);
            let moved = moved.then_some(SuffixShift {
                insert_after: 3,
                source: 1,
                rows: PREFILL - 128..PREFILL,
                changed: 0,
            });
            let start = Instant::now();
            let batch = Batch { tokens: &tokens[..4], logits: &ALL, suffix_shift: moved, ..Batch::default() };
            run_batch(decoder, &batch)?;
            *time = start.elapsed().min(*time);
        }
    }
    let [plain, moved] = least.map(|time| time.as_secs_f64() * 1e3);
    println!(
        "{:12} a chunk, and the longest between two looks{}; 4 tokens {plain:.1} ms, with a suffix of 128 moved \
         between them {moved:.1} ms",
        kernel.name(),
        report.replacen(',', ":", 1),
    );
    Ok(())
}

/// Decodes after real code, plain and with speculation in turn, and compares.
fn speculate(model: &Path, kernel: Kernel, threads: usize) -> Result<(), EngineError> {
    let open = |speculate| {
        let options = Options {
            device: DeviceChoice::Cpu,
            kernel: KernelChoice::Own(kernel),
            threads: NonZeroUsize::new(threads),
            context: 4096,
            speculate,
            ..Options::default()
        };
        Local::open(model, &options)
    };
    let mut engines = [open(false)?, open(true)?];
    let (mut tokens, mut times, mut differing) = ([0; 2], [Duration::ZERO; 2], 0);
    let codes = codes();
    for code in &codes {
        let prompt = Prompt {
            tokens: engines[0].tokenizer().encode(code),
            healing_bytes: Vec::new(),
            ..Prompt::default()
        };
        let mut texts: Vec<String> = Vec::new();
        for (i, engine) in engines.iter_mut().enumerate() {
            let mut go = |max_tokens| {
                engine.generate(
                    &prompt,
                    &GenerationLimits { max_tokens, ..GenerationLimits::default() },
                    &mut |_| ControlFlow::Continue(()),
                )
            };
            // Only the last prompt token is decoded within the measured time.
            go(0)?;
            let start = Instant::now();
            let generation = go(DECODE)?;
            times[i] += start.elapsed();
            tokens[i] += generation.tokens.len();
            texts.push(generation.text);
        }
        differing += usize::from(texts[0] != texts[1]);
    }
    let [plain, faster] = [0, 1].map(|i| tokens[i] as f64 / times[i].as_secs_f64());
    let done = engines[1].speculation_stats();
    println!(
        "{:12} {} pieces of real code: {plain:.1} tokens/s one by one, {faster:.1} with speculation ({:.2} x); \
         {:.2} tokens a step, {} of {} drafted were right; {differing} outputs differ",
        kernel.name(),
        codes.len(),
        faster / plain,
        done.tokens as f64 / done.steps.max(1) as f64,
        done.accepted,
        done.drafted,
    );
    Ok(())
}

/// The text before the cursor: of the tasks, or at lines of [`SOURCES`].
fn codes() -> Vec<String> {
    let tasks = std::env::var("TAPER_BENCH_TASKS").ok().and_then(|path| std::fs::read_to_string(path).ok());
    let prefixes: Vec<String> = if let Some(tasks) = tasks {
        let tasks: Vec<serde_json::Value> =
            tasks.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let prefix = |task: &serde_json::Value| task["prefix"].as_str().map(str::to_owned);
        tasks.iter().step_by(tasks.len().div_ceil(TASKS).max(1)).filter_map(prefix).collect()
    } else {
        let cut = |source: &str, at: usize| {
            let lines: Vec<&str> = source.split_inclusive('\n').collect();
            lines[..lines.len() * at / 6].concat()
        };
        SOURCES.iter().flat_map(|source| (1..6).map(move |at| cut(source, at))).collect()
    };
    let end = |code: &String| {
        let mut from = code.len().saturating_sub(CODE);
        while !code.is_char_boundary(from) {
            from += 1;
        }
        code[from..].to_owned()
    };
    prefixes.iter().map(end).collect()
}
