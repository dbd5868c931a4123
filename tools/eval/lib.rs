//! The laboratory: measures what the server suggests and how it answers a person who types. Not installed with it.
//! It knows nothing of how the server works: it calls the library's public parts, or speaks LSP over pipes.
//!
//! [`run`] scores completion tasks, beside llama.cpp ([`llama`]) if asked to; it runs generated code, in a sandbox.
//! [`replay`] types tasks at a server. [`tasks`] reads their files, [`answers`] keeps what came out, and [`lsp_client`]
//! is the client's end of a server's pipes, for the replay, the benches and the end-to-end tests.

pub mod answers;
pub mod llama;
pub mod lsp_client;
pub mod replay;
pub mod run;
pub mod tasks;
