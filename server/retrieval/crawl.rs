//! Finds the files of a workspace that are worth indexing: code that a person wrote and that git does not ignore.

mod rules;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use taper_grammars::{BlockStyle, Language};

use super::chunks::ChunkedFile;
use super::excluded_files::ExcludedFiles;
use super::index::Index;
use crate::text::plain_file::{self, Links};
use rules::{IgnoreRules, IgnoreVerdict, RuleReader};

/// Limits of a crawl.
#[derive(Debug, Clone, Copy)]
pub struct CrawlLimits {
    /// Maximum number of folder entries.
    pub entries: usize,
    /// Maximum entries of one folder, so that a huge one leaves some for the others.
    pub folder_entries: usize,
    /// Maximum depth of nested folders.
    pub depth: usize,
    /// Maximum number of files.
    pub files: usize,
    /// Maximum bytes of a file.
    pub file_bytes: u64,
    /// Maximum bytes of all files together.
    pub bytes: u64,
}

impl CrawlLimits {
    /// What a laptop can chunk in seconds and keep in some tens of megabytes.
    pub const DEFAULT: Self = Self {
        entries: 50_000,
        folder_entries: 10_000,
        depth: 24,
        files: 4000,
        file_bytes: 256 << 10,
        bytes: 8 << 20,
    };
}

/// Folders of third-party or generated code, skipped even if git does not ignore them.
const GENERATED_FOLDERS: &[&str] = &[
    "node_modules",
    "target",
    "dist",
    "build",
    "out",
    "vendor",
    "third_party",
    "site-packages",
    "__pycache__",
];

/// Folders of version control: skipped whatever the rules are.
const VERSION_CONTROL_FOLDERS: &[&str] = &[".git", ".hg", ".jj", ".svn"];

/// A file that is worth indexing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrawledFile {
    /// Its path, relative to the root, with `/`.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// Time of the last change, if known: nanoseconds since 1970, which may be negative. Only for comparisons.
    pub modified: Option<i64>,
}

/// The files below `root`, those near `near` first: paths like [`CrawledFile::path`].
///
/// Empty if `root` is the file system's root or a home folder, which are not projects. Folders are visited level by
/// level, so that the top of an endless tree is covered. Symbolic links and other file systems are not entered.
pub fn find_files(
    root: &Path,
    near: &[String],
    limits: CrawlLimits,
    stop: &mut dyn FnMut() -> bool,
) -> Vec<CrawledFile> {
    let Ok(root) = fs::canonicalize(root) else { return Vec::new() };
    if is_root_or_home(&root) {
        return Vec::new();
    }
    let mut found = walk_folders(&root, limits, stop);
    let nearness = |it: &CrawledFile| {
        near.iter().map(|near| shared_folder_count(near, &it.path)).max().unwrap_or_default()
    };
    found.sort_by_cached_key(|it| (Reverse(nearness(it)), it.path.matches('/').count(), it.path.clone()));
    let mut bytes = 0;
    found.retain(|it| {
        bytes += it.bytes;
        bytes <= limits.bytes
    });
    found.truncate(limits.files);
    found
}

/// A folder to visit.
struct PendingFolder {
    path: PathBuf,
    depth: usize,
    /// The rules of its parent folder.
    rules: Arc<IgnoreRules>,
}

fn walk_folders(root: &Path, limits: CrawlLimits, stop: &mut dyn FnMut() -> bool) -> Vec<CrawledFile> {
    let mut found = Vec::new();
    let mut reader = RuleReader::new();
    let Ok(rules) = IgnoreRules::above_root(root, &mut reader) else { return found };
    let Some(system) = fs::metadata(root).ok().map(|about| file_system(&about)) else { return found };
    let mut waiting = VecDeque::from([PendingFolder { path: root.to_owned(), depth: 0, rules }]);
    let mut left = limits.entries;
    while let Some(PendingFolder { path: folder, depth, rules }) = waiting.pop_front() {
        if stop() {
            break;
        }
        // It may have been replaced since its parent was read.
        let about = fs::symlink_metadata(&folder).ok();
        if !about.is_some_and(|about| about.is_dir() && file_system(&about) == system) {
            continue;
        }
        let Ok(rules) = rules.for_subfolder(&folder, &mut reader) else { continue };
        // An unreadable folder is skipped.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.take(limits.folder_entries).map_while(Result::ok) {
            if left == 0 || stop() {
                return found;
            }
            left -= 1;
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            let Some(inside) = path.strip_prefix(root).ok().and_then(display_path) else { continue };
            if !(kind.is_dir() || kind.is_file() && indexable_language(&path).is_some())
                || is_skipped(&inside, kind.is_dir())
            {
                continue;
            }
            match rules.match_path(&path, kind.is_dir()) {
                IgnoreVerdict::Ignored => continue,
                IgnoreVerdict::Unmatched if entry.file_name().as_encoded_bytes().starts_with(b".") => {
                    continue;
                }
                IgnoreVerdict::Unmatched | IgnoreVerdict::Whitelisted => {}
            }
            if kind.is_dir() {
                if depth + 1 < limits.depth {
                    waiting.push_back(PendingFolder { path, depth: depth + 1, rules: Arc::clone(&rules) });
                }
                continue;
            }
            let Ok(about) = entry.metadata() else { continue };
            if about.len() <= limits.file_bytes {
                found.push(CrawledFile {
                    path: inside,
                    bytes: about.len(),
                    modified: modified_nanos(&about),
                });
            }
        }
    }
    found
}

