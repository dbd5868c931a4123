//! The index of the code around the open documents: a low-priority thread cuts the workspace's files into chunks
//! and publishes each new index. It reads files, and never writes one.
//!
//! The text of an open document has precedence over the file on disk. Unchanged files are not cut again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use taper_engine::priority;
use taper_grammars::Language;
use tracing::error;

use super::crawler::{CrawlMode, FileCrawler};
use super::trace::TraceEvent;
use super::{Event, Notice, ThreadSupervisor};
use crate::retrieval::Index;
use crate::retrieval::chunks::ChunkedFile;
use crate::retrieval::crawl::{CrawlLimits, CrawledFile};
use crate::retrieval::excluded_files::ExcludedFiles;
use crate::text::Rope;

/// How long a walk through a workspace is valid: documents that are opened later cause another one.
const WALK_MAX_AGE: Duration = Duration::from_secs(120);
/// Time limit of a walk; files that were not reached by then are not indexed.
const WALK_LIMIT: Duration = Duration::from_secs(20);
/// While files are cut, a new index is published this often; when documents change, at most this often.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(2);
const CHANGE_INTERVAL: Duration = Duration::from_millis(200);
/// Number of last opened documents whose neighbourhood a walk prefers.
const NEAR_PATHS: usize = 32;
/// After this time without work its memory is released, and after a longer one the crawl process is ended.
const MEMORY_DELAY: Duration = Duration::from_secs(1);
const PROCESS_DELAY: Duration = Duration::from_secs(60);

/// The location of a document in its workspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DocumentLocation {
    /// The workspace's folder, if the document is a file in one.
    pub root: Option<PathBuf>,
    /// The path in it, with `/`; for another document its name.
    pub path: String,
}

/// Pending updates. Only the last update of each document is kept: however late the thread is, nothing is lost, and
/// the queue is limited by the number of documents.
#[derive(Default)]
struct PendingUpdates {
    /// Documents that were opened in a workspace, the last one last.
    near: HashMap<PathBuf, Vec<String>>,
    /// The workspace in which a document was opened last.
    newest: Option<PathBuf>,
    /// Workspaces whose last document was closed.
    unused: HashSet<PathBuf>,
    /// Files that are never read; their lists may have changed.
    excluded: Option<ExcludedFiles>,
    /// The texts of documents; `None`: they are closed.
    documents: HashMap<DocumentLocation, Option<(&'static Language, Rope)>>,
}

/// A handle to the thread. Dropping it ends the thread.
pub(super) struct WorkspaceIndex {
    updates: Arc<Mutex<PendingUpdates>>,
    /// Full when there are updates that the thread may not have seen.
    wake: Sender<()>,
}

impl WorkspaceIndex {
    /// Starts the thread, which sends [`Event::Indexed`].
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub(super) fn start(
        events: Sender<Event>,
        crawling: CrawlMode,
        supervisor: &ThreadSupervisor,
    ) -> io::Result<Self> {
        let (wake, woken) = crossbeam_channel::bounded(1);
        let updates = Arc::default();
        let shared = Arc::clone(&updates);
        supervisor.spawn("workspace", move || {
            priority::lower_priority();
            Indexer::new(shared, events, crawling.start()).run(&woken);
        })?;
        Ok(Self { updates, wake })
    }

    /// A document of a workspace was opened: the workspace's files are read, unless they were recently.
    pub(super) fn open_document(&self, root: PathBuf, path: String) {
        self.send_update(|updates| updates.open_document(root, path));
    }

    /// A document has this text.
    pub(super) fn update_text(&self, at: DocumentLocation, language: &'static Language, text: Rope) {
        self.send_update(|updates| drop(updates.documents.insert(at, Some((language, text)))));
    }

    /// A document was closed; `is_last`: the last one of its workspace. From now on the file on disk is used again,
    /// and a document without a workspace is dropped.
    pub(super) fn close_document(&self, at: DocumentLocation, is_last: bool) {
        self.send_update(|updates| updates.close_document(at, is_last));
    }

