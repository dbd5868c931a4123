//! The languages that taper knows: one table, with a tree-sitter grammar where one is shipped.

mod scanners;
mod table;

pub mod literals;

use std::path::Path;

pub use table::LANGUAGES;

/// One language.
#[derive(Debug)]
pub struct Language {
    /// The name, as LSP's language identifier where there is one.
    pub name: &'static str,
    /// Other identifiers that editors send for it.
    pub aliases: &'static [&'static str],
    /// File extensions without the dot, case-insensitive. May contain dots: `d.ts`.
    pub extensions: &'static [&'static str],
    /// Whole file names, e.g. `Makefile`; compared exactly.
    pub file_names: &'static [&'static str],
    /// What begins a line comment; empty if the language has none.
    pub line_comment: &'static str,
    /// What begins and ends a comment over several lines, if the language has one.
    pub block_comment: Option<(&'static str, &'static str)>,
    /// Quotes that open and close a string on one line. Only those without another meaning: a Rust `'` may begin a
    /// lifetime and is left out.
    pub quotes: &'static [char],
    /// How blocks are marked.
    pub blocks: BlockStyle,
    /// Words that open a block when they come *first* on a line: `def`, `while`.
    pub opening_words: &'static [&'static str],
    /// Words that open a block when they come *last* on a line: `do`, `then`.
    pub opening_ends: &'static [&'static str],
    /// What has to come before any code: `<?php`; empty for most languages.
    pub opening_tag: &'static str,
    /// The tree-sitter grammar, if taper ships one.
    pub grammar: Option<fn() -> tree_sitter::Language>,
    /// The names of its node kinds; empty without a grammar.
    pub kinds: NodeKinds,
}

/// Names of tree-sitter nodes by their role. A test checks each against its grammar.
#[derive(Debug, Clone, Copy)]
pub struct NodeKinds {
    /// String and character literals, quotes included.
    pub strings: &'static [&'static str],
    /// Code inside strings: `${…}`.
    pub interpolations: &'static [&'static str],
    /// Comments.
    pub comments: &'static [&'static str],
    /// Bodies of functions, loops, branches, classes and the like.
    pub blocks: &'static [&'static str],
    /// Nodes with a name and a body: functions, methods, classes, modules.
    pub definitions: &'static [&'static str],
}

impl NodeKinds {
    /// The kinds of a language without a grammar.
    pub const NONE: Self =
        Self { strings: &[], interpolations: &[], comments: &[], blocks: &[], definitions: &[] };
}

/// How a language marks the extent of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockStyle {
    /// By indentation, after a colon: Python.
    Indentation,
    /// Between `{` and `}`.
    Braces,
    /// From a keyword to `end` (or `fi`, `done`): Ruby, Lua, shells.
    Keywords,
    /// Between tags: HTML.
    Tags,
    /// Unknown.
    None,
}

/// The language of an editor's identifier: by [`Language::name`] or alias, case-insensitive.
#[must_use]
pub fn by_id(language_id: &str) -> Option<&'static Language> {
    let is = |name: &&str| name.eq_ignore_ascii_case(language_id);
    LANGUAGES
        .iter()
        .find(|row| is(&row.name))
        .or_else(|| LANGUAGES.iter().find(|row| row.aliases.iter().any(is)))
}

/// The language of a file: by its whole name, then by its longest known extension.
#[must_use]
pub fn by_path(path: &Path) -> Option<&'static Language> {
    let name = path.file_name()?.to_str()?;
    if let Some(row) = LANGUAGES.iter().find(|row| row.file_names.contains(&name)) {
        return Some(row);
    }
    // `a.d.ts`: first `d.ts`, then `ts`. A leading dot does not start an extension.
    name.char_indices().skip(1).filter(|&(_, c)| c == '.').find_map(|(at, _)| {
        let extension = &name[at + 1..];
        LANGUAGES.iter().find(|row| row.extensions.iter().any(|e| e.eq_ignore_ascii_case(extension)))
    })
}

#[cfg(test)]
mod tests {

    use std::collections::HashMap;

    use super::*;

    /// A small, valid program for each grammar; none may be missing.
    const SAMPLE_PROGRAMS: &[(&str, &str)] = &[
        ("python", "class A:\n    def f(self, x: int) -> str:\n        return f\"{x}\"  # done\n"),
        ("rust", "/// Doc.\nfn f<'a>(x: &'a str) -> char { match x { \"a\" => 'b', _ => 'c' } }\n"),
        ("javascript", "export class A { async f(x = `a${1}`) { for (const y of x) { await y; } } }\n"),
        (
            "javascriptreact",
            "const A = ({ x }) => <div className=\"a\">{x.map((y) => <B key={y} />)}</div>;\n",
        ),
        (
            "typescript",
            "interface A<T> { x: T }\nfunction f(a: A<number>): string { return `${a.x as number}`; }\n",
        ),
        ("typescriptreact", "const A = ({ x }: { x: string[] }) => <div>{x.length}</div>;\n"),
        (
            "go",
            "package a\n\nfunc f(x []int) (n int) {\n\tfor _, y := range x {\n\t\tn += y\n\t}\n\treturn\n}\n",
        ),
        ("java", "class A { /* c */ int f(String s) { return s.isEmpty() ? 1 : 'a'; } }\n"),
        (
            "c",
            "#include <stdio.h>\nint main(void) { for (int i = 0; i < 3; i++) { puts(\"a\"); } return 0; }\n",
        ),
        (
            "cpp",
            "namespace a { template <class T> struct B : C { auto f() const -> T { return [&] { return 1; }(); } }; }\n",
        ),
        (
            "csharp",
            "namespace A { class B { public int F(string s) => s.Length; void G() { var x = $\"{1}\"; } } }\n",
        ),
        ("ruby", "class A\n  def f(x)\n    x.each do |y|\n      puts \"a#{y}\"\n    end\n  end\nend\n"),
        (
            "shellscript",
            "f() {\n  if [ -n \"$1\" ]; then\n    echo \"${1}\"\n  fi\n}\nfor x in a b; do f \"$x\"; done\n",
        ),
        ("json", "{\"a\": [1, 2.5, null, true, \"b\\n\"]}\n"),
        ("jsonc", "{\n  // a comment\n  \"a\": 1\n}\n"),
        ("html", "<!doctype html>\n<html><body class=\"a\"><!-- c --><p>text<br></p></body></html>\n"),
        ("css", "/* c */\n.a > b:hover { color: #fff; margin: 0 1px; }\n@media print { c { x: y } }\n"),
        ("lua", "local function f(x)\n  for i, y in ipairs(x) do\n    print(\"a\" .. y) -- c\n  end\nend\n"),
        ("php", "<?php\nclass A { public function f(int $x): string { return \"a{$x}\"; } }\n"),
    ];

