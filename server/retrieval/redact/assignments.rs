//! Detects values that are assigned to a secret name, in the syntaxes of programming languages and configuration files.

mod line;
mod patterns;

use std::ops::Range;

use super::values::{self, ValueStrictness};
use super::{line_end, line_start, names};
use line::{
    LineContext, NameValueLink, StringQuote, blank_len, is_comment_line, open_quote, parse_operator,
    sets_variable,
};
use patterns::{ASSIGNMENT_PATTERNS, AssignmentPatterns};

/// Whether unquoted words are values, as in a shell script, or names, as in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareWords {
    /// They are values.
    Values,
    /// They are names, except in strings and comments.
    Names,
}

/// Maximum bytes of a name, of a value, and of the text between them.
const MAX_NAME_BYTES: usize = 80;
const MAX_VALUE_BYTES: usize = 4096;

/// Whether the patterns are available.
pub(super) fn has_patterns() -> bool {
    ASSIGNMENT_PATTERNS.is_some()
}

/// Finds values assigned to secret names, in one text.
pub(super) struct AssignmentScanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    bare: BareWords,
    patterns: &'static AssignmentPatterns,
    /// The end of the last examined name.
    seen_end: usize,
    /// The last examined line.
    line: LineContext,
    names: names::NameClassifier,
    /// The name whose values are examined.
    name: Range<usize>,
    /// The delimiters of multi-line strings, computed on demand.
    triples: Option<Vec<usize>>,
}

impl<'a> AssignmentScanner<'a> {
    pub(super) fn new(text: &'a str, bare: BareWords) -> Option<Self> {
        let expressions = ASSIGNMENT_PATTERNS.as_ref()?;
        let line = LineContext { range: 0..0, has_quote: false, is_comment: false };
        let bytes = text.as_bytes();
        Some(Self {
            text,
            bytes,
            bare,
            patterns: expressions,
            seen_end: 0,
            line,
            names: names::NameClassifier::default(),
            name: 0..0,
            triples: None,
        })
    }

    /// Adds the values assigned to the name that contains `hit`.
    pub(super) fn find_values(&mut self, hit: Range<usize>, found: &mut Vec<Range<usize>>) {
        if hit.end <= self.seen_end {
            return;
        }
        let end = self.name_end(hit.end);
        self.seen_end = end;
        let after = self.closing_end(end);
        let next = after + blank_len(&self.bytes[after..]);
        if !self.may_assign(hit.start, end, after, next) {
            return;
        }
        let start = self.name_start(hit.start);
        let Some((link, at)) = self.find_link(start, end, after, next) else { return };
        let Some(need) = self.names.required_strictness(&self.text[start..end]) else { return };
        self.name = start..end;
        let plural = names::is_plural_name(&self.text[start..end]);
        self.scan_values(link, at, start, need, plural, found);
    }

    /// Whether the line suggests that a value may follow. This filters out most names.
    fn may_assign(&mut self, hit: usize, end: usize, after: usize, next: usize) -> bool {
        let get = |at: usize| self.bytes.get(at).copied().unwrap_or(b'\n');
        let byte = get(next);
        let ends = matches!(byte, b'\n' | b'\r');
        if matches!(byte, b')' | b';' | b']' | b'}' | b'>') && after == end && byte != b'>' {
            return false;
        }
        if end >= self.line.range.end {
            self.line = LineContext::at_offset(self.bytes, hit);
        }
        let LineContext { range, has_quote, is_comment } = &self.line;
        if *has_quote || *is_comment || self.bare == BareWords::Values {
            return true;
        }
        let is_flag =
            get(hit.wrapping_sub(1)) == b'-' || self.bytes[range.start..hit].windows(2).any(|it| it == b"--");
        let is_element = byte == b'>' || byte == b'<';
        // `NAME=value`, and an operator at the line's end.
        let is_variable = byte == b'=' && next == after && !matches!(get(next + 1), b'=' | b'>' | b' ');
        let continues = || {
            self.bytes[next..range.end].trim_ascii_end().ends_with(b"=")
                || get(range.end.saturating_sub(2)) == b'('
        };
        is_flag || is_element || is_variable || ends || continues() || self.is_in_triple_quotes(hit)
    }

    /// The end of what closes the name: its quote, a bracket.
    fn closing_end(&self, end: usize) -> usize {
        let escapes = self.bytes[end..].iter().take_while(|&&it| it == b'\\').count();
        let at = end + escapes;
        let closers =
            self.bytes[at..].iter().take(4).take_while(|it| matches!(it, b'"' | b'\'' | b'`' | b']' | b'}'));
        match closers.count() {
            0 => end,
            some => at + some,
        }
    }

