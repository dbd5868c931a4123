//! The syntax of strings and comments in each language, by their delimiters. Used for languages without a grammar, and
//! for text that is not in a tree.

use crate::Language;

/// The kind of a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralKind {
    /// A string or a character.
    Text,
    /// A comment.
    Comment,
}

/// How the closing delimiter is written inside a literal without closing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapeStyle {
    /// It cannot be.
    None,
    /// After a backslash.
    Backslash,
    /// Twice.
    Doubled,
}

/// A part of an opening delimiter that is repeated in the closing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelimiterTag {
    /// There is none.
    None,
    /// This character, any number of times: `r##"…"##`, `[==[…]==]`.
    Run(char),
    /// Letters and digits: `$body$…$body$`, `R"x(…)x"`.
    Word,
}

/// One syntax of a string or a comment. With a [`DelimiterTag`], the opening is `open`, the tag, `open_end`, and the
/// closing is `close`, the tag, `close_end`; without one, the ends are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiteralSyntax {
    /// What it is.
    pub kind: LiteralKind,
    /// Begins it.
    pub open: &'static str,
    /// The repeated part.
    pub tag: DelimiterTag,
    /// After the tag.
    pub open_end: &'static str,
    /// Begins what closes it.
    pub close: &'static str,
    /// After the tag.
    pub close_end: &'static str,
    /// Whether it may span several lines.
    pub multiline: bool,
    /// How its closing delimiter is escaped.
    pub escape: EscapeStyle,
    /// Whether one may be nested in another.
    pub nests: bool,
}

const fn string_literal(
    open: &'static str,
    close: &'static str,
    lines: bool,
    escape: EscapeStyle,
) -> LiteralSyntax {
    let (tag, open_end, close_end) = (DelimiterTag::None, "", "");
    LiteralSyntax {
        kind: LiteralKind::Text,
        open,
        tag,
        open_end,
        close,
        close_end,
        multiline: lines,
        escape,
        nests: false,
    }
}

/// A string on one line, with backslashes.
const fn single_line_string(quote: &'static str) -> LiteralSyntax {
    string_literal(quote, quote, false, EscapeStyle::Backslash)
}

/// A multi-line string, with backslashes.
const fn multi_line_string(quote: &'static str) -> LiteralSyntax {
    string_literal(quote, quote, true, EscapeStyle::Backslash)
}

/// A multi-line string without escapes.
const fn raw_string(open: &'static str, close: &'static str) -> LiteralSyntax {
    string_literal(open, close, true, EscapeStyle::None)
}

/// A multi-line string in which a quote is escaped by doubling it.
const fn doubled_quote_string(open: &'static str, close: &'static str) -> LiteralSyntax {
    string_literal(open, close, true, EscapeStyle::Doubled)
}

const fn comment_literal(open: &'static str, close: &'static str, nests: bool) -> LiteralSyntax {
    LiteralSyntax {
        kind: LiteralKind::Comment,
        nests,
        ..string_literal(open, close, true, EscapeStyle::None)
    }
}

