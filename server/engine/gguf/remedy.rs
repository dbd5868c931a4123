//! What a user can do about a faulty model file.

use std::path::Path;

use crate::fetch;

/// The remedy that an error about a model file names.
#[derive(Debug, Clone, Copy)]
pub enum Remedy<'a> {
    /// The file is damaged or incomplete. taper fetches it again if it is taper's own download; any other file is the
    /// user's.
    GetAgain,
    /// A phrase.
    Other(&'a str),
}

impl<'a> From<&'a str> for Remedy<'a> {
    fn from(phrase: &'a str) -> Self {
        Self::Other(phrase)
    }
}

impl Remedy<'_> {
    /// The remedy for the file at `path`, as a phrase.
    pub(super) fn describe(self, path: &Path) -> String {
        let phrase = match self {
            Self::Other(phrase) => phrase,
            Self::GetAgain => match fetch::downloaded_model(path) {
                Some(model) => {
                    return format!(
                        "the file is damaged or incomplete: `taper pull --force {}` fetches it again",
                        model.name
                    );
                }
                None => "the file is damaged or incomplete: get it again from where you have it",
            },
        };
        phrase.to_owned()
    }
}
