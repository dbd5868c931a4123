//! taper: a language server that completes code with a small language model on this machine.
//! This page is the architecture: the layers in reading order, top to bottom.
//!
//! | layer | modules | content | must not know |
//! |---|---|---|---|
//! | 8 | [`cli`] | arguments, the terminal | |
//! | 7 | [`lsp`] | LSP and JSON, tokio | documents' contents, tensors |
//! | 6 | [`session`], [`config`] | threads, time, ownership; the options | LSP, JSON (but for `config`), tensors |
//! | 5 | [`completion`] | what to suggest and where to cut it | threads, clocks |
//! | 5 | [`usage`] | what happened to suggestions, and the file with the counts | LSP, sessions |
//! | 4 | [`prompt`] | fill-in-the-middle formats, the window | the completion |
//! | 3 | [`retrieval`] | chunks of the project's other files | prompts, tokens |
//! | 2 | [`syntax`] | tree-sitter, in bytes | lines and columns |
//! | 1 | [`text`] | ropes, edits, positions | languages |
//! | 0 | `taper-engine`, `taper-grammars` | tensors; grammars | editors |
//!
//! A file uses only its own layer and the layers below it; `tests/tidy.rs` fails the build otherwise.
//!
//! The path of a keystroke: `lsp` turns `didChange` into one [`session::Event`] and sends it to the session thread,
//! which owns the documents: it edits the rope and the tree, and reparses. For `inlineCompletion` it takes a
//! [`completion::Snapshot`] and puts a [`session::CompletionRequest`] into the one-slot mailbox of the inference
//! worker. That thread owns the engine and runs [`completion::suggest`]. The response is sent at the deadline at
//! the latest. If a generation is still running when the next key arrives and its output agrees with what was
//! typed, it continues and answers that key. A low-priority thread cuts the workspace's files into chunks, in a
//! process of its own ([`session::crawler`]), and sends the session a new [`retrieval::Index`] when they have
//! changed.

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
