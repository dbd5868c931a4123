//! How each language writes what is no code: strings and comments, by what opens and what closes them.
//! It knows nothing of trees: it serves where a language has no grammar, and text that no tree has seen.

use crate::Language;

/// What text inside of a literal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string or a character.
    Text,
    /// A comment.
    Comment,
}

/// How the closing delimiter is written inside of a literal without closing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// It cannot be.
    None,
    /// Behind a backslash.
    Backslash,
    /// Twice.
    Doubled,
}

/// A part of an opening delimiter that is repeated in the closing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// There is none.
    None,
    /// This character, any number of times: `r##"…"##`, `[==[…]==]`.
    Run(char),
    /// Letters and digits: `$body$…$body$`, `R"x(…)x"`.
    Word,
}

/// One way to write a string or a comment. With a [`Tag`], the opening is `open`, the tag, `open_end`, and the closing is
/// `close`, the tag, `close_end`; without one, the ends are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Literal {
    /// What it is.
    pub kind: Kind,
    /// Begins it.
    pub open: &'static str,
    /// What is repeated.
    pub tag: Tag,
    /// Behind the tag.
    pub open_end: &'static str,
    /// Begins what closes it.
    pub close: &'static str,
    /// Behind the tag.
    pub close_end: &'static str,
    /// Whether it may run over several lines.
    pub lines: bool,
    /// How its closing delimiter is escaped.
    pub escape: Escape,
    /// Whether one may stand inside of another.
    pub nests: bool,
}

const fn text(open: &'static str, close: &'static str, lines: bool, escape: Escape) -> Literal {
    let (tag, open_end, close_end) = (Tag::None, "", "");
    Literal { kind: Kind::Text, open, tag, open_end, close, close_end, lines, escape, nests: false }
}

/// A string on one line, with backslashes.
const fn quoted(quote: &'static str) -> Literal {
    text(quote, quote, false, Escape::Backslash)
}

/// A string over several lines, with backslashes.
const fn long(quote: &'static str) -> Literal {
    text(quote, quote, true, Escape::Backslash)
}

/// A string over several lines in which nothing is escaped.
const fn raw(open: &'static str, close: &'static str) -> Literal {
    text(open, close, true, Escape::None)
}

/// A string over several lines in which a quote is written twice.
const fn doubled(open: &'static str, close: &'static str) -> Literal {
    text(open, close, true, Escape::Doubled)
}

const fn comment(open: &'static str, close: &'static str, nests: bool) -> Literal {
    Literal { kind: Kind::Comment, nests, ..text(open, close, true, Escape::None) }
}

const fn tagged(open: &'static str, tag: Tag, ends: (&'static str, &'static str, &'static str)) -> Literal {
    let (open_end, close, close_end) = ends;
    Literal { tag, open_end, close_end, ..raw(open, close) }
}

const DOUBLE: Literal = quoted("\"");
const SINGLE: Literal = quoted("'");
const C_COMMENT: Literal = comment("/*", "*/", false);
const C_COMMENT_NESTS: Literal = comment("/*", "*/", true);
const MARKUP_COMMENT: Literal = comment("<!--", "-->", false);

