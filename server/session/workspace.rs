//! The code around the open documents: a thread of low priority that cuts the workspace's files and says when there is a new
//! index of them.
//! It knows nothing of questions. It reads files, and never writes one.
//!
//! What an open document holds counts before what lies on the disk. Files that did not change are not cut again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use taper_engine::background;
use taper_grammars::Language;
use tracing::{debug, error};

use super::document::until;
use super::{Event, Supervisor};
use crate::context::Index;
use crate::context::crawl::{self, Found, Limits};
use crate::context::pieces::File;
use crate::text::Rope;

/// How long a file may take to be parsed.
const PARSE: Duration = Duration::from_millis(500);
/// How long a walk through a workspace is good for: documents that are opened later lead to another one.
const STALE: Duration = Duration::from_secs(120);
/// While files are cut, there is a new index this often.
const PUBLISH: Duration = Duration::from_secs(2);
/// Documents that a walk keeps near: those that were opened last.
const NEAR: usize = 32;
/// Jobs that may wait: more are not taken, which costs nothing but freshness.
const JOBS: usize = 256;

/// What a document is in its workspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Location {
    /// The workspace's folder, if the document is a file in one.
    pub(super) root: Option<PathBuf>,
    /// The path in it, with `/`.
    pub(super) path: String,
}

/// What is to be done.
enum Job {
    /// A document of this workspace is open.
    Near(PathBuf, String),
    /// This is a document's text now.
    Text(Location, &'static Language, Rope),
    /// A document is closed.
    Gone(Location),
}

/// The thread, to give work to. Dropped, it ends.
pub(super) struct Workspace {
    jobs: Sender<Job>,
}

impl Workspace {
    /// Starts it. It sends [`Event::Indexed`].
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(super) fn start(events: Sender<Event>, supervisor: &Supervisor) -> io::Result<Self> {
        let (jobs, receiver) = crossbeam_channel::bounded(JOBS);
        supervisor.spawn("workspace", move || {
            background::lower_priority();
            Cutter::new(receiver, events).run();
        })?;
        Ok(Self { jobs })
    }

    /// A document of a workspace was opened: the workspace's files are read, unless they were lately.
    pub(super) fn near(&self, root: PathBuf, path: String) {
        self.give(Job::Near(root, path));
    }

    /// A document has this text.
    pub(super) fn text(&self, at: Location, language: &'static Language, text: Rope) {
        self.give(Job::Text(at, language, text));
    }

    /// A document is closed: from now on the disk counts again, and without a workspace nothing of it is left.
    pub(super) fn gone(&self, at: Location) {
        self.give(Job::Gone(at));
    }

    fn give(&self, job: Job) {
        // Full or ended: it is a bit less fresh.
        let _ = self.jobs.try_send(job);
    }
}

/// A file, as it was when it was cut.
struct Cut {
    /// How it lay on the disk; `None` for a document's text.
    as_found: Option<(u64, Option<SystemTime>)>,
    /// `None` where it is of no use to others.
    file: Option<Arc<File>>,
}

struct Cutter {
    jobs: Receiver<Job>,
    events: Sender<Event>,
    files: HashMap<Location, Cut>,
    /// When each workspace was walked through last.
    walked: HashMap<PathBuf, Instant>,
    /// Documents that were opened.
    near: Vec<String>,
    /// Files that are to be cut.
    waiting: VecDeque<(PathBuf, Found)>,
    /// The workspaces whose index is no longer true.
    changed: HashSet<Option<PathBuf>>,
}

impl Cutter {
    fn new(jobs: Receiver<Job>, events: Sender<Event>) -> Self {
        let (files, walked, near, waiting, changed) = Default::default();
        Self { jobs, events, files, walked, near, waiting, changed }
    }