const fn tagged_string(
    open: &'static str,
    tag: DelimiterTag,
    ends: (&'static str, &'static str, &'static str),
) -> LiteralSyntax {
    let (open_end, close, close_end) = ends;
    LiteralSyntax { tag, open_end, close_end, ..raw_string(open, close) }
}

const DOUBLE_QUOTED: LiteralSyntax = single_line_string("\"");
const SINGLE_QUOTED: LiteralSyntax = single_line_string("'");
const C_COMMENT: LiteralSyntax = comment_literal("/*", "*/", false);
const NESTED_C_COMMENT: LiteralSyntax = comment_literal("/*", "*/", true);
const MARKUP_COMMENT: LiteralSyntax = comment_literal("<!--", "-->", false);

/// The literals of some languages. A language without a row here has the comments of its table row, and its quotes on
/// one line.
const LITERAL_ROWS: &[(&[&str], &[LiteralSyntax])] = &[
    (&["python"], &[multi_line_string("\"\"\""), multi_line_string("'''"), DOUBLE_QUOTED, SINGLE_QUOTED]),
    (
        &["rust"],
        &[
            NESTED_C_COMMENT,
            tagged_string("r", DelimiterTag::Run('#'), ("\"", "\"", "")),
            multi_line_string("\""),
        ],
    ),
    (
        &["javascript", "javascriptreact", "typescript", "typescriptreact", "vue", "svelte", "astro"],
        &[C_COMMENT, MARKUP_COMMENT, multi_line_string("`"), DOUBLE_QUOTED, SINGLE_QUOTED],
    ),
    (&["go"], &[C_COMMENT, raw_string("`", "`"), DOUBLE_QUOTED, SINGLE_QUOTED]),
    (&["java"], &[C_COMMENT, multi_line_string("\"\"\""), DOUBLE_QUOTED, SINGLE_QUOTED]),
    (
        &["groovy"],
        &[C_COMMENT, multi_line_string("\"\"\""), multi_line_string("'''"), DOUBLE_QUOTED, SINGLE_QUOTED],
    ),
    (&["c", "objective-c"], &[C_COMMENT, DOUBLE_QUOTED, SINGLE_QUOTED]),
    (
        &["cpp"],
        &[
            C_COMMENT,
            tagged_string("R\"", DelimiterTag::Word, ("(", ")", "\"")),
            DOUBLE_QUOTED,
            SINGLE_QUOTED,
        ],
    ),
    (
        &["csharp"],
        &[
            C_COMMENT,
            raw_string("\"\"\"", "\"\"\""),
            doubled_quote_string("@\"", "\""),
            doubled_quote_string("@$\"", "\""),
            doubled_quote_string("$@\"", "\""),
            DOUBLE_QUOTED,
            SINGLE_QUOTED,
        ],
    ),
    (
        &["ruby", "crystal"],
        &[
            comment_literal("\n=begin", "\n=end", false),
            multi_line_string("\""),
            multi_line_string("'"),
            multi_line_string("`"),
        ],
    ),
    (&["shellscript", "fish"], &[multi_line_string("\""), raw_string("'", "'"), raw_string("`", "`")]),
    (&["json"], &[DOUBLE_QUOTED]),
    (&["jsonc"], &[C_COMMENT, DOUBLE_QUOTED, SINGLE_QUOTED]),
    (&["html"], &[MARKUP_COMMENT, C_COMMENT, raw_string("\"", "\""), raw_string("'", "'")]),
    (
        &["xml"],
        &[MARKUP_COMMENT, raw_string("<![CDATA[", "]]>"), raw_string("\"", "\""), raw_string("'", "'")],
    ),
    (&["css", "scss"], &[C_COMMENT, DOUBLE_QUOTED, SINGLE_QUOTED]),
    (
        &["lua"],
        &[
            LiteralSyntax {
                kind: LiteralKind::Comment,
                ..tagged_string("--[", DelimiterTag::Run('='), ("[", "]", "]"))
            },
            tagged_string("[", DelimiterTag::Run('='), ("[", "]", "]")),
            DOUBLE_QUOTED,
            SINGLE_QUOTED,
        ],
    ),
    (
        &["php"],
        &[C_COMMENT, MARKUP_COMMENT, multi_line_string("\""), multi_line_string("'"), raw_string("`", "`")],
    ),
    (&["kotlin"], &[NESTED_C_COMMENT, raw_string("\"\"\"", "\"\"\""), DOUBLE_QUOTED, SINGLE_QUOTED]),
    (
        &["swift"],
        &[
            NESTED_C_COMMENT,
            multi_line_string("\"\"\""),
            LiteralSyntax {
                multiline: false,
                ..tagged_string("#", DelimiterTag::Run('#'), ("\"", "\"#", ""))
            },
            DOUBLE_QUOTED,
        ],
    ),
    (&["scala"], &[NESTED_C_COMMENT, raw_string("\"\"\"", "\"\"\""), DOUBLE_QUOTED]),
    (
        &["dart"],
        &[
            NESTED_C_COMMENT,
            multi_line_string("\"\"\""),
            multi_line_string("'''"),
            DOUBLE_QUOTED,
            SINGLE_QUOTED,
        ],
    ),
    (
        &["d"],
        &[
            C_COMMENT,
            comment_literal("/+", "+/", true),
            raw_string("`", "`"),
            multi_line_string("\""),
            SINGLE_QUOTED,
        ],
    ),
    (&["v"], &[NESTED_C_COMMENT, raw_string("`", "`"), DOUBLE_QUOTED, SINGLE_QUOTED]),
    (&["odin"], &[NESTED_C_COMMENT, raw_string("`", "`"), DOUBLE_QUOTED, SINGLE_QUOTED]),
    (
        &["fsharp"],
        &[
            comment_literal("(*", "*)", true),
            raw_string("\"\"\"", "\"\"\""),
            doubled_quote_string("@\"", "\""),
            multi_line_string("\""),
        ],
    ),
    (
        &["toml"],
        &[
            multi_line_string("\"\"\""),
            raw_string("'''", "'''"),
            DOUBLE_QUOTED,
            string_literal("'", "'", false, EscapeStyle::None),
        ],
    ),
    (&["yaml"], &[multi_line_string("\""), doubled_quote_string("'", "'")]),
    (
        &["perl"],
        &[
            comment_literal("\n=pod", "\n=cut", false),
            multi_line_string("\""),
            multi_line_string("'"),
            raw_string("`", "`"),
        ],
    ),
    (&["r"], &[multi_line_string("\""), multi_line_string("'")]),
    (
        &["powershell"],
        &[
            comment_literal("<#", "#>", false),
            raw_string("@\"", "\n\"@"),
            raw_string("@'", "\n'@"),
            DOUBLE_QUOTED,
            SINGLE_QUOTED,
        ],
    ),
    (&["terraform"], &[C_COMMENT, DOUBLE_QUOTED]),
    (&["nix"], &[C_COMMENT, raw_string("''", "''"), multi_line_string("\"")]),
    (&["graphql"], &[raw_string("\"\"\"", "\"\"\""), DOUBLE_QUOTED]),
    (&["cmake"], &[comment_literal("#[[", "]]", false), raw_string("[[", "]]"), multi_line_string("\"")]),
    (&["elixir"], &[multi_line_string("\"\"\""), multi_line_string("'''"), multi_line_string("\"")]),
    (
        &["julia"],
        &[
            comment_literal("#=", "=#", true),
            multi_line_string("\"\"\""),
            multi_line_string("```"),
            multi_line_string("\""),
            raw_string("`", "`"),
        ],
    ),
    (&["gdscript"], &[multi_line_string("\"\"\""), multi_line_string("'''"), DOUBLE_QUOTED, SINGLE_QUOTED]),
    (&["nim"], &[comment_literal("#[", "]#", true), raw_string("\"\"\"", "\"\"\""), DOUBLE_QUOTED]),
    (
        &["sql"],
        &[
            C_COMMENT,
            doubled_quote_string("'", "'"),
            doubled_quote_string("\"", "\""),
            raw_string("`", "`"),
            tagged_string("$", DelimiterTag::Word, ("$", "$", "$")),
        ],
    ),
    (&["haskell", "elm"], &[comment_literal("{-", "-}", true), multi_line_string("\"\"\""), DOUBLE_QUOTED]),
    (
        &["ocaml"],
        &[
            comment_literal("(*", "*)", true),
            multi_line_string("\""),
            tagged_string("{", DelimiterTag::Word, ("|", "|", "}")),
        ],
    ),
    (&["matlab"], &[comment_literal("\n%{", "\n%}", true), doubled_quote_string("\"", "\"")]),
    (&["erlang"], &[multi_line_string("\"\"\""), multi_line_string("\"")]),
    (&["clojure"], &[multi_line_string("\"")]),
    (&["scheme"], &[comment_literal("#|", "|#", true), multi_line_string("\"")]),
    (&["vim", "fortran"], &[string_literal("'", "'", false, EscapeStyle::Doubled)]),
    (&["vb", "ada"], &[string_literal("\"", "\"", false, EscapeStyle::Doubled)]),
    (
        &["pascal"],
        &[
            comment_literal("{", "}", false),
            comment_literal("(*", "*)", false),
            string_literal("'", "'", false, EscapeStyle::Doubled),
        ],
    ),
    (&["markdown"], &[MARKUP_COMMENT, string_literal("`", "`", false, EscapeStyle::None)]),
    (&["latex"], &[string_literal("$", "$", false, EscapeStyle::Backslash)]),
];

/// Comments of template languages, which occur in files of any language: Jinja and the like, ERB, Handlebars.
const TEMPLATE_COMMENTS: &[LiteralSyntax] = &[
    comment_literal("{#", "#}", false),
    comment_literal("<%#", "%>", false),
    comment_literal("{{!--", "--}}", false),
    comment_literal("{{--", "--}}", false),
    comment_literal("{{!", "}}", false),
    comment_literal("@*", "*@", false),
];
/// Languages whose files may contain these.
const TEMPLATE_LANGUAGES: &[&str] = &["html", "xml", "vue", "svelte", "astro", "markdown"];

/// The literals for the quotes of a language's table row.
const QUOTE_LITERALS: &[(char, LiteralSyntax)] =
    &[('"', DOUBLE_QUOTED), ('\'', SINGLE_QUOTED), ('`', raw_string("`", "`"))];

/// The literals that are assumed for an unknown language.
#[must_use]
pub fn unknown_language_literals() -> Vec<LiteralSyntax> {
    let known = [MARKUP_COMMENT, C_COMMENT, multi_line_string("\"\"\""), DOUBLE_QUOTED, SINGLE_QUOTED];
    TEMPLATE_COMMENTS.iter().copied().chain(known).collect()
}

impl Language {
    /// The syntaxes of strings and comments over several lines, the longest openings first where one is a prefix of
    /// another.
    #[must_use]
    pub fn literals(&self) -> Vec<LiteralSyntax> {
        let row = LITERAL_ROWS.iter().find(|(names, _)| names.contains(&self.name));
        let mut all: Vec<LiteralSyntax> = match row {
            Some((_, literals)) => literals.to_vec(),
            None => {
                let comment = self.block_comment.map(|(open, close)| comment_literal(open, close, false));
                let quotes = QUOTE_LITERALS.iter().filter(|(quote, _)| self.quotes.contains(quote));
                comment.into_iter().chain(quotes.map(|&(_, literal)| literal)).collect()
            }
        };
        if TEMPLATE_LANGUAGES.contains(&self.name) {
            all.splice(0..0, TEMPLATE_COMMENTS.iter().copied());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LANGUAGES, by_id};

    #[test]
    fn literal_rows_have_language_and_closing_delimiter() {
        for (names, literals) in LITERAL_ROWS {
            for name in *names {
                assert!(LANGUAGES.iter().any(|row| row.name == *name), "{name}");
            }
            for it in *literals {
                assert!(!it.open.is_empty() && !it.close.is_empty(), "{names:?}: {it:?}");
                assert_eq!(it.tag == DelimiterTag::None, it.open_end.is_empty(), "{names:?}: {it:?}");
            }
        }
    }

    #[test]
    fn block_comment_is_among_literals() {
        for row in LANGUAGES {
            let Some((open, close)) = row.block_comment else { continue };
            // Lua's comment has a tag.
            let open = open.trim_end_matches('[');
            let found = row.literals().iter().any(|it| {
                it.kind == LiteralKind::Comment && it.open.starts_with(open) && close.starts_with(it.close)
            });
            assert!(found, "{}: {open} {close}", row.name);
        }
    }

    #[test]
    fn language_without_row_uses_its_quotes() {
        let literals = by_id("glsl").map(Language::literals).unwrap_or_default();
        assert_eq!(literals.len(), 1, "{literals:?}");
        let literals = by_id("solidity").map(Language::literals).unwrap_or_default();
        assert!(literals.contains(&SINGLE_QUOTED) && literals.contains(&DOUBLE_QUOTED));
    }

    #[test]
    fn longer_opening_precedes_its_prefix() {
        for row in LANGUAGES {
            let literals = row.literals();
            for (at, long) in literals.iter().enumerate() {
                let hidden = literals[..at].iter().find(|short| {
                    short.tag == DelimiterTag::None
                        && long.open.starts_with(short.open)
                        && long.open != short.open
                });
                assert_eq!(hidden, None, "{}: {long:?}", row.name);
            }
        }
    }
}
