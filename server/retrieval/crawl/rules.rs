//! Ignore rules, folder by folder: `.gitignore`, `.ignore`, `.git/info/exclude` and git's own list for this user; and
//! `.taperignore`, which only adds exclusions that nothing lifts. The `ignore` crate does the matching. The files are
//! read here, because a repository may hold anything under these names.
//!
//! A folder whose rules cannot be read is not entered: what is ignored there may be private.

use std::path::{Component, Path, PathBuf, Prefix};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::retrieval::excluded_files::PROJECT_IGNORE_FILE;
use crate::text::plain_file::{self, Links};

/// Maximum bytes of a rule file; those of the largest projects have a tenth of it.
const MAX_RULE_FILE_BYTES: u64 = 64 << 10;
/// Maximum bytes of all rule files of one crawl.
const MAX_RULE_BYTES: usize = 1 << 20;
/// Maximum bytes of one pattern; paths are hardly longer.
const MAX_PATTERN_BYTES: usize = 512;
/// Maximum number of wildcards, sets and alternatives in one pattern: each makes matching more expensive.
const MAX_WILDCARDS: usize = 32;
/// Maximum number of patterns that one crawl compiles, each to some ten kilobytes; names and file extensions are looked
/// up instead.
const MAX_COMPILED_PATTERNS: usize = 4000;
/// Maximum bytes of the file that names the repository's data folder.
const MAX_GITDIR_BYTES: u64 = 8 << 10;
/// Maximum bytes of git's configuration for this user.
const MAX_GIT_CONFIG_BYTES: u64 = 1 << 20;

/// The reason why a folder is not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnreadableRules;

/// The verdict of the rules on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IgnoreVerdict {
    /// It is ignored.
    Ignored,
    /// It is explicitly not ignored.
    Whitelisted,
    /// No rule matches.
    Unmatched,
}

/// The rules of one folder, and those of the folders above it.
#[derive(Debug)]
pub(super) struct IgnoreRules {
    parent: Option<Arc<IgnoreRules>>,
    /// `.ignore`.
    ignore: Gitignore,
    /// `.gitignore`.
    git: Gitignore,
    /// `info/exclude` of a repository.
    exclude: Gitignore,
    /// Git's list for this user, at the topmost folder.
    user: Gitignore,
    /// `.taperignore`.
    taper: Gitignore,
    /// A repository begins here: git's rules above do not apply to it.
    is_repository: bool,
}

/// Reads rules within the limits of one crawl.
#[derive(Debug)]
pub(super) struct RuleReader {
    bytes_left: usize,
    compiled_patterns_left: usize,
}

impl RuleReader {
    pub(super) fn new() -> Self {
        Self { bytes_left: MAX_RULE_BYTES, compiled_patterns_left: MAX_COMPILED_PATTERNS }
    }

    /// The rules in a file whose patterns are relative to `folder`; empty without such a file.
    pub(super) fn read_rules(&mut self, path: &Path, folder: &Path) -> Result<Gitignore, UnreadableRules> {
        self.read_rule_file(path, folder, false)
    }

    /// The same for a `.taperignore`, which is matched case-insensitively.
    fn read_taperignore(&mut self, folder: &Path) -> Result<Gitignore, UnreadableRules> {
        self.read_rule_file(&folder.join(PROJECT_IGNORE_FILE), folder, true)
    }

    fn read_rule_file(
        &mut self,
        path: &Path,
        folder: &Path,
        any_case: bool,
    ) -> Result<Gitignore, UnreadableRules> {
        let bytes = match plain_file::read(path, MAX_RULE_FILE_BYTES, Links::Followed) {
            Ok(bytes) => bytes,
            Err(problem) if problem.is_not_found() => return Ok(Gitignore::empty()),
            Err(_) => return Err(UnreadableRules),
        };
        self.bytes_left = self.bytes_left.checked_sub(bytes.len()).ok_or(UnreadableRules)?;
        // A line that is not UTF-8 matches no UTF-8 path, and only such paths are taken.
        let text = String::from_utf8_lossy(&bytes);
        let mut rules = GitignoreBuilder::new(folder);
        rules.case_insensitive(any_case).map_err(|_| UnreadableRules)?;
        for line in text.trim_start_matches('\u{feff}').lines().filter(|line| !line.starts_with('#')) {
            let wildcards = line.bytes().filter(|byte| b"*?[{,".contains(byte)).count();
            if line.len() > MAX_PATTERN_BYTES || wildcards > MAX_WILDCARDS {
                return Err(UnreadableRules);
            }
            if needs_compilation(line) {
                self.compiled_patterns_left =
                    self.compiled_patterns_left.checked_sub(1).ok_or(UnreadableRules)?;
            }
            // An invalid pattern is skipped, as in git.
            let _ = rules.add_line(None, line);
        }
        rules.build().map_err(|_| UnreadableRules)
    }
}

/// Whether a pattern is more than a name, a file extension, or everything inside a folder.
fn needs_compilation(line: &str) -> bool {
    let line = line.trim_end();
    let line = line.strip_prefix("**/").unwrap_or(line);
    let line = line.strip_prefix('*').unwrap_or(line);
    let line = line.strip_suffix("/**").unwrap_or(line);
    line.contains(['*', '?', '[', '{'])
}

