//! Cuts a file into chunks that can be shown alone: windows of a few lines, and outlines of its definitions.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use taper_grammars::{BlockStyle, Language};
use tree_sitter::Node;

use super::redact::{BareWords, redact};
use super::terms::{self, Term};
use crate::syntax::Syntax;
use crate::text::Rope;

/// Lines of a window: it ends at the first blank line after the first number, and always at the second.
const WINDOW_LINES: (usize, usize) = (4, 8);
/// A file with a line longer than this, in bytes, is data or generated.
const MAX_LINE_BYTES: usize = 1000;
/// Maximum number of heads in an outline, and of bytes in a head; more heads start another outline.
const MAX_OUTLINE_HEADS: usize = 24;
const MAX_HEAD_BYTES: usize = 240;
/// Definitions nested deeper than this are left out.
const MAX_DEFINITION_DEPTH: usize = 12;

/// A file of the project, cut into chunks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkedFile {
    /// Its path, relative to the workspace, with `/`.
    pub path: String,
    /// The name shared by languages that are used together.
    #[serde(skip)]
    pub(super) family: &'static str,
    /// The file's name without extension, or its folder's name if that one is generic.
    pub(super) stem: Term,
    text: Box<str>,
    pub(super) chunks: Vec<Chunk>,
}

/// A chunk of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) content: ChunkContent,
    /// Its terms, sorted, with their counts.
    pub(super) terms: Box<[(Term, u8)]>,
    /// Total number of term occurrences.
    pub(super) term_count: u32,
    /// Names defined in it.
    pub(super) defined_terms: Box<[Term]>,
}

/// The text of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ChunkContent {
    /// Bytes of the file: whole lines.
    Lines(Range<usize>),
    /// Heads of definitions.
    Outline(Box<str>),
}

/// The name shared by languages that are used together; their files may be snippets for each other.
pub fn language_family(language: &Language) -> &'static str {
    match language.name {
        "javascript" | "javascriptreact" | "typescript" | "typescriptreact" => "javascript",
        "c" | "cpp" => "c",
        name => name,
    }
}

impl ChunkedFile {
    /// Cuts a file; `None` if it is of no use to other files: data or generated.
    ///
    /// `time_is_up` is polled during parsing; a file that takes too long has no outlines.
    pub fn new(
        path: &str,
        language: &'static Language,
        text: &str,
        time_is_up: &mut dyn FnMut() -> bool,
    ) -> Option<Self> {
        let text = redact_usable(language, text)?;
        let definitions = match Syntax::parse(&Rope::from_str(&text), language, time_is_up) {
            Some(syntax) => collect_definitions(syntax.tree.root_node(), language, &text),
            None => Vec::new(),
        };
        Some(Self::from_definitions(path, language, &text, &definitions))
    }

    /// As [`ChunkedFile::new`], but nothing is parsed: no C code runs.
    pub fn without_outlines(path: &str, language: &'static Language, text: &str) -> Option<Self> {
        Some(Self::from_definitions(path, language, &redact_usable(language, text)?, &[]))
    }

    fn from_definitions(
        path: &str,
        language: &'static Language,
        text: &str,
        definitions: &[NamedDefinition],
    ) -> Self {
        let mut pieces = Vec::new();
        let mut named: Vec<(usize, Term)> = definitions.iter().map(|it| (it.start, it.name)).collect();
        named.sort_by_key(|&(start, _)| start);
        for range in split_windows(text) {
            let at = |place: usize| named.partition_point(|&(start, _)| start < place);
            let names = named[at(range.start)..at(range.end)].iter().map(|&(_, name)| name).collect();
            pieces.extend(Chunk::new(
                module_stem(path),
                &text[range.clone()],
                names,
                ChunkContent::Lines(range),
            ));
        }
        for (outline, names) in build_outlines(definitions, language) {
            let extent = ChunkContent::Outline(outline.as_str().into());
            pieces.extend(Chunk::new(module_stem(path), &outline, names, extent));
        }
        Self {
            path: path.to_owned(),
            family: language_family(language),
            stem: terms::term_hash(module_stem(path)),
            text: text.into(),
            chunks: pieces,
        }
    }

    /// A file that another process cut, if it is valid and has this path; its language family is determined here.
    pub fn validate_received(self, path: &str, language: &'static Language) -> Option<Self> {
        let is_within = |extent: &ChunkContent| match extent {
            ChunkContent::Lines(range) => self.text.get(range.clone()).is_some(),
            ChunkContent::Outline(_) => true,
        };
        let is_sound = self.path == path && self.chunks.iter().all(|piece| is_within(&piece.content));
        is_sound.then(|| Self { family: language_family(language), ..self })
    }

    /// The text of a chunk.
    pub(super) fn chunk_text<'a>(&'a self, extent: &'a ChunkContent) -> &'a str {
        match extent {
            ChunkContent::Lines(range) => &self.text[range.clone()],
            ChunkContent::Outline(text) => text,
        }
    }

