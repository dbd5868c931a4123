//! Which code from elsewhere helps at the cursor.
//! It knows nothing of prompts, and it cannot fail: what is not ready is not used.
