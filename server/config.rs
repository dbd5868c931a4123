//! Options as a user writes them become settings as the program uses them.
//! It knows nothing of who asks or of the editor they come from.
