//! Parses a user's model argument: a known name, or a file path in any of its spellings.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use url::Url;

use super::FetchError;
use crate::catalog::{self, CatalogModel};

/// The meaning of a `--model` argument or the `model` setting.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelReference {
    /// A model in the catalog.
    Known(&'static CatalogModel),
    /// A file of the user.
    File(PathBuf),
}

/// Parses a `--model` argument or setting: a known name, else a path to a file.
///
/// A path may begin with `~`, contain variables (`$HOME`, `${HOME}`, `%USERPROFILE%`), or be a `file:` address. An
/// existing file with the literal name takes precedence. A relative path is relative to the folder in which the program
/// was started; see [`resolve_relative_to`] for paths in a configuration file.
///
/// # Errors
/// The text is not a known name, does not look like a path and does not name a file; or a variable in it is not set; or
/// it is an address of something other than a local file. [`check_kind`] and the reader of the file check whether a
/// path leads to a readable model.
pub fn parse_model_reference(text: &str) -> Result<ModelReference, FetchError> {
    if let Some(model) = catalog::find_model(text) {
        return Ok(ModelReference::Known(model));
    }
    if let Some(path) = parse_path(text, &env_variable)? {
        return Ok(ModelReference::File(path));
    }
    let name: String = text.chars().take(100).collect();
    Err(FetchError::UnknownModel { name, nearest: catalog::nearest_name(text) })
}

/// Resolves a relative path from a file in `folder` against that folder. `None` if the text does not change.
pub fn resolve_relative_to(text: &str, folder: &Path) -> Option<String> {
    let plain = catalog::find_model(text).is_none()
        && looks_like_path(text)
        && url_scheme(text).is_none()
        && !text.starts_with('~')
        && matches!(expand_variables(text, &env_variable), Ok(Cow::Borrowed(_)))
        && Path::new(text).is_relative();
    plain.then(|| folder.join(text).to_string_lossy().into_owned())
}

/// The path in `text`, if it is one.
fn parse_path(
    text: &str,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<PathBuf>, FetchError> {
    let refused = |problem: String| {
        let text = text.chars().take(200).collect();
        Err(FetchError::InvalidModelPath { text, problem })
    };
    if text.contains('\0') {
        return refused("it contains a NUL byte, which a path cannot".into());
    }
    let literal = Path::new(text);
    if !text.is_empty() && fs::symlink_metadata(literal).is_ok() {
        return Ok(Some(literal.to_path_buf()));
    }
    match url_scheme(text) {
        Some("file") => {
            let path = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
            return match path {
                Some(path) => Ok(Some(path)),
                None => refused("write file:/// followed by the full path of a file on this machine".into()),
            };
        }
        Some(scheme) => {
            return refused(format!(
                "{scheme} addresses are not read; download the file and give its path, or choose from `taper models`"
            ));
        }
        None => {}
    }
    match expand_variables(text, variable) {
        Err(problem) => refused(problem),
        Ok(Cow::Owned(expanded)) => Ok(Some(expanded.into())),
        Ok(Cow::Borrowed(_)) => Ok(looks_like_path(text).then(|| literal.to_path_buf())),
    }
}

/// A path from an environment variable, with `~` and known variables replaced.
pub(super) fn expand_path(text: &str) -> PathBuf {
    PathBuf::from(expand_variables(text, &env_variable).unwrap_or(Cow::Borrowed(text)).into_owned())
}

/// Whether a text that does not name an existing file is still meant as a path.
fn looks_like_path(text: &str) -> bool {
    let gguf = |path: &Path| path.extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"));
    text.contains(std::path::is_separator) || gguf(Path::new(text))
}

/// The scheme of an address: `file:…`, or two or more letters before `://` (a single letter is a drive).
fn url_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.len() >= 2
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if is_scheme && scheme.eq_ignore_ascii_case("file") {
        return Some("file");
    }
    (is_scheme && rest.starts_with("//")).then_some(scheme)
}

