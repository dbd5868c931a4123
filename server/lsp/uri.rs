//! URIs of documents: the path in one, its place in the workspace, and which URIs name the same document.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Longer paths are not looked up on the disk, and are compared byte by byte.
const LONGEST_PATH: usize = 4096;

/// The parts of a URI, decoded.
struct UriParts {
    /// In lower case.
    scheme: String,
    /// In lower case; empty for this machine.
    authority: String,
    /// The rest, with `/`. It includes the query and the fragment.
    path: Vec<u8>,
}

impl UriParts {
    /// `None` without a scheme.
    fn parse_uri(uri: &str) -> Option<Self> {
        let (scheme, rest) = uri.split_once(':')?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "file" {
            // In another scheme these characters may mean something else when they are escaped.
            let path = percent_decode(rest.as_bytes(), b"/?#%");
            return Some(Self { scheme, authority: String::new(), path });
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let path = percent_decode(path.as_bytes(), b"");
        // `file://C:/a.py`, with a missing slash.
        let drive = percent_decode(authority.as_bytes(), b"");
        if let [letter, b':'] = drive[..]
            && letter.is_ascii_alphabetic()
        {
            let path = [&[b'/', letter, b':'][..], &path].concat();
            return Some(Self { scheme, authority: String::new(), path: normalize_path(&path) });
        }
        let authority = authority.to_ascii_lowercase();
        let authority = if authority == "localhost" { String::new() } else { authority };
        Some(Self { scheme, authority, path: normalize_path(&path) })
    }
}

/// The path of a file without empty segments and dot segments, with a drive letter in lower case.
fn normalize_path(path: &[u8]) -> Vec<u8> {
    if path.len() > LONGEST_PATH {
        return path.to_owned();
    }
    let is_drive = matches!(path, [b'/', letter, b':', ..] if letter.is_ascii_alphabetic());
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in path.split(|&byte| byte == b'/' || is_drive && byte == b'\\') {
        let trimmed = if is_drive && !matches!(part, b"." | b"..") {
            // Windows ignores trailing dots and blanks.
            &part[..part.len() - part.iter().rev().take_while(|&&byte| matches!(byte, b'.' | b' ')).count()]
        } else {
            part
        };
        match trimmed {
            b"" | b"." => {}
            b".." => {
                // Never above the drive.
                if !(parts.len() == 1 && is_drive) {
                    parts.pop();
                }
            }
            part => parts.push(part.to_owned()),
        }
    }
    if let Some(drive) = parts.first_mut().filter(|_| is_drive) {
        drive.make_ascii_lowercase();
    }
    let mut plain = Vec::with_capacity(path.len());
    for (at, part) in parts.iter().enumerate() {
        if at > 0 || path.starts_with(b"/") {
            plain.push(b'/');
        }
        plain.extend(part);
    }
    plain
}

/// Decodes escapes such as `%20`. Invalid escapes stay as they are; escapes of the characters in `kept` stay, with
/// their digits in upper case.
fn percent_decode(text: &[u8], kept: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let value = match (first, tail) {
            (b'%', [a, b, ..]) => digit(*a).zip(digit(*b)).map(|(a, b)| a * 16 + b),
            _ => None,
        };
        match value {
            Some(value) => {
                if kept.contains(&value) {
                    bytes.extend([b'%', tail[0].to_ascii_uppercase(), tail[1].to_ascii_uppercase()]);
                } else {
                    bytes.push(value);
                }
                rest = &tail[2..];
            }
            None => bytes.push(*first),
        }
    }
    bytes
}

/// The path in a URI, its escapes decoded and with `/`: `/home/user/a b.py`, `c:/a.py`, `Untitled-1`.
pub(crate) fn uri_path(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':') else { return uri.to_owned() };
    if scheme.eq_ignore_ascii_case("file") {
        let path = UriParts::parse_uri(without_fragment(uri)).map(|parts| parts.path).unwrap_or_default();
        let path =
            String::from_utf8(path).unwrap_or_else(|_| rest.strip_prefix("//").unwrap_or(rest).to_owned());
        // `file:///C:/a.py` has a slash before the drive.
        let is_drive = matches!(path.as_bytes(), [b'/', letter, b':', ..] if letter.is_ascii_alphabetic());
        return if is_drive { path[1..].to_owned() } else { path };
    }
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => rest,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    String::from_utf8(percent_decode(path.as_bytes(), b"")).unwrap_or_else(|_| path.to_owned())
}