    fn is_name_byte(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
    }

    fn name_end(&self, from: usize) -> usize {
        let mut end = from;
        while end < self.bytes.len() && end - from < MAX_NAME_BYTES {
            let byte = self.bytes[end];
            let joins = byte == b'-' && self.bytes.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
            if !Self::is_name_byte(byte) && !joins {
                break;
            }
            end += 1;
        }
        (end..=self.bytes.len()).find(|&it| self.text.is_char_boundary(it)).unwrap_or(end)
    }

    fn name_start(&self, from: usize) -> usize {
        let mut start = from;
        while start > 0 && from - start < MAX_NAME_BYTES {
            let byte = self.bytes[start - 1];
            if !Self::is_name_byte(byte) && !matches!(byte, b'-' | b'.') {
                break;
            }
            start -= 1;
        }
        (0..=start).rev().find(|&it| self.text.is_char_boundary(it)).unwrap_or(0)
    }

    fn is_flag_name(&self, start: usize, end: usize) -> bool {
        self.text[start..end].starts_with("--")
    }

    /// The link between the name and its value, and where the value begins.
    fn find_link(
        &self,
        start: usize,
        end: usize,
        after: usize,
        next: usize,
    ) -> Option<(NameValueLink, usize)> {
        let rest = |at: usize| &self.bytes[at..self.bytes.len().min(at + 256)];
        let AssignmentPatterns { pair, value_word, typed, setter, equals, next_argument, .. } = self.patterns;
        let quoted = after > end;
        let byte = self.bytes.get(next).copied().unwrap_or(b'\n');
        if byte == b'>' && next == end && start > 0 && self.bytes[start - 1] == b'<' {
            return Some((NameValueLink::Element, end + 1));
        }
        if (quoted || matches!(byte, b'\n' | b'\r' | b'<' | b'v' | b'V'))
            && (byte == b'<' || value_word.find(rest(after)).is_some())
            && let Some(it) = pair.find(rest(after))
        {
            return Some((NameValueLink::Operator, after + it.end()));
        }
        let may_be_typed = matches!(byte, b':' | b'?')
            || next > after && (Self::is_name_byte(byte) || matches!(byte, b'*' | b'&' | b'['));
        if !quoted
            && may_be_typed
            && rest(next).iter().take(90).take_while(|&&it| it != b'\n').any(|&it| it == b'=')
            && let Some(it) = typed.find(rest(end))
        {
            return Some((NameValueLink::Operator, end + it.end() - 1));
        }
        if let Some(found) = parse_operator(rest(next), next) {
            return Some(found);
        }
        let is_flag = self.is_flag_name(start, end);
        match byte {
            b'.' | b'e' | b'i' | b'c' => {
                if let Some(it) = equals.find(rest(after)) {
                    return Some((NameValueLink::Operator, after + it.end()));
                }
            }
            b')' if is_flag && quoted => {
                return next_argument.find(rest(after)).map(|it| (NameValueLink::Flag, after + it.end()));
            }
            b'[' if !quoted => {
                let index = self.bytes[next + 1..]
                    .iter()
                    .take(12)
                    .take_while(|it| it.is_ascii_alphanumeric())
                    .count();
                let value_at = next + index + 2;
                let value_at = value_at + blank_len(&self.bytes[value_at.min(self.bytes.len())..]);
                return (self.bytes.get(next + index + 1) == Some(&b']'))
                    .then(|| parse_operator(rest(value_at), value_at))
                    .flatten();
            }
            b',' if quoted => {
                let quotes = |it: &u8| matches!(it, b'"' | b'\'' | b'`' | b'\\' | b':');
                let before =
                    start - self.bytes[..start].iter().rev().take(16).take_while(|it| quotes(it)).count();
                let before = &self.bytes[before.saturating_sub(40)..before];
                let gives = is_flag || setter.is_match(before);
                return Some((if gives { NameValueLink::Operator } else { NameValueLink::Call }, next + 1));
            }
            b'(' if !quoted => return Some((NameValueLink::Call, next + 1)),
            b'>' if quoted => return Some((NameValueLink::Element, next + 1)),
            b'<' if rest(next).starts_with(b"<const>") => {
                let value_at = next + 7 + blank_len(rest(next + 7));
                return parse_operator(rest(value_at), value_at);
            }
            // `string Password { get; set; } = `.
            b'{' if !quoted => {
                let end =
                    next + self.bytes[next..].iter().take(60).position(|&it| it == b'}' || it == b'\n')?;
                let value_at = end + 1 + blank_len(&self.bytes[(end + 1).min(self.bytes.len())..]);
                let gives = self.bytes[end] == b'}' && self.bytes.get(value_at) == Some(&b'=');
                return gives.then_some((NameValueLink::Operator, value_at + 1));
            }
            _ => {}
        }
        let before = self.bytes[line_start(self.bytes, start)..start].trim_ascii_end();
        let defines = before.ends_with(b"#define") || before.ends_with(b"ENV") || before.ends_with(b"setenv");
        match () {
            () if next == after => None,
            () if defines => Some((NameValueLink::Operator, next)),
            () if is_flag => Some((NameValueLink::Flag, next)),
            () => Some((NameValueLink::Blank, next)),
        }
    }

