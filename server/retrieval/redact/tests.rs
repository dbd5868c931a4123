//! Tests of redaction: secrets that must be removed, and text that must stay to the byte, as tables that anyone can
//! extend.

use super::*;

const SECRET_CASES: &str = include_str!("../../../tests/redaction/secrets.txt");
const ORDINARY_CASES: &str = include_str!("../../../tests/redaction/ordinary.txt");

/// Name, language and text of each case of a table.
fn parse_cases(table: &str) -> Vec<(&str, BareWords, &str)> {
    let cases = table.split("\n== ").skip(1).map(|case| {
        let (head, text) = case.split_once('\n').unwrap_or((case, ""));
        let (name, language) = head.split_once(" | ").unwrap_or_else(|| panic!("no language: {head}"));
        let language = taper_grammars::by_id(language).unwrap_or_else(|| panic!("unknown language: {head}"));
        (name, BareWords::for_language(language), text)
    });
    cases.collect()
}

/// The text of a case as it would be in a file, the expected result, and its secrets.
fn parse_marked(case: &str) -> (String, String, Vec<String>) {
    let (mut text, mut left, mut secrets) = (String::new(), String::new(), Vec::new());
    for (at, part) in case.split(['«', '»']).enumerate() {
        if at % 2 == 0 {
            text.push_str(part);
            left.push_str(part);
            continue;
        }
        let secret = part.replace('·', "");
        text.push_str(&secret);
        left.push_str(REDACTED);
        left.push_str(&"\n".repeat(secret.matches('\n').count()));
        secrets.push(secret);
    }
    (text, left, secrets)
}

#[test]
fn secrets_of_every_kind_are_redacted_exactly() {
    let cases = parse_cases(SECRET_CASES);
    assert!(cases.len() >= 200, "{} kinds", cases.len());
    let mut faults = Vec::new();
    for (name, bare, case) in cases {
        let (text, left, secrets) = parse_marked(case);
        assert!(!secrets.is_empty(), "{name}: nothing is marked");
        let redacted = redact(&text, bare).unwrap_or_default();
        if redacted != left {
            faults.push(format!("{name}:\n  expected {left:?}\n  got      {redacted:?}"));
        }
    }
    assert!(faults.is_empty(), "{} of the kinds pass:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn secrets_are_redacted_at_any_position_in_file() {
    // Next to each other, and at both ends of the file: no case hides the next one.
    for bare in [BareWords::Names, BareWords::Values] {
        let all: Vec<_> = parse_cases(SECRET_CASES).into_iter().filter(|(_, it, _)| *it == bare).collect();
        for (first, second) in all.iter().zip(all.iter().skip(1)) {
            let ((a, _, mut secrets), (b, _, others)) = (parse_marked(first.2), parse_marked(second.2));
            secrets.extend(others);
            for text in [format!("{a}\n\n---\n{b}"), format!("{a}\r\n\r\n---\r\n{b}\r\n")] {
                let redacted = redact(&text, bare).unwrap_or_default();
                assert_eq!(redacted.matches('\n').count(), text.matches('\n').count(), "{}", first.0);
                for secret in secrets.iter().filter(|it| it.len() > 6) {
                    assert!(!redacted.contains(secret.as_str()), "{}, {}: {redacted}", first.0, second.0);
                }
            }
        }
    }
}

#[test]
fn ordinary_code_is_not_redacted() {
    let cases = parse_cases(ORDINARY_CASES);
    let lines: usize = cases.iter().map(|(_, _, text)| text.lines().count()).sum();
    assert!(lines >= 150, "{lines} lines");
    let mut faults = Vec::new();
    for (_, bare, text) in cases {
        for line in text.lines().chain([text]) {
            let redacted = redact(line, bare).unwrap_or_default();
            if redacted != line {
                faults.push(format!("  {line}\n  became {redacted}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn own_source_code_is_not_redacted() {
    for text in [
        include_str!("../index.rs"),
        include_str!("../crawl.rs"),
        include_str!("../../completion.rs"),
        include_str!("../../prompt/template.rs"),
        include_str!("../../engine/tokenizer.rs"),
        include_str!("../../engine/catalog.rs"),
        include_str!("../../../Cargo.lock"),
        include_str!("../../../editors/vscode/package-lock.json"),
    ] {
        let redacted = redact(text, BareWords::Names).unwrap_or_default();
        for (line, before) in redacted.lines().zip(text.lines()) {
            assert_eq!(line, before);
        }
    }
}

#[test]
fn every_redaction_rule_compiles_and_has_keywords() {
    let rules = rules::load_rules().unwrap_or_default();
    assert!(rules.len() > 250, "{}", rules.len());
    for rule in &rules {
        assert!(rule.compiled_regex().is_some(), "{}: the expression is invalid", rule.id);
        assert!(!rule.keywords.is_empty(), "{}: no keyword", rule.id);
        for keyword in &rule.keywords {
            assert_eq!(*keyword, keyword.to_lowercase(), "{}", rule.id);
        }
    }
}

#[test]
fn redacting_hostile_text_keeps_line_count() {
    // The trigger of each detector, repeated, with multi-byte characters at every limit.
    for piece in [
        "password = \"",
        "token: ",
        "://a:",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n",
        "kind: Secret\n",
        "\"kty\"",
        "<modulus>",
        "passwords = [",
        "secret = (",
        "eyJ",
        "\"\"\"token=",
        "a\\",
        "password\\",
        "key_",
        "secret\u{f02a2}",
        "пароль=",
        "password=пароль",
        "密码=\"",
        "curl -u ",
        "mysql ",
        "A/",
        "'",
        "data:\n  ",
        "Authorization: ",
        "<password>é",
        "PuTTY Private-Lines: 1\n",
        "$ANSIBLE_VAULT\n",
        "password:\n ",
        "name: PASSWORD\n",
        "\"kind\": \"secret\"\n",
        "password = 'é' +\n",
    ] {
        for lead in ["", "x", "xy"] {
            let text = format!("{lead}{}", piece.repeat(5000 / piece.len()));
            for bare in [BareWords::Names, BareWords::Values] {
                let redacted = redact(&text, bare).unwrap_or_default();
                assert_eq!(redacted.matches('\n').count(), text.matches('\n').count(), "{piece:?}");
            }
        }
    }
}

#[test]
fn redacting_mutated_text_keeps_line_count() {
    let mut random = fastrand::Rng::with_seed(19);
    let texts: Vec<String> = parse_cases(SECRET_CASES)
        .into_iter()
        .chain(parse_cases(ORDINARY_CASES))
        .map(|(_, _, case)| parse_marked(case).0)
        .collect();
    let other: Vec<char> = "\"'`\\=:,()[]{}<>#$@/-_. \n\r\té密𝄞\0".chars().collect();
    for text in &texts {
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..1 + characters.len() / 16 {
            let at = random.usize(..characters.len());
            match random.u8(..3) {
                0 => characters.insert(at, other[random.usize(..other.len())]),
                1 => characters[at] = other[random.usize(..other.len())],
                _ if characters.len() > 1 => drop(characters.remove(at)),
                _ => {}
            }
        }
        let text: String = characters.into_iter().collect();
        for bare in [BareWords::Names, BareWords::Values] {
            let redacted = redact(&text, bare).unwrap_or_default();
            assert_eq!(redacted.matches('\n').count(), text.matches('\n').count(), "{text}");
        }
    }
}
