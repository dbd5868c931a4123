//! The models that taper knows: names, sizes, licences, hashes, where their files come from.
//! It knows nothing of what is inside a file.