    /// Adds the values that begin at `at`, if they are secrets.
    fn scan_values(
        &mut self,
        link: NameValueLink,
        at: usize,
        name: usize,
        need: ValueStrictness,
        plural: bool,
        found: &mut Vec<Range<usize>>,
    ) {
        let mut at = at;
        let blank = |bytes: &[u8]| bytes.iter().take_while(|it| it.is_ascii_whitespace()).count();
        let next = at + blank(&self.bytes[at..self.bytes.len().min(at + 200)]);
        // On another line only a quoted value belongs to the name.
        let same_line = !self.bytes[at..next].contains(&b'\n');
        let need = match link {
            NameValueLink::Call => need.max(ValueStrictness::Mixed),
            NameValueLink::Blank if need != ValueStrictness::Password => ValueStrictness::Random,
            _ => need,
        };
        if same_line {
            at = next;
        } else if !(self.is_quote_start(next)
            || self.bare == BareWords::Values && link == NameValueLink::Colon)
        {
            return;
        } else {
            at = next.min(self.bytes.len());
        }
        if link == NameValueLink::Element {
            let end =
                at + self.bytes[at..].iter().take(MAX_VALUE_BYTES).take_while(|&&it| it != b'<').count();
            if self.bytes.get(end + 1) == Some(&b'/') && end - at < MAX_VALUE_BYTES {
                self.add_if_secret(at..end, need, found);
            }
            return;
        }
        if plural && matches!(self.bytes.get(at), Some(b'[' | b'{' | b'(')) {
            return self.scan_list(at, need.max(ValueStrictness::Mixed), found);
        }
        while !self.is_quote_start(at)
            && matches!(self.bytes.get(at), Some(b'(' | b'{' | b'[' | b'&' | b'*' | b'@'))
        {
            let inner = at + 1 + blank(&self.bytes[at + 1..self.bytes.len().min(at + 40)]);
            if !self.is_quote_start(inner)
                && !matches!(self.bytes.get(inner), Some(b'(' | b'{' | b'[' | b'&' | b'*'))
            {
                break;
            }
            at = inner;
        }
        let open = self.open_quote_at(at);
        if let Some((close, _)) = self.parse_quote(at) {
            // The end of a string that mentions the name is not the start of another string.
            if open != Some(close.first_closing_byte()) {
                self.scan_string(at, need, found);
            }
            return;
        }
        let rest = &self.bytes[at..self.bytes.len().min(at + 256)];
        if rest.first().is_some_and(|it| it.is_ascii_alphabetic() || *it == b'_')
            && memchr::memchr(b'(', rest).is_some()
            && let Some(it) = self.patterns.wrapper.find(rest).filter(|it| self.is_quote_start(at + it.end()))
        {
            let end =
                rest[..it.end()].iter().rposition(|it| !b"(!".contains(it) && !it.is_ascii_whitespace());
            let called = &rest[..end.map_or(0, |it| it + 1)];
            let keeps = self.patterns.keeps.is_match(called);
            return self.scan_string(
                at + it.end(),
                if keeps { need } else { ValueStrictness::Random },
                found,
            );
        }
        self.scan_bare_value(link, at, name, need, same_line, found);
    }

    /// Whether a string begins here, with the prefix letters of some languages.
    fn is_quote_start(&self, at: usize) -> bool {
        self.parse_quote(at).is_some()
    }

    /// The string's quote and the start of its content.
    fn parse_quote(&self, at: usize) -> Option<(StringQuote, usize)> {
        StringQuote::parse(self.bytes.get(at..)?).map(|(quote, len)| (quote, at + len))
    }

