//! What git and other tools are told to ignore, folder by folder: `.gitignore`, `.ignore`, `.git/info/exclude` and git's
//! own list for this user; and `.taperignore`, which only adds to what is excluded: nothing lifts what one says. The matching is the `ignore` crate's; the files are read here, for a repository may hold
//! anything under these names.
//! It knows nothing of which files are of use.
//!
//! A folder whose rules cannot be known is not looked into: what is ignored there may be private.

use std::path::{Component, Path, PathBuf, Prefix};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::context::excluded_files::PROJECT_FILE;
use crate::text::plain_file::{self, Links};

/// Bytes of a file with rules: those of the largest projects have a tenth of it.
const FILE: u64 = 64 << 10;
/// Bytes of all files with rules that one walk reads.
const ALL: usize = 1 << 20;
/// Bytes of one pattern: paths are hardly longer.
const PATTERN: usize = 512;
/// Wildcards, sets and alternatives in one pattern: each makes the matching dearer.
const WILDCARDS: usize = 32;
/// Patterns that one walk has to compile, each to some ten kilobytes; names and endings are looked up.
const COMPILED: usize = 4000;
/// Bytes of the file that says where a repository's data lies.
const POINTER: u64 = 8 << 10;
/// Bytes of git's configuration for this user.
const CONFIGURATION: u64 = 1 << 20;

/// Why a folder is not looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unknown;

/// What is said of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is ignored.
    Ignored,
    /// It is expressly not.
    Kept,
    /// Nothing.
    Silent,
}

/// The rules of one folder, and those of the folders above it.
#[derive(Debug)]
pub(super) struct Rules {
    above: Option<Arc<Rules>>,
    /// `.ignore`.
    ignore: Gitignore,
    /// `.gitignore`.
    git: Gitignore,
    /// `info/exclude` of a repository.
    exclude: Gitignore,
    /// Git's list for this user, where nothing is above.
    user: Gitignore,
    /// `.taperignore`.
    taper: Gitignore,
    /// A repository begins here: what git is told above does not concern it.
    is_repository: bool,
}

/// Reads rules: no more of them than one walk may.
#[derive(Debug)]
pub(super) struct Reader {
    bytes: usize,
    compiled: usize,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { bytes: ALL, compiled: COMPILED }
    }

    /// The rules in a file whose patterns are relative to `folder`; none where there is no such file.
    pub(super) fn read(&mut self, path: &Path, folder: &Path) -> Result<Gitignore, Unknown> {
        self.read_with(path, folder, false)
    }

    /// The same of a `.taperignore`, which a name in other letters does not get round.
    fn read_taper(&mut self, folder: &Path) -> Result<Gitignore, Unknown> {
        self.read_with(&folder.join(PROJECT_FILE), folder, true)
    }

    fn read_with(&mut self, path: &Path, folder: &Path, any_case: bool) -> Result<Gitignore, Unknown> {
        let bytes = match plain_file::read(path, FILE, Links::Followed) {
            Ok(bytes) => bytes,
            Err(problem) if problem.is_not_found() => return Ok(Gitignore::empty()),
            Err(_) => return Err(Unknown),
        };
        self.bytes = self.bytes.checked_sub(bytes.len()).ok_or(Unknown)?;
        // What is not UTF-8 matches no path that is: only those are taken.
        let text = String::from_utf8_lossy(&bytes);
        let mut rules = GitignoreBuilder::new(folder);
        rules.case_insensitive(any_case).map_err(|_| Unknown)?;
        for line in text.trim_start_matches('\u{feff}').lines().filter(|line| !line.starts_with('#')) {
            let wildcards = line.bytes().filter(|byte| b"*?[{,".contains(byte)).count();
            if line.len() > PATTERN || wildcards > WILDCARDS {
                return Err(Unknown);
            }
            if is_compiled(line) {
                self.compiled = self.compiled.checked_sub(1).ok_or(Unknown)?;
            }
            // A pattern that is none is passed over, as git does.
            let _ = rules.add_line(None, line);
        }
        rules.build().map_err(|_| Unknown)
    }
}

/// Whether a pattern is more than a name, an ending, or everything inside a folder.
fn is_compiled(line: &str) -> bool {
    let line = line.trim_end();
    let line = line.strip_prefix("**/").unwrap_or(line);
    let line = line.strip_prefix('*').unwrap_or(line);
    let line = line.strip_suffix("/**").unwrap_or(line);
    line.contains(['*', '?', '[', '{'])
}

impl Rules {
    /// What holds in `root` before anything that it holds itself: the rules of the folders above, up to the repository's
    /// first, and the user's own.
    pub(super) fn around(root: &Path, reader: &mut Reader) -> Result<Arc<Self>, Unknown> {
        let user = match user_list() {
            Some(path) => reader.read(&path, root)?,
            None => Gitignore::empty(),
        };
        let nothing = Gitignore::empty;
        let outermost = Self {
            above: None,
            ignore: nothing(),
            git: nothing(),
            exclude: nothing(),
            user,
            taper: nothing(),
            is_repository: false,
        };
        let mut folders: Vec<&Path> = Vec::new();
        if !is_repository(root) {
            for folder in root.ancestors().skip(1) {
                folders.push(folder);
                if is_repository(folder) {
                    break;
                }
            }
        }
        folders.into_iter().rev().try_fold(Arc::new(outermost), |rules, folder| rules.inside(folder, reader))
    }

