//! `taper models`: lists known and installed models.

use std::io::{self, Write as _};

use anyhow::Context as _;
use taper_engine::catalog::{CatalogModel, MODELS};
use taper_engine::fetch::{ByteSize, ModelStore};

use super::{pull, terminal};

/// List known and installed models, with their files and sizes.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "Examples:
  taper models            every known model; installed ones are marked
  taper models --here     only installed models, with their files

Any other GGUF file of a supported family can be used by its path: taper complete --model FILE …")]
pub struct Args {
    /// List only installed models
    #[arg(long)]
    here: bool,
}

/// Runs the command.
///
/// # Errors
/// The home folder is unknown, or stdout is closed.
pub fn run(args: Args) -> anyhow::Result<()> {
    let store = ModelStore::open()?;
    let text = model_list(&store, pull::default_model()?, args.here);
    io::stdout().write_all(terminal::escape_controls(&text).as_bytes()).context("cannot write to stdout")
}

/// The list as text: one line per model, then its file if it is installed.
fn model_list(store: &ModelStore, default: &CatalogModel, only_here: bool) -> String {
    let width = MODELS.iter().map(|model| model.name.len()).max().unwrap_or(0);
    let mut text = format!("models are stored in {}\n\n", store.folder().display());
    let mut shown = 0;
    for model in MODELS {
        let path = store.find_file(model);
        if only_here && path.is_none() {
            continue;
        }
        shown += 1;
        let size =
            path.as_ref().and_then(|path| path.metadata().ok()).map_or(model.bytes, |found| found.len());
        let state = match &path {
            Some(_) => "here",
            None if store.folder().join(model.file).is_file() => "damaged: wrong size",
            None if store.partial_len(model) > 0 => "incomplete",
            None => "-",
        };
        let default = if model.name == default.name { " (default)" } else { "" };
        let (name, size, licence) = (model.name, ByteSize(size).to_string(), model.licence);
        text += &format!("{name:width$}  {:7}  {size:>9}  {licence:13}  {state}{default}\n", model.family);
        text += &format!("{:width$}  {}\n", "", model.note);
        if model.sha256.is_none() {
            text += &format!("{:width$}  unpinned: taper has no hash for it and uses the hub's\n", "");
        }
        if let Some(path) = path {
            text += &format!("{:width$}  {}\n", "", path.display());
        }
    }
    if shown == 0 {
        text += "none yet: `taper pull` downloads the default model\n";
    }
    text
}

#[cfg(test)]
mod tests {

    use std::fs;

    use super::*;
    use taper_engine::catalog::find_model;

    #[test]
    fn installed_models_are_listed_with_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::with_folders(folder.path().join("models"), folder.path().join("cache"));
        let default = find_model("qwen2.5-coder-0.5b").unwrap();
        assert!(
            model_list(&store, default, true)
                .ends_with("none yet: `taper pull` downloads the default model\n")
        );

        let here = find_model("qwen2.5-coder-3b").unwrap();
        fs::create_dir_all(store.folder()).unwrap();
        // Only the size is checked; the file is sparse.
        fs::File::create(store.folder().join(here.file)).unwrap().set_len(here.bytes).unwrap();
        fs::write(store.folder().join(find_model("qwen2.5-coder-7b").unwrap().file), [0; 2000]).unwrap();
        fs::write(store.folder().join(format!("{}.part", default.file)), "begun").unwrap();
        let all = model_list(&store, default, false);
        let line = |name: &str| all.lines().find(|l| l.split(' ').next() == Some(name)).unwrap().to_owned();
        assert!(line("qwen2.5-coder-0.5b").ends_with("491.4 MB  Apache-2.0     incomplete (default)"));
        assert!(line("qwen2.5-coder-3b").ends_with("2.10 GB  Qwen-Research  here"));
        assert!(line("qwen2.5-coder-7b").ends_with("damaged: wrong size"));
        let unpinned = MODELS.iter().filter(|model| model.sha256.is_none()).count();
        assert_eq!(all.matches("unpinned").count(), unpinned);
        assert!(all.contains(&*store.folder().join(here.file).to_string_lossy()));
        assert_eq!(model_list(&store, default, true).matches("Apache-2.0").count(), 0);
    }
}