    /// Judges a string and the strings concatenated to it.
    fn scan_string(&self, at: usize, need: ValueStrictness, found: &mut Vec<Range<usize>>) {
        let mut at = at;
        for _ in 0..100 {
            let Some((close, start)) = self.parse_quote(at) else { return };
            let (end, string_end) = self.string_end(start, close);
            let count = found.len();
            self.add_if_secret(start..end, need, found);
            if found.len() == count {
                return;
            }
            // `"a" + "b"`, and strings on consecutive lines.
            let rest = &self.bytes[string_end..self.bytes.len().min(string_end + 120)];
            let Some(next) = rest.iter().position(|it| matches!(it, b'"' | b'\'' | b'`')) else { return };
            let letters = rest[..next].iter().rev().take(2).take_while(|it| b"rbufRBUF".contains(it)).count();
            let between = &rest[..next - letters];
            if self.bare == BareWords::Values
                || between.iter().any(u8::is_ascii_alphanumeric)
                || !self.patterns.joined.is_match(between)
            {
                return;
            }
            at = string_end + next - letters;
            let Some((close, start)) = self.parse_quote(at) else { return };
            let (_, after) = self.string_end(start, close);
            // The next key of a table.
            if self.bytes[after..line_end(self.bytes, after)].trim_ascii_start().starts_with(b":") {
                return;
            }
        }
    }

    /// The end of a string's content, and the end of the string.
    fn string_end(&self, start: usize, quote: StringQuote) -> (usize, usize) {
        let limit = self.bytes.len().min(start + MAX_VALUE_BYTES);
        let mut at = start;
        while at < limit {
            let byte = self.bytes[at];
            if let Some(len) = quote.closing_len(&self.bytes[at..limit]) {
                return (at, at + len);
            }
            match byte {
                b'\\' if quote.escapes == 0 => at += 2,
                b'\n' if !quote.spans_lines() => return (at, at),
                _ => at += 1,
            }
        }
        let end = (at.min(self.bytes.len())..=self.bytes.len()).find(|&it| self.text.is_char_boundary(it));
        let end = end.unwrap_or(self.bytes.len());
        (end, end)
    }

    /// The quote of the string that is open at a position, judged by its line only.
    fn open_quote_at(&self, at: usize) -> Option<u8> {
        let line = line_start(self.bytes, at);
        open_quote(&self.bytes[line..at])
    }

    /// The strings of a list.
    fn scan_list(&self, at: usize, need: ValueStrictness, found: &mut Vec<Range<usize>>) {
        let close = match self.bytes[at] {
            b'[' => b']',
            b'{' => b'}',
            _ => b')',
        };
        let mut here = at + 1;
        let limit = self.bytes.len().min(at + MAX_VALUE_BYTES);
        while here < limit && self.bytes[here] != close {
            let byte = self.bytes[here];
            if byte.is_ascii_whitespace() || matches!(byte, b',' | b';' | b'&') {
                here += 1;
                continue;
            }
            // Anything other than strings is not a list of values.
            let Some((quote, start)) = self.parse_quote(here) else { return };
            let (end, string_end) = self.string_end(start, quote);
            if self.bytes[string_end..line_end(self.bytes, string_end)]
                .trim_ascii_start()
                .first()
                .is_some_and(|it| matches!(it, b':' | b'='))
            {
                return;
            }
            self.add_if_secret(start..end, need, found);
            here = string_end.max(here + 1);
        }
    }