/// An environment variable, or the user's home folder for its two names.
fn env_variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty()).or_else(|| match name {
        "HOME" | "USERPROFILE" => etcetera::choose_base_strategy().ok().map(|it| it.home_dir().into()),
        _ => None,
    })
}

/// Replaces `~` at the beginning, and `$NAME`, `${NAME}` and `%NAME%` anywhere. Text that is not a variable name stays;
/// so does `%NAME%` if that variable is not set, because a file name may contain percent signs.
fn expand_variables<'a>(
    text: &'a str,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Cow<'a, str>, String> {
    let value = |name: &str| -> Result<Option<String>, String> {
        match variable(name).map(OsString::into_string) {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(format!("the variable {name} is not UTF-8")),
            None => Ok(None),
        }
    };
    let mut out = String::new();
    let mut rest = text;
    let mut changed = false;
    let mut backslashes = false;
    if let Some(tail) = text.strip_prefix('~') {
        if !tail.is_empty() && !tail.starts_with(is_separator) {
            if tail.contains(is_separator) {
                return Err("folders of other users are not looked up; write the whole path".into());
            }
        } else if let Some(home) = value("HOME")? {
            out.push_str(&home);
            (rest, changed) = (tail, true);
        } else {
            return Err("there is no home folder; write the whole path".into());
        }
    }
    while let Some(at) = rest.find(['$', '%']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (name, tail, required) = if let Some(inner) = from.strip_prefix("${") {
            inner.split_once('}').map_or(("", from, false), |(name, tail)| (name, tail, true))
        } else if let Some(inner) = from.strip_prefix('$') {
            let end = inner.find(|c: char| !is_name_char(c)).unwrap_or(inner.len());
            (&inner[..end], &inner[end..], true)
        } else {
            from[1..].split_once('%').map_or(("", from, false), |(name, tail)| (name, tail, false))
        };
        let named = name.starts_with(|c: char| is_name_char(c) && !c.is_ascii_digit())
            && name.chars().all(is_name_char);
        match if named { value(name)? } else { None } {
            Some(value) => {
                out.push_str(&value);
                backslashes |= from.starts_with('%');
                (rest, changed) = (tail, true);
            }
            None if named && required => return Err(format!("the variable {name} is not set")),
            None => {
                out.push_str(&from[..1]);
                rest = &from[1..];
            }
        }
    }
    if !changed {
        return Ok(Cow::Borrowed(text));
    }
    out.push_str(rest);
    // Paths with %NAME% are usually written with backslashes.
    if backslashes && !cfg!(windows) {
        out = out.replace('\\', "/");
    }
    Ok(Cow::Owned(out))
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_separator(c: char) -> bool {
    c == '/' || c == '\\' && cfg!(windows)
}

/// Refuses a path that obviously does not lead to a GGUF file: a folder, a device, an archive, another format. Reads at
/// most a few bytes of a plain file, so it cannot block.
///
/// # Errors
/// The path leads to one of these; the message names it and the remedy.
pub fn check_kind(path: &Path) -> Result<(), FetchError> {
    let refused = |problem: &str| {
        Err(FetchError::InvalidModelPath { text: path.display().to_string(), problem: problem.to_owned() })
    };
    let Ok(found) = fs::metadata(path) else {
        // The reader of the file reports a better error.
        return Ok(());
    };
    if found.is_dir() {
        return refused(&format!(
            "it is a folder{}; give the path of a GGUF file",
            describe_contained_models(path)
        ));
    }
    if !found.is_file() {
        return refused("it is a device, a pipe or a socket; give the path of a GGUF file");
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(256).read_to_end(&mut start));
    if read.is_err() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&start).to_ascii_lowercase();
    let begins = |what: &[u8]| start.starts_with(what);
    if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") {
        return refused(
            "it is a zip archive (a wheel or a PyTorch checkpoint), not a GGUF file; \
             `taper pull` unpacks the models that it knows",
        );
    }
    if begins(&[0x1f, 0x8b]) || begins(b"\x28\xb5\x2f\xfd") || begins(b"\xfd7zXZ") || begins(b"BZh") {
        return refused("it is compressed; unpack it and give the path of the GGUF file");
    }
    if begins(b"version https://git-lfs") {
        return refused("it only points to a file in Git LFS; fetch the file itself with `git lfs pull`");
    }
    if text.trim_start().starts_with("<!doctype") || text.trim_start().starts_with("<html") {
        return refused("it is a web page, not a model: the download probably requires a login");
    }
    if start.get(8..10).is_some_and(|it| it == b"{\"") && start[4..8] == [0; 4] {
        return refused("it is a safetensors file; convert it to GGUF with llama.cpp's tools");
    }
    if [&b"lmgg"[..], b"fmgg", b"tjgg"].iter().any(|old| begins(old)) {
        return refused("it is in a format from before GGUF; download the model as GGUF");
    }
    Ok(())
}

