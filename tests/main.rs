//! One end-to-end binary: everything here runs the built program or looks at the tree of sources.
//! It knows nothing of the insides.

mod bad_input;
mod candidates;
mod client;
mod commands;
mod commands_lsp;
mod eval;
mod fake_hub;
mod hostile;
mod lsp;
mod pull;
mod real_model;
mod replay;
mod script;
mod statistics;
mod tidy;
mod vscode_settings;
