//! `taper models`: lists known and installed models.

use std::io::{self, Write as _};

use anyhow::Context as _;
use taper_engine::catalog::{CatalogModel, MODELS};
use taper_engine::fetch::{ByteSize, ModelStore};
use taper_engine::memory;

use super::{pull, terminal};

/// List known and installed models, with their files and sizes.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "Examples:
  taper models            every known model; installed ones are marked, and those too large for this machine
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
    let text = model_list(&store, pull::default_model()?, args.here, memory::available_bytes());
    io::stdout().write_all(terminal::escape_controls(&text).as_bytes()).context("cannot write to stdout")
}

/// The list as text: one line per model, then what is to be known about it. `free_memory` in bytes, if it is known.
fn model_list(
    store: &ModelStore,
    default: &CatalogModel,
    only_here: bool,
    free_memory: Option<u64>,
) -> String {
    let width = MODELS.iter().map(|model| model.name.len()).max().unwrap_or(0);
    let mut text = format!("models are stored in {}\n", store.folder().display());
    if let Some(free) = free_memory {
        text += &format!("{} of memory are free\n", ByteSize(free));
    }
    text.push('\n');
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
        text += &format!("{name:width$}  {:10}  {size:>9}  {licence:19}  {state}{default}\n", model.family);
        let mut line = |about: &str| text += &format!("{:width$}  {about}\n", "");
        line(model.note);
        let needed = model.memory_bytes();
        line(&match free_memory {
            Some(free) if free < needed => {
                format!("does not fit: needs about {} of memory", ByteSize(needed))
            }
            Some(_) => format!("fits: needs about {} of memory", ByteSize(needed)),
            None => format!("needs about {} of memory", ByteSize(needed)),
        });
        if !model.has_free_licence() {
            line(&format!("not free: the licence {licence} restricts its use"));
        }
        if model.sha256.is_none() {
            line("unpinned: taper has no hash for it and uses the hub's");
        }
        if let Some(path) = path {
            line(&path.display().to_string());
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

    fn store_in(folder: &tempfile::TempDir) -> ModelStore {
        ModelStore::with_folders(folder.path().join("models"), folder.path().join("cache"))
    }

    /// The lines about one model.
    fn lines_about(list: &str, name: &str) -> Vec<String> {
        let from = list.lines().skip_while(|line| line.split(' ').next() != Some(name));
        let mut lines = from.map(str::to_owned);
        let first = lines.next().unwrap();
        [first].into_iter().chain(lines.take_while(|line| line.starts_with(' '))).collect()
    }

    #[test]
    fn installed_models_are_listed_with_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        let default = find_model("qwen2.5-coder-0.5b").unwrap();
        assert!(
            model_list(&store, default, true, None)
                .ends_with("none yet: `taper pull` downloads the default model\n")
        );

        let here = find_model("qwen2.5-coder-3b").unwrap();
        fs::create_dir_all(store.folder()).unwrap();
        // Only the size is checked; the file is sparse.
        fs::File::create(store.folder().join(here.file)).unwrap().set_len(here.bytes).unwrap();
        fs::write(store.folder().join(find_model("qwen2.5-coder-7b").unwrap().file), [0; 2000]).unwrap();
        fs::write(store.folder().join(format!("{}.part", default.file)), "begun").unwrap();
        let all = model_list(&store, default, false, None);
        let line = |name: &str| lines_about(&all, name).remove(0);
        assert!(line("qwen2.5-coder-0.5b").ends_with("491.4 MB  Apache-2.0           incomplete (default)"));
        assert!(line("qwen2.5-coder-3b").ends_with("2.10 GB  Qwen-Research        here"));
        assert!(line("qwen2.5-coder-7b").ends_with("damaged: wrong size"));
        let unpinned = MODELS.iter().filter(|model| model.sha256.is_none()).count();
        assert_eq!(all.matches("unpinned").count(), unpinned);
        assert!(all.contains(&*store.folder().join(here.file).to_string_lossy()));
        assert_eq!(model_list(&store, default, true, None).matches("Apache-2.0").count(), 0);
    }

    #[test]
    fn memory_need_and_licence_are_stated() {
        let folder = tempfile::tempdir().unwrap();
        let (store, default) = (store_in(&folder), find_model("qwen2.5-coder-0.5b").unwrap());
        let needed = find_model("qwen2.5-coder-7b").unwrap().memory_bytes();
        let about = |free_memory: Option<u64>, name: &str| {
            lines_about(&model_list(&store, default, false, free_memory), name).join("\n")
        };
        assert!(about(Some(needed), "qwen2.5-coder-7b").contains("  fits: needs about 6.12 GB of memory"));
        assert!(about(Some(needed - 1), "qwen2.5-coder-7b").contains("  does not fit: needs about 6.12 GB"));
        assert!(about(None, "qwen2.5-coder-7b").contains("  needs about 6.12 GB"));
        assert!(model_list(&store, default, false, Some(needed)).contains("6.12 GB of memory are free"));
        assert!(
            about(None, "qwen2.5-coder-3b").contains("not free: the licence Qwen-Research restricts its use")
        );
        assert!(!about(None, "qwen2.5-coder-7b").contains("not free"));
    }
}
