//! Checks the sources against the house rules: layers, file heads, what belongs where.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers of the root package's modules; a file may use its own layer and lower ones.
const LAYERS: &[(&str, u8)] = &[
    ("cli", 8),
    ("lsp", 7),
    ("session", 6),
    ("config", 6),
    ("completion", 5),
    ("usage", 5),
    ("prompt", 4),
    ("retrieval", 3),
    ("syntax", 2),
    ("text", 1),
];

/// Catch-all names.
const BANNED_NAMES: &[&str] =
    &["util", "utils", "manager", "handler", "handlers", "common", "helpers", "misc"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "node_modules" && name != "target" && name != "tools" && name != "fixtures" {
                    walk(&path, out);
                }
            } else if path.extension().is_some_and(|it| it == "rs") {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    for folder in ["server", "grammars", "tools", "tests", "benches"] {
        walk(&root().join(folder), &mut paths);
    }
    assert!(paths.len() > 20, "the sources were not found: {paths:?}");
    paths.sort();
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    paths.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

/// The code of a file without comments and without its `mod tests`.
fn production(text: &str) -> Vec<(usize, &str)> {
    // Attributes may come between the two.
    let test_module = |at: usize| {
        let mut lines = text[at..].lines().skip(1).skip_while(|line| line.starts_with(['#', ' ', ')', ']']));
        lines.next().is_some_and(|line| line.trim_start_matches("pub(super) ").starts_with("mod "))
    };
    let end = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(|&at| test_module(at));
    let end = end.unwrap_or(text.len());
    let lines = text[..end].lines().enumerate();
    lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or(""))).collect()
}

fn layer_of(path: &str) -> Option<u8> {
    let inside = path.strip_prefix("server/")?;
    let module = inside.split(['/', '.']).next()?;
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Modules of this crate that a line of code names by `crate::`.
fn crate_modules(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).flat_map(|rest| {
        let (first, group) = match rest.strip_prefix('{') {
            Some(group) => ("", group.split('}').next().unwrap_or("")),
            None => (rest, ""),
        };
        let word = |text: &str| {
            text.len() - text.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len()
        };
        let single = &first[..word(first)];
        [single].into_iter().chain(group.split(',').map(move |part| {
            let part = part.trim();
            &part[..word(part)]
        }))
    })
}

fn layer_faults(path: &str, text: &str) -> Vec<String> {
    let Some(layer) = layer_of(path) else { return Vec::new() };
    let mut faults = Vec::new();
    for (number, line) in production(text) {
        for module in crate_modules(line) {
            if let Some((_, other)) = LAYERS.iter().find(|(name, _)| *name == module)
                && *other > layer
            {
                faults.push(format!("{path}:{number}: layer {layer} uses {module} of layer {other}"));
            }
        }
    }
    faults
}

fn place_faults(path: &str, text: &str) -> Vec<String> {
    let engine = path.starts_with("server/engine");
    // Our own programs that are not installed.
    let tool = path.starts_with("tools/");
    let border = path.starts_with("server/lsp")
        || path.starts_with("server/config")
        || path == "server/usage/store.rs"
        || tool;
    let test = path.starts_with("tests/")
        || path.starts_with("benches/")
        || path.contains("/tests/")
        || ["/testing.rs", "/tests.rs"].iter().any(|name| path.ends_with(name));
    // The output of a build script is for cargo.
    let cli =
        path.starts_with("server/cli") || path == "server/main.rs" || path.ends_with("/build.rs") || tool;
    let mut faults = Vec::new();
    for (number, line) in production(text) {
        let mut fault = |what: &str| faults.push(format!("{path}:{number}: {what}: {}", line.trim()));
        if !engine && !test && line.contains("candle_") {
            fault("candle outside the engine");
        }
        if !border && !test && !engine && line.contains("serde_json") {
            fault("JSON outside lsp, config and usage/store");
        }
        if !path.starts_with("server/lsp")
            && !test
            && (line.contains("tower_lsp") || line.contains("ls_types"))
        {
            fault("LSP outside lsp");
        }
        if !engine && !tool && !test && line.contains("reqwest") {
            fault("a network connection outside the engine");
        }
        // The engine may: it runs the machine's package client to fetch a model.
        if !engine
            && !tool
            && !test
            && line.contains("Command::new(")
            && path != "server/session/crawler/process.rs"
        {
            fault("a process outside the crawler");
        }
        if !test && (line.contains(".unwrap()") || line.contains(".expect(")) {
            fault("a possible panic");
        }
        if !test && !cli && (line.contains("println!(") || line.contains("print!(")) {
            fault("stdout is the protocol");
        }
        if !test
            && (line.contains("unsafe {") || line.contains("unsafe extern"))
            && !path.starts_with("server/engine/")
            && path != "grammars/scanners.rs"
        {
            fault("unsafe outside the engine");
        }
    }
    faults
}

