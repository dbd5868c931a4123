//! Fill-in-the-middle formats: a row per model family.
//! It knows nothing of files.

use taper_engine::{About, Tokens};

/// How one model is asked: chosen once, when the model is loaded.
#[derive(Debug, Clone)]
pub struct Profile {}

impl Profile {
    /// The profile for a loaded model: its template follows the tokens that the file really has, its form
    /// the measured row of the model.
    pub fn of(about: &About, tokens: &Tokens) -> Self {
        let _ = (about, tokens);
        Self {}
    }
}
