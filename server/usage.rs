//! Usage statistics: what happened to shown suggestions, counted on this machine and sent nowhere.

pub mod outcome;
pub mod stats;
pub mod store;
pub mod tracker;
