//! From a file and a cursor to the tokens a model is asked to continue.
//! It knows nothing of what will come out.

pub mod template;
pub mod window;