    /// Sets the files that are never read; the projects' own lists are read again.
    pub(super) fn set_excluded(&self, excluded: ExcludedFiles) {
        self.send_update(|updates| updates.excluded = Some(excluded));
    }

    fn send_update(&self, add: impl FnOnce(&mut PendingUpdates)) {
        add(&mut self.updates.lock().unwrap_or_else(PoisonError::into_inner));
        match self.wake.try_send(()) {
            // If the thread has ended, other files are not used.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

impl PendingUpdates {
    fn open_document(&mut self, root: PathBuf, path: String) {
        self.unused.remove(&root);
        self.newest = Some(root.clone());
        push_near_path(self.near.entry(root).or_default(), path);
    }

    fn close_document(&mut self, at: DocumentLocation, is_last: bool) {
        if let Some(root) = at.root.as_ref().filter(|_| is_last) {
            self.near.remove(root);
            self.unused.insert(root.clone());
        }
        self.documents.insert(at, None);
    }
}

/// Moves a path to the end, and keeps at most [`NEAR_PATHS`].
fn push_near_path(near: &mut Vec<String>, path: String) {
    near.retain(|it| *it != path);
    near.push(path);
    near.drain(..near.len().saturating_sub(NEAR_PATHS));
}

/// A file, as it was when it was cut.
struct IndexedFile {
    /// Its size and its time on disk; `None` for a document's text.
    on_disk: Option<(u64, Option<i64>)>,
    /// `None` if it is of no use to others.
    file: Option<Arc<ChunkedFile>>,
}

/// A workspace folder that was walked through.
struct WalkedFolder {
    /// When it was walked through last.
    at: Instant,
    /// Documents that were opened.
    near: Vec<String>,
}

struct Indexer {
    updates: Arc<Mutex<PendingUpdates>>,
    events: Sender<Event>,
    crawler: Box<dyn FileCrawler>,
    files: HashMap<DocumentLocation, IndexedFile>,
    walked: HashMap<PathBuf, WalkedFolder>,
    /// The workspace in which a document was opened last, and the workspaces without open documents.
    newest: Option<PathBuf>,
    unused: HashSet<PathBuf>,
    /// Files that are never read.
    excluded: ExcludedFiles,
    /// Files that are still to be cut.
    waiting: VecDeque<(PathBuf, CrawledFile)>,
    /// The workspaces whose index is out of date.
    changed: HashSet<Option<PathBuf>>,
    /// When the last index was published.
    published: Instant,
    /// When there was work last, and what is done after it.
    worked: Instant,
    after: AfterWork,
}

/// Steps that are done once all work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterWork {
    ReleaseMemory,
    ReleaseProcess,
    Nothing,
}

impl Indexer {
    fn new(
        updates: Arc<Mutex<PendingUpdates>>,
        events: Sender<Event>,
        crawler: Box<dyn FileCrawler>,
    ) -> Self {
        let (files, walked, newest, unused, waiting, changed) = Default::default();
        let (published, worked, after) = (Instant::now(), Instant::now(), AfterWork::Nothing);
        Self {
            updates,
            events,
            crawler,
            files,
            walked,
            newest,
            unused,
            excluded: ExcludedFiles::default(),
            waiting,
            changed,
            published,
            worked,
            after,
        }
    }

    fn run(mut self, woken: &Receiver<()>) {
        loop {
            let wake = match self.next_wakeup(Instant::now()) {
                Some(at) => woken.recv_deadline(at),
                None => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            if wake == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            self.step(Instant::now());
        }
    }

    /// When there is something to do without a new update.
    fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let has_updates = !self.waiting.is_empty() || !self.updates().documents.is_empty();
        let settled = match self.after {
            AfterWork::ReleaseMemory => Some(self.worked + MEMORY_DELAY),
            AfterWork::ReleaseProcess => Some(self.worked + PROCESS_DELAY),
            AfterWork::Nothing => None,
        };
        [has_updates.then_some(now), self.next_publish(), settled].into_iter().flatten().min()
    }

    /// When the outdated indexes are published again.
    fn next_publish(&self) -> Option<Instant> {
        let pause = if self.waiting.is_empty() { CHANGE_INTERVAL } else { PUBLISH_INTERVAL };
        (!self.changed.is_empty()).then(|| self.published + pause)
    }

    fn updates(&self) -> std::sync::MutexGuard<'_, PendingUpdates> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the most urgent part of the work: a document's text, a file, an index.
    fn step(&mut self, now: Instant) {
        let mut updates = self.updates();
        let (near, unused) = (mem::take(&mut updates.near), mem::take(&mut updates.unused));
        let newest = updates.newest.take();
        let excluded = updates.excluded.take();
        let closed: Vec<DocumentLocation> =
            updates.documents.extract_if(|_, text| text.is_none()).map(|(at, _)| at).collect();
        let open = updates.documents.keys().next().cloned();
        let open = open.and_then(|at| updates.documents.remove_entry(&at));
        drop(updates);
        let is_work = !(near.is_empty() && unused.is_empty() && closed.is_empty() && open.is_none());
        if is_work || !self.waiting.is_empty() || !self.changed.is_empty() {
            (self.worked, self.after) = (now, AfterWork::ReleaseMemory);
        }
        if let Some(excluded) = excluded {
            self.guarded(|it| it.set_excluded(excluded));
        }
        if is_work {
            self.guarded(|it| it.update_workspaces(near, newest, unused));
            self.guarded(|it| it.remove_documents(closed));
        }
        match (open, self.waiting.is_empty()) {
            (Some((at, Some((language, text)))), _) => self.guarded(|it| it.index_text(at, language, &text)),
            (_, false) => {
                if let Some((root, found)) = self.waiting.pop_front() {
                    self.guarded(|it| it.index_file(&root, &found));
                }
            }
            _ => {}
        }
        if self.next_publish().is_some_and(|at| at <= now) {
            self.guarded(Self::publish);
            self.published = Instant::now();
        }
        match self.after {
            AfterWork::ReleaseMemory if now >= self.worked + MEMORY_DELAY => {
                priority::release_memory();
                self.trace(TraceEvent::MemoryReleased);
                self.after = AfterWork::ReleaseProcess;
            }
            AfterWork::ReleaseProcess if now >= self.worked + PROCESS_DELAY => {
                self.crawler.release_process();
                self.after = AfterWork::Nothing;
            }
            _ => {}
        }
    }

    /// Runs `work`; a panic costs only the file that it is about.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            error!("panic while indexing the workspace; continuing with the next file");
        }
    }

