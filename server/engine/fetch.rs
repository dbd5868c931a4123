//! Brings model files to this machine: found, downloaded, resumed, verified.
//! It knows nothing of what is inside a file.

/// A model could not be found or fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {}
