//! Decodes a stream of tokens to text: emits complete UTF-8 characters and buffers incomplete ones.

/// Joins the bytes of tokens to text.
///
/// A token may end inside a character: those bytes are kept until the next token completes them. A sequence
/// that no further byte can make valid becomes one U+FFFD, as in `String::from_utf8_lossy`. A character that is
/// still incomplete at the end is dropped with the stream.
#[derive(Debug, Clone, Default)]
pub struct Utf8Stream {
    /// The beginning of a character: at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// A stream at the beginning of a character.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `text` the characters that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut from = 0;
        loop {
            match std::str::from_utf8(&self.pending[from..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    from = self.pending.len();
                    break;
                }
                Err(error) => {
                    let valid = from + error.valid_up_to();
                    // The bytes before `valid_up_to` are UTF-8, so nothing is replaced here.
                    text.push_str(&String::from_utf8_lossy(&self.pending[from..valid]));
                    from = valid;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    from += invalid;
                }
            }
        }
        self.pending.drain(..from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_stream_is_independent_of_chunk_boundaries() {
        let mut random = fastrand::Rng::with_seed(1);
        let samples = ["", "a", "é", "数", "🙂", "\u{feff}", "e\u{301}", "\n"];
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..random.usize(0..8) {
                bytes.extend_from_slice(samples[random.usize(..samples.len())].as_bytes());
                if random.u8(..) < 60 {
                    bytes.push(random.u8(..));
                }
            }
            let mut whole = String::from_utf8_lossy(&bytes).into_owned();
            let mut stream = Utf8Stream::new();
            let mut text = String::new();
            let mut at = 0;
            while at < bytes.len() {
                let next = random.usize(at + 1..=bytes.len());
                stream.push(&bytes[at..next], &mut text);
                at = next;
            }
            if !stream.pending.is_empty() {
                assert!(whole.ends_with(char::REPLACEMENT_CHARACTER));
                whole.pop();
            }
            assert_eq!(text, whole, "{bytes:x?}");
        }
    }

    #[test]
    fn incomplete_character_is_held_back() {
        let (mut stream, mut text) = (Utf8Stream::new(), String::new());
        for (i, &byte) in "🙂!".as_bytes().iter().enumerate() {
            stream.push(&[byte], &mut text);
            assert_eq!(text, ["", "", "", "🙂", "🙂!"][i]);
        }
    }
}
