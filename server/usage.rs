//! Usage statistics: what happened to shown suggestions, counted on this machine and sent nowhere.
//! It knows nothing of LSP, of sessions, or of what is suggested where.

pub mod outcome;
pub mod stats;
pub mod store;
pub mod tracker;