    fn run(mut self) {
        let mut published = Instant::now();
        loop {
            let job = if self.waiting.is_empty() && self.changed.is_empty() {
                self.jobs.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.jobs.try_recv()
            };
            match job {
                Ok(job) => {
                    self.guarded(|it| it.take(job));
                    continue;
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            if let Some((root, found)) = self.waiting.pop_front() {
                self.guarded(|it| it.cut(&root, &found));
            }
            if !self.changed.is_empty() && (self.waiting.is_empty() || published.elapsed() > PUBLISH) {
                self.guarded(Self::publish);
                published = Instant::now();
            }
        }
    }

    /// A panic costs the file that it is about, and nothing else.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            error!("looking through the workspace panicked; it goes on with the next file");
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Near(root, path) => {
                self.near.retain(|it| *it != path);
                self.near.push(path);
                self.near.drain(..self.near.len().saturating_sub(NEAR));
                if self.walked.get(&root).is_none_or(|at| at.elapsed() > STALE) {
                    self.walk(root);
                }
            }
            Job::Text(at, language, text) => {
                let file = (text.len_bytes() as u64 <= Limits::USUAL.file_bytes)
                    .then(|| File::new(&at.path, language, &text.to_string(), &mut until(PARSE)))
                    .flatten();
                self.changed.insert(at.root.clone());
                self.files.insert(at, Cut { as_found: None, file: file.map(Arc::new) });
            }
            Job::Gone(at) => {
                if self.files.remove(&at).is_some() {
                    self.changed.insert(at.root.clone());
                    // What is read of a workspace, and what git ignores of it, a walk knows.
                    if let Some(root) = at.root.filter(|root| self.walked.contains_key(root)) {
                        self.walk(root);
                    }
                }
            }
        }
    }

    /// Finds out which files of a workspace there are, which of them have to be cut, and which have gone.
    fn walk(&mut self, root: PathBuf) {
        let found = crawl::files(&root, &self.near, Limits::USUAL, &mut || false);
        debug!(files = found.len(), "walked through the workspace");
        let at = |it: &Found| Location { root: Some(root.clone()), path: it.path.clone() };
        let mut still: HashMap<Location, Cut> = HashMap::new();
        self.waiting.retain(|(other, _)| *other != root);
        for it in found {
            let at = at(&it);
            match self.files.remove(&at) {
                Some(cut) if cut.as_found.is_none_or(|was| was == (it.bytes, it.modified)) => {
                    still.insert(at, cut);
                }
                _ => self.waiting.push_back((root.clone(), it)),
            }
        }
        // What was not found again is gone, unless a document holds it, or it is another workspace's.
        let count = self.files.len();
        self.files.retain(|at, cut| at.root.as_ref() != Some(&root) || cut.as_found.is_none());
        if self.files.len() < count {
            self.changed.insert(Some(root.clone()));
        }
        self.files.extend(still);
        self.walked.insert(root, Instant::now());
    }

    fn cut(&mut self, root: &Path, found: &Found) {
        let at = Location { root: Some(root.to_owned()), path: found.path.clone() };
        if self.files.get(&at).is_some_and(|cut| cut.as_found.is_none()) {
            return;
        }
        let file = crawl::cut(root, found, &mut until(PARSE)).map(Arc::new);
        self.changed.insert(at.root.clone());
        self.files.insert(at, Cut { as_found: Some((found.bytes, found.modified)), file });
    }

    /// Makes the indexes anew that are no longer true.
    fn publish(&mut self) {
        for root in mem::take(&mut self.changed) {
            let files = self.files.iter().filter(|(at, _)| at.root == root);
            let mut files: Vec<Arc<File>> = files.filter_map(|(_, cut)| cut.file.clone()).collect();
            // The same files yield the same index, in whatever order they came.
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let index = Arc::new(Index::new(files));
            let (files, waiting) = (index.files().len(), self.waiting.len());
            // An error means that the session has ended, and so will this thread.
            let _ = self.events.send(Event::Indexed { root, index });
            debug!(files, waiting, "other files are known");
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    /// How long anything that must come may take, on a busy machine too.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn paths(index: &Index) -> Vec<String> {
        index.files().iter().map(|file| file.path.clone()).collect()
    }

    /// The next index in which `is_so`.
    fn until_indexed(events: &Receiver<Event>, is_so: impl Fn(&Index) -> bool) -> Arc<Index> {
        loop {
            match events.recv_timeout(PATIENCE).unwrap() {
                Event::Indexed { index, .. } if is_so(&index) => return index,
                _ => {}
            }
        }
    }

    fn python() -> &'static Language {
        taper_grammars::by_id("python").unwrap()
    }