    /// Records where documents were opened, and which workspaces have none left.
    fn update_workspaces(
        &mut self,
        near: HashMap<PathBuf, Vec<String>>,
        newest: Option<PathBuf>,
        unused: HashSet<PathBuf>,
    ) {
        self.newest = newest.or(self.newest.take());
        self.unused.extend(unused);
        for (root, paths) in near {
            self.unused.remove(&root);
            let known = self.walked.get_mut(&root).map(|it| (mem::take(&mut it.near), it.at));
            let (mut all, at) = known.map_or_else(Default::default, |(near, at)| (near, Some(at)));
            paths.into_iter().for_each(|path| push_near_path(&mut all, path));
            match (at.filter(|at| at.elapsed() < WALK_MAX_AGE), self.walked.get_mut(&root)) {
                (Some(_), Some(walked)) => walked.near = all,
                _ => self.walk(root, all),
            }
        }
        // The workspace used last is kept, so that closing one file and opening the next finds it; others are dropped.
        let newest = self.newest.clone();
        let forgotten: Vec<PathBuf> = self.unused.extract_if(|root| newest.as_ref() != Some(root)).collect();
        for root in forgotten {
            self.walked.remove(&root);
            self.waiting.retain(|(other, _)| *other != root);
            self.files.retain(|at, _| at.root.as_ref() != Some(&root));
            self.changed.insert(Some(root));
        }
    }

    /// Walks again to find the files that may be read.
    fn set_excluded(&mut self, excluded: ExcludedFiles) {
        self.excluded = excluded;
        let walked: Vec<PathBuf> = self.walked.keys().cloned().collect();
        for root in walked {
            if let Some(walked) = self.walked.get_mut(&root) {
                let near = mem::take(&mut walked.near);
                self.walk(root, near);
            }
        }
    }

