//! Fuzzes message framing with arbitrary byte streams, split anywhere: nothing panics, the splits make no difference,
//! and a valid message at the end is understood whatever precedes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper::lsp::framing::MessageFramer;
use taper::lsp::incoming::IncomingMessage;

/// The methods and errors parsed from a stream that arrives in pieces.
fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut framer = MessageFramer::default();
    let mut out = Vec::new();
    for piece in pieces {
        framer.feed_bytes(piece, &mut |message| {
            out.push(match message {
                IncomingMessage::Request(request) => format!("{} {:?}", request.method(), request.id()),
                IncomingMessage::Response(response) => format!("{response:?}"),
                IncomingMessage::Changed(changed) => format!("{changed:?}"),
                IncomingMessage::Malformed(response) => format!("{response:?}"),
            });
        });
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, data)) = data.split_first() else { return };
    let last = r#"{"jsonrpc":"2.0","method":"last"}"#;
    let mut stream = data.to_vec();
    for _ in 0..2 {
        stream.extend(format!("\n\nContent-Length: {}\r\n\r\n{last}", last.len()).bytes());
    }
    let whole = run([&stream[..]].into_iter());
    assert_eq!(whole.last().map(String::as_str), Some("last None"));
    assert_eq!(run(stream.chunks(usize::from(size) + 1)), whole);
});