/// Of languages that stand in no row: comments as the language's own row has them, its quotes on one line.
const ROWS: &[(&[&str], &[Literal])] = &[
    (&["python"], &[long("\"\"\""), long("'''"), DOUBLE, SINGLE]),
    (&["rust"], &[C_COMMENT_NESTS, tagged("r", Tag::Run('#'), ("\"", "\"", "")), long("\"")]),
    (
        &["javascript", "javascriptreact", "typescript", "typescriptreact", "vue", "svelte", "astro"],
        &[C_COMMENT, MARKUP_COMMENT, long("`"), DOUBLE, SINGLE],
    ),
    (&["go"], &[C_COMMENT, raw("`", "`"), DOUBLE, SINGLE]),
    (&["java"], &[C_COMMENT, long("\"\"\""), DOUBLE, SINGLE]),
    (&["groovy"], &[C_COMMENT, long("\"\"\""), long("'''"), DOUBLE, SINGLE]),
    (&["c", "objective-c"], &[C_COMMENT, DOUBLE, SINGLE]),
    (&["cpp"], &[C_COMMENT, tagged("R\"", Tag::Word, ("(", ")", "\"")), DOUBLE, SINGLE]),
    (
        &["csharp"],
        &[
            C_COMMENT,
            raw("\"\"\"", "\"\"\""),
            doubled("@\"", "\""),
            doubled("@$\"", "\""),
            doubled("$@\"", "\""),
            DOUBLE,
            SINGLE,
        ],
    ),
    (&["ruby", "crystal"], &[comment("\n=begin", "\n=end", false), long("\""), long("'"), long("`")]),
    (&["shellscript", "fish"], &[long("\""), raw("'", "'"), raw("`", "`")]),
    (&["json"], &[DOUBLE]),
    (&["jsonc"], &[C_COMMENT, DOUBLE, SINGLE]),
    (&["html"], &[MARKUP_COMMENT, C_COMMENT, raw("\"", "\""), raw("'", "'")]),
    (&["xml"], &[MARKUP_COMMENT, raw("<![CDATA[", "]]>"), raw("\"", "\""), raw("'", "'")]),
    (&["css", "scss"], &[C_COMMENT, DOUBLE, SINGLE]),
    (
        &["lua"],
        &[
            Literal { kind: Kind::Comment, ..tagged("--[", Tag::Run('='), ("[", "]", "]")) },
            tagged("[", Tag::Run('='), ("[", "]", "]")),
            DOUBLE,
            SINGLE,
        ],
    ),
    (&["php"], &[C_COMMENT, MARKUP_COMMENT, long("\""), long("'"), raw("`", "`")]),
    (&["kotlin"], &[C_COMMENT_NESTS, raw("\"\"\"", "\"\"\""), DOUBLE, SINGLE]),
    (
        &["swift"],
        &[
            C_COMMENT_NESTS,
            long("\"\"\""),
            Literal { lines: false, ..tagged("#", Tag::Run('#'), ("\"", "\"#", "")) },
            DOUBLE,
        ],
    ),
    (&["scala"], &[C_COMMENT_NESTS, raw("\"\"\"", "\"\"\""), DOUBLE]),
    (&["dart"], &[C_COMMENT_NESTS, long("\"\"\""), long("'''"), DOUBLE, SINGLE]),
    (&["d"], &[C_COMMENT, comment("/+", "+/", true), raw("`", "`"), long("\""), SINGLE]),
    (&["v"], &[C_COMMENT_NESTS, raw("`", "`"), DOUBLE, SINGLE]),
    (&["odin"], &[C_COMMENT_NESTS, raw("`", "`"), DOUBLE, SINGLE]),
    (&["fsharp"], &[comment("(*", "*)", true), raw("\"\"\"", "\"\"\""), doubled("@\"", "\""), long("\"")]),
    (&["toml"], &[long("\"\"\""), raw("'''", "'''"), DOUBLE, text("'", "'", false, Escape::None)]),
    (&["yaml"], &[long("\""), doubled("'", "'")]),
    (&["perl"], &[comment("\n=pod", "\n=cut", false), long("\""), long("'"), raw("`", "`")]),
    (&["r"], &[long("\""), long("'")]),
    (&["powershell"], &[comment("<#", "#>", false), raw("@\"", "\n\"@"), raw("@'", "\n'@"), DOUBLE, SINGLE]),
    (&["terraform"], &[C_COMMENT, DOUBLE]),
    (&["nix"], &[C_COMMENT, raw("''", "''"), long("\"")]),
    (&["graphql"], &[raw("\"\"\"", "\"\"\""), DOUBLE]),
    (&["cmake"], &[comment("#[[", "]]", false), raw("[[", "]]"), long("\"")]),
    (&["elixir"], &[long("\"\"\""), long("'''"), long("\"")]),
    (&["julia"], &[comment("#=", "=#", true), long("\"\"\""), long("```"), long("\""), raw("`", "`")]),
    (&["gdscript"], &[long("\"\"\""), long("'''"), DOUBLE, SINGLE]),
    (&["nim"], &[comment("#[", "]#", true), raw("\"\"\"", "\"\"\""), DOUBLE]),
    (
        &["sql"],
        &[
            C_COMMENT,
            doubled("'", "'"),
            doubled("\"", "\""),
            raw("`", "`"),
            tagged("$", Tag::Word, ("$", "$", "$")),
        ],
    ),
    (&["haskell", "elm"], &[comment("{-", "-}", true), long("\"\"\""), DOUBLE]),
    (&["ocaml"], &[comment("(*", "*)", true), long("\""), tagged("{", Tag::Word, ("|", "|", "}"))]),
    (&["matlab"], &[comment("\n%{", "\n%}", true), doubled("\"", "\"")]),
    (&["erlang"], &[long("\"\"\""), long("\"")]),
    (&["clojure"], &[long("\"")]),
    (&["scheme"], &[comment("#|", "|#", true), long("\"")]),
    (&["vim", "fortran"], &[text("'", "'", false, Escape::Doubled)]),
    (&["vb", "ada"], &[text("\"", "\"", false, Escape::Doubled)]),
    (
        &["pascal"],
        &[comment("{", "}", false), comment("(*", "*)", false), text("'", "'", false, Escape::Doubled)],
    ),
    (&["markdown"], &[MARKUP_COMMENT, text("`", "`", false, Escape::None)]),
    (&["latex"], &[text("$", "$", false, Escape::Backslash)]),
];

