//! Excluded files: their content is never retrieved for other files, and automatic requests in them get no suggestions.
//! These are keys, certificates, files of secrets, and what the user or the project adds.
//!
//! The list is in `excluded_files.txt`. The option `excluded-files` and the `.taperignore` files of a project, in the
//! syntax of `.gitignore`, only add to it. Each list is matched on its own, so a `!` only lifts patterns of its own
//! list. A `.taperignore` that cannot be read, because it is not a plain file or too long, excludes its whole folder.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::crawl;

/// The file name of a project's own lists.
pub const PROJECT_IGNORE_FILE: &str = ".taperignore";

/// The built-in list: patterns of files, which are matched with the file's own path only, and of folders.
static BUILT_IN_PATTERNS: LazyLock<Option<(Gitignore, Gitignore)>> = LazyLock::new(|| {
    let is_folder = |line: &&str| line.ends_with('/');
    let lines = || include_str!("excluded_files.txt").lines().filter(|line| !line.starts_with('#'));
    Some((
        build_matcher(lines().filter(|it| !is_folder(it))).ok()?,
        build_matcher(lines().filter(is_folder)).ok()?,
    ))
});

/// Which list excludes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExclusionReason {
    /// The built-in list.
    BuiltIn,
    /// The option `excluded-files`.
    Option,
    /// A `.taperignore`.
    Project,
}

impl ExclusionReason {
    /// A message for the user on why nothing is suggested.
    pub fn user_message(self) -> &'static str {
        match self {
            Self::BuiltIn => "files with this name may hold secrets: suggestions only on request",
            Self::Option => "the option `excluded-files` excludes this file: suggestions only on request",
            Self::Project => "the project's `.taperignore` excludes this file: suggestions only on request",
        }
    }
}

/// The lists that apply everywhere: the built-in one, and the option's.
#[derive(Debug, Clone, Default)]
pub struct ExcludedFiles {
    patterns: Vec<String>,
    option: Option<Arc<Gitignore>>,
}

impl PartialEq for ExcludedFiles {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for ExcludedFiles {}

impl ExcludedFiles {
    /// The built-in list and the user's patterns.
    ///
    /// # Errors
    /// The first invalid pattern.
    pub fn new(patterns: Vec<String>) -> Result<Self, String> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let option = build_matcher(patterns.iter().map(String::as_str))?;
        Ok(Self { patterns, option: Some(Arc::new(option)) })
    }

    /// Whether a file is excluded by its path: the whole one, or any end of it.
    pub fn exclusion_reason(&self, path: &Path) -> Option<ExclusionReason> {
        let path = relative_path(path);
        let built_in = match BUILT_IN_PATTERNS.as_ref() {
            Some((files, folders)) => {
                files.matched(&path, false).is_ignore()
                    || folders.matched_path_or_any_parents(&path, false).is_ignore()
            }
            // Without a list every file is excluded; a test checks that there is one.
            None => true,
        };
        if built_in {
            return Some(ExclusionReason::BuiltIn);
        }
        let option = self.option.as_ref();
        option
            .filter(|it| it.matched_path_or_any_parents(&path, false).is_ignore())
            .map(|_| ExclusionReason::Option)
    }

    /// Whether a file on this disk is excluded: by its own path, or by the target of a link. `root` is the folder of
    /// its project.
    pub fn exclusion_reason_on_disk(&self, root: Option<&Path>, path: &Path) -> Option<ExclusionReason> {
        let target = resolve_links(path);
        let real_root = root.map(resolve_links);
        let mut places = vec![(root, path)];
        if target != path {
            places.push((real_root.as_deref(), &target));
        }
        places.into_iter().find_map(|(root, path)| {
            let inside = root.and_then(|root| path.strip_prefix(root).ok());
            let listed = self.exclusion_reason(path).or_else(|| self.exclusion_reason(inside?));
            listed.or_else(|| {
                let root = root.filter(|_| inside.is_some());
                crawl::is_excluded_by_project(root, path).then_some(ExclusionReason::Project)
            })
        })
    }
}

/// A case-insensitive matcher of patterns.
fn build_matcher<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new("");
    builder.case_insensitive(true).map_err(|problem| problem.to_string())?;
    for pattern in patterns {
        builder
            .add_line(None, pattern)
            .map_err(|problem| format!("invalid pattern `{pattern}`: {problem}"))?;
    }
    builder.build().map_err(|problem| problem.to_string())
}

/// The path without its root, `.` and `..`: matchers take relative paths.
fn relative_path(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => drop(out.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    out
}

/// The path with links resolved, also if the file itself does not exist yet.
fn resolve_links(path: &Path) -> PathBuf {
    let parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(parent).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests;
