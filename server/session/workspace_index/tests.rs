//! Tests of the index of the code around the open documents. Files are cut in this process.

use std::fs;

use super::*;

/// Time limit for anything that must happen, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

fn paths(index: &Index) -> Vec<String> {
    index.files().iter().map(|file| file.path.clone()).collect()
}

/// Waits for the next index with `is_so`.
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
fn open_documents_override_files_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    fs::write(root.join("a.py"), "def on_disk(): pass\n").unwrap();
    fs::write(root.join("b.py"), "def other(): pass\n").unwrap();
    fs::write(root.join("ignored.py"), "def mine(): pass\n").unwrap();
    fs::write(root.join(".gitignore"), "ignored.py\n").unwrap();
    let (sender, events) = crossbeam_channel::unbounded();
    let workspace = WorkspaceIndex::start(sender, CrawlMode::Here, &ThreadSupervisor::new(|_| ())).unwrap();
    workspace.open_document(root.clone(), "a.py".to_owned());
    let index = until_indexed(&events, |index| index.files().len() == 2);
    assert_eq!(paths(&index), ["a.py", "b.py"]);

    let at = DocumentLocation { root: Some(root), path: "a.py".to_owned() };
    workspace.update_text(at.clone(), python(), Rope::from("def in_editor_now(): pass\n"));
    let bytes = |index: &Index| index.files()[0].text().len();
    until_indexed(&events, |index| bytes(index) == 26);
    workspace.close_document(at.clone(), false);
    until_indexed(&events, |index| bytes(index) == 20);

    // While open it is indexed, though git ignores it; once closed, it is not read.
    let ignored = DocumentLocation { root: at.root.clone(), path: "ignored.py".to_owned() };
    workspace.update_text(ignored.clone(), python(), Rope::from("def mine(): pass\n"));
    until_indexed(&events, |index| index.files().len() == 3);
    workspace.close_document(ignored, false);
    until_indexed(&events, |index| paths(index) == ["a.py", "b.py"]);

    let alone = DocumentLocation { root: None, path: "c.py".to_owned() };
    workspace.update_text(alone.clone(), python(), Rope::from("x = 1\nyy = 2\n"));
    until_indexed(&events, |index| paths(index) == ["c.py"]);
    workspace.close_document(alone, true);
    until_indexed(&events, |index| index.files().is_empty());
}

/// The indexer without its thread.
struct TestIndexer {
    folder: tempfile::TempDir,
    indexer: Indexer,
    events: Receiver<Event>,
}

impl TestIndexer {
    fn new(files: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            fs::write(folder.path().join(name), "def one(): pass\n").unwrap();
        }
        let (sender, events) = crossbeam_channel::unbounded();
        Self { folder, indexer: Indexer::new(Arc::default(), sender, CrawlMode::Here.start()), events }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn at(&self, path: &str) -> DocumentLocation {
        DocumentLocation { root: Some(self.root()), path: path.to_owned() }
    }

    fn opened(&mut self, path: &str) {
        let root = self.root();
        self.indexer.updates().open_document(root, path.to_owned());
    }

    fn text(&mut self, path: &str, text: &str) {
        let at = self.at(path);
        self.indexer.updates().documents.insert(at, Some((python(), Rope::from(text))));
    }

    /// The paths in the indexes that result from all work that is due by this time, in order.
    fn work(&mut self, by: Instant) -> Vec<Vec<String>> {
        // The wake-up.
        self.indexer.step(by);
        while self.indexer.next_wakeup(by).is_some_and(|at| at <= by)
            && self.indexer.after != AfterWork::ReleaseProcess
        {
            self.indexer.step(by);
        }
        let indexes = self.events.try_iter().filter_map(|event| match event {
            Event::Indexed { index, .. } => Some(paths(&index)),
            _ => None,
        });
        indexes.collect()
    }
}