/// A file's URI without query and fragment. Some editors do not escape a `#` in the name of a folder: that starts no
/// fragment.
fn without_fragment(uri: &str) -> &str {
    match uri.find(['?', '#']) {
        Some(at) if !uri[at..].contains('/') => &uri[..at],
        _ => uri,
    }
}

/// The path of a file on this machine; `None` for other URIs.
pub(crate) fn file_path(uri: &str) -> Option<PathBuf> {
    let UriParts { scheme, authority, .. } = UriParts::parse_uri(uri)?;
    let path = PathBuf::from(uri_path(uri));
    let is_here = scheme == "file" && authority.is_empty() && path.is_absolute();
    (is_here && path.as_os_str().len() <= LONGEST_PATH).then_some(path)
}

/// Resolves symbolic links in the part of a path that exists.
fn resolve_links(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut above = path;
    loop {
        if let Ok(found) = above.canonicalize() {
            let found = without_verbatim_prefix(found);
            return rest.iter().rev().fold(found, |path, part| path.join(part));
        }
        let (Some(parent), Some(name)) = (above.parent(), above.file_name()) else { return path.to_owned() };
        rest.push(name);
        above = parent;
    }
}

/// `C:\a` instead of the `\\?\C:\a` that Windows returns.
fn without_verbatim_prefix(path: PathBuf) -> PathBuf {
    let plain = path.to_str().and_then(|it| it.strip_prefix(r"\\?\")).map(str::to_owned);
    match plain {
        Some(plain) if plain.as_bytes().get(1) == Some(&b':') => plain.into(),
        _ => path,
    }
}

/// A path with `/`; `None` if it is not Unicode.
fn with_slashes(path: &Path) -> Option<String> {
    let path = path.to_str()?;
    Some(if cfg!(windows) { path.replace('\\', "/") } else { path.to_owned() })
}

/// `path` relative to `folder`, if it is inside.
fn relative_path<'p>(folder: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(folder)?.strip_prefix('/').filter(|inside| !inside.is_empty())
}

/// A workspace folder. Neither path has a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WorkspaceFolder {
    /// The path in the client's URI.
    as_sent: String,
    /// The same with symbolic links resolved.
    real: String,
}

impl WorkspaceFolder {
    fn new(path: String) -> Self {
        let as_sent = path[..path.trim_end_matches('/').len()].to_owned();
        let on_disk = Some(PathBuf::from(with_root_slash(&as_sent))).filter(|it| it.is_absolute());
        let real =
            on_disk.and_then(|it| with_slashes(&resolve_links(&it))).unwrap_or_else(|| as_sent.clone());
        Self { as_sent, real: real[..real.trim_end_matches('/').len()].to_owned() }
    }
}

/// Adds the slash that the path of a root needs: `/`, `C:/`.
fn with_root_slash(folder: &str) -> String {
    let is_drive = folder.len() == 2 && folder.ends_with(':');
    if folder.is_empty() || is_drive { format!("{folder}/") } else { folder.to_owned() }
}

/// The workspace folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WorkspaceFolders {
    /// The longest first.
    all: Vec<WorkspaceFolder>,
}

impl WorkspaceFolders {
    /// The folders with these paths.
    pub(crate) fn new(paths: impl IntoIterator<Item = String>) -> Self {
        let mut folders = Self::default();
        paths.into_iter().for_each(|path| folders.add_folder(path));
        folders
    }

    /// Adds a folder.
    pub(crate) fn add_folder(&mut self, path: String) {
        let folder = WorkspaceFolder::new(path);
        if !self.all.contains(&folder) {
            self.all.push(folder);
        }
        self.all.sort_by_key(|it| std::cmp::Reverse(it.as_sent.len()));
    }