/// A hint about the GGUF files in a folder.
fn describe_contained_models(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(1000);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut files = names.filter(|name| name.to_ascii_lowercase().ends_with(".gguf"));
    match (files.next(), files.next()) {
        (Some(file), None) => format!(", with {file} in it"),
        (Some(_), Some(_)) => " of several models".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    /// The variables of the tests.
    fn test_variable(name: &str) -> Option<OsString> {
        match name {
            "HOME" | "USERPROFILE" => Some("/home/u".into()),
            "MODELS" => Some("/srv/models".into()),
            "Q" => Some("q4".into()),
            _ => None,
        }
    }

    fn parsed_path(text: &str) -> Result<Option<PathBuf>, String> {
        parse_path(text, &test_variable).map_err(|error| error.to_string())
    }

    #[cfg(unix)]
    #[test]
    fn every_path_spelling_is_resolved() {
        for (text, path) in [
            ("x.gguf", "x.gguf"),
            ("X.GGUF", "X.GGUF"),
            ("./x", "./x"),
            ("../models/x.gguf", "../models/x.gguf"),
            ("models/x", "models/x"),
            ("/m/x.gguf", "/m/x.gguf"),
            ("~/x.gguf", "/home/u/x.gguf"),
            ("~", "/home/u"),
            ("~/", "/home/u/"),
            ("$HOME/x.gguf", "/home/u/x.gguf"),
            ("${HOME}/x.gguf", "/home/u/x.gguf"),
            ("$MODELS/a/x.gguf", "/srv/models/a/x.gguf"),
            ("/m/x-$Q.gguf", "/m/x-q4.gguf"),
            ("/m/x-${Q}_k.gguf", "/m/x-q4_k.gguf"),
            ("%USERPROFILE%\\m\\x.gguf", "/home/u/m/x.gguf"),
            ("%HOME%/x.gguf", "/home/u/x.gguf"),
            ("file:///m/x.gguf", "/m/x.gguf"),
            ("FILE:///m/x.gguf", "/m/x.gguf"),
            ("file:/m/x.gguf", "/m/x.gguf"),
            ("file://localhost/m/x.gguf", "/m/x.gguf"),
            ("file:///m/a%20b/%C3%A4.gguf", "/m/a b/ä.gguf"),
            ("file:///m/%7Eu/x.gguf", "/m/~u/x.gguf"),
            ("/m/100%/x.gguf", "/m/100%/x.gguf"),
            ("/m/50%_or_60%.gguf", "/m/50%_or_60%.gguf"),
            ("/m/$/x.gguf", "/m/$/x.gguf"),
            ("/m/$1.gguf", "/m/$1.gguf"),
            ("/m/${x.gguf", "/m/${x.gguf"),
            ("a~/x.gguf", "a~/x.gguf"),
            ("~x.gguf", "~x.gguf"),
            ("C:/m/x.gguf", "C:/m/x.gguf"),
            ("C://m/x.gguf", "C://m/x.gguf"),
            ("a:b/x.gguf", "a:b/x.gguf"),
        ] {
            assert_eq!(parsed_path(text), Ok(Some(path.into())), "{text}");
        }
        for name in ["", "qwen", "qwen2.5-coder-9b", "x.safetensors", "a b"] {
            assert_eq!(parsed_path(name), Ok(None), "{name}");
        }
    }

    #[test]
    fn unresolvable_path_is_reported() {
        for (text, part) in [
            ("$NO_SUCH_VARIABLE/x.gguf", "NO_SUCH_VARIABLE is not set"),
            ("${NO_SUCH_VARIABLE}/x.gguf", "NO_SUCH_VARIABLE is not set"),
            ("~somebody/x.gguf", "write the whole path"),
            ("https://huggingface.co/a/b/x.gguf", "https addresses are not read"),
            ("hf://a/b", "hf addresses are not read"),
            ("file://far.example/x.gguf", "on this machine"),
            ("a\0b.gguf", "NUL"),
        ] {
            let problem = parsed_path(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn existing_literal_path_comes_before_expansion() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["$HOME.gguf", "%HOME%", "a$NOT_SET"] {
            let path = folder.path().join(name);
            fs::write(&path, "x").unwrap();
            assert_eq!(parsed_path(path.to_str().unwrap()), Ok(Some(path)));
        }
    }

    #[cfg(unix)]
    #[test]
    fn relative_path_is_resolved_against_config_folder() {
        let beside = |text| resolve_relative_to(text, Path::new("/etc/taper"));
        assert_eq!(beside("m/x.gguf").as_deref(), Some("/etc/taper/m/x.gguf"));
        assert_eq!(beside("x.gguf").as_deref(), Some("/etc/taper/x.gguf"));
        for same in
            ["qwen2.5-coder-0.5b", "auto", "/m/x.gguf", "~/x.gguf", "$HOME/x.gguf", "file:///m/x.gguf"]
        {
            assert_eq!(beside(same), None, "{same}");
        }
    }

    #[test]
    fn non_gguf_file_kinds_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let problem = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            check_kind(&path).unwrap_err().to_string()
        };
        assert!(problem("a.whl", b"PK\x03\x04rest").contains("zip archive"));
        assert!(problem("a.gz", &[0x1f, 0x8b, 8]).contains("compressed"));
        assert!(problem("lfs.gguf", b"version https://git-lfs.github.com/spec/v1\n").contains("Git LFS"));
        assert!(problem("page.gguf", b"\n<!DOCTYPE html><html>").contains("web page"));
        assert!(problem("a.safetensors", b"\x40\0\0\0\0\0\0\0{\"a\":{}}").contains("safetensors"));
        assert!(problem("old.bin", b"tjgg\x03\0\0\0").contains("before GGUF"));
        // Other files are left to the reader.
        for (name, bytes) in
            [("empty.gguf", &b""[..]), ("text.gguf", b"a text"), ("m.gguf", b"GGUF\x03\0\0\0")]
        {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            assert!(check_kind(&path).is_ok(), "{name}");
        }
        assert!(check_kind(&folder.path().join("missing.gguf")).is_ok());
    }

    #[test]
    fn folder_is_refused_with_hint() {
        let folder = tempfile::tempdir().unwrap();
        let problem = || check_kind(folder.path()).unwrap_err().to_string();
        assert!(problem().contains("it is a folder; give"), "{}", problem());
        fs::write(folder.path().join("m.GGUF"), "").unwrap();
        assert!(problem().contains("it is a folder, with m.GGUF in it; give"), "{}", problem());
        fs::write(folder.path().join("n.gguf"), "").unwrap();
        assert!(problem().contains("it is a folder of several models; give"), "{}", problem());
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_sockets_are_refused_without_opening() {
        assert!(check_kind(Path::new("/dev/zero")).unwrap_err().to_string().contains("device"));
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket.gguf");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(check_kind(&socket).unwrap_err().to_string().contains("device"));
    }
}