    /// What holds in a folder that lies directly in this one.
    pub(super) fn inside(self: &Arc<Self>, folder: &Path, reader: &mut Reader) -> Result<Arc<Self>, Unknown> {
        let ignore = reader.read(&folder.join(".ignore"), folder)?;
        let git = reader.read(&folder.join(".gitignore"), folder)?;
        let is_repository = is_repository(folder);
        let exclude = match is_repository {
            true => reader.read(&data_of(folder)?.join("info").join("exclude"), folder)?,
            false => Gitignore::empty(),
        };
        let taper = reader.read_taper(folder)?;
        if ignore.is_empty() && git.is_empty() && taper.is_empty() && !is_repository {
            return Ok(Arc::clone(self));
        }
        let (above, user) = (Some(Arc::clone(self)), Gitignore::empty());
        Ok(Arc::new(Self { above, ignore, git, exclude, user, taper, is_repository }))
    }

    /// What is said of a path in this folder. The nearest rule of a kind counts; `.ignore` before `.gitignore`, that before
    /// `info/exclude`, and the user's own last.
    pub(super) fn verdict(&self, path: &Path, is_folder: bool) -> Verdict {
        let (mut ignore, mut git, mut exclude, mut user) =
            (Match::None, Match::None, Match::None, Match::None);
        let mut is_over = false;
        let mut next = Some(self);
        while let Some(rules) = next {
            if rules.taper.matched(path, is_folder).is_ignore() {
                return Verdict::Ignored;
            }
            ignore = ignore.or(rules.ignore.matched(path, is_folder));
            if !is_over {
                git = git.or(rules.git.matched(path, is_folder));
                exclude = exclude.or(rules.exclude.matched(path, is_folder));
            }
            user = user.or(rules.user.matched(path, is_folder));
            is_over |= rules.is_repository;
            next = rules.above.as_deref();
        }
        match ignore.or(git).or(exclude).or(user) {
            Match::None => Verdict::Silent,
            Match::Ignore(_) => Verdict::Ignored,
            Match::Whitelist(_) => Verdict::Kept,
        }
    }
}

/// Whether a `.taperignore` has a file: one beside it, or above it in its project, or above that in its repository. One that
/// cannot be known has everything.
pub(super) fn taper_excludes(root: Option<&Path>, file: &Path) -> bool {
    let mut reader = Reader::new();
    let mut within = root;
    for folder in file.ancestors().skip(1) {
        let excludes = match reader.read_taper(folder) {
            Ok(rules) => rules.matched_path_or_any_parents(file, false).is_ignore(),
            Err(Unknown) => true,
        };
        if excludes {
            return true;
        }
        if within == Some(folder) {
            within = None;
        }
        if within.is_none() && (root.is_none() || is_repository(folder)) {
            break;
        }
    }
    false
}

fn is_repository(folder: &Path) -> bool {
    [".git", ".jj"].iter().any(|mark| folder.join(mark).symlink_metadata().is_ok())
}

/// Where a repository's data lies: a worktree's or a submodule's `.git` is a file that says so.
fn data_of(folder: &Path) -> Result<PathBuf, Unknown> {
    let git = folder.join(".git");
    let pointer = match plain_file::read_text(&git, POINTER, Links::Followed) {
        Ok(pointer) => pointer,
        // A folder; or nothing, as in a repository that is not git's.
        Err(_) if git.is_dir() || !git.exists() => return Ok(git),
        Err(_) => return Err(Unknown),
    };
    let own = match pointer.strip_prefix("gitdir:") {
        Some(path) => local(folder, path)?,
        None => return Err(Unknown),
    };
    match plain_file::read_text(&own.join("commondir"), POINTER, Links::Followed) {
        Ok(path) => local(&own, &path),
        Err(problem) if problem.is_not_found() => Ok(own),
        Err(_) => Err(Unknown),
    }
}

/// A path that a file names, relative to `folder`; never one on another machine, which would be spoken to.
fn local(folder: &Path, path: &str) -> Result<PathBuf, Unknown> {
    let path = folder.join(path.trim());
    let is_remote = path.components().next().is_some_and(|first| match first {
        Component::Prefix(prefix) => !matches!(prefix.kind(), Prefix::Disk(_) | Prefix::VerbatimDisk(_)),
        _ => false,
    });
    if is_remote { Err(Unknown) } else { Ok(path) }
}

/// Git's list of what this user never wants to see: `core.excludesFile`, else `git/ignore` in the configuration's folder.
fn user_list() -> Option<PathBuf> {
    let home = etcetera::home_dir().ok();
    let configuration = std::env::var_os("XDG_CONFIG_HOME").filter(|it| !it.is_empty()).map(PathBuf::from);
    let configuration = configuration.or_else(|| Some(home.as_ref()?.join(".config")));
    let places = [
        home.as_ref().map(|it| it.join(".gitconfig")),
        configuration.as_ref().map(|it| it.join("git/config")),
    ];
    let named = places.into_iter().flatten().find_map(|path| {
        let text = plain_file::read_text(&path, CONFIGURATION, Links::Followed).ok()?;
        let path = excludes_file(&text)?;
        Some(match (path.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => path.into(),
        })
    });
    named.or_else(|| Some(configuration?.join("git/ignore")))
}

/// The value of `excludesFile` in git's configuration.
fn excludes_file(configuration: &str) -> Option<String> {
    // The last one counts.
    configuration.lines().rev().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().trim_matches('"').trim();
        (key.trim().eq_ignore_ascii_case("excludesfile") && !value.is_empty()).then(|| value.to_owned())
    })
}