    /// Judges an unquoted value.
    fn scan_bare_value(
        &mut self,
        link: NameValueLink,
        at: usize,
        name: usize,
        need: ValueStrictness,
        same_line: bool,
        found: &mut Vec<Range<usize>>,
    ) {
        let line = line_start(self.bytes, name);
        let before = &self.bytes[line..name];
        let in_string = self.open_quote_at(at).is_some();
        let in_comment = is_comment_line(before);
        let spaced = self.bytes.get(at.wrapping_sub(1)).is_some_and(u8::is_ascii_whitespace);
        let values = self.bare == BareWords::Values || self.is_in_triple_quotes(name);
        let need = match link {
            NameValueLink::Call | NameValueLink::Blank if !values => return,
            NameValueLink::Blank | NameValueLink::Call => return,
            NameValueLink::Flag => need,
            _ if in_string && link == NameValueLink::Operator => need,
            _ if in_string && spaced => need.max(ValueStrictness::Mixed),
            _ if in_string => need,
            _ if values => need,
            _ if in_comment => need.max(ValueStrictness::Mixed),
            // `export NAME=value` in other code.
            _ if !spaced
                && link == NameValueLink::Operator
                && sets_variable(before, &self.bytes[name..at]) =>
            {
                need
            }
            _ => return,
        };
        let block = |it: &u8| matches!(it, b'|' | b'>');
        if values
            && !in_string
            && link == NameValueLink::Colon
            && (!same_line || self.bytes.get(at).is_some_and(block))
        {
            return self.scan_indented(line, at, same_line, need, found);
        }
        let to_end = values
            && !in_string
            && (link == NameValueLink::Colon || spaced && link == NameValueLink::Operator);
        let ends = |byte: u8| match byte {
            b'\n' | b'\r' => true,
            b'"' | b'\'' | b'`' => in_string || !to_end,
            b' ' | b'\t' => !to_end,
            b';' | b'&' | b'<' | b'>' | b'|' | b')' | b'}' | b',' => !to_end,
            b'\\' => in_string,
            _ => false,
        };
        let mut end = at + self.bytes[at..].iter().take(MAX_VALUE_BYTES).take_while(|&&it| !ends(it)).count();
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        if to_end {
            let value = &self.text[at..end];
            end = at + value.find(" #").or_else(|| value.find(" ;")).unwrap_or(value.len());
        }
        let value = self.text[at..end].trim_end();
        let starts = value.as_bytes().first().copied().unwrap_or(b' ');
        // A shell expansion, a YAML reference or a call is not a literal value.
        let refers = matches!(starts, b'$' | b'{' | b'[' | b'(' | b'<' | b'%' | b'`') && !in_string
            || matches!(starts, b'*' | b'&' | b'!') && to_end
            || starts == b'-' && link == NameValueLink::Flag
            || value.contains(['(', '[']) && !values && !in_string;
        if !refers {
            self.add_if_secret(at..at + value.len(), need, found);
        }
    }

    /// The lines below a name in YAML that are indented deeper.
    fn scan_indented(
        &self,
        line: usize,
        at: usize,
        same_line: bool,
        need: ValueStrictness,
        found: &mut Vec<Range<usize>>,
    ) {
        let indent = |line: &[u8]| line.iter().take_while(|&&it| it == b' ' || it == b'\t').count();
        let outer = indent(&self.bytes[line..]);
        let first = if same_line { line_end(self.bytes, at) } else { line_start(self.bytes, at) };
        let mut start = first;
        for line in self.bytes[first..self.bytes.len().min(first + MAX_VALUE_BYTES)]
            .split_inclusive(|&it| it == b'\n')
        {
            let inner = indent(line);
            let content = line.trim_ascii();
            if !content.is_empty() && inner <= outer {
                return;
            }
            let from = start + inner;
            start += line.len();
            // A table below the name is not a value of it.
            let names = content.windows(2).any(|it| it == b": ") || content.ends_with(b":");
            let item = content.strip_prefix(b"- ").map_or(0, |it| content.len() - it.len());
            if !content.is_empty() && !names && self.text.is_char_boundary(from + content.len()) {
                self.add_if_secret(from + item..from + content.len(), need, found);
            }
        }
    }

    /// Whether it is in a multi-line string.
    fn is_in_triple_quotes(&mut self, at: usize) -> bool {
        let text = self.text;
        let triples = self.triples.get_or_insert_with(|| {
            let mut all: Vec<usize> = Vec::new();
            for quote in ["\"\"\"", "'''"] {
                all.extend(memchr::memmem::find_iter(text.as_bytes(), quote));
            }
            all.sort_unstable();
            all
        });
        triples.partition_point(|&it| it < at) % 2 == 1
    }

    fn add_if_secret(&self, range: Range<usize>, need: ValueStrictness, found: &mut Vec<Range<usize>>) {
        let Some(text) = self.text.get(range.clone()) else { return };
        if !values::is_secret(text, need) || values::repeats_name(&self.text[self.name.clone()], text) {
            return;
        }
        let separates = |it: char| it.is_whitespace() || matches!(it, ';' | ',');
        if need != ValueStrictness::Random || !text.contains(separates) {
            found.push(range);
            return;
        }
        // `Bearer …`, `name=…; other=…`: parts that do not look random stay.
        let mut at = range.start;
        for piece in text.split_inclusive(separates) {
            let value = piece.trim_end_matches(separates);
            let name = value.find('=').filter(|&it| it + 8 < value.len() && values::is_wordy(&value[..it]));
            let from = name.map_or(0, |it| it + 1);
            if values::is_secret(&value[from..], ValueStrictness::Random) {
                found.push(at + from..at + value.len());
            }
            at += piece.len();
        }
    }
}
