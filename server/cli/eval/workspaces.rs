//! The projects that tasks were cut out of, where they lie on this machine: for what their other files say.
//! It knows nothing of answers, and never shows a task its own file.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::context::crawl::{self, Limits};
use crate::context::{Index, Place, Snippet};
use crate::protocol::tasks::Task;
use crate::suggest::Snapshot;

/// A folder with a project in each of its folders; a task's path begins with its project's.
pub(super) struct Workspaces {
    folder: PathBuf,
    known: HashMap<String, Index>,
}

impl Workspaces {
    /// The projects in this folder. Nothing is read yet.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, known: HashMap::new() }
    }

    /// What the project's other files have for a task, of at most so many bytes.
    pub(super) fn find(&mut self, task: &Task, snapshot: &Snapshot, bytes: usize) -> Vec<Snippet> {
        let Some((project, path)) = project(&task.path) else { return Vec::new() };
        let Some(language) = snapshot.language else { return Vec::new() };
        let index = self.known.entry(project.to_owned()).or_insert_with(|| {
            crawl::index(&self.folder.join(project), &[path.to_owned()], Limits::USUAL, &mut || false)
        });
        index.find(Place { text: &snapshot.text, cursor: snapshot.cursor, path, language }, bytes)
    }
}

/// The project's name and the path in it: of `@scope/name/a.js`, `@scope/name` and `a.js`.
fn project(path: &str) -> Option<(&str, &str)> {
    let names = if path.starts_with('@') { 2 } else { 1 };
    let (at, _) = path.match_indices('/').nth(names - 1)?;
    Some((&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_with_its_project() {
        assert_eq!(project("a/b/c.py"), Some(("a", "b/c.py")));
        assert_eq!(project("@s/a/b/c.js"), Some(("@s/a", "b/c.js")));
        assert_eq!(project("c.py"), None);
    }
}
