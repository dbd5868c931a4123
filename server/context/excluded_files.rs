//! Files that nothing is read of for other files, and in which nothing is suggested unasked: keys, certificates, files of
//! secrets, and what a person or a project adds to them.
//! It knows nothing of who asks. It reads `.taperignore`, and nothing else.
//!
//! The list is in `excluded_files.txt`. The option `excluded-files` and the `.taperignore` files of a project, in the syntax of
//! `.gitignore`, only add to it: each is matched on its own, so that a `!` lifts what the same file says, and nothing else.
//! A `.taperignore` that cannot be read, because it is no plain file or too long, excludes its whole folder.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The name of a project's own lists.
pub const PROJECT_FILE: &str = ".taperignore";

/// Bytes of a project's list, and of all of them, at most.
const PROJECT_FILE_BYTES: u64 = 64 << 10;
const PROJECT_BYTES: u64 = 512 << 10;

/// The list that always holds: patterns of files, which are matched with the file's own path only, and of folders.
static BUILT_IN: LazyLock<Option<(Gitignore, Gitignore)>> = LazyLock::new(|| {
    let is_folder = |line: &&str| line.ends_with('/');
    let lines = || include_str!("excluded_files.txt").lines().filter(|line| !line.starts_with('#'));
    Some((matcher(lines().filter(|it| !is_folder(it))).ok()?, matcher(lines().filter(is_folder)).ok()?))
});

/// Who says that a file is excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// The list that always holds.
    BuiltIn,
    /// The option `excluded-files`.
    Option,
    /// A `.taperignore`.
    Project,
}

impl Excluded {
    /// Why nothing is suggested, for a person.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BuiltIn => "files with this name may hold secrets: nothing is suggested unasked",
            Self::Option => "the option `excluded-files` has it: nothing is suggested unasked",
            Self::Project => "the project's `.taperignore` has it: nothing is suggested unasked",
        }
    }
}

/// The lists that hold everywhere: the built-in one, and the option's.
#[derive(Debug, Clone, Default)]
pub struct ExcludedFiles {
    option: Option<Arc<Gitignore>>,
}

impl ExcludedFiles {
    /// With what a person adds.
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let option = matcher(patterns.iter().map(String::as_str))?;
        Ok(Self { option: Some(Arc::new(option)) })
    }

    /// Whether a file is excluded by its path: the whole one, or any end of it.
    pub fn excludes(&self, path: &Path) -> Option<Excluded> {
        let path = relative(path);
        let built_in = match BUILT_IN.as_ref() {
            Some((files, folders)) => {
                files.matched(&path, false).is_ignore()
                    || folders.matched_path_or_any_parents(&path, false).is_ignore()
            }
            // Without a list nothing may pass; a test sees to it that there is one.
            None => true,
        };
        if built_in {
            return Some(Excluded::BuiltIn);
        }
        let option = self.option.as_ref();
        option.filter(|it| it.matched_path_or_any_parents(&path, false).is_ignore()).map(|_| Excluded::Option)
    }

    /// Whether a file on this disk is excluded: by its own path, or by the one that it is a link to. `root` is the folder of
    /// its project.
    pub fn excludes_on_disk(&self, root: Option<&Path>, path: &Path) -> Option<Excluded> {
        let inside = |root: &Path, path: &Path| path.strip_prefix(root).ok().map(Path::to_owned);
        let target = resolved(path);
        let root = root.map(Path::to_owned).or_else(|| path.parent().map(Path::to_owned));
        let real_root = root.as_deref().map(resolved);
        let mut places = vec![(root.as_deref(), path)];
        if target != path {
            places.push((real_root.as_deref(), &target));
        }
        places.into_iter().find_map(|(root, path)| {
            let within = root.and_then(|root| inside(root, path));
            let named = self.excludes(path).or_else(|| self.excludes(within.as_deref()?));
            named.or_else(|| ProjectLists::new(root?).excludes(&within?))
        })
    }
}

/// The `.taperignore` files of a project, each read when a file below it is asked about.
#[derive(Debug)]
pub struct ProjectLists {
    root: PathBuf,
    /// By folder, relative to the root.
    read: HashMap<PathBuf, List>,
    bytes: u64,
}

#[derive(Debug)]
enum List {
    None,
    Patterns(Box<Gitignore>),
    /// Everything below it is excluded.
    Unreadable,
}

impl ProjectLists {
    /// Those below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), read: HashMap::new(), bytes: 0 }
    }

    /// Whether one of them has a file; the path is relative to the root.
    pub fn excludes(&mut self, inside: &Path) -> Option<Excluded> {
        let parts: Vec<Component<'_>> = inside.components().collect();
        for depth in 0..parts.len() {
            let folder: PathBuf = parts[..depth].iter().collect();
            let below: PathBuf = parts[depth..].iter().collect();
            let excluded = match self.list(folder) {
                List::None => false,
                List::Patterns(patterns) => patterns.matched_path_or_any_parents(relative(&below), false).is_ignore(),
                List::Unreadable => true,
            };
            if excluded {
                return Some(Excluded::Project);
            }
        }
        None
    }

    fn list(&mut self, folder: PathBuf) -> &List {
        let Self { root, read, bytes } = self;
        read.entry(folder).or_insert_with_key(|folder| {
            let path = root.join(folder).join(PROJECT_FILE);
            let Ok(about) = fs::symlink_metadata(&path) else { return List::None };
            let fits = about.is_file() && about.len() <= PROJECT_FILE_BYTES && *bytes + about.len() <= PROJECT_BYTES;
            if !fits {
                return List::Unreadable;
            }
            *bytes += about.len();
            let text = read_plain(&path).map(|it| String::from_utf8_lossy(&it).into_owned());
            // A line that is no pattern is passed over, as git does.
            text.map_or(List::Unreadable, |text| List::Patterns(Box::new(lenient(text.lines()))))
        })
    }
}

/// A file that was plain a moment ago, up to the limit: nothing that it may have become since is waited for.
fn read_plain(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
    }
    let file = options.open(path).ok()?;
    let about = file.metadata().ok()?;
    let mut bytes = Vec::new();
    file.take(PROJECT_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    about.is_file().then_some(bytes)
}

/// A matcher of patterns without regard to case.
fn matcher<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new("");
    builder.case_insensitive(true).map_err(|problem| problem.to_string())?;
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|problem| format!("`{pattern}` is no pattern: {problem}"))?;
    }
    builder.build().map_err(|problem| problem.to_string())
}

/// The same, of those lines that are patterns.
fn lenient<'a>(patterns: impl Iterator<Item = &'a str>) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    // An error means that case counts.
    let _ = builder.case_insensitive(true);
    for pattern in patterns {
        let _ = builder.add_line(None, pattern.trim_start_matches('\u{feff}'));
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// The path without what it begins at, and without `.` and `..`: matchers know of no root.
fn relative(path: &Path) -> PathBuf {
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

/// Where a path leads to, also if the file itself is not there yet.
fn resolved(path: &Path) -> PathBuf {
    let parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(parent).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests;
