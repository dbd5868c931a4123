//! The real model for tests, here and in the packages above: found, or fetched like a user's.
//! It knows nothing of what is tested.

use std::path::PathBuf;

use crate::catalog;
use crate::fetch::{self, ModelStore, PullOptions};

/// The file of the smallest default model: the one that `TAPER_TEST_MODEL` names, else the store's, fetched if it
/// is not there. `None`, said loudly, if it cannot be had; in CI that is a failure.
///
/// # Panics
/// In CI (the variable `CI` is set), if the model cannot be had.
#[must_use]
#[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
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
            eprintln!("PASSED OVER, for want of the real model: {problem}");
            None
        }
    }
}