    /// Removes a folder.
    pub(crate) fn remove_folder(&mut self, path: String) {
        let folder = WorkspaceFolder::new(path);
        self.all.retain(|it| it.as_sent != folder.as_sent && it.real != folder.real);
    }

    /// A document's workspace folder, if it is a file in one, and the path that the model is shown for it: relative to
    /// that folder, else its name.
    ///
    /// Symbolic links are resolved if the file is then inside a folder: a file has one path, however the client
    /// reached it.
    pub(crate) fn locate_document(&self, uri: &str) -> (Option<PathBuf>, String) {
        let path = uri_path(uri);
        let file = file_path(uri);
        if let Some(path) = file.as_deref().map(resolve_links).as_deref().and_then(with_slashes) {
            let folders = self.all.iter().filter_map(|it| Some((it, relative_path(&it.real, &path)?)));
            if let Some((folder, inside)) = folders.max_by_key(|(it, _)| it.real.len()) {
                return (Some(with_root_slash(&folder.real).into()), inside.to_owned());
            }
        }
        match self.all.iter().find_map(|it| Some((it, relative_path(&it.as_sent, &path)?))) {
            // Only a file on this machine has other files around it.
            Some((folder, inside)) => (file.map(|_| with_root_slash(&folder.real).into()), inside.to_owned()),
            None => (None, path.rsplit('/').next().unwrap_or_default().to_owned()),
        }
    }
}

/// The open documents by name. A document's name is the URI that it was opened with; the session uses only names.
///
/// Clients spell the URI of one document in several ways, and reach one file by several paths. A URI in a message
/// names the document that was opened with exactly this URI, else one whose URI means the same, else one that is
/// the same file. Two documents that are open under different URIs stay two, because the client has a text for
/// each.
#[derive(Debug, Default)]
pub(crate) struct OpenDocuments {
    all: HashMap<String, DocumentEntry>,
    /// Number of documents opened so far.
    opened: u64,
}

#[derive(Debug)]
struct DocumentEntry {
    /// Equal for all URIs that mean the same.
    meaning: Vec<u8>,
    /// The path with symbolic links resolved, if this is a file on this machine.
    file: Option<PathBuf>,
    /// The order of opening.
    number: u64,
    /// The URI in the last request, if it differs from the name.
    requested_as: Option<String>,
}

impl OpenDocuments {
    /// Adds an opened document; returns its name.
    pub(crate) fn open(&mut self, uri: String) -> String {
        self.opened += 1;
        let file = file_path(&uri).as_deref().map(resolve_links);
        let opened =
            DocumentEntry { meaning: uri_identity(&uri), file, number: self.opened, requested_as: None };
        self.all.insert(uri.clone(), opened);
        uri
    }

    /// The names of all open documents.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    /// The name of the open document that a URI means; the URI itself if there is none.
    pub(crate) fn canonical_name(&self, uri: String) -> String {
        if self.all.contains_key(&uri) {
            return uri;
        }
        let meaning = uri_identity(&uri);
        let latest = |fits: &dyn Fn(&DocumentEntry) -> bool| {
            let fitting = self.all.iter().filter(|(_, it)| fits(it));
            fitting.max_by_key(|(_, it)| it.number).map(|(name, _)| name.clone())
        };
        let same_file = || {
            let file = resolve_links(&file_path(&uri)?);
            latest(&|it| it.file.as_ref() == Some(&file))
        };
        latest(&|it| it.meaning == meaning).or_else(same_file).unwrap_or(uri)
    }

    /// [`Self::canonical_name`] for a request. Later notifications about the document use this URI.
    pub(crate) fn canonical_name_for_request(&mut self, uri: String) -> String {
        let name = self.canonical_name(uri.clone());
        if let Some(opened) = self.all.get_mut(&name) {
            opened.requested_as = Some(uri).filter(|uri| *uri != name);
        }
        name
    }

    /// Removes the document that a URI means; returns its name.
    pub(crate) fn close(&mut self, uri: String) -> String {
        let name = self.canonical_name(uri);
        self.all.remove(&name);
        name
    }

