//! Grammars with a scanner of taper's own, where the scanner of the grammar's crate can end the process. The tables of
//! a grammar stay those of its crate; `scanners/README.md` lists the changes and the reasons.

use std::sync::LazyLock;

use tree_sitter::Language;
use tree_sitter_language::LanguageFn;
// Linked for the tables that the functions below copy.
use {tree_sitter_bash as _, tree_sitter_python as _, tree_sitter_ruby as _};

unsafe extern "C" {
    fn hardened_bash() -> *const ();
    fn hardened_python() -> *const ();
    fn hardened_ruby() -> *const ();
}

/// A grammar that is made once, by the first thread that needs it.
macro_rules! hardened {
    ($name:ident, $function:ident) => {
        pub(crate) fn $name() -> Language {
            static LANGUAGE: LazyLock<Language> = LazyLock::new(|| {
                // SAFETY: the function returns a grammar that tree-sitter generated, as its crate's own does: a copy
                // that lives for ever and differs only in the scanner's five functions, which have the same signatures.
                // The lock lets only one thread call it.
                Language::new(unsafe { LanguageFn::from_raw($function) })
            });
            LANGUAGE.clone()
        }
    };
}

hardened!(bash, hardened_bash);
hardened!(python, hardened_python);
hardened!(ruby, hardened_ruby);
