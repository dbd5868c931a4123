//! The projects that tasks were cut from, as a source of snippets; a task never gets its own file.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::tasks::{self, Task};
use taper::completion::Snapshot;
use taper::retrieval::crawl::{self, CrawlLimits};
use taper::retrieval::{Index, Query, Snippet};

/// A folder of projects; a task's path begins with its project's.
pub(super) struct Workspaces {
    folder: PathBuf,
    known: HashMap<String, Index>,
}

impl Workspaces {
    /// The projects in this folder. Nothing is read yet.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, known: HashMap::new() }
    }

    /// Snippets from the project's other files for a task, of at most `bytes` bytes.
    pub(super) fn find(&mut self, task: &Task, snapshot: &Snapshot, bytes: usize) -> Vec<Snippet> {
        let Some((project, path)) = tasks::project(&task.path) else { return Vec::new() };
        let Some(language) = snapshot.language else { return Vec::new() };
        let index = self.known.entry(project.to_owned()).or_insert_with(|| {
            crawl::build_index(
                &self.folder.join(project),
                &[path.to_owned()],
                CrawlLimits::DEFAULT,
                &mut || false,
            )
        });
        index.find_snippets(Query { text: &snapshot.text, cursor: snapshot.cursor, path, language }, bytes)
    }
}
