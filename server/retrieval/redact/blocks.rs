//! Detects multi-line secrets: private keys with headers, PuTTY keys, Ansible vaults, the data of Kubernetes secrets.
//!
//! Only the lines' contents are removed: the number of lines stays, and a key in a string stays a string.

use std::ops::Range;

/// The beginnings of such blocks, in lower case.
pub(super) const BLOCK_HEADS: &[&str] = &[
    "-----begin",
    "---- begin",
    "private-lines:",
    "$ansible_vault",
    "kind: secret",
    "kind: \"secret",
    "\"kind\": \"secret",
];

/// Maximum bytes of a block.
const MAX_BLOCK_BYTES: usize = 32 << 10;

/// Adds the secrets of the block whose head begins at `at`. Returns where the next one may begin.
pub(super) fn find_block(text: &str, at: usize, found: &mut Vec<Range<usize>>) -> usize {
    let rest = &text[at..];
    let line_end = |from: usize| {
        from + truncated_str(&text[from..], super::MAX_LINE_BYTES)
            .find('\n')
            .unwrap_or(truncated_str(&text[from..], super::MAX_LINE_BYTES).len())
    };
    let starts = |head: &str| rest.get(..head.len()).is_some_and(|it| it.eq_ignore_ascii_case(head));
    if starts("--") {
        let head = &rest[..rest.len().min(120).min(line_end(at) - at)];
        let head = truncated_str(head, 120);
        let Some(kind) = head.find("PRIVATE KEY").or_else(|| head.find("ENCRYPTED PRIVATE")) else {
            return at;
        };
        // `-----BEGIN PRIVATE KEY-----`: the text after the dashes.
        let Some(dashes) = head[kind..].find("----") else { return at };
        let body = at + kind + dashes;
        let body = body + text[body..].bytes().take_while(|&it| it == b'-').count();
        let end = text.len().min(body + MAX_BLOCK_BYTES);
        let end = ["-----END", "---- END"]
            .iter()
            .filter_map(|it| truncated_str(&text[body..], end - body).find(it))
            .min();
        scan_key(text, body, end.map(|it| body + it), found)
    } else if starts("private-lines:") {
        let body = line_end(at);
        let end = truncated_str(&text[body..], MAX_BLOCK_BYTES).find("Private-MAC:").map(|it| body + it);
        let done = scan_key(text, body, end, found);
        if let Some(mac) = end {
            found.push(mac + "Private-MAC:".len()..line_end(mac));
        }
        done
    } else if starts("$ansible_vault") {
        scan_key(text, line_end(at), None, found)
    } else {
        scan_kubernetes_secret(text, at, found)
    }
}

fn truncated_str(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&it| text.is_char_boundary(it)).unwrap_or(0);
    &text[..end]
}

/// The lines of a key: all base64 up to its footer; without a footer, as long as lines look like base64.
fn scan_key(text: &str, body: usize, foot: Option<usize>, found: &mut Vec<Range<usize>>) -> usize {
    let bytes = text.as_bytes();
    let end = foot.unwrap_or_else(|| text.len().min(body + MAX_BLOCK_BYTES));
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_');
    let mut line = body;
    while line < end {
        let next = bytes[line..end].iter().position(|&it| it == b'\n').map_or(end, |it| line + it + 1);
        let mut runs = Vec::new();
        let (mut at, mut other) = (line, 0);
        while at < next {
            match bytes[at] {
                // `\n` in a string, at any level of escaping.
                b'\\' => {
                    at += bytes[at..next].iter().take_while(|&&it| it == b'\\').count() + 1;
                }
                byte if is_key(byte) => {
                    let start = at;
                    at += bytes[at..next].iter().take_while(|&&it| is_key(it)).count();
                    if bytes[start..at].iter().any(u8::is_ascii_alphanumeric) {
                        runs.push(start..at);
                    }
                }
                byte => {
                    other +=
                        usize::from(!byte.is_ascii_whitespace() && !b"\"'`+,.;#/*-()|>:&".contains(&byte));
                    at += 1;
                }
            }
        }
        let longest = runs.iter().map(Range::len).max().unwrap_or(0);
        let header = |it: &Range<usize>| bytes.get(it.end) == Some(&b':') || bytes.get(it.end) == Some(&b'-');
        // Between header and footer a short line is the key's last; elsewhere it is code.
        let is_body =
            if foot.is_some() { runs.len() == 1 || longest >= 16 } else { longest >= 16 && other == 0 };
        if is_body {
            found.extend(runs.into_iter().filter(|it| (it.len() > 3 || longest < 16) && !header(it)));
        } else if foot.is_none() && line > body && longest > 0 {
            return line;
        }
        line = next;
    }
    line
}

/// The values below `data:` and `stringData:` of the document whose kind is at `at`.
fn scan_kubernetes_secret(text: &str, at: usize, found: &mut Vec<Range<usize>>) -> usize {
    let kind = truncated_str(&text[at..], 100).lines().next().unwrap_or("").to_ascii_lowercase();
    if !kind.trim_end().trim_end_matches(['"', '\'', ',']).ends_with("secret") {
        return at;
    }
    let start = text[..at].rfind("\n---").map_or(0, |it| it + 1);
    let end = text[at..].find("\n---").map_or(text.len(), |it| at + it);
    let mut below: Option<usize> = None;
    let mut line_start = start;
    for line in text[start..end].split_inclusive('\n') {
        let here = line_start;
        line_start += line.len();
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let content = content.trim_end();
        if content.is_empty() {
            continue;
        }
        if below.is_some_and(|it| indent <= it) {
            below = None;
        }
        let name = content.trim_start_matches('"');
        if below.is_none()
            && (name.starts_with("data") || name.starts_with("stringData"))
            && name.contains(':')
        {
            below = Some(indent);
            continue;
        }
        if below.is_none() || content.starts_with(['}', '#']) {
            continue;
        }
        let offset = here + indent;
        // `name: value`, or a line of a longer value.
        let value = content
            .find(": ")
            .map_or(if content.ends_with([':', '|', '>', '-']) { content.len() } else { 0 }, |it| it + 2);
        let quotes = |it: char| it.is_whitespace() || matches!(it, '"' | '\'' | ',');
        let inner = content[value..].trim_start_matches(quotes);
        let from = content.len() - inner.len();
        let inner = inner.trim_end_matches(quotes);
        if !inner.is_empty() && !inner.starts_with(['|', '>', '{']) && !inner.contains("{{") {
            found.push(offset + from..offset + from + inner.len());
        }
    }
    end
}
