//! What of this file the model sees, in tokens.
//! It knows nothing of other files or of formats.
