//! The files of a workspace that are worth cutting: code that a person wrote and that git does not ignore.
//! It knows nothing of what is looked for in them, or of threads.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ignore::WalkBuilder;
use taper_grammars::{Blocks, Language};

use super::index::Index;
use super::pieces::File;

/// How much of a workspace is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries of folders that are looked at.
    pub entries: usize,
    /// Files that are taken.
    pub files: usize,
    /// Bytes of a file.
    pub file_bytes: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Limits {
    /// What a laptop cuts in seconds and keeps in some tens of megabytes.
    pub const USUAL: Self = Self { entries: 50_000, files: 4000, file_bytes: 256 << 10, bytes: 8 << 20 };
}

/// Folders that hold other people's code, or a program's output, also where git is not told to ignore them.
const NOT_OURS: &[&str] = &[
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

/// A file that is worth cutting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path, relative to the root, with `/`.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it was changed last, if the system says.
    pub modified: Option<SystemTime>,
}

/// The files below `root`, those first that lie near to `near`: paths like [`Found::path`].
///
/// Empty where `root` is no place that one works in as a whole: the file system's root or a person's home.
pub fn files(root: &Path, near: &[String], limits: Limits, stop: &mut dyn FnMut() -> bool) -> Vec<Found> {
    if is_too_much(root) {
        return Vec::new();
    }
    let mut walk = WalkBuilder::new(root);
    walk.max_filesize(Some(limits.file_bytes)).same_file_system(true).require_git(false).max_depth(Some(24));
    walk.filter_entry(|entry| {
        let is_folder = entry.file_type().is_some_and(|it| it.is_dir());
        entry.depth() == 0
            || !is_folder
            || entry.file_name().to_str().is_none_or(|it| !NOT_OURS.contains(&it))
    });
    let mut found = Vec::new();
    // A folder that cannot be read is passed over.
    for entry in walk.build().take(limits.entries).filter_map(Result::ok) {
        if stop() {
            break;
        }
        if !entry.file_type().is_some_and(|it| it.is_file()) || language(entry.path()).is_none() {
            continue;
        }
        let Ok(about) = entry.metadata() else { continue };
        if let Some(path) = entry.path().strip_prefix(root).ok().and_then(shown) {
            found.push(Found { path, bytes: about.len(), modified: about.modified().ok() });
        }
    }
    let nearness =
        |it: &Found| near.iter().map(|near| shared_folders(near, &it.path)).max().unwrap_or_default();
    found.sort_by_cached_key(|it| (Reverse(nearness(it)), it.path.matches('/').count(), it.path.clone()));
    let mut bytes = 0;
    found.retain(|it| {
        bytes += it.bytes;
        bytes <= limits.bytes
    });
    found.truncate(limits.files);
    found
}

/// Reads a file below `root` and cuts it; `None` where it cannot be read, is not UTF-8, or is of no use to others.
pub fn cut(root: &Path, found: &Found, time_is_up: &mut dyn FnMut() -> bool) -> Option<File> {
    let path = root.join(&found.path);
    let language = language(&path)?;
    let text = fs::read_to_string(path).ok()?;
    File::new(&found.path, language, &text, time_is_up)
}

/// The index of all files below `root`, made here and now, as far as it gets until `stop` says so.
pub fn index(root: &Path, near: &[String], limits: Limits, stop: &mut dyn FnMut() -> bool) -> Index {
    let mut cut_files = Vec::new();
    for found in files(root, near, limits, stop) {
        if stop() {
            break;
        }
        cut_files.extend(cut(root, &found, stop).map(Arc::new));
    }
    Index::new(cut_files)
}

/// The language of a file whose code may help elsewhere.
pub fn language(path: &Path) -> Option<&'static Language> {
    let minified = path.file_name()?.to_str()?.contains(".min.");
    taper_grammars::by_path(path).filter(|it| it.blocks != Blocks::None && !minified)
}

/// A path as it is shown, with `/`; `None` where it is not text.
pub fn shown(path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.components().map(|part| part.as_os_str().to_str()).collect();
    Some(parts?.join("/"))
}

fn is_too_much(root: &Path) -> bool {
    root.parent().is_none() || etcetera::home_dir().is_ok_and(|home| home == root)
}

/// Folders that two paths begin with.
fn shared_folders(a: &str, b: &str) -> usize {
    let folders = |path: &str| path.matches('/').count();
    let shared = a.split('/').zip(b.split('/')).take_while(|(a, b)| a == b).count();
    shared.min(folders(a)).min(folders(b))
}

/// The workspace that a file belongs to where nobody says: the nearest folder above it that is a repository.
pub fn root_of(file: &Path) -> Option<PathBuf> {
    file.ancestors()
        .skip(1)
        .find(|it| [".git", ".hg", ".jj"].iter().any(|mark| it.join(mark).exists()))
        .map(Path::to_owned)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn paths(folder: &Path, near: &[&str], limits: Limits) -> Vec<String> {
        let near: Vec<String> = near.iter().map(|&it| it.to_owned()).collect();
        files(folder, &near, limits, &mut || false).into_iter().map(|it| it.path).collect()
    }

    #[test]
    fn what_git_ignores_and_what_nobody_wrote_is_left_out() {
        let folder = workspace(&[
            ("src/a.py", "x"),
            ("src/b.rs", "x"),
            ("top.ts", "x"),
            ("notes.md", "x"),
            ("data.bin", "x"),
            ("generated/c.py", "x"),
            (".gitignore", "generated/\n*.tmp.py\n"),
            ("src/d.tmp.py", "x"),
            (".hidden/e.py", "x"),
            ("node_modules/f/f.js", "x"),
            ("g.min.js", "x"),
            ("h.py", &"y = 1\n".repeat(100)),
        ]);
        let limits = Limits { file_bytes: 100, ..Limits::USUAL };
        assert_eq!(paths(folder.path(), &[], limits), ["top.ts", "src/a.py", "src/b.rs"]);
    }

    #[test]
    fn of_too_much_the_nearest_is_taken() {
        let folder = workspace(&[("a/x/1.py", "xx"), ("a/y/2.py", "xx"), ("b/3.py", "xx"), ("4.py", "xx")]);
        let limits = Limits { files: 2, ..Limits::USUAL };
        assert_eq!(paths(folder.path(), &["a/y/open.py"], limits), ["a/y/2.py", "a/x/1.py"]);
        let limits = Limits { bytes: 5, ..Limits::USUAL };
        assert_eq!(paths(folder.path(), &["b/open.py"], limits), ["b/3.py", "4.py"]);
        assert_eq!(files(folder.path(), &[], Limits::USUAL, &mut || true), []);
        assert_eq!(files(Path::new("/"), &[], Limits::USUAL, &mut || false), []);
        assert_eq!(files(&folder.path().join("none"), &[], Limits::USUAL, &mut || false), []);
    }

    #[test]
    fn a_file_belongs_to_the_repository_around_it() {
        let folder = workspace(&[("a/.git/HEAD", "x"), ("a/b/c.py", "x")]);
        assert_eq!(root_of(&folder.path().join("a/b/c.py")), Some(folder.path().join("a")));
        assert_eq!(shared_folders("a/b/c.py", "a/b/c/d.py"), 2);
        assert_eq!(shared_folders("a.py", "a.py"), 0);
    }
}