    /// The file's redacted text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The redacted text; `None` if the file is of no use to others.
fn redact_usable<'a>(language: &Language, text: &'a str) -> Option<Cow<'a, str>> {
    if language.blocks == BlockStyle::None || text.lines().any(|line| line.len() > MAX_LINE_BYTES) {
        return None;
    }
    redact(text, BareWords::for_language(language))
}

impl Chunk {
    /// `None` without any terms. The file's name is a term of each of its chunks: code that names the file is likely to
    /// need it.
    fn new(stem: &str, text: &str, defines: Vec<Term>, extent: ChunkContent) -> Option<Self> {
        let mut all_terms = Vec::new();
        terms::for_each_term(text, |it| all_terms.push(it.term));
        if all_terms.is_empty() {
            return None;
        }
        terms::for_each_term(stem, |it| all_terms.push(it.term));
        all_terms.sort_unstable();
        let words = all_terms.chunk_by(|a, b| a == b);
        let words = words.map(|same| (same[0], u8::try_from(same.len()).unwrap_or(u8::MAX))).collect();
        Some(Self {
            content: extent,
            terms: words,
            term_count: u32::try_from(all_terms.len()).unwrap_or(u32::MAX),
            defined_terms: defines.into(),
        })
    }
}

/// `b` of `a/b.rs`; `a` of `a/mod.rs`, `a/__init__.py`, `a/index.ts`.
fn module_stem(path: &str) -> &str {
    let mut parts = path.rsplit('/');
    let name = parts.next().unwrap_or("");
    let name = name.split('.').next().unwrap_or(name);
    if matches!(name, "mod" | "lib" | "main" | "index" | "__init__") {
        parts.next().unwrap_or(name)
    } else {
        name
    }
}

/// The text in windows of whole lines, without the blank lines around them.
fn split_windows(text: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut lines = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let blank = line.trim().is_empty();
        if lines >= WINDOW_LINES.1 || lines >= WINDOW_LINES.0 && blank {
            out.push(start..at);
            (start, lines) = (at, 0);
        }
        at += line.len();
        if blank && lines == 0 {
            start = at;
        } else {
            lines += 1;
        }
    }
    out.push(start..at);
    out.retain(|range| !text[range.clone()].trim().is_empty());
    out
}

/// A definition with a name.
#[derive(Debug)]
struct NamedDefinition {
    name: Term,
    /// Its start, in bytes.
    start: usize,
    /// Its first lines joined into one, up to its body, indented as in the file.
    head: String,
    /// The definition around it.
    parent: Option<usize>,
}

/// All definitions with a name, outer ones before those inside.
fn collect_definitions(root: Node<'_>, language: &Language, text: &str) -> Vec<NamedDefinition> {
    let mut out: Vec<NamedDefinition> = Vec::new();
    let mut waiting = vec![(root, None, 0)];
    while let Some((node, mut parent, mut depth)) = waiting.pop() {
        if language.kinds.definitions.contains(&node.kind())
            && let Some(name) = node.child_by_field_name("name").or_else(|| node.child_by_field_name("type"))
        {
            out.push(NamedDefinition {
                name: terms::term_hash(&text[name.byte_range()]),
                start: node.start_byte(),
                head: definition_head(node, language, text),
                parent,
            });
            parent = Some(out.len() - 1);
            depth += 1;
        }
        if depth < MAX_DEFINITION_DEPTH {
            let mut cursor = node.walk();
            let children: Vec<_> = node.named_children(&mut cursor).collect();
            waiting.extend(children.into_iter().rev().map(|child| (child, parent, depth)));
        }
    }
    out
}

/// A definition without its body, as a line of a stub file.
fn definition_head(node: Node<'_>, language: &Language, text: &str) -> String {
    let mut cursor = node.walk();
    let block = |child: &Node<'_>| language.kinds.blocks.contains(&child.kind());
    let body =
        node.child_by_field_name("body").filter(block).or_else(|| node.children(&mut cursor).find(block));
    let line = text[..node.start_byte()].rfind('\n').map_or(0, |at| at + 1);
    // `export`, `pub` or a decorator come before it, on its line.
    let end = body.map_or(node.end_byte(), |body| body.start_byte()).max(node.start_byte());
    let whole = &text[line..end];
    let indent = &whole[..whole.len() - whole.trim_start().len()];
    let mut words = whole.split_whitespace().collect::<Vec<_>>().join(" ");
    for (wide, narrow) in [("( ", "("), (", )", ")"), (" )", ")")] {
        words = words.replace(wide, narrow);
    }
    words.truncate(words.trim_end_matches([',', ' ']).len());
    if words.len() > MAX_HEAD_BYTES {
        words.truncate((0..=MAX_HEAD_BYTES).rev().find(|&at| words.is_char_boundary(at)).unwrap_or(0));
        words.push('…');
    }
    format!("{}{words}", indent.trim_start_matches('\n'))
}