fn head_faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//! ") {
        faults.push(format!("{path}: begin with a `//!` sentence on what the file is"));
    }
    let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    if name == "mod" || BANNED_NAMES.contains(&name) {
        faults.push(format!("{path}: a catch-all name"));
    }
    faults
}

/// Errors whose message contains their cause and that also return the cause as their source: printing the chain repeats
/// it. The field name `r#source` prevents that.
fn cause_faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let variants = text.split("#[error(").skip(1);
    for variant in variants {
        let Some((message, body)) = variant.split_once(")]\n") else { continue };
        // Up to the end of the variant: its fields are indented further.
        let end = body.find("\n    }").or_else(|| body.find("),")).unwrap_or(body.len());
        let body = &body[..end];
        let named =
            message.contains("{source") && body.lines().any(|line| line.trim().starts_with("source:"));
        let marked = body.contains("#[from]") || body.contains("#[source]");
        if named || marked && !message.contains("transparent") {
            faults.push(format!(
                "{path}: the message and the source both have the cause: {}",
                message.lines().next().unwrap_or("")
            ));
        }
    }
    faults
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn modules_use_only_lower_layers() {
    report(sources().iter().flat_map(|(path, text)| layer_faults(path, text)).collect());
}

#[test]
fn restricted_code_stays_in_its_place() {
    report(sources().iter().flat_map(|(path, text)| place_faults(path, text)).collect());
}

#[test]
fn every_file_begins_with_a_description() {
    report(sources().iter().flat_map(|(path, text)| head_faults(path, text)).collect());
}

#[test]
fn errors_include_their_cause_once() {
    report(sources().iter().flat_map(|(path, text)| cause_faults(path, text)).collect());
}

#[test]
fn checks_find_seeded_violations() {
    let seen = |faults: Vec<String>| faults.len();
    assert_eq!(seen(layer_faults("server/text/rope.rs", "use crate::{syntax::Syntax, text::Edit};\n")), 1);
    assert_eq!(seen(layer_faults("server/prompt.rs", "fn f() { crate::session::go() }\n")), 1);
    assert_eq!(seen(layer_faults("server/session.rs", "use crate::text::Rope;\n// crate::cli\n")), 0);
    assert_eq!(seen(place_faults("server/text.rs", "use candle_core::Tensor;\n")), 1);
    assert_eq!(seen(place_faults("server/session.rs", "let v = serde_json::json!({});\n")), 1);
    assert_eq!(seen(place_faults("server/session.rs", "use tower_lsp::Client;\n")), 1);
    assert_eq!(seen(place_faults("server/lsp.rs", "reqwest::get(address);\n")), 1);
    assert_eq!(seen(place_faults("server/cli.rs", "Command::new(\"sh\");\n")), 1);
    assert_eq!(
        seen(place_faults("tools/eval/run.rs", "Command::new(\"sh\"); serde_json::to_value(1);\n")),
        0
    );
    assert_eq!(seen(place_faults("tools/eval/run.rs", "use candle_core::Tensor;\n")), 1);
    assert_eq!(
        seen(place_faults("server/text.rs", "x.unwrap();\n#[cfg(test)]\nmod tests { x.unwrap(); }\n")),
        1
    );
    let attributed = "x.unwrap();\n#[cfg(test)]\n#[expect(clippy::x)]\nmod tests { x.unwrap(); }\n";
    assert_eq!(seen(place_faults("server/text.rs", attributed)), 1);
    assert_eq!(seen(place_faults("server/text.rs", "println!(\"\");\n")), 1);
    assert_eq!(seen(place_faults("server/text.rs", "unsafe { f() }\n")), 1);
    let twice = "    #[error(\"cannot read: {source}\")]\n    Read {\n        source: io::Error,\n    },\n";
    assert_eq!(seen(cause_faults("server/text.rs", twice)), 1);
    assert_eq!(seen(cause_faults("server/text.rs", &twice.replace("  source:", "  r#source:"))), 0);
    let from = "    #[error(\"{0}\")]\n    Fetch(#[from] FetchError),\n";
    assert_eq!(seen(cause_faults("server/text.rs", from)), 1);
    assert_eq!(seen(cause_faults("server/text.rs", &from.replace("\"{0}\"", "transparent"))), 0);
    assert_eq!(seen(head_faults("server/util.rs", "fn f() {}\n")), 2);
    assert_eq!(seen(head_faults("server/text.rs", "//! Text.\nfn f() {}\n")), 0);
}
