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
    workspace.near(root.clone(), "a.py".to_owned());
    let index = until_indexed(&events, |index| index.files().len() == 2);
    assert_eq!(paths(&index), ["a.py", "b.py"]);

    let at = DocumentLocation { root: Some(root), path: "a.py".to_owned() };
    workspace.text(at.clone(), python(), Rope::from("def in_editor_now(): pass\n"));
    let bytes = |index: &Index| index.files()[0].text().len();
    until_indexed(&events, |index| bytes(index) == 26);
    workspace.gone(at.clone(), false);
    until_indexed(&events, |index| bytes(index) == 20);

    // While open it is indexed, though git ignores it; once closed, it is not read.
    let ignored = DocumentLocation { root: at.root.clone(), path: "ignored.py".to_owned() };
    workspace.text(ignored.clone(), python(), Rope::from("def mine(): pass\n"));
    until_indexed(&events, |index| index.files().len() == 3);
    workspace.gone(ignored, false);
    until_indexed(&events, |index| paths(index) == ["a.py", "b.py"]);

    let alone = DocumentLocation { root: None, path: "c.py".to_owned() };
    workspace.text(alone.clone(), python(), Rope::from("x = 1\nyy = 2\n"));
    until_indexed(&events, |index| paths(index) == ["c.py"]);
    workspace.gone(alone, true);
    until_indexed(&events, |index| index.files().is_empty());
}

/// The indexer without its thread.
struct Stage {
    folder: tempfile::TempDir,
    cutter: Indexer,
    events: Receiver<Event>,
}

impl Stage {
    fn new(files: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            fs::write(folder.path().join(name), "def one(): pass\n").unwrap();
        }
        let (sender, events) = crossbeam_channel::unbounded();
        Self { folder, cutter: Indexer::new(Arc::default(), sender, CrawlMode::Here.start()), events }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn at(&self, path: &str) -> DocumentLocation {
        DocumentLocation { root: Some(self.root()), path: path.to_owned() }
    }

    fn opened(&mut self, path: &str) {
        let root = self.root();
        self.cutter.wishes().near(root, path.to_owned());
    }

    fn text(&mut self, path: &str, text: &str) {
        let at = self.at(path);
        self.cutter.wishes().documents.insert(at, Some((python(), Rope::from(text))));
    }

    /// The paths in the indexes that result from all work that is due by this time, in order.
    fn work(&mut self, by: Instant) -> Vec<Vec<String>> {
        // The wake-up.
        self.cutter.step(by);
        while self.cutter.next(by).is_some_and(|at| at <= by) && self.cutter.after != AfterWork::Rest {
            self.cutter.step(by);
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
    let mut stage = Stage::new(&["a.py", "b.py", "c.py"]);
    let root = stage.root();
    let mut walk = |change: &dyn Fn(&mut Indexer)| {
        let Stage { cutter, events, .. } = &mut stage;
        change(cutter);
        cutter.walk(root.clone(), Vec::new());
        let again: Vec<String> = cutter.waiting.iter().map(|(_, it)| it.path.clone()).collect();
        while let Some((root, found)) = cutter.waiting.pop_front() {
            cutter.cut(&root, &found);
        }
        cutter.publish();
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
    let (again, all) = walk(&|cutter| {
        cutter.take(at(), python(), &Rope::from("def three(): pass\n"));
        fs::remove_file(root.join("c.py")).unwrap();
    });
    assert_eq!((again.len(), all.len()), (0, 2));
    let (_, all) = walk(&|cutter| cutter.close(vec![at()]));
    assert_eq!(all, ["a.py"]);
}

#[test]
fn documents_that_change_in_turn_lead_to_one_index_in_a_while() {
    let mut stage = Stage::new(&["a.py"]);
    let start = stage.cutter.published;
    for n in 0..50 {
        stage.text(&format!("{n}.py"), "def f(): pass\n");
    }
    let none: Vec<Vec<String>> = Vec::new();
    assert_eq!(stage.work(start + CHANGE_INTERVAL / 2), none);
    let indexes = stage.work(start + CHANGE_INTERVAL);
    assert_eq!(indexes.iter().map(Vec::len).collect::<Vec<_>>(), [50]);
    stage.text("1.py", "def g(): pass\n");
    let published = stage.cutter.published;
    assert_eq!(stage.work(published + CHANGE_INTERVAL / 2), none);
    assert_eq!(stage.work(published + CHANGE_INTERVAL).len(), 1);
}

#[test]
fn documents_closed_at_once_are_all_dropped() {
    let mut stage = Stage::new(&[]);
    let later = stage.cutter.published + Duration::from_secs(3600);
    for n in 0..1000 {
        stage.text(&format!("{n}.py"), "def f(): pass\n");
    }
    assert_eq!(stage.work(later).last().map(Vec::len), Some(1000));
    for n in 0..1000 {
        let at = stage.at(&format!("{n}.py"));
        stage.cutter.wishes().gone(at, n == 999);
    }
    assert_eq!(stage.work(later + PUBLISH_INTERVAL).last().map(Vec::len), Some(0));
    assert!(stage.cutter.files.is_empty());
}

#[test]
fn of_workspaces_without_an_open_document_the_last_one_is_kept() {
    let mut stage = Stage::new(&["a.py", "b.py"]);
    let mut later = stage.cutter.published + Duration::from_secs(3600);
    stage.opened("a.py");
    assert_eq!(stage.work(later).last().map(Vec::len), Some(2));
    let at = stage.at("a.py");
    stage.cutter.wishes().gone(at, true);
    later += PUBLISH_INTERVAL;
    stage.work(later);
    assert_eq!(stage.cutter.files.len(), 2, "another file of the workspace may be opened next");
    let other = tempfile::tempdir().unwrap();
    stage.cutter.wishes().near(other.path().to_owned(), "x.py".to_owned());
    later += PUBLISH_INTERVAL;
    assert_eq!(stage.work(later).last().map(Vec::len), Some(0));
    assert!(stage.cutter.files.is_empty() && stage.cutter.walked.len() == 1);
}