    /// The URI that the last request used for a document.
    pub(crate) fn client_uri(&self, name: String) -> String {
        self.all.get(&name).and_then(|it| it.requested_as.clone()).unwrap_or(name)
    }
}

/// A URI in normal form: equal for all URIs that mean the same.
pub(crate) fn normalize_uri(uri: &str) -> String {
    String::from_utf8_lossy(&uri_identity(uri)).into_owned()
}

fn uri_identity(uri: &str) -> Vec<u8> {
    match UriParts::parse_uri(uri) {
        None => uri.as_bytes().to_owned(),
        Some(UriParts { scheme, authority, path }) => {
            [scheme.as_bytes(), b"://", authority.as_bytes(), &path].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_uris() {
        for (uri, path) in [
            ("file:///home/user/a%20b.py", "/home/user/a b.py"),
            ("file:///app/[id]/page.tsx", "/app/[id]/page.tsx"),
            ("file:///c%3A/x/a.py", "c:/x/a.py"),
            ("file:///C:/x/a.py", "c:/x/a.py"),
            ("file://C:/x/a.py", "c:/x/a.py"),
            ("FILE:///x/a.py", "/x/a.py"),
            ("file:/x//./y/../a.py", "/x/a.py"),
            ("file:///../a.py", "/a.py"),
            ("file://server/share/a.py", "/share/a.py"),
            ("file:///c#/a.py", "/c#/a.py"),
            ("file:///w/a.py#L1", "/w/a.py"),
            ("file:///w/a%23b.py", "/w/a#b.py"),
            ("file://", ""),
            ("untitled:Untitled-1", "Untitled-1"),
            ("vscode-notebook-cell:/w/a.ipynb#W0sZmlsZQ%3D%3D", "/w/a.ipynb"),
            ("file:///a%ZZ%e4b%", "/a%ZZ%e4b%"),
            ("nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(uri_path(uri), path, "{uri}");
        }
    }

    #[test]
    fn equivalent_uris_are_equal_and_others_differ() {
        let same: [&[&str]; 5] = [
            &["file:///c%3A/x", "file:///C:/x", "file:///c:/x", "file:///c%3a/x", "file:///C:\\x"],
            &["file:///w/a%20b.py", "file:///w/a b.py", "file://localhost/w/a%20b.py", "file:/w/a%20b.py"],
            &["file:///w/%5Bid%5D/%40a.py", "file:///w/[id]/@a.py", "file:///w/%5bid%5d/@a.py"],
            &["file:///w/ä.py", "file:///w/%C3%A4.py", "FILE:///w/%c3%a4.py", "file:///w/./x/../ä.py"],
            &["vscode-notebook-cell:/w/a.ipynb#W0s%3D", "vscode-notebook-cell:/w/a.ipynb#W0s="],
        ];
        let other = [
            "untitled:/w/a%20b.py",
            "vscode-remote://ssh/w/a%20b.py",
            "git:/w/a%20b.py?HEAD",
            "git:/w/a%20b.py%3FHEAD",
            "file://server/w/a%20b.py",
            "file:///w/A%20b.py",
            "file:///w/a%2520b.py",
            "file:///w/%E4.py",
            "file:///w/%E5.py",
            "vscode-notebook-cell:/w/a.ipynb#W1s=",
            "output:a",
        ];
        let groups: Vec<Vec<&str>> =
            same.iter().map(|it| it.to_vec()).chain(other.iter().map(|&it| vec![it])).collect();
        for (at, group) in groups.iter().enumerate() {
            for (beside, others) in groups.iter().enumerate() {
                for (a, b) in group.iter().flat_map(|a| others.iter().map(move |b| (a, b))) {
                    assert_eq!(uri_identity(a) == uri_identity(b), at == beside, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_message_is_about_the_document_that_its_uri_means() {
        let mut open = OpenDocuments::default();
        let name = |open: &OpenDocuments, uri: &str| open.canonical_name(uri.to_owned());
        assert_eq!(name(&open, "file:///w/a b.py"), "file:///w/a b.py", "none is open");
        open.open("file:///w/a%20b.py".to_owned());
        assert_eq!(name(&open, "file:///w/a b.py"), "file:///w/a%20b.py");
        // Two texts, if the editor opens both.
        open.open("file:///w/a b.py".to_owned());
        assert_eq!(name(&open, "file:///w/a b.py"), "file:///w/a b.py");
        assert_eq!(name(&open, "file:///w/a%20b.py"), "file:///w/a%20b.py");
        assert_eq!(name(&open, "file:/w/a b.py"), "file:///w/a b.py", "the later one");
        assert_eq!(open.close("file:/w/a b.py".to_owned()), "file:///w/a b.py");
        assert_eq!(open.canonical_name_for_request("file:/w/a b.py".to_owned()), "file:///w/a%20b.py");
        assert_eq!(open.client_uri("file:///w/a%20b.py".to_owned()), "file:/w/a b.py");
        open.canonical_name_for_request("file:///w/a%20b.py".to_owned());
        assert_eq!(open.client_uri("file:///w/a%20b.py".to_owned()), "file:///w/a%20b.py");
        open.close("file:///w/a b.py".to_owned());
        assert!(open.all.is_empty());
    }

    #[test]
    #[cfg(unix)]
    fn symlinked_file_belongs_to_its_real_folder() {
        let place = tempfile::tempdir().unwrap();
        let here = place.path().canonicalize().unwrap();
        let at = |path: &str| format!("file://{}", here.join(path).display());
        std::fs::create_dir_all(here.join("real/src")).unwrap();
        std::fs::write(here.join("real/src/a.py"), "").unwrap();
        std::os::unix::fs::symlink(here.join("real"), here.join("link")).unwrap();
        std::os::unix::fs::symlink("src", here.join("real/lib")).unwrap();

        let mut open = OpenDocuments::default();
        open.open(at("link/src/a.py"));
        for uri in ["real/src/a.py", "link/lib/a.py", "real/lib/../src/a.py"] {
            assert_eq!(open.canonical_name(at(uri)), at("link/src/a.py"), "{uri}");
        }
        assert_eq!(open.canonical_name(at("real/src/b.py")), at("real/src/b.py"));

        for folder in ["link", "real", "link/"] {
            let folders = WorkspaceFolders::new([here.join(folder).display().to_string()]);
            for (uri, inside) in [
                ("link/src/a.py", "src/a.py"),
                ("real/src/a.py", "src/a.py"),
                ("real/lib/a.py", "src/a.py"),
                ("link/src/not yet.py", "src/not yet.py"),
            ] {
                assert_eq!(
                    folders.locate_document(&at(uri)),
                    (Some(here.join("real")), inside.to_owned()),
                    "{uri}"
                );
            }
            assert_eq!(folders.locate_document(&at("other/a.py")), (None, "a.py".to_owned()));
        }
    }

    #[test]
    fn paths_are_relative_to_the_innermost_folder() {
        let mut folders = WorkspaceFolders::new(["/w".to_owned(), "/w/in ner/".to_owned()]);
        for (uri, root, path) in [
            ("file:///w/src/a.py", Some("/w"), "src/a.py"),
            ("file:///w/in%20ner/b/a.py", Some("/w/in ner"), "b/a.py"),
            ("file:///weird/a.py", None, "a.py"),
            ("git:/w/src/a.py?HEAD", None, "src/a.py"),
        ] {
            assert_eq!(folders.locate_document(uri), (root.map(PathBuf::from), path.to_owned()), "{uri}");
        }
        folders.remove_folder("/w/in ner".to_owned());
        folders.add_folder("/weird".to_owned());
        for (uri, root) in [("file:///w/in%20ner/a.py", "/w"), ("file:///weird/a.py", "/weird")] {
            assert_eq!(folders.locate_document(uri).0, Some(root.into()), "{uri}");
        }
        assert_eq!(
            (with_root_slash(""), with_root_slash("C:"), with_root_slash("/w")),
            ("/".into(), "C:/".into(), "/w".into())
        );
        assert_eq!(WorkspaceFolders::new(["/".to_owned()]).locate_document("file:///a.py").1, "a.py");
    }
}