#[test]
fn second_walk_rereads_changed_and_drops_deleted_files() {
    let mut test = TestIndexer::new(&["a.py", "b.py", "c.py"]);
    let root = test.root();
    let mut walk = |change: &dyn Fn(&mut Indexer)| {
        let TestIndexer { indexer, events, .. } = &mut test;
        change(indexer);
        indexer.walk(root.clone(), Vec::new());
        let again: Vec<String> = indexer.waiting.iter().map(|(_, it)| it.path.clone()).collect();
        while let Some((root, found)) = indexer.waiting.pop_front() {
            indexer.index_file(&root, &found);
        }
        indexer.publish();
        let indexed = events.try_iter().find(|it| matches!(it, Event::Indexed { .. }));
        let Some(Event::Indexed { index, .. }) = indexed else { panic!("no index") };
        (again, paths(&index))
    };
    assert_eq!(walk(&|_| {}).1, ["a.py", "b.py", "c.py"]);
    let (again, all) = walk(&|_| {
        fs::write(root.join("a.py"), "def two(): return 2\n").unwrap();
        fs::remove_file(root.join("b.py")).unwrap();
    });
    assert_eq!((again, all), (vec!["a.py".to_owned()], vec!["a.py".to_owned(), "c.py".to_owned()]));
    // The text of an open document is not read from the disk, and stays when the file is deleted.
    let at = || DocumentLocation { root: Some(root.clone()), path: "c.py".to_owned() };
    let (again, all) = walk(&|indexer| {
        indexer.index_text(at(), python(), &Rope::from("def three(): pass\n"));
        fs::remove_file(root.join("c.py")).unwrap();
    });
    assert_eq!((again.len(), all.len()), (0, 2));
    let (_, all) = walk(&|indexer| indexer.remove_documents(vec![at()]));
    assert_eq!(all, ["a.py"]);
}

#[test]
fn changed_documents_are_published_together() {
    let mut test = TestIndexer::new(&["a.py"]);
    let start = test.indexer.published;
    for n in 0..50 {
        test.text(&format!("{n}.py"), "def f(): pass\n");
    }
    let none: Vec<Vec<String>> = Vec::new();
    assert_eq!(test.work(start + CHANGE_INTERVAL / 2), none);
    let indexes = test.work(start + CHANGE_INTERVAL);
    assert_eq!(indexes.iter().map(Vec::len).collect::<Vec<_>>(), [50]);
    test.text("1.py", "def g(): pass\n");
    let published = test.indexer.published;
    assert_eq!(test.work(published + CHANGE_INTERVAL / 2), none);
    assert_eq!(test.work(published + CHANGE_INTERVAL).len(), 1);
}

#[test]
fn documents_closed_at_once_are_all_dropped() {
    let mut test = TestIndexer::new(&[]);
    let later = test.indexer.published + Duration::from_secs(3600);
    for n in 0..1000 {
        test.text(&format!("{n}.py"), "def f(): pass\n");
    }
    assert_eq!(test.work(later).last().map(Vec::len), Some(1000));
    for n in 0..1000 {
        let at = test.at(&format!("{n}.py"));
        test.indexer.updates().close_document(at, n == 999);
    }
    assert_eq!(test.work(later + PUBLISH_INTERVAL).last().map(Vec::len), Some(0));
    assert!(test.indexer.files.is_empty());
}

#[test]
fn last_workspace_without_open_document_is_kept() {
    let mut test = TestIndexer::new(&["a.py", "b.py"]);
    let mut later = test.indexer.published + Duration::from_secs(3600);
    test.opened("a.py");
    assert_eq!(test.work(later).last().map(Vec::len), Some(2));
    let at = test.at("a.py");
    test.indexer.updates().close_document(at, true);
    later += PUBLISH_INTERVAL;
    test.work(later);
    assert_eq!(test.indexer.files.len(), 2, "another file of the workspace may be opened next");
    let other = tempfile::tempdir().unwrap();
    test.indexer.updates().open_document(other.path().to_owned(), "x.py".to_owned());
    later += PUBLISH_INTERVAL;
    assert_eq!(test.work(later).last().map(Vec::len), Some(0));
    assert!(test.indexer.files.is_empty() && test.indexer.walked.len() == 1);
}