    #[test]
    fn every_grammar_parses_its_sample_program() {
        let programs: HashMap<_, _> = SAMPLE_PROGRAMS.iter().copied().collect();
        for row in LANGUAGES {
            let Some(grammar) = row.grammar else {
                assert!(!programs.contains_key(row.name), "{} has a program but no grammar", row.name);
                continue;
            };
            let program = programs.get(row.name).unwrap_or_else(|| panic!("no program for {}", row.name));
            let mut parser = tree_sitter::Parser::new();
            parser.set_language(&grammar()).unwrap_or_else(|e| panic!("{}: {e}", row.name));
            let tree = parser.parse(program, None).unwrap();
            assert!(!tree.root_node().has_error(), "{}: {}", row.name, tree.root_node().to_sexp());
            assert!(tree.root_node().child_count() > 0, "{}", row.name);
        }
        assert!(SAMPLE_PROGRAMS.iter().all(|(name, _)| by_id(name).is_some()));
    }

    #[test]
    fn every_node_kind_exists_in_its_grammar() {
        for row in LANGUAGES {
            let k = row.kinds;
            let all = [k.strings, k.interpolations, k.comments, k.blocks, k.definitions].concat();
            let Some(grammar) = row.grammar else {
                assert!(all.is_empty(), "{} names kinds without a grammar", row.name);
                continue;
            };
            let grammar = grammar();
            for kind in all {
                assert!(grammar.id_for_node_kind(kind, true) != 0, "{} has no node {kind}", row.name);
            }
            assert!(!k.strings.is_empty() && !k.comments.is_empty() || row.name == "css", "{}", row.name);
        }
    }

    #[test]
    fn language_identifiers_and_file_names_are_unique() {
        let mut ids = HashMap::new();
        let mut extensions = HashMap::new();
        let mut file_names = HashMap::new();
        for row in LANGUAGES {
            for id in row.aliases.iter().chain([&row.name]) {
                assert_eq!(ids.insert(id.to_lowercase(), row.name), None, "{id}");
            }
            for e in row.extensions {
                assert_eq!(extensions.insert(e.to_lowercase(), row.name), None, "{e}");
                assert!(!e.starts_with('.'), "{e}");
            }
            for f in row.file_names {
                assert_eq!(file_names.insert(*f, row.name), None, "{f}");
            }
        }
    }

    #[test]
    fn editor_language_identifiers_are_found() {
        let name = |id: &str| by_id(id).map(|row| row.name);
        for (id, row) in [
            ("python", "python"),
            ("Rust", "rust"),
            ("sh", "shellscript"),
            ("bash", "shellscript"),
            ("c_sharp", "csharp"),
            ("c-sharp", "csharp"),
            ("cs", "csharp"),
            ("tsx", "typescriptreact"),
            ("javascript.jsx", "javascriptreact"),
            ("golang", "go"),
            ("jsonc", "jsonc"),
            ("scss", "scss"),
            ("objective-c", "objective-c"),
        ] {
            assert_eq!(name(id), Some(row), "{id}");
        }
        assert_eq!(name("plaintext"), None);
        assert_eq!(name(""), None);
    }

    #[test]
    fn paths_are_found_by_name_then_by_extension() {
        let name = |path: &str| by_path(Path::new(path)).map(|row| row.name);
        for (path, row) in [
            ("src/a.py", "python"),
            ("a.test.ts", "typescript"),
            ("a.d.ts", "typescript"),
            ("A.TSX", "typescriptreact"),
            ("x/Makefile", "makefile"),
            ("Dockerfile", "dockerfile"),
            ("CMakeLists.txt", "cmake"),
            (".bashrc", "shellscript"),
            ("Gemfile", "ruby"),
            ("a.h", "c"),
            ("a.hpp", "cpp"),
            ("tsconfig.json", "jsonc"),
            ("package.json", "json"),
            ("Cargo.lock", "toml"),
        ] {
            assert_eq!(name(path), Some(row), "{path}");
        }
        for path in ["", "/", "a", ".py", "a.", "..", "a.txt", "ü.ü"] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