    #[test]
    fn a_workspace_is_read_and_what_is_open_counts_before_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        fs::write(root.join("a.py"), "def on_disk(): pass\n").unwrap();
        fs::write(root.join("b.py"), "def other(): pass\n").unwrap();
        fs::write(root.join("ignored.py"), "def mine(): pass\n").unwrap();
        fs::write(root.join(".gitignore"), "ignored.py\n").unwrap();
        let (sender, events) = crossbeam_channel::unbounded();
        let workspace = Workspace::start(sender, &Supervisor::new(|_| ())).unwrap();
        workspace.near(root.clone(), "a.py".to_owned());
        let index = until_indexed(&events, |index| index.files().len() == 2);
        assert_eq!(paths(&index), ["a.py", "b.py"]);

        let at = Location { root: Some(root), path: "a.py".to_owned() };
        workspace.text(at.clone(), python(), Rope::from("def in_editor_now(): pass\n"));
        let bytes = |index: &Index| index.files()[0].text().len();
        until_indexed(&events, |index| bytes(index) == 26);
        workspace.gone(at.clone());
        until_indexed(&events, |index| bytes(index) == 20);

        // Open, it is known, though git ignores it; closed, it is not read.
        let ignored = Location { root: at.root.clone(), path: "ignored.py".to_owned() };
        workspace.text(ignored.clone(), python(), Rope::from("def mine(): pass\n"));
        until_indexed(&events, |index| index.files().len() == 3);
        workspace.gone(ignored);
        until_indexed(&events, |index| paths(index) == ["a.py", "b.py"]);

        let alone = Location { root: None, path: "c.py".to_owned() };
        workspace.text(alone.clone(), python(), Rope::from("x = 1\nyy = 2\n"));
        until_indexed(&events, |index| paths(index) == ["c.py"]);
        workspace.gone(alone);
        until_indexed(&events, |index| index.files().is_empty());
    }

    #[test]
    fn a_later_walk_cuts_what_changed_and_forgets_what_went() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        for name in ["a.py", "b.py", "c.py"] {
            fs::write(root.join(name), "def one(): pass\n").unwrap();
        }
        let (jobs, receiver) = crossbeam_channel::unbounded();
        let (sender, events) = crossbeam_channel::unbounded();
        let mut cutter = Cutter::new(receiver, sender);
        let mut walk = |change: &dyn Fn(&mut Cutter)| {
            change(&mut cutter);
            cutter.walk(root.clone());
            let again: Vec<String> = cutter.waiting.iter().map(|(_, it)| it.path.clone()).collect();
            while let Some((root, found)) = cutter.waiting.pop_front() {
                cutter.cut(&root, &found);
            }
            cutter.publish();
            let Ok(Event::Indexed { index, .. }) = events.try_recv() else { panic!("no index") };
            (again, paths(&index))
        };
        assert_eq!(walk(&|_| {}).1, ["a.py", "b.py", "c.py"]);
        let (again, all) = walk(&|_| {
            fs::write(folder.path().join("a.py"), "def two(): return 2\n").unwrap();
            fs::remove_file(folder.path().join("b.py")).unwrap();
        });
        assert_eq!((again, all), (vec!["a.py".to_owned()], vec!["a.py".to_owned(), "c.py".to_owned()]));
        // What an editor holds is not read from the disk, and stays when the file goes.
        let at = || Location { root: Some(folder.path().to_owned()), path: "c.py".to_owned() };
        let (again, all) = walk(&|cutter| {
            cutter.take(Job::Text(at(), python(), Rope::from("def three(): pass\n")));
            fs::remove_file(folder.path().join("c.py")).unwrap();
        });
        assert_eq!((again.len(), all.len()), (0, 2));
        let (_, all) = walk(&|cutter| cutter.take(Job::Gone(at())));
        assert_eq!(all, ["a.py"]);
        drop(jobs);
    }
}
