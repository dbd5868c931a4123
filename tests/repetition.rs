//! Expands repetitions in the texts of `tests/fixtures/hostile`, whose README explains them: `⟦3×ab⟧` is `ababab`,
//! `⟦3^ab⟧` is `ab ab  ab`.

/// The text without repetition marks.
pub(crate) fn expanded(text: &str) -> String {
    let Some((before, rest)) = text.split_once('⟦') else { return text.to_owned() };
    let (inside, after) = rest.split_once('⟧').expect("a `⟧` for each `⟦`");
    let at = inside.find(['×', '^']).expect("`×` or `^` after the count");
    let count: usize = inside[..at].parse().expect("a count");
    let mut piece = inside[at..].chars();
    let indented = piece.next() == Some('^');
    let line = |n| format!("{}{}", " ".repeat(if indented { n } else { 0 }), piece.as_str());
    format!("{before}{}{}", (0..count).map(line).collect::<String>(), expanded(after))
}
