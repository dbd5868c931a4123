//! One end-to-end binary: everything here runs the built program or looks at the tree of sources.
//! It knows nothing of the insides.

mod fake_hub;
mod pull;
