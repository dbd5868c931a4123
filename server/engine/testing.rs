//! The real model for tests, here and in the packages above: found locally, or fetched as for a user.

use std::path::PathBuf;

use crate::catalog;
use crate::fetch::{self, ModelStore, PullOptions};

/// The file of the smallest default model: the path in `TAPER_TEST_MODEL`, else the store's file, fetched if it is
/// missing. `None`, with a message on stderr, if it is not available; in CI that is a failure.
///
/// # Panics
/// In CI (the variable `CI` is set), if the model is not available.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
#[expect(clippy::panic, reason = "only tests call this")]
pub fn real_model() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TAPER_TEST_MODEL") {
        return Some(path.into());
    }
    let model = catalog::find_model(catalog::FALLBACK_MODEL)?;
    let found = ModelStore::open()
        .and_then(|store| fetch::ensure_downloaded(&store, model, &PullOptions::default(), &mut |_| {}));
    match found {
        Ok(path) => Some(path),
        Err(problem) if std::env::var_os("CI").is_some() => panic!("no real model to test with: {problem}"),
        Err(problem) => {
            eprintln!("SKIPPED, because the real model is not available: {problem}");
            None
        }
    }
}