    /// Handles closed documents.
    fn remove_documents(&mut self, closed: Vec<DocumentLocation>) {
        let mut again = HashSet::new();
        for at in closed {
            if self.files.remove(&at).is_some() {
                again.extend(at.root.clone());
                self.changed.insert(at.root);
            }
        }
        // Whether a file of a workspace is read, and not ignored by git, is decided by a walk.
        for root in again {
            if let Some(walked) = self.walked.get_mut(&root) {
                let near = mem::take(&mut walked.near);
                self.walk(root, near);
            }
        }
    }

    /// Cuts a document's text.
    fn index_text(&mut self, at: DocumentLocation, language: &'static Language, text: &Rope) {
        let file = (text.len_bytes() as u64 <= CrawlLimits::DEFAULT.file_bytes)
            .then(|| self.crawler.cut_text(&at.path, language, &text.to_string()))
            .flatten();
        if file.is_none() {
            self.trace(TraceEvent::DocumentNotIndexed { path: at.path.clone() });
        }
        self.changed.insert(at.root.clone());
        self.files.insert(at, IndexedFile { on_disk: None, file: file.map(Arc::new) });
    }

    /// Finds the files of a workspace, those that have to be cut, and those that were removed.
    fn walk(&mut self, root: PathBuf, near: Vec<String>) {
        let found = self.crawler.walk(&root, &near, WALK_LIMIT);
        self.walked.insert(root.clone(), WalkedFolder { at: Instant::now(), near });
        let Some(mut found) = found else { return };
        found.retain(|it| self.excluded.exclusion_reason(Path::new(&it.path)).is_none());
        self.trace(TraceEvent::WorkspaceWalked { files: found.len() });
        let at = |it: &CrawledFile| DocumentLocation { root: Some(root.clone()), path: it.path.clone() };
        let mut unchanged: HashMap<DocumentLocation, IndexedFile> = HashMap::new();
        self.waiting.retain(|(other, _)| *other != root);
        for it in found {
            let at = at(&it);
            match self.files.remove(&at) {
                Some(cut) if cut.on_disk.is_none_or(|was| was == (it.bytes, it.modified)) => {
                    unchanged.insert(at, cut);
                }
                _ => self.waiting.push_back((root.clone(), it)),
            }
        }
        // A file that was not found again was removed, unless it is an open document or in another workspace.
        let count = self.files.len();
        self.files.retain(|at, cut| at.root.as_ref() != Some(&root) || cut.on_disk.is_none());
        if self.files.len() < count {
            self.changed.insert(Some(root));
        }
        self.files.extend(unchanged);
    }

    fn index_file(&mut self, root: &Path, found: &CrawledFile) {
        let at = DocumentLocation { root: Some(root.to_owned()), path: found.path.clone() };
        if self.files.get(&at).is_some_and(|cut| cut.on_disk.is_none()) {
            return;
        }
        let file = self.crawler.cut(root, found).map(Arc::new);
        self.changed.insert(at.root.clone());
        self.files.insert(at, IndexedFile { on_disk: Some((found.bytes, found.modified)), file });
    }

    fn trace(&self, event: TraceEvent) {
        let _ = self.events.send(Event::Notify(Notice::Trace(event)));
    }

    /// Publishes the outdated indexes.
    fn publish(&mut self) {
        for root in mem::take(&mut self.changed) {
            let files = self.files.iter().filter(|(at, _)| at.root == root);
            let mut files: Vec<Arc<ChunkedFile>> = files.filter_map(|(_, cut)| cut.file.clone()).collect();
            // The same files yield the same index, in any order.
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let index = Arc::new(Index::new(files));
            let (files, waiting) = (index.files().len(), self.waiting.len());
            // An error means that the session has ended, and so will this thread.
            let _ = self.events.send(Event::Indexed { root, index });
            self.trace(TraceEvent::WorkspaceIndexed { files, waiting });
        }
    }
}

#[cfg(test)]
mod tests;
