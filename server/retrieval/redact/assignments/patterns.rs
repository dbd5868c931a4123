//! The regular expressions of assignments: what may come between a name and its value.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};

// What may follow a name, besides operators.
const PAIR_PATTERN: &str = concat!(
    r#"^["']?(?:[ \t]+[\w-]{1,20}=["'][^"'\n]{0,60}["']){0,4}[ \t]*[,;]?\s{0,40}(?:-[ \t]+)?\\*["']?(?:default_)?[vV]alue\\*["']?[ \t]*(?:=>|[:=])[ \t]*"#,
    r"|^</(?:key|name|string|Name|Key)>\s*<(?:string|value|Value)>",
);
const TYPED_PATTERN: &str = concat!(
    r"^\??(?:[ \t]*:[ \t]*|[ \t]+(?:[Aa]s[ \t]+)?)(?:[\w&'. |?*:]|<[^<>=\n]*(?:<[^<>=\n]*>)?[^<>=\n]*>|\[[^\]=\n]*\]){1,60}?",
    r"[ \t]*(?::=|=)[ \t\n]*[^=>~]",
);
const SETTER_PATTERN: &str = concat!(
    r#"(?:define|setenv|putenv|set_?property|setdefault|set_?var|set|put|add|header|append|env|insert|arg|with|replace|"#,
    r#"store|add_?header|set_?header|field|attr|entry|of|create_?secret)!?[ \t]*\([ \t\n]*$"#,
);
const WRAPPER_PATTERN: &str = r"^(?:(?:new|await|ref|out)[ \t]+)?(?:[A-Za-z_][\w.:]{0,60}(?:<[\w, ]+>)?)(?:!?\(|\.new\(|::from\()[ \t\n]*";
const KEEPING_CALL_PATTERN: &str = concat!(
    r"(?i)(?:^|[.: ])(?:some|from|string|str|secret|secretstr|secretstring|zeroizing|bytes|bytearray|vec|quote|into|encode|just|",
    r"arc|rc|box|cow|valueof|parse|password|token|tochararray|b64decode|decode|base64decode|unhexlify|fromhex|of|new|asbytes|",
    r"securestring|literal|value|text|lit|buffer|atob|hex|getbytes|freeze|redact|plaintext|ok)$",
);

pub(super) static ASSIGNMENT_PATTERNS: LazyLock<Option<AssignmentPatterns>> = LazyLock::new(|| {
    let new = |it: &str| RegexBuilder::new(it).unicode(false).build().ok();
    Some(AssignmentPatterns {
        pair: new(PAIR_PATTERN)?,
        value_word: Finder::new("alue"),
        typed: new(TYPED_PATTERN)?,
        setter: new(&format!("(?i){SETTER_PATTERN}"))?,
        wrapper: new(WRAPPER_PATTERN)?,
        keeps: new(KEEPING_CALL_PATTERN)?,
        equals: new(
            r"^[ \t]*\.?(?:equals|eq|is|isEqualTo|compareTo|equalsIgnoreCase|contentEquals)[ \t]*\(",
        )?,
        next_argument: new(r#"^\)[ \t\n]*\.arg\("#)?,
        joined: new(r"^[ \t]*(?:\+|\.\.?|<>|&|\\|\|\|)?[ \t]*\\?\r?\n?[ \t]*(?:\+|\.\.?|<>|&)?[ \t]*$")?,
    })
});

pub(super) struct AssignmentPatterns {
    pub(super) pair: Regex,
    /// What `pair` contains unless it begins with `<`.
    pub(super) value_word: Finder<'static>,
    pub(super) typed: Regex,
    pub(super) setter: Regex,
    pub(super) wrapper: Regex,
    pub(super) keeps: Regex,
    pub(super) equals: Regex,
    pub(super) next_argument: Regex,
    pub(super) joined: Regex,
}
