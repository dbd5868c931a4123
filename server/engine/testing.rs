//! For tests, here and in the packages above: the real model, found locally or fetched as for a user, and notices of
//! what a test does not check.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Once;

use crate::catalog;
use crate::fetch::{self, ByteSize, ModelStore, PullOptions, PullPhase};

/// Prints a line about the running test. The harness shows captured output only of tests that fail; this passes it by.
pub fn print_notice(text: &str) {
    let thread = std::thread::current();
    // A closed stderr fails no test.
    let _ = writeln!(std::io::stderr(), "{}: {text}", thread.name().unwrap_or("a test"));
}

/// Prints that the running test checks nothing, or less, and why.
pub fn print_skipped(reason: &str) {
    print_notice(&format!("SKIPPED: {reason}"));
}

/// The file of the smallest default model: the path in `TAPER_TEST_MODEL`, else the store's file, fetched if it is
/// missing. Reports on stderr that it is fetched, or skipped because it is not available; in CI the latter is a failure.
///
/// # Panics
/// In CI (the variable `CI` is set), if the model is not available.
#[must_use]
#[expect(clippy::panic, reason = "only tests call this")]
pub fn real_model() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TAPER_TEST_MODEL") {
        return Some(path.into());
    }
    let model = catalog::find_model(catalog::FALLBACK_MODEL)?;
    let found = ModelStore::open().and_then(|store| {
        fetch::ensure_downloaded(&store, model, &PullOptions::default(), &mut |progress| {
            static ANNOUNCED: Once = Once::new();
            if progress.phase != PullPhase::Verify {
                let (name, size, folder) = (model.name, ByteSize(model.bytes), store.folder().display());
                ANNOUNCED.call_once(|| {
                    print_notice(&format!(
                        "FETCHING the model {name} for the tests, once: {size} into {folder}; \
                         TAPER_TEST_MODEL=FILE.gguf names another"
                    ));
                });
            }
        })
    });
    match found {
        Ok(path) => Some(path),
        Err(problem) if std::env::var_os("CI").is_some() => panic!("no real model to test with: {problem}"),
        Err(problem) => {
            print_skipped(&format!("the real model is not available: {problem}"));
            None
        }
    }
}