/// Comments of template languages, which stand in files of any language: Jinja and its like, ERB, Handlebars.
const TEMPLATES: &[Literal] = &[
    comment("{#", "#}", false),
    comment("<%#", "%>", false),
    comment("{{!--", "--}}", false),
    comment("{{--", "--}}", false),
    comment("{{!", "}}", false),
    comment("@*", "*@", false),
];
/// Languages in whose files these are looked for.
const TEMPLATED: &[&str] = &["html", "xml", "vue", "svelte", "astro", "markdown"];

/// Languages of a Lisp's kind, Go's and others have none of their own.
const ONE_QUOTE: &[(char, Literal)] = &[('"', DOUBLE), ('\'', SINGLE), ('`', raw("`", "`"))];

/// What may stand in a file of a language that nobody knows.
#[must_use]
pub fn unknown() -> Vec<Literal> {
    let known = [MARKUP_COMMENT, C_COMMENT, long("\"\"\""), DOUBLE, SINGLE];
    TEMPLATES.iter().copied().chain(known).collect()
}

impl Language {
    /// The ways to write strings and comments over several lines, the longest openings first where one begins another.
    #[must_use]
    pub fn literals(&self) -> Vec<Literal> {
        let row = ROWS.iter().find(|(names, _)| names.contains(&self.name));
        let mut all: Vec<Literal> = match row {
            Some((_, literals)) => literals.to_vec(),
            None => {
                let comment = self.block_comment.map(|(open, close)| comment(open, close, false));
                let quotes = ONE_QUOTE.iter().filter(|(quote, _)| self.quotes.contains(quote));
                comment.into_iter().chain(quotes.map(|&(_, literal)| literal)).collect()
            }
        };
        if TEMPLATED.contains(&self.name) {
            all.splice(0..0, TEMPLATES.iter().copied());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LANGUAGES, by_id};

    #[test]
    fn every_row_is_of_a_language_and_closes_what_it_opens() {
        for (names, literals) in ROWS {
            for name in *names {
                assert!(LANGUAGES.iter().any(|row| row.name == *name), "{name}");
            }
            for it in *literals {
                assert!(!it.open.is_empty() && !it.close.is_empty(), "{names:?}: {it:?}");
                assert_eq!(it.tag == Tag::None, it.open_end.is_empty(), "{names:?}: {it:?}");
            }
        }
    }

    #[test]
    fn the_block_comment_of_every_language_is_among_its_literals() {
        for row in LANGUAGES {
            let Some((open, close)) = row.block_comment else { continue };
            // Lua's has a tag.
            let open = open.trim_end_matches('[');
            let found = row.literals().iter().any(|it| {
                it.kind == Kind::Comment && it.open.starts_with(open) && close.starts_with(it.close)
            });
            assert!(found, "{}: {open} {close}", row.name);
        }
    }

    #[test]
    fn a_language_without_a_row_has_its_quotes() {
        let literals = by_id("glsl").map(Language::literals).unwrap_or_default();
        assert_eq!(literals.len(), 1, "{literals:?}");
        let literals = by_id("solidity").map(Language::literals).unwrap_or_default();
        assert!(literals.contains(&SINGLE) && literals.contains(&DOUBLE));
    }

    #[test]
    fn a_longer_opening_comes_before_one_that_begins_it() {
        for row in LANGUAGES {
            let literals = row.literals();
            for (at, long) in literals.iter().enumerate() {
                let hidden = literals[..at].iter().find(|short| {
                    short.tag == Tag::None && long.open.starts_with(short.open) && long.open != short.open
                });
                assert_eq!(hidden, None, "{}: {long:?}", row.name);
            }
        }
    }
}