impl IgnoreRules {
    /// The rules that apply to `root` before its own: those of the folders above, up to the top of the repository, and
    /// the user's.
    pub(super) fn above_root(root: &Path, reader: &mut RuleReader) -> Result<Arc<Self>, UnreadableRules> {
        let user = match user_excludes_path() {
            Some(path) => reader.read_rules(&path, root)?,
            None => Gitignore::empty(),
        };
        let nothing = Gitignore::empty;
        let outermost = Self {
            parent: None,
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
        folders
            .into_iter()
            .rev()
            .try_fold(Arc::new(outermost), |rules, folder| rules.for_subfolder(folder, reader))
    }

    /// The rules of a direct subfolder.
    pub(super) fn for_subfolder(
        self: &Arc<Self>,
        folder: &Path,
        reader: &mut RuleReader,
    ) -> Result<Arc<Self>, UnreadableRules> {
        let ignore = reader.read_rules(&folder.join(".ignore"), folder)?;
        let git = reader.read_rules(&folder.join(".gitignore"), folder)?;
        let is_repository = is_repository(folder);
        let exclude = match is_repository {
            true => reader.read_rules(&git_data_folder(folder)?.join("info").join("exclude"), folder)?,
            false => Gitignore::empty(),
        };
        let taper = reader.read_taperignore(folder)?;
        if ignore.is_empty() && git.is_empty() && taper.is_empty() && !is_repository {
            return Ok(Arc::clone(self));
        }
        let (above, user) = (Some(Arc::clone(self)), Gitignore::empty());
        Ok(Arc::new(Self { parent: above, ignore, git, exclude, user, taper, is_repository }))
    }

    /// The verdict on a path in this folder. The nearest rule of a kind wins; `.ignore` comes before `.gitignore`, that
    /// before `info/exclude`, and the user's list last.
    pub(super) fn match_path(&self, path: &Path, is_folder: bool) -> IgnoreVerdict {
        let (mut ignore, mut git, mut exclude, mut user) =
            (Match::None, Match::None, Match::None, Match::None);
        let mut is_over = false;
        let mut next = Some(self);
        while let Some(rules) = next {
            if rules.taper.matched(path, is_folder).is_ignore() {
                return IgnoreVerdict::Ignored;
            }
            ignore = ignore.or(rules.ignore.matched(path, is_folder));
            if !is_over {
                git = git.or(rules.git.matched(path, is_folder));
                exclude = exclude.or(rules.exclude.matched(path, is_folder));
            }
            user = user.or(rules.user.matched(path, is_folder));
            is_over |= rules.is_repository;
            next = rules.parent.as_deref();
        }
        match ignore.or(git).or(exclude).or(user) {
            Match::None => IgnoreVerdict::Unmatched,
            Match::Ignore(_) => IgnoreVerdict::Ignored,
            Match::Whitelist(_) => IgnoreVerdict::Whitelisted,
        }
    }
}

/// Whether a `.taperignore` excludes a file: one in its folder or above it in its project, or above that in its
/// repository. One that cannot be read excludes everything.
pub(super) fn is_taperignored(root: Option<&Path>, file: &Path) -> bool {
    let mut reader = RuleReader::new();
    let mut within = root;
    for folder in file.ancestors().skip(1) {
        let excludes = match reader.read_taperignore(folder) {
            Ok(rules) => rules.matched_path_or_any_parents(file, false).is_ignore(),
            Err(UnreadableRules) => true,
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

/// The repository's data folder: a worktree's or a submodule's `.git` is a file that names it.
fn git_data_folder(folder: &Path) -> Result<PathBuf, UnreadableRules> {
    let git = folder.join(".git");
    let pointer = match plain_file::read_text(&git, MAX_GITDIR_BYTES, Links::Followed) {
        Ok(pointer) => pointer,
        // A folder; or absent, as in a repository of another tool than git.
        Err(_) if git.is_dir() || !git.exists() => return Ok(git),
        Err(_) => return Err(UnreadableRules),
    };
    let own = match pointer.strip_prefix("gitdir:") {
        Some(path) => resolve_local_path(folder, path)?,
        None => return Err(UnreadableRules),
    };
    match plain_file::read_text(&own.join("commondir"), MAX_GITDIR_BYTES, Links::Followed) {
        Ok(path) => resolve_local_path(&own, &path),
        Err(problem) if problem.is_not_found() => Ok(own),
        Err(_) => Err(UnreadableRules),
    }
}

/// A path in a file, relative to `folder`. Never a path on another machine, which would be contacted.
fn resolve_local_path(folder: &Path, path: &str) -> Result<PathBuf, UnreadableRules> {
    let path = folder.join(path.trim());
    let is_remote = path.components().next().is_some_and(|first| match first {
        Component::Prefix(prefix) => !matches!(prefix.kind(), Prefix::Disk(_) | Prefix::VerbatimDisk(_)),
        _ => false,
    });
    if is_remote { Err(UnreadableRules) } else { Ok(path) }
}

/// Git's ignore list for this user: `core.excludesFile`, else `git/ignore` in the configuration folder.
fn user_excludes_path() -> Option<PathBuf> {
    let home = etcetera::home_dir().ok();
    let configuration = std::env::var_os("XDG_CONFIG_HOME").filter(|it| !it.is_empty()).map(PathBuf::from);
    let configuration = configuration.or_else(|| Some(home.as_ref()?.join(".config")));
    let places = [
        home.as_ref().map(|it| it.join(".gitconfig")),
        configuration.as_ref().map(|it| it.join("git/config")),
    ];
    let named = places.into_iter().flatten().find_map(|path| {
        let text = plain_file::read_text(&path, MAX_GIT_CONFIG_BYTES, Links::Followed).ok()?;
        let path = parse_excludes_file(&text)?;
        Some(match (path.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => path.into(),
        })
    });
    named.or_else(|| Some(configuration?.join("git/ignore")))
}

/// The value of `excludesFile` in git's configuration.
fn parse_excludes_file(configuration: &str) -> Option<String> {
    // The last one wins.
    configuration.lines().rev().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().trim_matches('"').trim();
        (key.trim().eq_ignore_ascii_case("excludesfile") && !value.is_empty()).then(|| value.to_owned())
    })
}
