//! Prefill and decode rates of the CPU decoder, by kernel: `cargo bench -p taper-engine --bench engine -- MODEL.gguf [KERNEL …]`.
//! It knows nothing of text: the tokens are arbitrary, which costs the same as any others.
//!
//! The model may also be named by `TAPER_TEST_MODEL`, threads by `TAPER_THREADS`. Without a model it says so and
//! measures nothing.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is for people at a terminal")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use taper_engine::EngineError;
use taper_engine::gguf::Gguf;
use taper_engine::local::cpu::CpuDecoder;
use taper_engine::local::kernels::Kernel;
use taper_engine::local::pool::Pool;
use taper_engine::local::{Config, Decoder};

const PREFILL: usize = 512;
const DECODE: usize = 64;

fn main() -> Result<(), EngineError> {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let model = arguments.next().or_else(|| std::env::var("TAPER_TEST_MODEL").ok());
    let Some(model) = model.map(PathBuf::from) else {
        eprintln!("no model: name a GGUF file as argument or in TAPER_TEST_MODEL; nothing was measured");
        return Ok(());
    };
    let asked: Vec<String> = arguments.collect();
    let kernels: Vec<Kernel> = if asked.is_empty() {
        // The portable kernel is a reference; it is measured only on demand.
        Kernel::ALL
            .into_iter()
            .filter(|&kernel| kernel != Kernel::Portable && kernel.is_available())
            .collect()
    } else {
        asked
            .iter()
            .map(|name| Kernel::choose(Some(name)).map(|chosen| chosen.0))
            .collect::<Result<_, _>>()?
    };
    let threads = std::env::var("TAPER_THREADS").ok().and_then(|threads| threads.parse().ok());
    let threads = threads.unwrap_or_else(Pool::default_threads);
    println!("{}, {threads} threads", model.display());
    for kernel in kernels {
        measure(&model, kernel, threads)?;
    }
    Ok(())
}

fn measure(model: &Path, kernel: Kernel, threads: usize) -> Result<(), EngineError> {
    let start = Instant::now();
    let gguf = Gguf::open(model)?;
    let config = Config::from_gguf(&gguf)?;
    let mut decoder = CpuDecoder::new(&gguf, &config, 4096, kernel, threads)?;
    drop(gguf);
    let load = start.elapsed();
    let vocabulary = config.vocabulary as u32;
    let tokens: Vec<u32> = (0..PREFILL as u32).map(|i| (i * 7919 + 13) % vocabulary).collect();
    decoder.forward(&tokens[..32], 1)?;
    let mut prefill = f64::MAX;
    for _ in 0..3 {
        decoder.truncate(0);
        let start = Instant::now();
        decoder.forward(&tokens, 1)?;
        prefill = prefill.min(start.elapsed().as_secs_f64());
    }
    let mut decode = f64::MAX;
    // For a profile of prefill alone.
    let only_prefill = std::env::var_os("TAPER_BENCH_PREFILL").is_some();
    for _ in 0..if only_prefill { 0 } else { 3 } {
        decoder.truncate(PREFILL);
        let start = Instant::now();
        for &token in &tokens[..DECODE] {
            decoder.forward(&[token], 1)?;
        }
        decode = decode.min(start.elapsed().as_secs_f64());
    }
    let mut batches = String::new();
    for rows in if only_prefill { &[][..] } else { &[2, 4, 8] } {
        decoder.truncate(PREFILL);
        let start = Instant::now();
        for tokens in tokens[..32].chunks(*rows) {
            decoder.forward(tokens, *rows)?;
        }
        let milliseconds = start.elapsed().as_secs_f64() * 1e3 / (32 / *rows) as f64;
        batches += &format!(", {rows} rows {milliseconds:.1} ms");
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
    Ok(())
}
