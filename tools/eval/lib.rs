//! The evaluation tool: measures the quality of suggestions and the latency for a user who types. It uses the library's
//! public API or speaks LSP over pipes, and is not installed with the server.
//!
//! [`run`] scores completion tasks, optionally with llama.cpp as a baseline ([`llama`]), and runs generated code in a
//! sandbox. [`replay`] types tasks at a server. [`tasks`] reads their files, [`answers`] keeps the results, and
//! [`lsp_client`] is an LSP client for the replay, the benches and the end-to-end tests.

pub mod answers;
pub mod llama;
pub mod lsp_client;
pub mod replay;
pub mod run;
pub mod tasks;