/// For each definition its head and the heads of its direct members; and the heads at the top of the file.
fn build_outlines(definitions: &[NamedDefinition], language: &Language) -> Vec<(String, Vec<Term>)> {
    let mut out = Vec::new();
    // First the members of the file itself, then those of each definition.
    let mut inside_of: Vec<Vec<&NamedDefinition>> = vec![Vec::new(); definitions.len() + 1];
    for it in definitions {
        inside_of[it.parent.map_or(0, |parent| parent + 1)].push(it);
    }
    for (inside, container) in inside_of.iter().zip([None].into_iter().chain(definitions.iter().map(Some))) {
        if inside.len() < 2 {
            continue;
        }
        for some in inside.chunks(MAX_OUTLINE_HEADS) {
            let mut text = String::new();
            if let Some(container) = container {
                text.push_str(&container.head);
                text.push_str(if language.blocks == BlockStyle::Braces { " {\n" } else { "\n" });
            }
            for it in some {
                text.push_str(&it.head);
                text.push_str(match language.blocks {
                    BlockStyle::Indentation => " ...\n",
                    BlockStyle::Braces if !it.head.ends_with(';') => ";\n",
                    _ => "\n",
                });
            }
            if container.is_some() && language.blocks == BlockStyle::Braces {
                text.push_str("}\n");
            }
            out.push((text, container.into_iter().chain(some.iter().copied()).map(|it| it.name).collect()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn chunk_file(path: &str, text: &str) -> Option<ChunkedFile> {
        let language = taper_grammars::by_path(std::path::Path::new(path)).unwrap();
        ChunkedFile::new(path, language, text, &mut || false)
    }

    fn outlines_of(path: &str, text: &str) -> String {
        let file = chunk_file(path, text).unwrap();
        let outlines = file.chunks.iter().filter(|it| matches!(it.content, ChunkContent::Outline(_)));
        outlines.map(|it| file.chunk_text(&it.content).to_owned()).collect::<Vec<_>>().join("--\n")
    }

    #[test]
    fn windows_cover_every_nonblank_line() {
        let mut text = String::new();
        for block in 0..30 {
            text.push_str(&"\n".repeat(1 + block % 3));
            text.push_str(&format!("line {block}\n").repeat(1 + block * 7 % 20));
        }
        for text in [text.as_str(), "one", "\n\n", "", "a\r\n\r\nb\r\n"] {
            let windows = split_windows(text);
            let kept: String = windows.iter().map(|it| &text[it.clone()]).collect();
            let lines = |text: &str| text.lines().filter(|it| !it.trim().is_empty()).count();
            assert_eq!(lines(&kept), lines(text));
            for it in &windows {
                assert!(it.start == 0 || text[..it.start].ends_with('\n'));
                assert!(text[it.clone()].lines().count() <= WINDOW_LINES.1);
            }
        }
    }

    #[test]
    fn outline_lists_heads_of_nested_definitions() {
        expect![[r#"
            class Group: ...
            def alone(): ...
            --
            class Group:
                def start(self, func: Callable, *args: object) -> None: ...
                async def wait(self): ...
        "#]]
        .assert_eq(&outlines_of(
            "a.py",
            "import x\n\nclass Group:\n    \"\"\"Doc.\"\"\"\n    size = 1\n\n    def start(\n        self, func: Callable,\n        *args: object\n    ) -> None:\n        go()\n\n    async def wait(self):\n        def inner(): pass\n\ndef alone():\n    pass\n",
        ));
        expect![[r#"
            pub struct A<T>(T);
            impl<T> A<T> where T: Copy;
            --
            impl<T> A<T> where T: Copy {
                pub fn new(it: T) -> Self;
                fn get(&self) -> T;
            }
        "#]]
        .assert_eq(&outlines_of(
            "a.rs",
            "pub struct A<T>(T);\n\nimpl<T> A<T>\nwhere\n    T: Copy,\n{\n    pub fn new(it: T) -> Self {\n        Self(it)\n    }\n    fn get(&self) -> T { self.0 }\n}\n",
        ));
        expect![[r#"
            export class Store {
              constructor(private size: number);
              async load(id: string): Promise<Item>;
            }
        "#]]
        .assert_eq(&outlines_of(
            "a.ts",
            "export class Store {\n  constructor(private size: number) {}\n  async load(id: string): Promise<Item> {\n    return this.get(id);\n  }\n}\n",
        ));
    }

    #[test]
    fn long_lines_and_prose_are_not_chunked() {
        assert!(chunk_file("a.py", &format!("x = '{}'\n", "y".repeat(2000))).is_none());
        assert!(chunk_file("a.json", "{\"a\": 1}\n").is_some_and(|it| !it.text().is_empty()));
        assert!(chunk_file("a.md", "some words\n").is_none());
        assert!(chunk_file("a.py", "").is_some_and(|it| it.chunks.is_empty()));
    }

    #[test]
    fn module_stem_is_the_imported_name() {
        for (path, expected) in [
            ("a/b.rs", "b"),
            ("a/mod.rs", "a"),
            ("a/b/__init__.py", "b"),
            ("index.ts", "index"),
            ("a/x.test.ts", "x"),
        ] {
            assert_eq!(module_stem(path), expected);
        }
    }
}
