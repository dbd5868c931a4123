//! taper: a language server that keeps a small language model on this machine and completes code with it.
//! This page is the architecture: the floors of the house in reading order, top to bottom.
//!
//! | floor | modules | knows | does not know |
//! |---|---|---|---|
//! | 8 | [`cli`] | arguments, the terminal | |
//! | 7 | [`protocol`] | LSP and JSON, tokio | documents' contents, tensors |
//! | 6 | [`session`], [`config`] | threads, time, who owns what | LSP, tensors |
//! | 5 | [`suggest`] | what to suggest and what to cut | threads, clocks |
//! | 5 | [`usage`] | what happened to suggestions, and the file with the counts | LSP, sessions |
//! | 4 | [`prompt`] | fill-in-the-middle formats, the window | the answer |
//! | 3 | [`context`] | which other code of the project helps | prompts, tokens |
//! | 2 | [`syntax`] | tree-sitter, in bytes | lines and columns |
//! | 1 | [`text`] | ropes, edits, positions | languages |
//! | 0 | `taper-engine`, `taper-grammars` | tensors; grammars | editors |
//!
//! A file uses its own floor and anything below it, never above; `tests/tidy.rs` fails the build otherwise.
//!
//! One keystroke: `protocol` turns `didChange` into one [`session::Event`] and sends it to the session
//! thread, which owns the documents: rope edit, tree edit, parse. `inlineCompletion` takes a
//! [`suggest::Snapshot`] and puts the question into the completer's one-slot mailbox; the completer thread,
//! which owns the engine, runs [`suggest::suggest`]; the reply goes out at the deadline at the latest. What runs when
//! the next key comes goes on while it says what was typed, and then answers that key. Beside them, a thread of low
//! priority has the workspace's files cut, by a process of its own ([`session::crawler`]), and hands the session a new
//! [`context::Index`] when they have changed.

pub mod cli;
pub mod lsp;

pub mod config;
pub mod session;

pub mod completion;
pub mod usage;

pub mod prompt;

pub mod retrieval;

pub mod syntax;

pub mod text;