/// Whether a path, relative to the root, is skipped whatever the project's rules are.
fn is_skipped(inside: &str, is_folder: bool) -> bool {
    let name = inside.rsplit('/').next().unwrap_or(inside);
    if is_folder {
        return GENERATED_FOLDERS.contains(&name) || VERSION_CONTROL_FOLDERS.contains(&name);
    }
    ExcludedFiles::default().exclusion_reason(Path::new(inside)).is_some()
}

/// Whether a project's own list, `.taperignore`, excludes a file on this disk.
pub(super) fn is_excluded_by_project(root: Option<&Path>, file: &Path) -> bool {
    rules::is_taperignored(root, file)
}

#[cfg(unix)]
fn file_system(about: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(about)
}

/// On other systems another file system is entered through something that counts as a symbolic link.
#[cfg(not(unix))]
fn file_system(_about: &fs::Metadata) -> u64 {
    0
}

fn modified_nanos(about: &fs::Metadata) -> Option<i64> {
    let modified = about.modified().ok()?;
    let nanoseconds = |it: std::time::Duration| i64::try_from(it.as_nanos()).unwrap_or(i64::MAX);
    Some(match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => nanoseconds(after),
        Err(before) => -nanoseconds(before.duration()),
    })
}

/// Reads a file below `root` and cuts it into chunks. `None` if it is no longer the plain file of moderate size that
/// was found, is not UTF-8, or is of no use to other files.
pub fn chunk_file(
    root: &Path,
    found: &CrawledFile,
    time_is_up: &mut dyn FnMut() -> bool,
) -> Option<ChunkedFile> {
    let (language, text) = read_source(root, found)?;
    ChunkedFile::new(&found.path, language, &text, time_is_up)
}

/// As [`chunk_file`], but without a parser: for processes in which its C code must not run.
pub fn chunk_without_outlines(root: &Path, found: &CrawledFile) -> Option<ChunkedFile> {
    let (language, text) = read_source(root, found)?;
    ChunkedFile::without_outlines(&found.path, language, &text)
}

fn read_source(root: &Path, found: &CrawledFile) -> Option<(&'static Language, String)> {
    let path = root.join(&found.path);
    let text = plain_file::read_text(&path, CrawlLimits::DEFAULT.file_bytes, Links::Refused).ok()?;
    Some((indexable_language(&path)?, text))
}

/// Builds the index of all files below `root` in this process, until done or `stop` returns true.
pub fn build_index(
    root: &Path,
    near: &[String],
    limits: CrawlLimits,
    stop: &mut dyn FnMut() -> bool,
) -> Index {
    let mut cut_files = Vec::new();
    for found in find_files(root, near, limits, stop) {
        if stop() {
            break;
        }
        cut_files.extend(chunk_file(root, &found, stop).map(Arc::new));
    }
    Index::new(cut_files)
}

/// The language of a file, if its code may help in other files.
pub fn indexable_language(path: &Path) -> Option<&'static Language> {
    let minified = path.file_name()?.to_str()?.contains(".min.");
    taper_grammars::by_path(path).filter(|it| it.blocks != BlockStyle::None && !minified)
}

/// A path for display, with `/`; `None` if it is not text or contains control characters such as line breaks.
pub fn display_path(path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.components().map(|part| part.as_os_str().to_str()).collect();
    Some(parts?.join("/")).filter(|shown| !shown.contains(char::is_control))
}

fn is_root_or_home(root: &Path) -> bool {
    let is_root = |home: PathBuf| home == root || fs::canonicalize(home).is_ok_and(|home| home == root);
    root.parent().is_none() || etcetera::home_dir().is_ok_and(is_root)
}

/// Number of folders that two paths have in common at their start.
fn shared_folder_count(a: &str, b: &str) -> usize {
    let folders = |path: &str| path.matches('/').count();
    let shared = a.split('/').zip(b.split('/')).take_while(|(a, b)| a == b).count();
    shared.min(folders(a)).min(folders(b))
}

/// The workspace of a file if the client names none: the nearest repository above it.
pub fn repository_root(file: &Path) -> Option<PathBuf> {
    file.ancestors()
        .skip(1)
        .find(|it| [".git", ".hg", ".jj"].iter().any(|mark| it.join(mark).exists()))
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests;
